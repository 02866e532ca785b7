//! What the ephemeralcontainers and resize subresources may change of a pod (KEP-277, KEP-1287).

use std::collections::HashMap;

use meta::{FieldError, FieldPath};
use serde_json::Value;

use super::{Tolerated, annotations, metadata_and_spec};
use crate::amounts::{qos_class, qos_of};
use crate::rules::at::{At, Errors};
use crate::rules::difference;
use crate::view::{View, same};

/// The annotation of pods that a kubelet runs from files.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_static(pod: &Value) -> bool {
    pod.at("metadata").at("annotations").has(MIRROR)
}

/// Everything wrong with a change of ephemeral containers: they may be added and nothing else.
#[must_use]
pub fn validate_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    if is_static(old) {
        return vec![FieldError::forbidden(
            "[]",
            "static pods do not support ephemeral containers",
        )];
    }
    let (mut errors, tolerated) = (Errors::new(), Tolerated::of(old, true));
    metadata_and_spec(new, tolerated, &mut errors);
    annotations::validate_update(new, old, tolerated, &mut errors);
    let path = FieldPath::new("spec").child("ephemeralContainers");
    let list = new.at("spec").items("ephemeralContainers");
    let list: HashMap<&str, &Value> = list.iter().map(|new| (new.text("name"), new)).collect();
    for container in old.at("spec").items("ephemeralContainers") {
        let name = container.text("name");
        let detail = match list.get(name) {
            None => "removed\n".to_owned(),
            Some(new) if same(new, container) => continue,
            Some(new) => format!("changed\n{}", difference::lines(new, container)),
        };
        let name = meta::quote(name);
        let text = format!("existing ephemeral containers {name} may not be {detail}");
        errors.push(FieldError::forbidden(&path, text));
    }
    errors.into()
}

/// Everything wrong with a resize.
#[must_use]
pub fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    if is_static(old) {
        return vec![FieldError::forbidden("[]", "static pods cannot be resized")];
    }
    if old.at("spec").at("os").text("name") == "windows" {
        return vec![FieldError::forbidden("[]", "windows pods cannot be resized")];
    }
    let mut errors = Errors::new();
    metadata_and_spec(new, Tolerated::of(old, true), &mut errors);
    let (at, was) = (At::root(new).field("spec"), old.at("spec"));
    let class = qos_of(old);
    if qos_class(at.value) != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        let shown = new.at("status").text("qosClass");
        errors.push(FieldError::invalid(&at.path, shown, detail));
    }
    let running = old.at("status").items("containerStatuses");
    let running = running.iter().find(|status| status.at("state").has("running"));
    if running.is_some_and(|status| !status.has("resources")) {
        at.forbidden("Pod running on node without support for resize", &mut errors);
    }
    let mut rest = at.value.clone();
    whole_pod(&at, was, &mut rest, &mut errors);
    if !old.at("status").items("nodeAllocatableResourceClaimStatuses").is_empty() {
        let text = "pods with node allocatable resource claims cannot be resized";
        at.forbidden(text, &mut errors);
    }
    if !in_order(&at, was, &mut errors) {
        return errors.into();
    }
    for list in ["initContainers", "containers"] {
        for (container, old) in at.each(list).zip(was.items(list)) {
            nothing_removed(&container.field("resources"), old.at("resources"), "", &mut errors);
        }
    }
    for list in ["containers", "initContainers"] {
        containers(&at, was, list, &mut rest, &mut errors);
    }
    if errors.is_empty() && !same(&rest, was) {
        at.forbidden("only cpu and memory resources are mutable", &mut errors);
    }
    errors.into()
}

/// Resources of the pod as a whole; makes those of `rest` what they were as far as they may change.
fn whole_pod(at: &At<'_>, was: &Value, rest: &mut Value, errors: &mut Errors) {
    let set = |spec: &Value| {
        let resources = spec.at("resources");
        !resources.entries("requests").is_empty() || !resources.entries("limits").is_empty()
    };
    if !set(was) && !set(at.value) {
        return;
    }
    let (resources, before) = (at.field("resources"), was.at("resources"));
    if !before.is_null() && resources.value.is_null() {
        return resources.forbidden("pod-level resources cannot be removed", errors);
    }
    if !before.is_null() {
        nothing_removed(&resources, before, "pod-level ", errors);
    }
    rest["resources"] = without_changes(resources.value, before);
    if !same(&rest["resources"], before) {
        at.forbidden("only cpu and memory resources are mutable at pod-level", errors);
    }
}

/// Containers stay, and so does their order; `true` if they did.
fn in_order(at: &At<'_>, was: &Value, errors: &mut Errors) -> bool {
    let before = errors.len();
    for list in ["containers", "initContainers"] {
        let (new, old) = (at.items(list), was.items(list));
        if new.len() != old.len() {
            let text = format!("{list} may not be added or removed on resize");
            at.field(list).forbidden(&text, errors);
            continue;
        }
        for (container, old) in at.each(list).zip(old) {
            if container.str_of("name") != old.text("name") {
                let text = format!("{list} may not be renamed or reordered on resize");
                container.field("name").forbidden(&text, errors);
            }
        }
    }
    errors.len() == before
}

fn nothing_removed(at: &At<'_>, old: &Value, whose: &str, errors: &mut Errors) {
    for kind in ["requests", "limits"] {
        if old.entries(kind).keys().any(|name| !at.at(kind).has(name)) {
            let text = format!("{whose}resource {kind} cannot be removed");
            at.field(kind).forbidden(&text, errors);
        }
    }
}

/// Of containers, cpu and memory alone may change; makes them in `rest` what they were.
fn containers(at: &At<'_>, was: &Value, list: &str, rest: &mut Value, errors: &mut Errors) {
    let Some(Value::Array(kept)) = rest.get_mut(list) else { return };
    for ((container, old), kept) in at.each(list).zip(was.items(list)).zip(kept) {
        kept["resources"] = without_changes(container.at("resources"), old.at("resources"));
        let init = list == "initContainers";
        if !same(kept, old) && init {
            let text = "only cpu and memory resources for init or sidecar containers are mutable";
            container.forbidden(text, errors);
        } else if !same(kept, old) {
            at.forbidden("only cpu and memory resources are mutable", errors);
        }
        let sidecar = container.str_of("restartPolicy") == "Always";
        if init && !sidecar && !same(container.value, old) {
            let mut policies = container.items("resizePolicy").iter();
            if policies.any(|policy| policy.text("restartPolicy") == "RestartContainer") {
                let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                container.forbidden(text, errors);
            }
        }
    }
}

/// New resources with the cpu and memory of the old; claims are forgotten.
fn without_changes(new: &Value, old: &Value) -> Value {
    let of = |kind: &str| {
        let mut amounts = new.entries(kind).clone();
        for name in ["cpu", "memory"] {
            match old.at(kind).get(name) {
                Some(amount) => amounts.insert(name.to_owned(), amount.clone()),
                None => amounts.remove(name),
            };
        }
        amounts
    };
    let mut resources = serde_json::Map::new();
    for kind in ["requests", "limits"] {
        let amounts = of(kind);
        if !amounts.is_empty() {
            resources.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    Value::Object(resources)
}
