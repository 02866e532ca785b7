//! Who may do what: the authorizers of nodes and of their networks, then RBAC, with `system:masters` before both.
//!
//! Decisions are pure over the compiled policy and a few reads through [`Lookup`]. Refuses to know HTTP.

pub(crate) mod network;
pub mod node;
pub mod policy;
mod references;
pub mod rule;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use meta::{GroupResource, Status, fields::FieldTerm, quote};
use registry::UserInfo;

use self::{node::Lookup, policy::Policy, rule::Rule};
use crate::identity::Identity;

pub use references::References;

/// What is asked for, as authorizers see it. Absent parts are empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// The verb, `get`, or the lower-case method of a non-resource request.
    pub verb: &'a str,
    /// Whether a resource rather than a path is asked for.
    pub resource_request: bool,
    /// API group; empty is the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace; empty for cluster-scoped resources and for all namespaces.
    pub namespace: &'a str,
    /// Object name.
    pub name: &'a str,
    /// Path of a non-resource request.
    pub path: &'a str,
    /// The field selector's terms, for collections.
    pub fields: &'a [FieldTerm],
}

impl Attributes<'_> {
    /// The 403 a client gets, in Kubernetes' words.
    pub fn forbidden(&self, user: &UserInfo, reason: &str) -> Status {
        let Self { verb, group, resource, subresource, namespace, .. } = self;
        let name = quote(&user.name);
        let mut message = if !self.resource_request {
            format!("User {name} cannot {verb} path {}", quote(self.path))
        } else {
            let slash = if subresource.is_empty() { "" } else { "/" };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {}", quote(namespace))
            };
            format!(
                "User {name} cannot {verb} resource \"{resource}{slash}{subresource}\" in API group \"{group}\" {scope}"
            )
        };
        if !reason.is_empty() {
            message = format!("{message}: {reason}");
        }
        let subject =
            GroupResource { group: (*group).to_owned(), resource: (*resource).to_owned() };
        Status::forbidden(&subject, self.name, &message)
    }
}

/// The outcome of an authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Somebody grants it.
    Allow,
    /// Nobody grants it.
    Deny,
}

/// All authorizers, in order.
pub struct Authorizer {
    policy: ArcSwap<Policy>,
    node_rules: Vec<Rule>,
    lookup: OnceLock<Arc<dyn Lookup>>,
}

impl Authorizer {
    /// An authorizer that knows no objects yet and grants nothing but to `system:masters`. `node_rules` are
    /// what every kubelet may do with resources that are not subdivided by node.
    pub fn new(node_rules: Vec<Rule>) -> Self {
        Self { policy: ArcSwap::default(), node_rules, lookup: OnceLock::new() }
    }

    /// Says where objects are read. Only the first call counts.
    pub fn attach(&self, lookup: Arc<dyn Lookup>) {
        let _ = self.lookup.set(lookup);
    }

    fn node(&self, user: &UserInfo, request: &Attributes<'_>) -> Result<(), String> {
        match self.lookup.get() {
            Some(lookup) => node::authorize(&**lookup, &self.node_rules, user, request),
            None => Err(String::new()),
        }
    }

    /// Replaces the RBAC objects.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// The RBAC objects in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Decides. Never renders a reason: that is what [`Authorizer::explain`] is for.
    pub fn allows(&self, user: &UserInfo, request: &Attributes<'_>) -> Decision {
        let granted = user.is_master()
            || self.policy.load().allows(user, request).is_some()
            || network::allows(user, request)
            || self.node(user, request).is_ok();
        if granted { Decision::Allow } else { Decision::Deny }
    }

    /// Decides and says why, as SubjectAccessReview answers and 403 messages do.
    pub fn explain(&self, user: &UserInfo, request: &Attributes<'_>) -> (Decision, String) {
        if user.is_master() {
            return (Decision::Allow, String::new());
        }
        if network::allows(user, request) {
            return (Decision::Allow, String::new());
        }
        let refusal = match self.node(user, request) {
            Ok(()) => return (Decision::Allow, String::new()),
            Err(reason) => reason,
        };
        match self.policy.load().allows(user, request) {
            Some(reason) => (Decision::Allow, reason.text(user)),
            None => (Decision::Deny, refusal),
        }
    }

    /// Decides as [`Authorizer::allows`] does, with the 403 of a refusal.
    ///
    /// # Errors
    /// 403 Forbidden.
    pub fn check(&self, user: &UserInfo, request: &Attributes<'_>) -> Result<(), Status> {
        match self.allows(user, request) {
            Decision::Allow => Ok(()),
            Decision::Deny => Err(request.forbidden(user, &self.explain(user, request).1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;

    #[test]
    fn refusals_speak_as_kubernetes_does() {
        let user = identity::authenticated("jane", [""; 0]);
        let pods = Attributes {
            verb: "list",
            resource_request: true,
            resource: "pods",
            namespace: "default",
            ..Attributes::default()
        };
        assert_eq!(
            pods.forbidden(&user, "").message,
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        let scale = Attributes {
            verb: "update",
            resource_request: true,
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            ..Attributes::default()
        };
        assert_eq!(
            scale.forbidden(&user, "because").message,
            r#"deployments.apps "web" is forbidden: User "jane" cannot update resource "deployments/scale" in API group "apps" at the cluster scope: because"#
        );
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::default() };
        assert_eq!(
            path.forbidden(&user, "").message,
            r#"forbidden: User "jane" cannot get path "/metrics""#
        );
    }
}
