//! The rules of built-in kinds: defaulting, preparation and validation.
//!
//! Owns one table from kind to functions. Every rule is a pure function over JSON; none knows storage, other
//! objects or the request. Metadata is the engine's business, names apart: which are allowed depends on the
//! kind. A kind that is not built in has no rules, and every function here does nothing for it.

mod admission;
mod allocation;
mod at;
mod batch;
mod certificates;
mod classes;
mod cluster;
mod conditions;
mod config;
mod csi;
mod default;
mod devices;
mod endpoints;
mod enums;
mod event;
mod fixed;
mod flow;
mod generic;
mod ingress;
mod metadata;
mod networking;
mod pem;
mod pod;
mod policies;
mod rbac;
mod registration;
mod reviews;
mod selector;
mod service;
mod storage;
mod table;
mod warn;
mod workload;

use meta::{FieldError, GroupVersionKind};
use serde_json::Value;

use crate::amounts as resources;
pub use warn::warnings;

/// The functions of a kind.
#[derive(Clone, Copy)]
struct Hooks {
    name: fn(&str, bool) -> Vec<String>,
    prepare_create: fn(&mut Value),
    validate: fn(&Value, &mut Vec<FieldError>),
    validate_update: fn(&Value, &Value, &mut Vec<FieldError>),
    validate_status: fn(&Value, &Value, &mut Vec<FieldError>),
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

/// Prepares a new object after mutating admission: aliases follow what admission set.
pub fn prepare_create(kind: &GroupVersionKind, object: &mut Value) {
    (table::hooks(kind).prepare_create)(object);
}

/// Everything wrong with a new object, in upstream's order; metadata apart.
#[must_use]
pub fn validate(kind: &GroupVersionKind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let hooks = table::hooks(kind);
    (hooks.validate)(object, &mut errors);
    if let Some(of) = table::generic(kind) {
        add_missing(&mut errors, |more| generic::validate(of, object, more));
    }
    errors
}

/// Everything wrong with an update of the main resource, the rules of new objects included; metadata apart.
#[must_use]
pub fn validate_update(kind: &GroupVersionKind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    (table::hooks(kind).validate_update)(new, old, &mut errors);
    if let Some(of) = table::generic(kind) {
        add_missing(&mut errors, |more| generic::validate(of, new, more));
        fixed::validate(kind, new, old, &mut errors);
    }
    errors
}

/// Everything wrong with a decision about a certificate request; metadata apart.
#[must_use]
pub fn validate_approval(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    certificates::validate_approval(new, old, &mut errors);
    errors
}

/// Adds what a check says of fields that nothing was said of yet.
fn add_missing(errors: &mut Vec<FieldError>, check: impl FnOnce(&mut Vec<FieldError>)) {
    let mut more = Vec::new();
    check(&mut more);
    more.retain(|new| !errors.iter().any(|old| old.path == new.path));
    errors.append(&mut more);
}

/// Everything wrong with an update of the status; metadata apart.
#[must_use]
pub fn validate_status(kind: &GroupVersionKind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    (table::hooks(kind).validate_status)(new, old, &mut errors);
    errors
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
