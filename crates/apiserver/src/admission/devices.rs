//! Who may claim devices for their administration, which reaches those that others have, and who may say what
//! in the status of a claim: schedulers its allocation, and drivers what they know of their own devices.
//!
//! Kubernetes does this in the storage of these kinds; it is a plugin here so that the engine need not know
//! other objects and authorization.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meta::{FieldError, FieldPath, Status};
use registry::{Admit, Attributes as Write, Operation, Row};
use serde_json::Value;

use super::{Admitted, each, fine, invalid, read, text};
use crate::{
    authz::{Attributes, Authorizer},
    identity::{EXTRA_NODE_NAME, Identity},
};

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The plugin.
pub(super) struct DeviceAccess(pub(super) Arc<Authorizer>);

impl Admit for DeviceAccess {
    fn name(&self) -> &'static str {
        "DeviceAccess"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        let claims = row.resource.resource == "resourceclaims";
        row.resource.group == GROUP
            && match (operation, subresource) {
                (Operation::Create, None) => {
                    claims || row.resource.resource == "resourceclaimtemplates"
                }
                (Operation::Update, Some("status")) => claims,
                _ => false,
            }
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        Box::pin(async move {
            let asks = match write.old {
                Some(old) if granted(old).is_some() => None,
                Some(_) => granted(object),
                None => asked(object),
            };
            let mut errors: Vec<FieldError> =
                asks.and_then(|path| administers(write, path)).into_iter().collect();
            if let Some(old) = write.old {
                errors.extend(self.binds(write, &object["status"], &old["status"]).await);
                errors.extend(self.reports(write, &object["status"], &old["status"]).await);
            }
            if errors.is_empty() { Ok(()) } else { Err(invalid(write, object, errors)) }
        })
    }
}

impl DeviceAccess {
    /// Asks for a subresource that nobody serves.
    async fn may(
        &self,
        write: &Write<'_>,
        verb: &str,
        part: &str,
        at: (&str, &str),
    ) -> Result<(), Status> {
        let asked = Attributes {
            verb,
            resource_request: true,
            group: GROUP,
            version: &write.row.kind.version,
            resource: "resourceclaims",
            subresource: part,
            namespace: at.0,
            name: at.1,
            ..Attributes::default()
        };
        self.0.check(write.user, &asked).await
    }

    /// Who changes what is allocated, and to whom, needs a right to.
    async fn binds(&self, write: &Write<'_>, new: &Value, old: &Value) -> Option<FieldError> {
        if ["allocation", "reservedFor"].iter().all(|field| new[field] == old[field]) {
            return None;
        }
        let verb = write.verb.as_str();
        let refused = self.may(write, verb, "binding", ("", "")).await.err()?;
        let why = format!(
            "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {}",
            refused.message
        );
        Some(FieldError::forbidden("status.allocation", why))
    }

    /// Who changes what is said of a driver's devices needs a right to speak for the driver.
    async fn reports(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        if new["allocation"].is_null() {
            return Vec::new();
        }
        let mut verbs = vec![format!("arbitrary-node:{}", write.verb.as_str())];
        let node = write.user.extra.get(EXTRA_NODE_NAME).filter(|nodes| nodes.len() == 1);
        let here = only_node(&new["allocation"]);
        if write.user.as_service_account().is_some()
            && here.is_some_and(|here| node.is_some_and(|node| node[0] == here))
        {
            verbs.insert(0, format!("associated-node:{}", write.verb.as_str()));
        }
        let namespace = write.namespace.unwrap_or_default();
        let mut errors = Vec::new();
        for driver in drivers(new, old) {
            let mut refusal: Option<Status> = None;
            for verb in &verbs {
                match self.may(write, verb, "driver", (namespace, driver)).await {
                    Ok(()) => {
                        refusal = None;
                        break;
                    }
                    Err(refused) => refusal = refusal.or(Some(refused)),
                }
            }
            if let Some(refusal) = refusal {
                let why = format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {}",
                    verbs.join(" "),
                    refusal.message
                );
                errors.push(FieldError::forbidden("status.devices", why));
            }
        }
        errors
    }
}

/// Administration is for namespaces that say so.
fn administers(write: &Write<'_>, path: FieldPath) -> Option<FieldError> {
    let namespace = read(write, "", "namespaces", None, write.namespace.unwrap_or_default());
    let allowed =
        namespace.is_some_and(|namespace| namespace["metadata"]["labels"][LABEL] == "true");
    let why = || {
        format!(
            "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
        )
    };
    (!allowed).then(|| FieldError::forbidden(path, why()))
}

/// The first request of a claim, or of a template of claims, that asks for administration.
fn asked(object: &Value) -> Option<FieldPath> {
    let spec = &object["spec"];
    let devices = if spec["spec"].is_null() { &spec["devices"] } else { &spec["spec"]["devices"] };
    let at = each(devices, "requests").position(|one| one["exactly"]["adminAccess"] == true)?;
    Some(FieldPath::new("spec").child("devices").child("requests").index(at).child("adminAccess"))
}

/// The first result of an allocation that has it.
fn granted(claim: &Value) -> Option<FieldPath> {
    let devices = &claim["status"]["allocation"]["devices"];
    let at = each(devices, "results").position(|one| one["adminAccess"] == true)?;
    let path = FieldPath::new("status").child("allocation").child("devices").child("results");
    Some(path.index(at).child("adminAccess"))
}

/// The node whose devices are allocated, if it is one by its name.
fn only_node(allocation: &Value) -> Option<&str> {
    let only = |list: &'_ Value| list.as_array().is_some_and(|list| list.len() == 1);
    let terms = &allocation["nodeSelector"]["nodeSelectorTerms"];
    let (field, labels) = (&terms[0]["matchFields"][0], each(&terms[0], "matchExpressions"));
    let named = field["key"] == "metadata.name" && field["operator"] == "In";
    let one = only(terms) && only(&terms[0]["matchFields"]) && only(&field["values"]);
    (named && one && labels.count() == 0).then(|| field["values"][0].as_str())?
}

/// The drivers of whose devices something else is said than before.
fn drivers<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let known = |status: &'a Value| -> BTreeMap<[&'a str; 4], &'a Value> {
        let key = |one: &'a Value| ["driver", "pool", "device", "shareID"].map(|f| text(one, f));
        each(status, "devices").map(|one| (key(one), one)).collect()
    };
    let (new, old) = (known(new), known(old));
    let changed = new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key));
    changed.map(|[driver, ..]| *driver).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_asks_for_it_is_found() {
        let devices = json!({"requests": [{"name": "a"}, {"exactly": {"adminAccess": true}}]});
        let expected = Some(FieldPath::new("spec.devices.requests[1].adminAccess"));
        assert_eq!(asked(&json!({"spec": {"devices": devices}})), expected);
        assert_eq!(asked(&json!({"spec": {"spec": {"devices": devices}}})), expected);
        assert_eq!(asked(&json!({"spec": {}})), None);
        let results = json!({"results": [{"adminAccess": true}]});
        let claim = json!({"status": {"allocation": {"devices": results}}});
        let expected = Some(FieldPath::new("status.allocation.devices.results[0].adminAccess"));
        assert_eq!(granted(&claim), expected);
    }

    #[test]
    fn drivers_and_nodes_of_a_claim_are_found() {
        let device =
            |driver: &str, data: u8| json!({"driver": driver, "device": "d", "data": data});
        let status = |devices: [Value; 2]| json!({"devices": devices});
        let old = status([device("a", 1), device("b", 1)]);
        let new = status([device("b", 2), device("c", 1)]);
        assert_eq!(drivers(&new, &old).into_iter().collect::<String>(), "abc");
        assert!(drivers(&old, &status([device("b", 1), device("a", 1)])).is_empty());
        let term = |operator: &str| {
            json!({"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": operator, "values": ["n"]}]}]}})
        };
        assert_eq!(only_node(&term("In")), Some("n"));
        assert_eq!(only_node(&term("NotIn")), None);
        assert_eq!(only_node(&json!({})), None);
    }
}
