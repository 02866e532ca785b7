//! Rules of pods and of pod templates in other kinds.

mod affinity;
mod annotations;
mod container;
mod env;
mod handler;
mod mount;
mod resize;
mod resources;
mod security;
mod spec;
mod status;
mod tolerated;
mod update;
mod windows;

use serde_json::Value;

use super::at::{At, Errors};
use super::{Hooks, metadata};
use crate::view::View;
pub(super) use affinity::{EFFECTS, node_selector, node_selector_with};
pub(super) use annotations::{APP_ARMOR, SECCOMP_CONTAINER, app_armor_profile};
pub(super) use env::{FILE_FIELDS, field_selector, resource_selector};
pub use resize::{validate_ephemeral, validate_resize};
pub(super) use resources::{
    container_resource, limits, may_overcommit, quantity_value, resource_name,
};
pub(super) use security::qualified_name;
pub(super) use tolerated::{LISTS, Tolerated};

/// `v1 Pod`.
pub(super) const POD: Hooks = Hooks {
    prepare_create: follow_service_account,
    validate,
    validate_update: update::validate_update,
    validate_status: status::validate,
    ..Hooks::BASE
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
    metadata_and_spec(pod, Tolerated::POD, errors);
    let spec = At::root(pod).field("spec");
    if !spec.items("ephemeralContainers").is_empty() {
        spec.field("ephemeralContainers").forbidden("cannot be set on create", errors);
    }
    if !spec.str_of("nodeName").is_empty() && !spec.items("schedulingGates").is_empty() {
        spec.field("nodeName")
            .forbidden("cannot be set until all schedulingGates have been cleared", errors);
    }
    annotations::match_fields(pod.at("metadata").at("annotations"), &spec, errors);
}

/// What holds of new and of changed pods.
fn metadata_and_spec(pod: &Value, tolerated: Tolerated, errors: &mut Errors) {
    let root = At::root(pod);
    let (meta, spec) = (root.field("metadata"), root.field("spec"));
    annotations::validate(&meta.field("annotations"), spec.value, tolerated, errors);
    spec::validate(&spec, Some(meta.value), tolerated, errors);
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

/// Checks the tolerations of what is no pod.
pub(super) fn tolerations(owner: &At<'_>, errors: &mut Errors) {
    affinity::tolerations(owner.each("tolerations"), Tolerated::default(), errors);
}

/// Checks a pod template; `old` is what it was before.
pub(super) fn template(at: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let tolerated = old.map_or_else(Tolerated::default, |old| Tolerated::of(old, false));
    template_metadata(at, tolerated, errors);
    let spec = at.field("spec");
    spec::validate(&spec, None, tolerated, errors);
    annotations::match_fields(at.at("metadata").at("annotations"), &spec, errors);
    if !spec.items("ephemeralContainers").is_empty() {
        spec.field("ephemeralContainers")
            .forbidden("ephemeral containers not allowed in pod template", errors);
    }
}

/// Labels and annotations of a template; upstream leaves `metadata` out of their paths.
pub(super) fn template_metadata(at: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    let meta = at.field("metadata");
    metadata::labels(meta.entries("labels"), &at.path.child("labels"), errors);
    metadata::annotations(meta.entries("annotations"), &at.path.child("annotations"), errors);
    let found = meta.field("annotations").under(at.path.child("annotations"));
    annotations::validate(&found, at.at("spec"), tolerated, errors);
}

/// `v1 PodTemplate`.
pub(super) const POD_TEMPLATE: Hooks = Hooks {
    validate: |object, errors| template(&At::root(object).field("template"), None, errors),
    validate_update: |new, old, errors| {
        template(&At::root(new).field("template"), Some(old.at("template")), errors);
    },
    ..Hooks::BASE
};

/// `v1 Binding`.
pub(super) const BINDING: Hooks = Hooks {
    validate: |object, errors| {
        let target = At::root(object).field("target");
        if !matches!(target.str_of("kind"), "" | "Node") {
            target.field("kind").unsupported(&["Node", "<empty>"], errors);
        }
        if target.str_of("name").is_empty() {
            target.field("name").required("", errors);
        }
    },
    ..Hooks::BASE
};

#[cfg(test)]
mod tests;
