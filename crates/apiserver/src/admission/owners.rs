//! OwnerReferencesPermissionEnforcement: whoever makes an object another's dependent may delete it, and whoever
//! makes the owner's deletion wait for it may set the owner's finalizers.

use std::sync::Arc;

use registry::{Admit, Attributes as Write, Operation, Row};
use schema::view::{View, same};
use serde_json::Value;

use super::{Admitted, fine, forbid};
use crate::authz::{Attributes, Authorizer};

/// The plugin.
pub(super) struct OwnerReferencesPermissionEnforcement(pub(super) Arc<Authorizer>);

impl Admit for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        let is_pod = row.resource.group.is_empty() && row.resource.resource == "pods";
        matches!(operation, Operation::Create | Operation::Update)
            // A pod's status says nothing of owners.
            && !(is_pod && subresource == Some("status"))
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        let old = write.old.map(owners).unwrap_or_default();
        let changes = owners(object).len() != old.len()
            || owners(object).iter().zip(old).any(|(new, old)| !same(new, old));
        if !changes {
            return fine();
        }
        Box::pin(async move {
            self.check(write, object, old).await.map_err(|why| forbid(write, Some(object), why))
        })
    }
}

fn owners(object: &Value) -> &[Value] {
    object.at("metadata").items("ownerReferences")
}

impl OwnerReferencesPermissionEnforcement {
    async fn may(&self, write: &Write<'_>, asked: &Attributes<'_>) -> bool {
        self.0.permits(write.user, asked).await
    }

    async fn check(&self, write: &Write<'_>, object: &Value, old: &[Value]) -> Result<(), String> {
        let resource = &write.row.resource;
        let deletes = Attributes {
            verb: "delete",
            resource_request: true,
            group: &resource.group,
            version: &resource.version,
            resource: &resource.resource,
            subresource: write.subresource.unwrap_or_default(),
            namespace: write.namespace.unwrap_or_default(),
            name: write.name,
            ..Attributes::default()
        };
        if write.operation != Operation::Create && !self.may(write, &deletes).await {
            return Err("cannot set an ownerRef on a resource you can't delete: , <nil>".to_owned());
        }
        let blocking = newly_blocking(owners(object), old);
        let anything = Attributes {
            verb: "update",
            resource_request: true,
            group: "*",
            version: "*",
            resource: "*",
            subresource: "finalizers",
            name: "*",
            ..Attributes::default()
        };
        if blocking.is_empty() || self.may(write, &anything).await {
            return Ok(());
        }
        for owner in blocking {
            self.may_block(write, owner).await?;
        }
        Ok(())
    }

    async fn may_block(&self, write: &Write<'_>, owner: &Value) -> Result<(), String> {
        let (api_version, kind) = (owner.text("apiVersion"), owner.text("kind"));
        let (group, version) = meta::kind::split_api_version(api_version).unwrap_or_default();
        let row = write.registry.rows().by_kind(group, version, kind).ok_or_else(|| {
            format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
            )
        })?;
        let asked = Attributes {
            verb: "update",
            resource_request: true,
            group: &row.resource.group,
            version: &row.resource.version,
            resource: &row.resource.resource,
            subresource: "finalizers",
            namespace: if row.namespaced() { write.namespace.unwrap_or_default() } else { "" },
            name: owner.text("name"),
            ..Attributes::default()
        };
        if self.may(write, &asked).await {
            return Ok(());
        }
        Err("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>".to_owned())
    }
}

/// The references that make an owner wait, and did not before.
fn newly_blocking<'a>(new: &'a [Value], old: &[Value]) -> Vec<&'a Value> {
    let waited = |owner: &Value| {
        let same = |known: &&Value| known.text("uid") == owner.text("uid");
        old.iter().rev().find(same).is_some_and(|known| known.flag("blockOwnerDeletion"))
    };
    new.iter().filter(|owner| owner.flag("blockOwnerDeletion") && !waited(owner)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_new_waiting_counts() {
        let owner = |uid: &str, blocks: bool| json!({"uid": uid, "blockOwnerDeletion": blocks});
        let new = [owner("a", true), owner("b", true), owner("c", false), owner("d", true)];
        let old = [owner("a", true), owner("b", false)];
        let found: Vec<&str> =
            newly_blocking(&new, &old).iter().map(|one| one.text("uid")).collect();
        assert_eq!(found, ["b", "d"]);
    }
}
