//! Whoever makes an admission policy, or binds one, must be able to read its parameters: what a policy says
//! of them would tell.
//!
//! Kubernetes does this in the storage of these kinds; it is a plugin here so that the engine need not know
//! about authorization.

use std::sync::Arc;

use meta::{FieldError, kind::split_api_version};
use registry::{Admit, Attributes as Write, Operation, Row, UserInfo};
use serde_json::Value;

use super::{Admitted, fine, invalid, read, text};
use crate::{
    authz::{Attributes, Authorizer},
    identity::Identity,
};

const GROUP: &str = "admissionregistration.k8s.io";

/// The plugin.
pub(super) struct PolicyParameters(pub(super) Arc<Authorizer>);

/// The resource of a kind of parameters; `*` is what is not known.
#[derive(Clone, Copy)]
struct Resource<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
}

impl PolicyParameters {
    async fn may(&self, write: &Write<'_>, verb: &str, of: Resource<'_>, at: (&str, &str)) -> bool {
        let asked = Attributes {
            verb,
            resource_request: true,
            group: of.group,
            version: of.version,
            resource: of.plural,
            namespace: at.0,
            name: at.1,
            ..Attributes::default()
        };
        self.0.permits(write.user, &asked).await
    }

    async fn policy(&self, write: &Write<'_>, kind: &Value) -> Result<(), String> {
        if self.may(write, "get", resource(write, kind).0, ("*", "*")).await {
            return Ok(());
        }
        Err(format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            printed(write.user),
            text(kind, "kind"),
            text(kind, "apiVersion")
        ))
    }

    async fn binding(&self, write: &Write<'_>, spec: &Value) -> Result<(), String> {
        let resources = match write.row.resource.resource.as_str() {
            "mutatingadmissionpolicybindings" => "mutatingadmissionpolicies",
            _ => "validatingadmissionpolicies",
        };
        let named = text(spec, "policyName");
        let policy = read(write, GROUP, resources, None, named);
        let kind = policy.as_ref().map_or(&Value::Null, |policy| &policy["spec"]["paramKind"]);
        let (of, known) = resource(write, kind);
        let reference = &spec["paramRef"];
        let (namespace, name) = (text(reference, "namespace"), text(reference, "name"));
        let verb = if name.is_empty() { "list" } else { "get" };
        if self.may(write, verb, of, (namespace, name)).await {
            return Ok(());
        }
        let user = printed(write.user);
        let unsure = if policy.is_none() {
            format!("unable to get policy {named}")
        } else if !known && !kind.is_null() {
            let (version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
            format!("unable to resolve paramKind &{{{version} {kind}}}")
        } else {
            return Err(format!(
                "user {user} does not have \"{verb}\" permission on the object referenced by paramRef"
            ));
        };
        Err(format!(
            "{unsure} to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all groups, versions and resources"
        ))
    }
}

impl Admit for PolicyParameters {
    fn name(&self) -> &'static str {
        "PolicyParameters"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        row.resource.group == GROUP
            && row.resource.resource.contains("admissionpolic")
            && subresource.is_none()
            && matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let Some(object) = object.filter(|_| !write.user.is_master()) else { return fine() };
        let spec = &object["spec"];
        let field = if spec["policyName"].is_null() { "paramKind" } else { "paramRef" };
        let same = |old: &Value| {
            ["policyName", field].iter().all(|field| old["spec"][field] == spec[field])
        };
        if spec[field].is_null() || write.old.is_some_and(same) {
            return fine();
        }
        Box::pin(async move {
            let outcome = match field {
                "paramRef" => self.binding(write, spec).await,
                _ => self.policy(write, &spec[field]).await,
            };
            let error = |why| FieldError::forbidden(format!("spec.{field}"), why);
            outcome.map_err(|why| invalid(write, object, vec![error(why)]))
        })
    }
}

/// The resource of a kind, and whether it is known.
fn resource<'a>(write: &Write<'a>, kind: &'a Value) -> (Resource<'a>, bool) {
    let Some((group, version)) = split_api_version(text(kind, "apiVersion")) else {
        return (Resource { group: "*", version: "*", plural: "*" }, false);
    };
    let row = write.registry.rows().by_kind(group, version, text(kind, "kind"));
    let plural = row.map_or("*", |row| &row.resource.resource);
    (Resource { group, version, plural }, row.is_some())
}

/// A user as Go prints one.
fn printed(user: &UserInfo) -> String {
    let extra = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" ")));
    let extra: Vec<String> = extra.collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}
