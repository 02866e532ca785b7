//! The rules of built-in kinds: defaulting, preparation and validation.
//!
//! Owns one table from kind to [`Rules`]. Every rule is a pure function over JSON; none knows storage, other
//! objects or the request.

mod default;
mod generic;
pub mod metadata;
mod resources;
mod table;
pub(crate) mod view;

use meta::{FieldError, FieldPath};
use serde_json::Value;

use crate::types::Type;

pub use table::of;

/// Checks a name; the flag says that it is a `generateName` prefix. Returns what is wrong.
pub type NameCheck = fn(&str, bool) -> Vec<String>;

/// What a kind adds to the generic treatment of objects.
pub struct Rules {
    /// Group, version and kind.
    pub kind: (&'static str, &'static str, &'static str),
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    of: &'static Type,
    hooks: Hooks,
}

/// The functions of a kind; the defaults do nothing beyond the generic rules.
#[derive(Clone, Copy)]
struct Hooks {
    name: NameCheck,
    prepare_create: fn(&mut Value),
    prepare_update: fn(&mut Value, &Value),
    validate: fn(&Value, &mut Vec<FieldError>),
    validate_update: fn(&Value, &Value, &mut Vec<FieldError>),
    validate_status: fn(&Value, &Value, &mut Vec<FieldError>),
}

impl Rules {
    /// Fills in what upstream fills in after decoding. Idempotent.
    pub fn default(&self, object: &mut Value) {
        default::default(self.of, object);
    }

    /// Prepares a new object after mutating admission: initial status, what clients may not set.
    pub fn prepare_create(&self, object: &mut Value) {
        (self.hooks.prepare_create)(object);
    }

    /// Prepares an updated object: what clients may not change stays as it was.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        (self.hooks.prepare_update)(new, old);
    }

    /// Everything wrong with a new object. Its name must have been generated already.
    #[must_use]
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("metadata");
        metadata::validate(
            &object["metadata"],
            self.namespaced,
            self.hooks.name,
            &path,
            &mut errors,
        );
        generic::required(self.of, object, &mut errors);
        (self.hooks.validate)(object, &mut errors);
        errors
    }

    /// Everything wrong with an update of the main resource, the rules of new objects included.
    #[must_use]
    pub fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("metadata");
        metadata::validate_update(&new["metadata"], &old["metadata"], &path, &mut errors);
        (self.hooks.validate_update)(new, old, &mut errors);
        errors
    }

    /// Everything wrong with an update of the status.
    #[must_use]
    pub fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("metadata");
        metadata::validate_update(&new["metadata"], &old["metadata"], &path, &mut errors);
        (self.hooks.validate_status)(new, old, &mut errors);
        errors
    }
}
