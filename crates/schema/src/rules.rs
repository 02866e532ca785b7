//! The rules of built-in kinds: defaulting, preparation and validation.
//!
//! Owns one table from kind to [`Rules`]. Every rule is a pure function over JSON; none knows storage, other
//! objects or the request.

use meta::FieldError;
use serde_json::Value;

/// What a kind adds to the generic treatment of objects.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Names that are allowed; the flag says the name is a `generateName` prefix.
    pub(crate) name: fn(&str, bool) -> Vec<String>,
    /// Fills in what upstream fills in after decoding.
    pub(crate) default: fn(&mut Value),
    /// Called on a new object before it is validated: wipes what clients may not set.
    pub(crate) prepare_create: fn(&mut Value),
    /// Called on an updated object before it is validated: keeps what clients may not change.
    pub(crate) prepare_update: fn(&mut Value, &Value),
    /// Everything wrong with an object, its metadata apart.
    pub(crate) validate: fn(&Value) -> Vec<FieldError>,
    /// Everything wrong with a change of an object beyond what `validate` says, its metadata apart.
    pub(crate) validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    /// Everything wrong with a change of an object's status.
    pub(crate) validate_status: fn(&Value, &Value) -> Vec<FieldError>,
}
