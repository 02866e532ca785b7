//! `serviceaccounts/token`: tokens bound to an account and, if asked, to a pod, node or secret (KEP-1205).
//!
//! Refuses to know how tokens are signed.

use jiff::Timestamp;
use meta::{GroupResource, Status};
use registry::UserInfo;
use serde_json::{Value, json};

use super::Context;
use crate::{
    authn::service_account::{Audience, Bound, Claims, Reference},
    authz::{Attributes, References, node::Lookup},
    identity::Identity,
    server::Core,
};

/// Lifetime of a token that asks for none, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// What tokens mounted by admission really live, in seconds: clients that never reread the file must not fail.
const EXTENDED: i64 = 365 * 24 * 3600;

/// Fills the status of the TokenRequest in `object` with a token for the account in the path.
pub(crate) async fn create(
    core: &Core,
    context: &Context<'_>,
    mut object: Value,
    now: Timestamp,
) -> Result<Value, Status> {
    let (namespace, name) = (context.info.namespace(), context.info.name());
    let account = core
        .lookup
        .object("", "serviceaccounts", namespace, name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "serviceaccounts"), name))?;
    let accounts = &core.service_accounts;
    let spec = &mut object["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    let mut audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let asked = audiences.clone();
    if audiences.is_empty() {
        audiences = accounts.audiences().to_vec();
    }
    spec["audiences"] = json!(audiences);
    spec["expirationSeconds"] = seconds.into();
    let mut bound = bind(core, namespace, name, &spec["boundObjectRef"])?;
    bound.serviceaccount =
        Reference { name: name.to_owned(), uid: text(&account["metadata"], "uid").to_owned() };
    if let Some(node) = context.user.node() {
        let kubelet = Kubelet { core, user: &context.user, node, bound: &bound };
        kubelet.restrict(text(&object["spec"]["boundObjectRef"], "uid"), &asked).await?;
    }
    let now = now.as_second();
    let ends = now + seconds;
    let mounted = seconds == crate::admission::TOKEN_SECONDS
        && bound.pod.is_some()
        && audiences.iter().all(|audience| accounts.audiences().contains(audience));
    if mounted {
        bound.warnafter = Some(ends);
    }
    let claims = Claims {
        aud: Audience::Many(audiences),
        exp: if mounted { now + EXTENDED } else { ends },
        iat: now,
        iss: accounts.issuer().to_owned(),
        jti: meta::names::uid(),
        kubernetes: bound,
        nbf: now,
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let expiration = Timestamp::from_second(ends).map_err(Status::internal)?;
    object["status"] = json!({"token": accounts.sign(&claims)?, "expirationTimestamp": meta::time::seconds(expiration)});
    object["metadata"]["name"] = name.into();
    object["metadata"]["namespace"] = namespace.into();
    object["metadata"]["creationTimestamp"] =
        Timestamp::from_second(now).map(meta::time::seconds).unwrap_or_default().into();
    Ok(object)
}

/// Looks up what the token is to be bound to.
fn bind(core: &Core, namespace: &str, account: &str, wanted: &Value) -> Result<Bound, Status> {
    let mut bound = Bound { namespace: namespace.to_owned(), ..Bound::default() };
    if wanted.is_null() {
        return Ok(bound);
    }
    let (version, kind, name) =
        (text(wanted, "apiVersion"), text(wanted, "kind"), text(wanted, "name"));
    let (resource, place) = match (version, kind) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount to object of type {version}, Kind={kind}"
            )));
        }
    };
    let gone = || Status::not_found(&GroupResource::new("", resource), name);
    let object = core.lookup.object("", resource, place, name).ok_or_else(gone)?;
    let (known, given) = (text(&object["metadata"], "uid"), text(wanted, "uid"));
    if !given.is_empty() && given != known {
        return Err(Status::conflict(
            &GroupResource::new("", resource),
            name,
            format!(
                "the UID in the bound object reference ({given}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    let reference = Reference { name: name.to_owned(), uid: known.to_owned() };
    match resource {
        "pods" => {
            if text(&object["spec"], "serviceAccountName") != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let node = text(&object["spec"], "nodeName");
            if !node.is_empty() {
                let stored = core.lookup.object("", "nodes", "", node);
                let uid = stored
                    .map(|node| text(&node["metadata"], "uid").to_owned())
                    .unwrap_or_default();
                bound.node = Some(Reference { name: node.to_owned(), uid });
            }
            bound.pod = Some(reference);
        }
        "secrets" => bound.secret = Some(reference),
        _ => bound.node = Some(reference),
    }
    Ok(bound)
}

/// A kubelet that asks for a token.
struct Kubelet<'a> {
    core: &'a Core,
    user: &'a UserInfo,
    node: &'a str,
    bound: &'a Bound,
}

impl Kubelet<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Status {
        let resource = GroupResource::new("", "serviceaccounts");
        Status::forbidden(&resource, &self.bound.serviceaccount.name, why)
    }

    /// It gets tokens only for pods bound to its node, and for audiences that such a pod names.
    async fn restrict(&self, uid: &str, audiences: &[String]) -> Result<(), Status> {
        let pod = match (&self.bound.pod, &self.bound.node) {
            (None, _) => return Err(self.refuse("node requested token not bound to a pod")),
            _ if uid.is_empty() => {
                return Err(self.refuse("node requested token with a pod binding without a uid"));
            }
            (Some(pod), Some(own)) if own.name == self.node => pod,
            _ => {
                return Err(self
                    .refuse("node requested token bound to a pod scheduled on a different node"));
            }
        };
        if audiences.len() > 1 {
            return Err(self.refuse("node may only request 0 or 1 audiences"));
        }
        let audience = audiences.first().map(String::as_str).unwrap_or_default();
        if self.names(&pod.name, audience) || self.may_ask_for(audience).await {
            return Ok(());
        }
        Err(self.refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            self.user.name
        )))
    }

    /// Whether a volume of the pod, or the driver of one, takes tokens for the audience.
    fn names(&self, pod: &str, audience: &str) -> bool {
        let namespace = self.bound.namespace.as_str();
        let Some(pod) = self.core.lookup.object("", "pods", namespace, pod) else { return false };
        let volumes = || pod["spec"]["volumes"].as_array().into_iter().flatten();
        let projected = volumes()
            .flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten())
            .map(|source| &source["serviceAccountToken"])
            .any(|token| !token.is_null() && text(token, "audience") == audience);
        let inline = volumes().filter_map(|volume| volume["csi"]["driver"].as_str());
        projected
            || inline.map(str::to_owned).chain(self.claimed(&pod)).any(|driver| {
                let driver = self.core.lookup.object("storage.k8s.io", "csidrivers", "", &driver);
                driver.is_some_and(|driver| {
                    let mut requests =
                        driver["spec"]["tokenRequests"].as_array().into_iter().flatten();
                    requests.any(|request| text(request, "audience") == audience)
                })
            })
    }

    /// The drivers of the volumes that a pod has claimed.
    fn claimed(&self, pod: &Value) -> Vec<String> {
        let lookup = &self.core.lookup;
        let driver = |claim: &String| {
            let namespace = self.bound.namespace.as_str();
            let claim = lookup.object("", "persistentvolumeclaims", namespace, claim)?;
            let volume = claim["spec"]["volumeName"].as_str()?;
            let volume = lookup.object("", "persistentvolumes", "", volume)?;
            volume["spec"]["csi"]["driver"].as_str().map(str::to_owned)
        };
        References::claims_of(pod).iter().filter_map(driver).collect()
    }

    /// Whether somebody has granted the audience to this node.
    async fn may_ask_for(&self, audience: &str) -> bool {
        let request = Attributes {
            verb: "request-serviceaccounts-token-audience",
            resource_request: true,
            version: "v1",
            resource: audience,
            namespace: &self.bound.namespace,
            name: &self.bound.serviceaccount.name,
            ..Attributes::default()
        };
        self.core.authorizer.permits(self.user, &request).await
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
