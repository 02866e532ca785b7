//! The built-in admission plugins, one file each, and the order in which they are asked.
//!
//! Plugins see a write through [`registry::Attributes`] and read other objects through it. They refuse to know
//! HTTP and how the write came about.

mod certificates;
mod defaults;
mod escalation;
mod lifecycle;
mod limits;
mod network_identity;
mod node_restriction;
mod priority;
mod service_account;
mod taint;
mod tolerations;

pub(crate) use service_account::TOKEN_SECONDS;
pub use tolerations::DefaultTolerationSeconds;

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::Status;
use registry::{Admit, Attributes, Object, Row};
use serde_json::{Map, Value};

use crate::authz::Authorizer;

/// What a plugin's hooks return.
type Admitted<'a> = BoxFuture<'a, Result<(), Status>>;

/// All plugins, in upstream's order.
pub fn plugins(
    authorizer: &Arc<Authorizer>,
    tolerations: DefaultTolerationSeconds,
) -> Vec<Arc<dyn Admit>> {
    vec![
        Arc::new(lifecycle::NamespaceLifecycle),
        Arc::new(limits::LimitRanger),
        Arc::new(service_account::ServiceAccount),
        Arc::new(node_restriction::NodeRestriction),
        Arc::new(network_identity::NetworkIdentity),
        Arc::new(taint::TaintNodesByCondition),
        Arc::new(priority::Priority),
        Arc::new(tolerations),
        Arc::new(defaults::DefaultStorageClass),
        Arc::new(defaults::DefaultIngressClass),
        Arc::new(certificates::SignerRight::approval(authorizer.clone())),
        Arc::new(certificates::SignerRight::signing(authorizer.clone())),
        Arc::new(certificates::SubjectRestriction),
        Arc::new(escalation::Escalation::new(authorizer.clone())),
    ]
}

/// A refusal in the words of admission: 403 naming the object.
fn forbid(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    why: impl std::fmt::Display,
) -> Status {
    let of = |field: &str| {
        let text = object.and_then(|object| object["metadata"][field].as_str());
        text.filter(|text| !text.is_empty())
    };
    let named = Some(attributes.name).filter(|name| !name.is_empty());
    let name = named.or_else(|| of("name")).or_else(|| of("generateName")).unwrap_or("Unknown");
    Status::forbidden(&attributes.row.group_resource(), name, why)
}

/// Whether the write is of the pod itself or another object of the core group, no subresource.
fn is_core(row: &Row, resource: &str) -> bool {
    row.resource.group.is_empty() && row.resource.resource == resource
}

/// Reads an object of any kind, with the row that describes it.
fn read(
    attributes: &Attributes<'_>,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
    name: &str,
) -> Option<Value> {
    let row = attributes.registry.rows().by_resource(group, resource)?;
    attributes.registry.get(row, namespace, name).map(|object| object.value(row))
}

/// Reads all objects of a kind.
fn read_all(
    attributes: &Attributes<'_>,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Vec<Value> {
    let Some(row) = attributes.registry.rows().by_resource(group, resource) else {
        return Vec::new();
    };
    let objects: Vec<Object> = attributes.registry.list(row, namespace);
    objects.iter().map(|object| object.value(row)).collect()
}

/// A field that is an object, made one if it is missing.
fn child<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let slot = &mut value[name];
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// A field that is a list, made one if it is missing.
fn list<'a>(value: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let slot = child(value, name);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("just made a list"),
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn each<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Nothing to object to.
fn fine<'a>() -> Admitted<'a> {
    Box::pin(std::future::ready(Ok(())))
}

/// The outcome of a decision that needed no waiting.
fn decided<'a>(outcome: Result<(), Status>) -> Admitted<'a> {
    Box::pin(std::future::ready(outcome))
}
