//! Rules of PersistentVolumeClaims, and of the templates they are made from.

use meta::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::metadata::{self, immutable};
use super::pod::quantity_value;
use super::{Hooks, difference, selector};
use crate::amounts::is_native;
use crate::view::{View, same};

/// `v1 PersistentVolumeClaim`.
pub(super) const PERSISTENT_VOLUME_CLAIM: Hooks = Hooks {
    validate: |claim, errors| spec(&At::root(claim).field("spec"), Before::default(), errors),
    validate_update: update,
    validate_status: |new, _, errors| status(new, errors),
    ..Hooks::BASE
};

/// The annotation that named a storage class before there was a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What an old claim had and may keep.
#[derive(Clone, Copy, Default)]
struct Before {
    /// A source of data with an API group.
    grouped_source: bool,
    /// A selector that would not be let in.
    selector: bool,
}

/// Checks a template of claims: of its metadata, labels and annotations alone count.
pub(super) fn template(at: &At<'_>, errors: &mut Errors) {
    const FORBIDDEN: &[&str] = &[
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    let meta = at.field("metadata");
    metadata::annotations(meta.entries("annotations"), &meta.path.child("annotations"), errors);
    metadata::labels(meta.entries("labels"), &meta.path.child("labels"), errors);
    for field in FORBIDDEN.iter().filter_map(|field| meta.some(field)) {
        if *field.value != 0 && field.value != "" {
            field.forbidden("cannot be set", errors);
        }
    }
    spec(&at.field("spec"), Before::default(), errors);
}

/// Checks the specification of a claim that a StatefulSet makes.
pub(super) fn of_stateful_set(at: &At<'_>, errors: &mut Errors) {
    spec(at, Before::default(), errors);
}

/// Checks `accessModes`, which claims and volumes have alike.
pub(super) fn access_modes(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.field("accessModes");
    for mode in spec.each("accessModes") {
        mode.under(list.path.clone()).known(ACCESS_MODES, errors);
    }
    let modes = spec.items("accessModes");
    let known = |mode: &Value| ACCESS_MODES.iter().any(|known| mode == known);
    if modes.iter().any(|mode| mode == "ReadWriteOncePod")
        && modes.iter().any(|mode| known(mode) && mode != "ReadWriteOncePod")
    {
        list.forbidden("may not use ReadWriteOncePod with other access modes", errors);
    }
}

fn spec(spec: &At<'_>, before: Before, errors: &mut Errors) {
    if spec.items("accessModes").is_empty() {
        spec.field("accessModes").required("at least 1 access mode is required", errors);
    }
    selector::label_selector_with(
        &spec.field("selector"),
        selector::Lenient::values(before.selector),
        errors,
    );
    access_modes(spec, errors);
    let path = spec.path.child("resources").key("storage");
    match amount(spec.at("resources").at("requests")) {
        None => errors.push(FieldError::required(path, "")),
        Some(size) if size.signum() <= 0 => {
            errors.push(FieldError::invalid(path, size.to_string(), "must be greater than zero"));
        }
        Some(_) => {}
    }
    spec.field("storageClassName").optional(names::is_dns1123_subdomain, errors);
    spec.field("volumeMode").known(&["Block", "Filesystem"], errors);
    sources(spec, before, errors);
    spec.field("volumeAttributesClassName").optional(names::is_dns1123_subdomain, errors);
}

fn sources(spec: &At<'_>, before: Before, errors: &mut Errors) {
    let (old, new) = (spec.some("dataSource"), spec.some("dataSourceRef"));
    if let Some(source) = &old {
        data_source(source, before, errors);
    }
    if let Some(source) = &new {
        data_source(source, before, errors);
        source.field("namespace").optional(names::is_dns1123_label, errors);
    }
    let (Some(old), Some(new)) = (old, new) else { return };
    let field = |source: &At<'_>| ["apiGroup", "kind", "name"].map(|f| source.value.at(f).clone());
    let problem = if !new.str_of("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if field(&old) != field(&new) {
        "must match dataSourceRef"
    } else {
        return;
    };
    errors.push(FieldError::invalid(&spec.path, Value::Null, problem).shown_as("{}"));
}

fn data_source(source: &At<'_>, before: Before, errors: &mut Errors) {
    source.field("name").needed(errors);
    source.field("kind").needed(errors);
    let (group, kind) = (source.field("apiGroup"), source.str_of("kind"));
    if group.str().is_empty() && kind != "PersistentVolumeClaim" {
        let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(&source.path, kind, text));
    }
    if !before.grouped_source {
        group.optional(names::is_dns1123_subdomain, errors);
    }
}

fn amount(amounts: &Value) -> Option<Quantity> {
    amounts.text("storage").parse().ok()
}

fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let (at, was) = (At::root(new).field("spec"), old.at("spec"));
    let mut wrong = Errors::new();
    selector::label_selector(&At::root(was).field("selector"), &mut wrong);
    let grouped = |source: &str| was.at(source).has("apiGroup");
    let before = Before {
        grouped_source: grouped("dataSource") || grouped("dataSourceRef"),
        selector: !wrong.is_empty(),
    };
    spec(&at, before, errors);
    specification_stays(new, old, errors);
    let size = |claim: &Value| amount(claim.at("spec").at("resources").at("requests"));
    let (now, then) = (size(new).unwrap_or(Quantity::ZERO), size(old).unwrap_or(Quantity::ZERO));
    if now < then && now <= amount(old.at("status").at("capacity")).unwrap_or(Quantity::ZERO) {
        let path = at.path.child("resources").child("requests").child("storage");
        errors.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
    }
    immutable(at.at("volumeMode"), was.at("volumeMode"), "volumeMode", errors);
    let class = at.field("volumeAttributesClassName");
    if class.value != was.at("volumeAttributesClassName")
        && old.at("status").has("currentVolumeAttributesClassName")
    {
        let what = match class.value {
            Value::Null => "nil",
            value if value == "" => "empty string",
            _ => return,
        };
        let text = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        class.forbidden(&format!("update to {what} {text}"), errors);
    }
}

/// The node and class of a claim may be set once; a bound claim may grow and change its attributes.
fn specification_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let annotation = |claim: &Value| claim.at("metadata").at("annotations").at(BETA_CLASS).clone();
    let (mut wanted, mut was) = (new.at("spec").clone(), old.at("spec").clone());
    let (beta, new_beta) = (annotation(old), annotation(new));
    let class = wanted.at("storageClassName").clone();
    let unset = !was.has("storageClassName");
    let set = |spec: &mut Value, field: &str, value: Value| spec[field] = value;
    if was.text("volumeName").is_empty() {
        set(&mut was, "volumeName", wanted.at("volumeName").clone());
    }
    let upgraded =
        beta.is_string() && unset && class == beta && (new_beta.is_null() || new_beta == beta);
    if upgraded {
        set(&mut wanted, "storageClassName", Value::Null);
    } else {
        let (now, then) =
            (new_beta.as_str().unwrap_or_default(), beta.as_str().unwrap_or_default());
        if now != then {
            let path = FieldPath::new("metadata").child("annotations").child(BETA_CLASS);
            errors.push(FieldError::invalid(path, now, metadata::IMMUTABLE));
        }
        if unset && class.is_string() && (beta.is_null() || class == beta) {
            set(&mut wanted, "storageClassName", Value::Null);
        }
    }
    if new.at("status").text("phase") == "Bound" {
        if wanted.at("resources").has("requests") {
            let size = was.at("resources").at("requests").at("storage").clone();
            wanted["resources"]["requests"]["storage"] = size;
        }
        set(&mut wanted, "volumeAttributesClassName", was.at("volumeAttributesClassName").clone());
    }
    if !same(&wanted, &was) {
        let text = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            difference::lines(&wanted, &was)
        );
        errors.push(FieldError::forbidden("spec", text));
    }
}

fn status(claim: &Value, errors: &mut Errors) {
    const STATES: &[&str] = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    if claim.at("spec").items("accessModes").is_empty() {
        errors.push(FieldError::required("Spec.accessModes", ""));
    }
    let status = At::root(claim).field("status");
    for (name, size) in status.entries("capacity") {
        basic(size, status.path.child("capacity").key(name), errors);
    }
    let states = status.path.child("allocatedResourceStatuses");
    for (name, state) in status.entries("allocatedResourceStatuses") {
        resource_key(name, &states, errors);
        if !STATES.iter().any(|known| state == known) {
            let mut sorted = STATES.to_vec();
            sorted.sort_unstable();
            errors.push(FieldError::not_supported(&states, name.as_str(), &sorted));
        }
    }
    let allocated = status.path.child("allocatedResources");
    for (name, size) in status.entries("allocatedResources") {
        if resource_key(name, &allocated, errors) && basic(size, allocated.key(name), errors) {
            let text = size.as_str().unwrap_or_default();
            quantity_value("storage", text, &allocated.key(name), errors);
        }
    }
}

/// Checks that an amount is not negative; `true` if it is not.
pub(super) fn basic(amount: &Value, path: FieldPath, errors: &mut Errors) -> bool {
    let value = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let negative = value.map(|value| value.value()).filter(|value| *value < 0);
    if let Some(value) = negative {
        errors.push(FieldError::invalid(path, value, "must be a valid resource quantity"));
    }
    negative.is_none()
}

/// Of Kubernetes' own resources, claims have storage alone.
fn resource_key(name: &str, path: &FieldPath, errors: &mut Errors) -> bool {
    let before = errors.len();
    errors.extend(
        names::is_qualified_name(name)
            .into_iter()
            .map(|text| FieldError::invalid(path, name, text)),
    );
    if errors.len() == before && is_native(name) && name != "storage" {
        errors.push(FieldError::not_supported(path, name, &["storage"]));
    }
    errors.len() == before
}
