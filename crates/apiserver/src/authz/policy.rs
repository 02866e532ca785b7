//! The RBAC objects of a cluster compiled into an index from subject to rules.
//!
//! A policy is immutable; a new one is compiled when an RBAC object changes. Refuses to know where the
//! objects come from. Aggregated cluster roles are resolved here from the labels of the others, so that a
//! role added by an operator counts at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use meta::Selector;
use registry::UserInfo;
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, rule::Rule};
use crate::identity::{Identity, SERVICE_ACCOUNT_PREFIX};

/// What of the metadata of an RBAC object counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// The object's namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Labels, which aggregation selects by.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A Role or ClusterRole.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Role {
    /// Name, namespace and labels.
    pub metadata: Metadata,
    /// The rules; null in aggregated roles that nothing has filled in yet.
    pub rules: Option<Vec<Rule>>,
    /// Which cluster roles are merged into this one.
    pub aggregation_rule: Option<AggregationRule>,
}

/// The selectors of an aggregated cluster role.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AggregationRule {
    /// Label selectors; a cluster role that any of them matches is merged.
    pub cluster_role_selectors: Vec<Value>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Binding {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Who is granted the role.
    pub subjects: Option<Vec<Subject>>,
    /// The role granted.
    pub role_ref: RoleRef,
}

/// A user, group or service account.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// The subject's name.
    pub name: String,
    /// The namespace of a service account.
    pub namespace: String,
}

/// The role a binding grants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

/// One grant: a role through a binding.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The namespace it is limited to; none for the whole cluster and non-resource paths.
    namespace: Option<Arc<str>>,
    rules: Arc<[Rule]>,
    source: Arc<Source>,
}

/// What an allowed request's reason names.
#[derive(Debug)]
struct Source {
    binding: String,
    role_kind: String,
    role: String,
}

/// Everything RBAC grants, by subject.
#[derive(Debug, Default)]
pub struct Policy {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

impl Policy {
    /// Compiles roles and bindings. `roles` and `bindings` hold both namespaced and cluster objects.
    pub fn compile(roles: Vec<Role>, bindings: Vec<Binding>) -> Self {
        let (cluster, namespaced): (Vec<_>, Vec<_>) =
            roles.into_iter().partition(|role| role.metadata.namespace.is_empty());
        let mut policy = Self { cluster_roles: aggregate(cluster), ..Self::default() };
        for role in namespaced {
            let key = (role.metadata.namespace, role.metadata.name);
            policy.roles.insert(key, role.rules.unwrap_or_default().into());
        }
        for binding in bindings {
            policy.bind(binding);
        }
        policy
    }

    fn bind(&mut self, binding: Binding) {
        let namespace = &binding.metadata.namespace;
        // A binding to a role that does not exist grants nothing.
        let Some(rules) = self.role(&binding.role_ref, namespace) else { return };
        let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let full = if namespace.is_empty() {
            binding.metadata.name.clone()
        } else {
            format!("{}/{namespace}", binding.metadata.name)
        };
        let source = Arc::new(Source {
            binding: format!("{kind} {full:?}"),
            role_kind: binding.role_ref.kind,
            role: binding.role_ref.name,
        });
        let scope: Option<Arc<str>> = (!namespace.is_empty()).then(|| namespace.as_str().into());
        for subject in binding.subjects.unwrap_or_default() {
            let grant =
                Grant { namespace: scope.clone(), rules: rules.clone(), source: source.clone() };
            let (index, key) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name),
                "Group" => (&mut self.groups, subject.name),
                "ServiceAccount" => {
                    let home =
                        if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                    (&mut self.users, format!("{SERVICE_ACCOUNT_PREFIX}{home}:{}", subject.name))
                }
                _ => continue,
            };
            index.entry(key).or_default().push(grant);
        }
    }

    /// The rules of the role a binding in `namespace` refers to.
    pub fn role(&self, role: &RoleRef, namespace: &str) -> Option<Arc<[Rule]>> {
        match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name).cloned(),
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())).cloned(),
            _ => None,
        }
    }

    /// The rules of a cluster role, aggregated ones resolved.
    pub fn cluster_role(&self, name: &str) -> Option<&[Rule]> {
        self.cluster_roles.get(name).map(AsRef::as_ref)
    }

    /// Every grant that applies to `user` in `namespace`; an empty namespace means cluster-wide ones only.
    pub fn grants<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(user.name.as_str());
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group.as_str()));
        own.into_iter().chain(groups).flatten().filter(move |grant| match &grant.namespace {
            None => true,
            Some(scope) => &**scope == namespace,
        })
    }

    /// The rules `user` holds in `namespace`, cluster-wide ones included.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.grants(user, namespace).flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    /// Why the request is allowed, or none if nothing grants it.
    pub fn allows(&self, user: &UserInfo, request: &Attributes<'_>) -> Option<Reason<'_>> {
        let own = self.users.get(user.name.as_str()).into_iter().map(|grants| (grants, None));
        let groups = user.groups.iter().filter_map(|group| {
            self.groups
                .get_key_value(group.as_str())
                .map(|(name, grants)| (grants, Some(name.as_str())))
        });
        let namespace = if request.resource_request { request.namespace } else { "" };
        for (grants, group) in own.chain(groups) {
            for grant in grants {
                let applies = grant.namespace.as_ref().is_none_or(|scope| &**scope == namespace);
                if applies && grant.rules.iter().any(|rule| rule.allows(request)) {
                    return Some(Reason { source: &grant.source, group });
                }
            }
        }
        None
    }
}

/// Which binding allowed a request; rendered only when somebody asks.
#[derive(Debug)]
pub struct Reason<'a> {
    source: &'a Source,
    group: Option<&'a str>,
}

impl Reason<'_> {
    /// The text that access reviews and audit show.
    pub fn text(&self, user: &UserInfo) -> String {
        let subject = match self.group {
            Some(group) => format!("Group {group:?}"),
            None => match user.as_service_account() {
                Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
                None => format!("User {:?}", user.name),
            },
        };
        let Source { binding, role_kind, role } = self.source;
        format!("RBAC: allowed by {binding} of {role_kind} {role:?} to {subject}")
    }
}

/// Resolves aggregated cluster roles. Aggregation is one level of label selection over the stored rules,
/// but a role that is itself aggregated contributes what it aggregates (`edit` into `admin`), so rounds are
/// run until nothing grows.
fn aggregate(cluster: Vec<Role>) -> HashMap<String, Arc<[Rule]>> {
    let mut rules: HashMap<String, Vec<Rule>> = HashMap::with_capacity(cluster.len());
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for role in &cluster {
        let Some(aggregation) = &role.aggregation_rule else { continue };
        let selectors: Vec<Selector> = aggregation
            .cluster_role_selectors
            .iter()
            .filter_map(|selector| Selector::from_label_selector(selector).ok())
            .collect();
        let selected = cluster.iter().filter(|other| {
            other.metadata.name != role.metadata.name
                && selectors.iter().any(|selector| selector.matches(&other.metadata.labels))
        });
        let names = selected.map(|other| other.metadata.name.clone()).collect();
        members.push((role.metadata.name.clone(), names));
    }
    for role in cluster {
        rules.insert(role.metadata.name, role.rules.unwrap_or_default());
    }
    while members.iter().fold(false, |grew, (name, parts)| gather(&mut rules, name, parts) || grew)
    {
    }
    rules.into_iter().map(|(name, rules)| (name, rules.into())).collect()
}

/// Adds the rules of `parts` to those of the role `name`. True if it did not hold them all.
fn gather(rules: &mut HashMap<String, Vec<Rule>>, name: &str, parts: &[String]) -> bool {
    let Some(mut held) = rules.remove(name) else { return false };
    let before = held.len();
    let gained = parts.iter().filter_map(|part| rules.get(part)).flatten();
    let mut known: HashSet<Rule> = held.iter().cloned().collect();
    held.extend(gained.filter(|rule| known.insert((*rule).clone())).cloned());
    let grew = held.len() > before;
    rules.insert(name.to_owned(), held);
    grew
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;
    use serde_json::json;

    fn policy() -> Policy {
        let roles = json!([
            {"metadata": {"name": "reader", "labels": {"agg": "view"}},
             "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
            {"metadata": {"name": "view", "labels": {"agg": "admin"}}, "rules": null,
             "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "view"}}]}},
            {"metadata": {"name": "admin"}, "rules": null,
             "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "admin"}}]}},
            {"metadata": {"name": "local", "namespace": "a"},
             "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]}
        ]);
        let bindings = json!([
            {"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "admin"},
             "subjects": [{"kind": "Group", "name": "team"}]},
            {"metadata": {"name": "here", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "local"},
             "subjects": [{"kind": "ServiceAccount", "name": "robot"}]},
            {"metadata": {"name": "gone"}, "roleRef": {"kind": "ClusterRole", "name": "missing"},
             "subjects": [{"kind": "User", "name": "eve"}]}
        ]);
        Policy::compile(
            serde_json::from_value(roles).expect("roles"),
            serde_json::from_value(bindings).expect("bindings"),
        )
    }

    fn ask<'a>(verb: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
        Attributes { verb, resource, namespace, resource_request: true, ..Attributes::default() }
    }

    #[test]
    fn aggregation_reaches_through_two_levels() {
        let policy = policy();
        let user = identity::authenticated("jane", ["team"]);
        let reason = policy.allows(&user, &ask("get", "pods", "x")).expect("allowed");
        assert_eq!(
            reason.text(&user),
            r#"RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "admin" to Group "team""#
        );
        assert!(policy.allows(&user, &ask("list", "pods", "x")).is_none());
    }

    #[test]
    fn a_role_binding_counts_only_in_its_namespace() {
        let policy = policy();
        let robot = identity::service_account("a", "robot", "");
        let reason = policy.allows(&robot, &ask("delete", "secrets", "a")).expect("allowed");
        assert_eq!(
            reason.text(&robot),
            r#"RBAC: allowed by RoleBinding "here/a" of Role "local" to ServiceAccount "robot/a""#
        );
        assert!(policy.allows(&robot, &ask("delete", "secrets", "b")).is_none());
        assert!(policy.allows(&robot, &ask("delete", "secrets", "")).is_none());
        assert!(
            policy
                .allows(&identity::authenticated("eve", [""; 0]), &ask("get", "pods", ""))
                .is_none()
        );
    }
}
