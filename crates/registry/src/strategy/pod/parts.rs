//! What the ephemeralcontainers and resize subresources may change of a pod; what is wrong with a change is said by
//! the rules of pods.

use serde_json::Value;

use crate::object::{child, metadata, set_or_remove, set_or_remove_in};

/// Restores what the ephemeralcontainers subresource may not change: everything but that list.
pub(crate) fn prepare_ephemeral(object: &mut Value, old: &Value) {
    let list = object["spec"]["ephemeralContainers"].clone();
    restore(object, old);
    set_or_remove_in(child(object, "spec"), "ephemeralContainers", &list);
}

/// Restores what the resize subresource may not change: everything but the resources and resize
/// policies of containers. Renamed or reordered containers are left for validation to refuse.
pub(crate) fn prepare_resize(object: &mut Value, old: &Value) {
    let asked = object["spec"].clone();
    restore(object, old);
    for list in ["containers", "initContainers"] {
        let kept = child(object, "spec").get_mut(list).and_then(Value::as_array_mut);
        let (Some(asked), Some(kept)) = (asked[list].as_array(), kept) else {
            continue;
        };
        let names = |list: &[Value]| list.iter().map(|c| c["name"].clone()).collect::<Vec<_>>();
        if names(asked) != names(kept) {
            kept.clone_from(asked);
            continue;
        }
        for (kept, asked) in kept.iter_mut().zip(asked) {
            set_or_remove(kept, "resources", &asked["resources"]);
            set_or_remove(kept, "resizePolicy", &asked["resizePolicy"]);
        }
    }
    set_or_remove_in(child(object, "spec"), "resources", &asked["resources"]);
}

/// The old object with the new one's resourceVersion.
fn restore(object: &mut Value, old: &Value) {
    let version = object["metadata"]["resourceVersion"].clone();
    *object = old.clone();
    metadata(object).insert("resourceVersion".to_owned(), version);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn a_resize_changes_resources_alone() {
        let old = pod(json!({"requests": {"cpu": "1"}}));
        let mut new = pod(json!({"requests": {"cpu": "2"}}));
        new["spec"]["containers"][0]["image"] = "other".into();
        prepare_resize(&mut new, &old);
        assert_eq!(new["spec"], pod(json!({"requests": {"cpu": "2"}}))["spec"]);
    }
}
