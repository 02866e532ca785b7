//! Nobody hands out permissions that they do not hold: roles and bindings are checked against what the writer
//! may do, unless they hold `escalate` or `bind` on the role.
//!
//! Kubernetes does this in the storage of these kinds; it is a plugin here so that the engine need not know
//! about authorization.

use std::sync::Arc;

use meta::Status;
use registry::{Admit, Attributes as Write, Operation, Row};
use serde_json::Value;

use super::{Admitted, fine, forbid};
use crate::{
    authz::{
        Attributes, Authorizer,
        policy::RoleRef,
        rule::{Rule, uncovered},
    },
    identity::Identity,
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The plugin.
pub(super) struct Escalation {
    authorizer: Arc<Authorizer>,
}

impl Escalation {
    pub(super) fn new(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer }
    }
}

impl Admit for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        row.resource.group == GROUP && matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        if write.user.is_master()
            || write.old.is_some_and(|old| collected(old) == collected(object))
        {
            return fine();
        }
        Box::pin(async move {
            match write.row.resource.resource.as_str() {
                "roles" | "clusterroles" => self.role(write, object).await,
                _ => self.binding(write, object).await,
            }
        })
    }
}

impl Escalation {
    async fn role(&self, write: &Write<'_>, role: &Value) -> Result<(), Status> {
        if self.holds(write, "escalate", &write.row.resource.resource, write.name).await {
            return Ok(());
        }
        // What cannot be read is not taken for nothing.
        let wanted: Result<Option<Vec<Rule>>, _> = serde_json::from_value(role["rules"].clone());
        let wanted = wanted.map_err(|error| Status::bad_request(format!("rules: {error}")))?;
        let mut wanted = wanted.unwrap_or_default();
        if aggregates(role) || write.old.is_some_and(aggregates) {
            // Whatever the selectors will ever match.
            wanted.extend(Rule::everything());
        }
        self.covered(write, role, &wanted)
    }

    async fn binding(&self, write: &Write<'_>, binding: &Value) -> Result<(), Status> {
        let role: RoleRef = serde_json::from_value(binding["roleRef"].clone()).unwrap_or_default();
        let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
        if self.holds(write, "bind", resource, &role.name).await {
            return Ok(());
        }
        let namespace = write.namespace.unwrap_or_default();
        match self.authorizer.policy().role(&role, namespace) {
            Some(rules) => self.covered(write, binding, &rules),
            None => Err(Status::not_found(&meta::GroupResource::new(GROUP, resource), &role.name)),
        }
    }

    async fn holds(&self, write: &Write<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let asked = Attributes {
            verb,
            resource_request: true,
            group: GROUP,
            version: "v1",
            resource,
            namespace: write.namespace.unwrap_or_default(),
            name,
            ..Attributes::default()
        };
        self.authorizer.permits(write.user, &asked).await
    }

    fn covered(&self, write: &Write<'_>, object: &Value, wanted: &[Rule]) -> Result<(), Status> {
        let held = self.authorizer.policy().rules(write.user, write.namespace.unwrap_or_default());
        let missing = uncovered(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let groups: Vec<String> =
            write.user.groups.iter().map(|group| format!("{group:?}")).collect();
        Err(forbid(
            write,
            Some(object),
            format!(
                "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
                write.user.name,
                groups.join(" "),
                lines.join("\n")
            ),
        ))
    }
}

/// What counts as handing out permissions: all but what the garbage collector changes. Labels do count, for
/// aggregated roles select by them.
pub(super) fn collected(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            metadata.remove(field);
        }
    }
    object
}

fn aggregates(role: &Value) -> bool {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    selectors.is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_label_is_a_change_and_a_finalizer_is_none() {
        let role = |metadata: Value| json!({"metadata": metadata, "rules": [{"verbs": ["*"]}]});
        let old = role(json!({"name": "r", "resourceVersion": "1", "finalizers": ["a"]}));
        assert_eq!(collected(&old), collected(&role(json!({"name": "r"}))));
        let labelled = role(json!({"name": "r", "labels": {"aggregate-to-view": "true"}}));
        assert_ne!(collected(&old), collected(&labelled));
    }
}
