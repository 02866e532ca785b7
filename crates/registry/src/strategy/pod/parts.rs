//! What the ephemeralcontainers and resize subresources may change of a pod, and how.

use meta::{FieldError, FieldPath};
use schema::amounts::{qos_class, qos_of};
use schema::view::same;
use serde_json::{Value, json};

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

/// Rules of a resize (KEP-1287): CPU and memory of containers and of the whole pod may change, and nothing may be
/// left unsaid that was said.
pub(crate) fn validate_resize(object: &Value, old: &Value) -> Vec<FieldError> {
    if is_static(old) {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    if old["spec"]["os"]["name"] == "windows" {
        return vec![FieldError::forbidden("", "windows pods cannot be resized")];
    }
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    let class = qos_of(old);
    if qos_class(&object["spec"]) != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(spec.clone(), class, detail));
    }
    if !can_resize(old) {
        let detail = "Pod running on node without support for resize";
        errors.push(FieldError::forbidden(spec.clone(), detail));
    }
    whole(&spec, &object["spec"]["resources"], &old["spec"]["resources"], &mut errors);
    if status_has_claims(old) {
        let detail = "pods with node allocatable resource claims cannot be resized";
        errors.push(FieldError::forbidden(spec.clone(), detail));
    }
    let before = errors.len();
    for list in ["containers", "initContainers"] {
        in_order(&spec, list, object, old, &mut errors);
    }
    if errors.len() > before {
        return errors;
    }
    for list in ["initContainers", "containers"] {
        for (index, (new, old)) in pairs(list, object, old).enumerate() {
            let path = spec.child(list).index(index).child("resources");
            removed(&path, &new["resources"], &old["resources"], "resource", &mut errors);
        }
    }
    for (new, old) in pairs("containers", object, old) {
        if !same(&fixed(new), &fixed(old)) {
            let detail = "only cpu and memory resources are mutable";
            errors.push(FieldError::forbidden(spec.clone(), detail));
        }
    }
    for (index, (new, old)) in pairs("initContainers", object, old).enumerate() {
        init_container(&spec.child("initContainers").index(index), new, old, &mut errors);
    }
    errors
}

/// Whether the pod's node said that it can do it: its containers say what they have.
fn can_resize(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let running = statuses.into_iter().find(|status| !status["state"]["running"].is_null());
    running.is_none_or(|status| !status["resources"].is_null())
}

fn status_has_claims(pod: &Value) -> bool {
    let claims = pod["status"]["nodeAllocatableResourceClaimStatuses"].as_array();
    claims.is_some_and(|claims| !claims.is_empty())
}

/// Resources of the pod as a whole.
fn whole(spec: &FieldPath, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let path = spec.child("resources");
    if new.is_null() && !old.is_null() {
        errors.push(FieldError::forbidden(path, "pod-level resources cannot be removed"));
        return;
    }
    removed(&path, new, old, "pod-level resource", errors);
    let wrap = |resources: &Value| fixed(&json!({"resources": resources}));
    if !same(&wrap(new), &wrap(old)) {
        let detail = "only cpu and memory resources are mutable at pod-level";
        errors.push(FieldError::forbidden(spec.clone(), detail));
    }
}

/// Containers stay which they are, in their order.
fn in_order(
    spec: &FieldPath,
    list: &str,
    object: &Value,
    old: &Value,
    errors: &mut Vec<FieldError>,
) {
    let count = |pod: &Value| pod["spec"][list].as_array().map_or(0, Vec::len);
    let path = spec.child(list);
    if count(object) != count(old) {
        let detail = format!("{list} may not be added or removed on resize");
        errors.push(FieldError::forbidden(path, detail));
        return;
    }
    for (index, (new, old)) in pairs(list, object, old).enumerate() {
        if new["name"] != old["name"] {
            let detail = format!("{list} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(path.index(index).child("name"), detail));
        }
    }
}

fn pairs<'a>(
    list: &str,
    object: &'a Value,
    old: &'a Value,
) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let of = |pod: &'a Value| pod["spec"][list].as_array().into_iter().flatten();
    of(object).zip(of(old))
}

fn removed(path: &FieldPath, new: &Value, old: &Value, what: &str, errors: &mut Vec<FieldError>) {
    for kind in ["requests", "limits"] {
        let mut had = old[kind].as_object().into_iter().flatten();
        if had.any(|(resource, _)| new[kind][resource].is_null()) {
            let detail = format!("{what} {kind} cannot be removed");
            errors.push(FieldError::forbidden(path.child(kind), detail));
        }
    }
}

fn init_container(path: &FieldPath, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if !same(&fixed(new), &fixed(old)) {
        let detail = "only cpu and memory resources for init or sidecar containers are mutable";
        errors.push(FieldError::forbidden(path.clone(), detail));
    }
    if new["restartPolicy"] == "Always" || same(new, old) {
        return;
    }
    let policies = new["resizePolicy"].as_array().into_iter().flatten();
    for _ in policies.filter(|policy| policy["restartPolicy"] == "RestartContainer") {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.push(FieldError::forbidden(path.clone(), detail));
    }
}

/// What of a container a resize leaves alone.
fn fixed(container: &Value) -> Value {
    let mut container = container.clone();
    for kind in ["requests", "limits"] {
        if let Some(Value::Object(amounts)) = container["resources"].get_mut(kind) {
            amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        }
    }
    container
}

#[cfg(test)]
mod tests {
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
    fn a_resize_says_what_it_may_not_change() {
        let check = |new: &Value, old: &Value, expected: &[&str]| {
            let told: Vec<String> =
                validate_resize(new, old).iter().map(ToString::to_string).collect();
            assert_eq!(told, expected);
        };
        let old = pod(json!({"requests": {"cpu": "1", "example.com/gpu": "1"}}));
        let other = pod(json!({"requests": {"cpu": "1", "example.com/gpu": "2"}}));
        check(&other, &old, &["spec: Forbidden: only cpu and memory resources are mutable"]);
        let class = "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing";
        check(&pod(json!({"requests": {"cpu": "1"}})), &pod(json!({})), &[class]);
        let mut running = old.clone();
        running["status"] = json!({"qosClass": "Burstable",
            "containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        let support = "spec: Forbidden: Pod running on node without support for resize";
        check(&running, &running, &[support]);
        running["status"]["containerStatuses"][0]["resources"] = json!({});
        check(&running, &running, &[]);
        let mut renamed = old.clone();
        renamed["spec"]["containers"][0]["name"] = "d".into();
        let order = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize";
        check(&renamed, &old, &[order]);
        let mut whole = old.clone();
        whole["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        check(&old, &whole, &["spec.resources: Forbidden: pod-level resources cannot be removed"]);
        let mut init = old.clone();
        init["spec"]["initContainers"] = json!([{"name": "i", "resources": {"requests": {"cpu": "1"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]);
        let mut more = init.clone();
        more["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] = "2".into();
        let policy = "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of \
                      RestartContainer cannot be resized";
        check(&more, &init, &[policy]);
        more["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
        let mut sidecar = init.clone();
        sidecar["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
        check(&more, &sidecar, &[]);
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
