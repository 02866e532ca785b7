//! What the ephemeralcontainers and resize subresources may change of a pod, and how.

use meta::{FieldError, FieldPath};
use serde_json::Value;

use super::qos_class;
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

/// The lists of containers that a resize reaches.
const RESIZED: [&str; 2] = ["containers", "initContainers"];

/// The annotation of pods that a kubelet runs from files.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_static(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

/// Rules of a change of ephemeral containers: they may be added and nothing else.
pub(crate) fn validate_ephemeral(object: &Value, old: &Value) -> Vec<FieldError> {
    if is_static(old) {
        return vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
    }
    let path = FieldPath::new("spec").child("ephemeralContainers");
    let list =
        |pod: &Value| pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    let new = list(object);
    let mut errors = Vec::new();
    for container in list(old) {
        let name = container["name"].as_str().unwrap_or_default();
        let verb = match new.iter().find(|c| c["name"] == name) {
            Some(same) if *same == container => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let detail = format!("existing ephemeral containers {name:?} may not be {verb}");
        errors.push(FieldError::forbidden(path.clone(), detail));
    }
    errors
}

/// Rules of a resize (KEP-1287).
pub(crate) fn validate_resize(object: &Value, old: &Value) -> Vec<FieldError> {
    if is_static(old) {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    let class = old["status"]["qosClass"].as_str().unwrap_or_else(|| qos_class(&old["spec"]));
    if qos_class(&object["spec"]) != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(spec.clone(), class, detail));
    }
    for name in RESIZED {
        let list = |pod: &Value| pod["spec"][name].as_array().cloned().unwrap_or_default();
        let (new, old) = (list(object), list(old));
        let path = spec.child(name);
        if new.len() != old.len() {
            let detail = format!("{name} may not be added or removed on resize");
            errors.push(FieldError::forbidden(path, detail));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(&old).enumerate() {
            let path = path.index(index);
            if new["name"] != old["name"] {
                let detail = format!("{name} may not be renamed or reordered on resize");
                errors.push(FieldError::forbidden(path.child("name"), detail));
                continue;
            }
            for kind in ["requests", "limits"] {
                let had = old["resources"][kind].as_object().into_iter().flatten();
                let has = &new["resources"][kind];
                if had.into_iter().any(|(resource, _)| has[resource].is_null()) {
                    let detail = format!("resource {kind} cannot be removed");
                    let path = path.child("resources").child(kind);
                    errors.push(FieldError::forbidden(path, detail));
                }
            }
        }
    }
    errors
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
        assert_eq!(validate_resize(&new, &old), []);
        let removed = pod(json!({"requests": {"memory": "1Mi"}}));
        let errors = validate_resize(&removed, &old);
        assert_eq!(
            errors[0].to_string(),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
        );
    }

    #[test]
    fn ephemeral_containers_stay() {
        let mut old = pod(json!({}));
        old["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "a"}]);
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "b"}]);
        assert_eq!(validate_ephemeral(&new, &old).len(), 1);
        new["spec"]["ephemeralContainers"] = json!([
            {"name": "debug", "image": "a"}, {"name": "more", "image": "b"},
        ]);
        assert_eq!(validate_ephemeral(&new, &old), []);
    }
}
