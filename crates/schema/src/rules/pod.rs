//! Rules of pods and of pod templates in other kinds.

mod affinity;
mod container;
mod env;
mod handler;
mod resources;
mod security;
mod spec;
mod status;
mod update;
mod volume;

use meta::names;
use serde_json::Value;

use super::at::{At, Errors};
use super::{Hooks, metadata};
use crate::view::View;

pub(super) use affinity::{node_selector, tolerations};
pub(super) use resources::{is_extended, is_native, limits, quantity_value};
pub(super) use security::qualified_name;

/// `v1 Pod`.
pub(super) const POD: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |pod| follow_service_account(pod),
    validate,
    validate_update: update::validate_update,
    validate_status: status::validate,
};

/// The deprecated `serviceAccount` shows what admission may have set.
fn follow_service_account(pod: &mut Value) {
    let name = pod.at("spec").text("serviceAccountName").to_owned();
    if let (Some(spec), false) =
        (pod.get_mut("spec").and_then(Value::as_object_mut), name.is_empty())
    {
        spec.insert("serviceAccount".to_owned(), Value::String(name));
    }
}

fn validate(pod: &Value, errors: &mut Errors) {
    metadata_and_spec(pod, errors);
    let spec = At::root(pod).field("spec");
    if !spec.items("ephemeralContainers").is_empty() {
        spec.field("ephemeralContainers").forbidden("cannot be set on create", errors);
    }
    if !spec.str_of("nodeName").is_empty() && !spec.items("schedulingGates").is_empty() {
        spec.field("nodeName")
            .forbidden("cannot be set until all schedulingGates have been cleared", errors);
    }
}

/// What holds of new and of changed pods.
fn metadata_and_spec(pod: &Value, errors: &mut Errors) {
    let root = At::root(pod);
    let (meta, spec) = (root.field("metadata"), root.field("spec"));
    annotations(&meta.field("annotations"), spec.value, errors);
    spec::validate(&spec, Some(meta.value), errors);
    if spec.str_of("serviceAccountName").is_empty() {
        for volume in spec.each("volumes") {
            for source in volume.field("projected").each("sources") {
                if let Some(token) = source.some("serviceAccountToken") {
                    token.forbidden(
                        "must not be specified when serviceAccountName is not set",
                        errors,
                    );
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.each(list) {
            padded_image(&container, errors);
        }
    }
}

/// Upstream refuses blanks around images of pods, though not of templates.
fn padded_image(container: &At<'_>, errors: &mut Errors) {
    let image = container.field("image");
    if image.str().trim() != image.str() {
        image.invalid_text("must not have leading or trailing whitespace", errors);
    }
}

/// Annotations with a meaning for pods.
fn annotations(at: &At<'_>, spec: &Value, errors: &mut Errors) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let mut complain = |key: &str, detail: &str| {
        let found = At { value: at.value.at(key), path: at.path.key(key) };
        found.invalid_text(detail, errors);
    };
    if at.has(MIRROR) && spec.text("nodeName").is_empty() {
        complain(MIRROR, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = at.text(DELETION_COST);
    let canonical = cost.parse::<i32>().is_ok()
        && !cost.starts_with('+')
        && (cost == "0" || !cost.starts_with('0'));
    if at.has(DELETION_COST) && !canonical {
        complain(DELETION_COST, "must be a 32bit integer");
    }
}

/// Checks a pod template.
pub(super) fn template(at: &At<'_>, errors: &mut Errors) {
    let meta = at.field("metadata");
    metadata::labels(meta.entries("labels"), &at.path.child("labels"), errors);
    metadata::annotations(meta.entries("annotations"), &at.path.child("annotations"), errors);
    let found = At { value: meta.value.at("annotations"), path: at.path.child("annotations") };
    let spec = at.field("spec");
    annotations(&found, spec.value, errors);
    spec::validate(&spec, None, errors);
    if !spec.items("ephemeralContainers").is_empty() {
        spec.field("ephemeralContainers")
            .forbidden("ephemeral containers not allowed in pod template", errors);
    }
}

/// `v1 PodTemplate`.
pub(super) const POD_TEMPLATE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |object, errors| template(&At::root(object).field("template"), errors),
    validate_update: |new, _, errors| template(&At::root(new).field("template"), errors),
    validate_status: |_, _, _| {},
};

/// `v1 Binding`.
pub(super) const BINDING: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |object, errors| {
        let target = At::root(object).field("target");
        if !matches!(target.str_of("kind"), "" | "Node") {
            target.field("kind").unsupported(&["Node", "<empty>"], errors);
        }
        if target.str_of("name").is_empty() {
            target.field("name").required("", errors);
        }
    },
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// A DNS label, or nothing.
fn optional_label(at: &At<'_>, errors: &mut Errors) {
    if !at.str().is_empty() {
        at.check(names::is_dns1123_label, errors);
    }
}

/// A DNS subdomain, or nothing.
fn optional_subdomain(at: &At<'_>, errors: &mut Errors) {
    if !at.str().is_empty() {
        at.check(names::is_dns1123_subdomain, errors);
    }
}

#[cfg(test)]
mod tests;
