//! The rules of built-in kinds: defaulting, preparation and validation.
//!
//! Owns one table from kind to functions. Every rule is a pure function over JSON; none knows storage, other
//! objects or the request. Metadata is the engine's business, but for names, which depend on the kind, and
//! for labels and annotations, which specifications hold too. A kind that is not built in has no rules, and every
//! function here does nothing for it.

mod admission;
mod allocation;
mod at;
mod autoscaling;
mod batch;
mod certificates;
mod claim;
mod classes;
mod cluster;
mod conditions;
mod config;
mod csi;
mod default;
mod devices;
mod difference;
mod disruption;
mod endpoints;
mod event;
mod flow;
mod generic;
mod ingress;
mod metadata;
mod networking;
mod node;
mod pem;
mod persistent;
mod pod;
mod policies;
mod prepare;
mod quota;
mod rbac;
mod registration;
mod reviews;
mod selector;
mod service;
mod table;
mod volume;
mod warnings;
mod workload;

use meta::{FieldError, GroupVersionKind};
use serde_json::Value;

use at::Errors;
pub use metadata::{MOST_ANNOTATION_BYTES, annotations, labels};
pub use pod::{validate_ephemeral, validate_resize};

/// The functions of a kind.
#[derive(Clone, Copy)]
struct Hooks {
    name: fn(&str, bool) -> Vec<String>,
    prepare_create: fn(&mut Value),
    validate: fn(&Value, &mut Errors),
    validate_update: fn(&Value, &Value, &mut Errors),
    validate_status: fn(&Value, &Value, &mut Errors),
}

impl Hooks {
    /// Names are subdomains; nothing else is said.
    const BASE: Self = Self {
        name: metadata::subdomain,
        prepare_create: |_| {},
        validate: |_, _| {},
        validate_update: |_, _, _| {},
        validate_status: |_, _, _| {},
    };
}

/// What is wrong with a name of an object of that kind, or with a `generateName` prefix.
#[must_use]
pub fn check_name(kind: &GroupVersionKind, name: &str, prefix: bool) -> Vec<String> {
    (table::hooks(kind).name)(name, prefix)
}

/// Fills in what upstream fills in after decoding. Idempotent.
pub fn default(kind: &GroupVersionKind, object: &mut Value) {
    if let Some(of) = crate::types::by_kind(&kind.group, &kind.version, &kind.kind) {
        default::default(of, object);
    }
}

/// The status of a new object of that kind, as it is shown before anybody has filled it in.
#[must_use]
pub fn new_status(kind: &GroupVersionKind) -> Value {
    let of = crate::types::by_kind(&kind.group, &kind.version, &kind.kind);
    let status = of.and_then(|of| of.field("status")?.of.object());
    Value::Object(status.map(default::zero).unwrap_or_default())
}

/// Prepares a new object after mutating admission: aliases follow what admission set, and fields behind features
/// that are switched off go.
///
/// Returns what to warn of: what the author said in a deprecated way.
#[must_use]
pub fn prepare_create(kind: &GroupVersionKind, object: &mut Value) -> Vec<String> {
    let warnings = prepare::create(kind, object);
    (table::hooks(kind).prepare_create)(object);
    warnings
}

/// Prepares a changed object: fields behind features that are switched off go, unless the old object has them.
pub fn prepare_update(kind: &GroupVersionKind, object: &mut Value, old: &Value) {
    prepare::drop_disabled(kind, object, Some(old));
}

/// Prepares a changed status: what a client cannot know stays.
pub fn prepare_status(kind: &GroupVersionKind, object: &mut Value, old: &Value) {
    prepare::status(kind, object, old);
}

/// What to warn the author of an object of: what is deprecated, or surprising. `old` is what it was before an
/// update.
#[must_use]
pub fn warnings(kind: &GroupVersionKind, object: &Value, old: Option<&Value>) -> Vec<String> {
    warnings::of(kind, object, old)
}

/// What to warn of in an update of the status.
#[must_use]
pub fn status_warnings(kind: &GroupVersionKind, object: &Value) -> Vec<String> {
    warnings::of_status(kind, object)
}

/// Everything wrong with a new object, in upstream's order; metadata apart.
#[must_use]
pub fn validate(kind: &GroupVersionKind, object: &Value) -> Vec<FieldError> {
    gathered(|errors| match table::own(kind) {
        Some(hooks) => (hooks.validate)(object, errors),
        None => generic::validate(kind, object, errors),
    })
}

/// Everything wrong with an update of the main resource, the rules of new objects included; metadata apart.
#[must_use]
pub fn validate_update(kind: &GroupVersionKind, new: &Value, old: &Value) -> Vec<FieldError> {
    gathered(|errors| match table::own(kind) {
        Some(hooks) => (hooks.validate_update)(new, old, errors),
        None => generic::validate(kind, new, errors),
    })
}

/// Everything wrong with a decision about a certificate request; metadata apart.
#[must_use]
pub fn validate_approval(new: &Value, old: &Value) -> Vec<FieldError> {
    gathered(|errors| certificates::validate_approval(new, old, errors))
}

/// Everything wrong with an update of the status; metadata apart.
#[must_use]
pub fn validate_status(kind: &GroupVersionKind, new: &Value, old: &Value) -> Vec<FieldError> {
    gathered(|errors| (table::hooks(kind).validate_status)(new, old, errors))
}

/// What a check finds.
fn gathered(check: impl FnOnce(&mut Errors)) -> Vec<FieldError> {
    let mut errors = Errors::new();
    check(&mut errors);
    errors.into()
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
