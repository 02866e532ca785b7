//! Behaviour that several kinds share.

use serde_json::Value;

use super::Strategy;
use crate::object::{metadata, set_or_remove};
use crate::request::UserInfo;

/// Nothing beyond the defaults.
#[derive(Debug)]
pub(crate) struct Generic;

impl Strategy for Generic {}

/// Kinds whose content is not under `spec`: any change outside metadata and status counts.
#[derive(Debug)]
pub(super) struct Whole;

impl Strategy for Whole {
    fn specification_changed(&self, object: &Value, old: &Value) -> bool {
        content(object).ne(content(old))
    }
}

fn content(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
}

/// Nothing about a priority class that counts may change.
#[derive(Debug)]
pub(super) struct Unchanging;

impl Strategy for Unchanging {
    fn specification_changed(&self, _: &Value, _: &Value) -> bool {
        false
    }
}

/// Endpoint slices: labels say what a slice is for, and topology is of the past.
#[derive(Debug)]
pub(super) struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn prepare_create(&self, object: &mut Value, _: &UserInfo, _: bool) {
        drop_topology(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: bool) {
        if object["endpoints"] != old["endpoints"] {
            drop_topology(object);
        }
    }

    fn specification_changed(&self, object: &Value, old: &Value) -> bool {
        Whole.specification_changed(object, old)
            || object["metadata"]["labels"] != old["metadata"]["labels"]
    }
}

fn drop_topology(slice: &mut Value) {
    let endpoints = slice.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        endpoint.remove("deprecatedTopology");
    }
}

/// What this server serves itself is there.
#[derive(Debug)]
pub(super) struct ApiService;

impl Strategy for ApiService {
    fn prepare_create(&self, object: &mut Value, _: &UserInfo, _: bool) {
        object["status"] = Value::Object(serde_json::Map::new());
        if object["spec"]["service"].is_null() {
            object["status"]["conditions"] = serde_json::json!([{
                "type": "Available",
                "status": "True",
                "lastTransitionTime": object["metadata"]["creationTimestamp"],
                "reason": "Local",
                "message": "Local APIServices are always available",
            }]);
        }
    }
}

/// Events are never collected, nor do they have dependents.
#[derive(Debug)]
pub(super) struct Event;

impl Strategy for Event {
    fn collected(&self) -> bool {
        false
    }
}

/// Volumes and claims begin as pending.
#[derive(Debug)]
pub(super) struct Volume;

impl Strategy for Volume {
    fn prepare_create(&self, object: &mut Value, _: &UserInfo, _: bool) {
        object["status"] = serde_json::json!({"phase": "Pending"});
    }
}

/// Takes everything but `status` and `metadata` from the old object.
pub(super) fn keep_all_but_status(object: &mut Value, old: &Value) {
    let Some(fields) = old.as_object() else { return };
    if let Value::Object(object) = object {
        object.retain(|name, _| fields.contains_key(name) || matches!(name.as_str(), "status"));
    }
    for (name, field) in fields {
        if !matches!(name.as_str(), "status" | "metadata") {
            set_or_remove(object, name, field);
        }
    }
    metadata(object);
}

/// Takes fields of the metadata from the old object.
pub(crate) fn keep_metadata(object: &mut Value, old: &Value, names: &[&str]) {
    for name in names {
        match &old["metadata"][name] {
            Value::Null => metadata(object).remove(*name),
            kept => metadata(object).insert((*name).to_owned(), kept.clone()),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_update_touches_the_status_alone() {
        let old = json!({"metadata": {"name": "x", "labels": {"a": "1"}}, "spec": {"r": 1}, "status": {"r": 0}});
        let mut new = json!({"metadata": {"name": "x", "labels": {"a": "2"}, "annotations": {"k": "v"}}, "spec": {"r": 2}, "extra": 1, "status": {"r": 1}});
        Generic.prepare_status(&mut new, &old);
        keep_metadata(&mut new, &old, &["labels"]);
        assert_eq!(
            new,
            json!({"metadata": {"name": "x", "labels": {"a": "1"}, "annotations": {"k": "v"}}, "spec": {"r": 1}, "status": {"r": 1}})
        );
    }
}
