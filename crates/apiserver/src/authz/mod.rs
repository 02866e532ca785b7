//! Who may do what: those configured are asked in order, usually nodes (and their networks) and RBAC, with
//! `system:masters` before all.
//!
//! Decisions are pure over the compiled policy and a few reads through [`Lookup`]; only webhooks take time. Refuses to
//! know HTTP.

mod config;
pub(crate) mod network;
pub mod node;
pub mod policy;
mod references;
pub mod rule;
mod webhook;

use std::{
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use meta::{GroupResource, Status, fields::FieldTerm, labels::Requirement, quote};
use registry::UserInfo;

use self::{node::Lookup, policy::Policy, rule::Rule};
use crate::{
    identity::Identity,
    metrics::{Tally, describe},
};

pub use config::AuthorizationConfiguration;
pub use references::References;
pub use webhook::{AccessWebhook, Settings};

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
    /// The label selector's requirements, likewise.
    pub labels: &'a [Requirement],
}

/// What the selectors of a request for a collection say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selected {
    /// The field selector's terms.
    pub(crate) fields: Vec<FieldTerm>,
    /// The label selector's requirements.
    pub(crate) labels: Vec<Requirement>,
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
    /// Somebody refuses it, whatever others say.
    Deny,
    /// Nobody grants it.
    NoOpinion,
}

/// What one authorizer says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// It is allowed, whatever others say.
    Allow(String),
    /// It is refused, whatever others say.
    Deny(String),
    /// That is for others to say.
    None(String),
}

/// Somebody who is asked.
pub enum Mode {
    /// Kubelets, and the networks of their nodes.
    Node,
    /// RBAC objects.
    Rbac,
    /// Nobody is refused.
    AlwaysAllow,
    /// Everybody is refused.
    AlwaysDeny,
    /// A webhook, with its name.
    Webhook(String, Box<AccessWebhook>),
}

impl Mode {
    /// Who is asked unless configured otherwise.
    pub fn usual() -> Vec<Self> {
        vec![Self::Node, Self::Rbac]
    }

    /// Type and name, as metrics and messages have them.
    fn names(&self) -> (&'static str, &str) {
        match self {
            Self::Node => ("Node", "node"),
            Self::Rbac => ("RBAC", "rbac"),
            Self::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Self::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Self::Webhook(name, _) => ("Webhook", name),
        }
    }
}

/// All authorizers, in order.
pub struct Authorizer {
    policy: ArcSwap<Policy>,
    node_rules: Vec<Rule>,
    lookup: OnceLock<Arc<dyn Lookup>>,
    asked: ArcSwap<Vec<Asked>>,
}

/// Somebody who is asked, and what was allowed and refused.
struct Asked {
    mode: Mode,
    decisions: Tally<2>,
}

fn asked(modes: Vec<Mode>) -> Arc<Vec<Asked>> {
    Arc::new(modes.into_iter().map(|mode| Asked { mode, decisions: Tally::default() }).collect())
}

impl Authorizer {
    /// An authorizer that knows no objects yet. `node_rules` are what every kubelet may do with resources that are
    /// not subdivided by node.
    pub fn new(node_rules: Vec<Rule>, modes: Vec<Mode>) -> Self {
        let asked = ArcSwap::new(asked(modes));
        Self { policy: ArcSwap::default(), node_rules, lookup: OnceLock::new(), asked }
    }

    /// Asks others from now on.
    pub fn ask_others(&self, modes: Vec<Mode>) {
        self.asked.store(asked(modes));
    }

    /// Says where objects are read. Only the first call counts.
    pub fn attach(&self, lookup: Arc<dyn Lookup>) {
        let _ = self.lookup.set(lookup);
    }

    fn node(&self, user: &UserInfo, request: &Attributes<'_>) -> Result<(), String> {
        if network::allows(user, request) {
            return Ok(());
        }
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

    /// Decides without asking webhooks, and without a reason.
    fn allows(&self, user: &UserInfo, request: &Attributes<'_>) -> Decision {
        if user.is_master() {
            return Decision::Allow;
        }
        for Asked { mode, decisions } in self.asked.load().iter() {
            let allowed = match mode {
                Mode::Node => user_of_node(user) && self.node(user, request).is_ok(),
                Mode::Rbac => self.policy.load().allows(user, request).is_some(),
                Mode::AlwaysAllow => true,
                Mode::AlwaysDeny => return Decision::Deny,
                Mode::Webhook(..) => false,
            };
            if allowed {
                decisions.count(0);
                return Decision::Allow;
            }
        }
        Decision::NoOpinion
    }

    /// Decides and says why, as SubjectAccessReview answers and 403 messages do.
    pub async fn explain(&self, user: &UserInfo, request: &Attributes<'_>) -> (Decision, String) {
        if user.is_master() {
            return (Decision::Allow, String::new());
        }
        let (mut reasons, mut decision): (Vec<String>, _) = (Vec::new(), Decision::NoOpinion);
        for Asked { mode, decisions } in self.asked.load_full().iter() {
            match self.opinion(mode, user, request).await {
                Opinion::Allow(reason) => {
                    decisions.count(0);
                    return (Decision::Allow, reason);
                }
                Opinion::Deny(reason) => {
                    decisions.count(1);
                    decision = Decision::Deny;
                    reasons.push(reason);
                    break;
                }
                Opinion::None(reason) => reasons.push(reason),
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        (decision, reasons.join("\n"))
    }

    async fn opinion(&self, mode: &Mode, user: &UserInfo, request: &Attributes<'_>) -> Opinion {
        match mode {
            Mode::Node => match self.node(user, request) {
                Ok(()) => Opinion::Allow(String::new()),
                Err(reason) => Opinion::None(reason),
            },
            Mode::Rbac => {
                let policy = self.policy.load_full();
                match policy.allows(user, request) {
                    Some(reason) => Opinion::Allow(reason.text(user)),
                    None => Opinion::None(policy.broken(user, request)),
                }
            }
            Mode::AlwaysAllow => Opinion::Allow(String::new()),
            Mode::AlwaysDeny => Opinion::Deny("Everything is forbidden.".into()),
            // Boxed: it is rare, and would make every request larger.
            Mode::Webhook(_, webhook) => Box::pin(webhook.ask(user, request)).await,
        }
    }

    /// Decides.
    pub async fn permits(&self, user: &UserInfo, request: &Attributes<'_>) -> bool {
        self.check(user, request).await.is_ok()
    }

    /// Decides, with the 403 of a refusal.
    ///
    /// # Errors
    /// 403 Forbidden.
    pub async fn check(&self, user: &UserInfo, request: &Attributes<'_>) -> Result<(), Status> {
        let webhook = |asked: &Asked| matches!(asked.mode, Mode::Webhook(..));
        let asks_others = || self.asked.load().iter().any(webhook);
        // What a webhook might refuse, nobody behind it may allow.
        if (user.is_master() || !asks_others()) && self.allows(user, request) == Decision::Allow {
            return Ok(());
        }
        // Boxed, as what is rare.
        match Box::pin(self.explain(user, request)).await {
            (Decision::Allow, _) => Ok(()),
            (Decision::Deny | Decision::NoOpinion, reason) => Err(request.forbidden(user, &reason)),
        }
    }

    /// What a user may do in a namespace, as far as that can be listed.
    pub(crate) fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let asked = self.asked.load();
        let has = |kind: &str| asked.iter().any(|asked| asked.mode.names().0 == kind);
        if user.is_master() || has("AlwaysAllow") {
            return Rule::everything();
        }
        if has("RBAC") { self.policy.load().rules(user, namespace) } else { Vec::new() }
    }

    /// Who cannot list what a user may do, as they say it.
    pub(crate) fn unlisted(&self, user: &UserInfo) -> Vec<&'static str> {
        let unlisted = |asked: &Asked| match asked.mode {
            Mode::Node if user.node().is_some() => {
                Some("node authorizer does not support user rule resolution")
            }
            Mode::Webhook(..) => Some("webhook authorizer does not support user rule resolution"),
            _ => None,
        };
        self.asked.load().iter().filter_map(unlisted).collect()
    }

    /// Writes metrics.
    pub(crate) fn write(&self, out: &mut String) {
        let name = "apiserver_authorization_decisions_total";
        describe(out, name, "counter", "Decisions by who made them.");
        for Asked { mode, decisions } in self.asked.load().iter() {
            let (kind, own) = mode.names();
            for (decision, count) in ["allowed", "denied"].iter().zip(decisions.counts()) {
                let _ = writeln!(
                    out,
                    "{name}{{decision=\"{decision}\",name=\"{own}\",type=\"{kind}\"}} {count}"
                );
            }
        }
    }
}

/// Whether the authorizer of nodes could allow this user anything.
fn user_of_node(user: &UserInfo) -> bool {
    user.node().is_some() || user.network_node().is_some()
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
