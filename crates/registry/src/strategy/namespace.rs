//! Namespaces: the finalizer in the specification, and the phase that follows deletion.

use serde_json::{Value, json};

use super::Strategy;
use crate::object::{child, metadata, set_or_remove};
use crate::request::UserInfo;

/// The finalizer every namespace is born with.
const FINALIZER: &str = "kubernetes";

/// The label that carries the name, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// `v1 Namespace`.
#[derive(Debug)]
pub(super) struct Namespace;

impl Strategy for Namespace {
    fn prepare_create(&self, object: &mut Value, _: &UserInfo, _: bool) {
        object["status"] = json!({"phase": "Active"});
        let spec = child(object, "spec");
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(list) = finalizers
            && !list.iter().any(|f| f == FINALIZER)
        {
            list.push(FINALIZER.into());
        }
        set_name_label(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: bool) {
        set_or_remove(object, "status", &old["status"]);
        match &old["spec"]["finalizers"] {
            Value::Null => child(object, "spec").remove("finalizers"),
            kept => child(object, "spec").insert("finalizers".to_owned(), kept.clone()),
        };
        set_name_label(object);
    }

    fn terminate(&self, object: &mut Value) {
        child(object, "status").insert("phase".to_owned(), "Terminating".into());
    }

    fn may_vanish(&self, object: &Value) -> bool {
        object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
    }
}

fn set_name_label(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if !name.is_string() {
        return;
    }
    let labels = metadata(object).entry("labels").or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        labels.insert(NAME_LABEL.to_owned(), name);
    }
}

/// Restores what the finalize subresource may not change: everything but `spec.finalizers`.
pub(crate) fn prepare_finalize(object: &mut Value, old: &Value) {
    set_or_remove(object, "status", &old["status"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_born_active_and_named() {
        let mut object = json!({"metadata": {"name": "a"}});
        Namespace.prepare_create(&mut object, &UserInfo::default(), true);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            })
        );
        assert!(!Namespace.may_vanish(&object));
    }
}
