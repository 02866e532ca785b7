//! Conversion between the versions of a resource, for the two resources that have several.
//!
//! Pure functions over JSON. Everything else is served in the version it is stored in.

mod autoscaler;
mod event;

use serde_json::Value;

use crate::row::Row;

/// An object of the served version in its storage version.
pub(crate) fn to_stored(row: &Row, object: Value) -> Value {
    if row.served_as_stored() {
        return object;
    }
    let mut object = match row.kind.group.as_str() {
        "autoscaling" => autoscaler::to_v2(object),
        "events.k8s.io" => event::to_core(object),
        _ => object,
    };
    if let Some(storage) = &row.storage {
        object["apiVersion"] = storage.kind.api_version().into();
        object["kind"] = storage.kind.kind.as_str().into();
    }
    object
}

/// An object of the storage version in the served one.
pub(crate) fn to_served(row: &Row, object: Value) -> Value {
    if row.served_as_stored() {
        return object;
    }
    let mut object = match row.kind.group.as_str() {
        "autoscaling" => autoscaler::to_v1(object),
        "events.k8s.io" => event::to_events(object),
        _ => object,
    };
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.kind.as_str().into();
    object
}

/// Moves a field of an object to another name.
fn rename(object: &mut Value, from: &str, to: &str) {
    if let Value::Object(map) = object
        && let Some(value) = map.remove(from)
    {
        map.insert(to.to_owned(), value);
    }
}
