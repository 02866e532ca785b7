//! Which requests belong to which flow: FlowSchemas, read from their objects and matched in order. Pure.
//!
//! Refuses to know seats and queues; what a schema leads to is for others.

use registry::UserInfo;
use serde::Deserialize;

use crate::{authz::Attributes, identity::Identity};

/// A FlowSchema as stored, as far as it counts here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FlowSchema {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

/// Name and uid of a configuration object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) uid: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) priority_level_configuration: Reference,
    pub(super) matching_precedence: i32,
    pub(super) distinguisher_method: Option<Method>,
    pub(super) rules: Vec<Rules>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Method {
    /// The user's name.
    ByUser,
    /// The namespace of what is asked for.
    ByNamespace,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rules {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
enum Subject {
    User { user: Named },
    Group { group: Named },
    ServiceAccount { service_account: Account },
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Account {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
}

impl FlowSchema {
    /// Whether the request belongs to a flow of this schema.
    pub(super) fn matches(&self, user: &UserInfo, request: &Attributes<'_>) -> bool {
        self.spec.rules.iter().any(|rules| {
            let asked = if request.resource_request {
                rules.resource_rules.iter().any(|rule| rule.matches(request))
            } else {
                rules.non_resource_rules.iter().any(|rule| rule.matches(request))
            };
            asked && rules.subjects.iter().any(|subject| subject.is(user))
        })
    }

    /// What sets the request's flow apart from others of this schema.
    pub(super) fn distinguisher<'a>(
        &self,
        user: &'a UserInfo,
        request: &Attributes<'a>,
    ) -> &'a str {
        match self.spec.distinguisher_method {
            None => "",
            Some(Method::ByUser) => &user.name,
            Some(Method::ByNamespace) => request.namespace,
        }
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User { user: Named { name } } => name == "*" || *name == user.name,
            Self::Group { group: Named { name } } => name == "*" || user.in_group(name),
            Self::ServiceAccount { service_account: Account { name, namespace } } => user
                .as_service_account()
                .is_some_and(|(home, own)| home == namespace && (name == "*" || name == own)),
        }
    }
}

impl ResourceRule {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        holds(&self.verbs, request.verb)
            && holds(&self.api_groups, request.group)
            && self.resources.iter().any(|held| names(held, request))
            && match request.namespace {
                "" => self.cluster_scope,
                namespace => holds(&self.namespaces, namespace),
            }
    }
}

impl PathRule {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        holds(&self.verbs, request.verb)
            && self.paths.iter().any(|held| {
                // A path stands for everything below it as well.
                let prefix = held.trim_end_matches('*').trim_end_matches('/');
                held == "*"
                    || held == request.path
                    || request.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

fn holds(list: &[String], value: &str) -> bool {
    list.iter().any(|held| held == "*" || held == value)
}

/// Whether `held` is the request's resource, with its subresource if it has one.
fn names(held: &str, request: &Attributes<'_>) -> bool {
    let rest = || held.strip_prefix(request.resource);
    held == "*"
        || rest().is_some_and(|rest| match request.subresource {
            "" => rest.is_empty(),
            sub => rest.strip_prefix('/') == Some(sub),
        })
}
