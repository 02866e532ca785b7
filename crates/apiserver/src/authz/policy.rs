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
    /// Whether the role does not exist.
    missing: bool,
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
        // A binding to a role that does not exist grants nothing, and says so.
        let rules = self.role(&binding.role_ref, namespace);
        let missing = rules.is_none();
        let rules = rules.unwrap_or_default();
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
            missing,
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

    /// What is wrong with the bindings that might have granted the request.
    pub fn broken(&self, user: &UserInfo, request: &Attributes<'_>) -> String {
        let namespace = if request.resource_request { request.namespace } else { "" };
        let mut errors: Vec<String> = Vec::new();
        for grant in self.grants(user, namespace).filter(|grant| grant.source.missing) {
            let Source { role_kind, role, .. } = &*grant.source;
            let resource = role_kind.to_ascii_lowercase();
            let error =
                format!("{resource}.rbac.authorization.k8s.io {} not found", meta::quote(role));
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
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
        let Source { binding, role_kind, role, .. } = self.source;
        format!("RBAC: allowed by {binding} of {role_kind} {role:?} to {subject}")
    }
}

/// Resolves aggregated cluster roles: each holds the rules of those that its selectors match, which may be
/// aggregated themselves (`edit` into `admin`), and nothing of its own.
fn aggregate(cluster: Vec<Role>) -> HashMap<String, Arc<[Rule]>> {
    let parts: Vec<Option<Vec<usize>>> = cluster.iter().map(|role| parts(role, &cluster)).collect();
    let resolved: Vec<Option<Arc<[Rule]>>> = (0..cluster.len())
        .map(|at| {
            parts[at].as_ref()?;
            let mut found = Gathered::default();
            found.gather(at, &cluster, &parts);
            Some(found.rules.into())
        })
        .collect();
    let rules = cluster.into_iter().zip(resolved).map(|(role, resolved)| {
        (role.metadata.name, resolved.unwrap_or_else(|| role.rules.unwrap_or_default().into()))
    });
    rules.collect()
}

/// Which roles an aggregated one is made of.
fn parts(role: &Role, all: &[Role]) -> Option<Vec<usize>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.iter();
    let selectors = selectors.filter_map(|selector| Selector::from_label_selector(selector).ok());
    let mut parts = Vec::new();
    for selector in selectors {
        let matching = all.iter().enumerate().filter(|(_, other)| {
            other.metadata.name != role.metadata.name && selector.matches(&other.metadata.labels)
        });
        parts.extend(matching.map(|(at, _)| at));
    }
    Some(parts)
}

/// The rules of a role and all it is made of, each once.
#[derive(Default)]
struct Gathered {
    rules: Vec<Rule>,
    known: HashSet<Rule>,
    seen: HashSet<usize>,
}

impl Gathered {
    fn gather(&mut self, at: usize, roles: &[Role], parts: &[Option<Vec<usize>>]) {
        if !self.seen.insert(at) {
            return;
        }
        match &parts[at] {
            Some(parts_of) => parts_of.iter().for_each(|part| self.gather(*part, roles, parts)),
            None => {
                for rule in roles[at].rules.iter().flatten() {
                    if self.known.insert(rule.clone()) {
                        self.rules.push(rule.clone());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
