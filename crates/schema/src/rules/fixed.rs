//! Fields of kinds without rules of their own that may not change once the object is there.

use meta::{FieldPath, GroupVersionKind};
use serde_json::Value;

use super::at::Errors;
use super::metadata::immutable;
use crate::view::View;

/// Paths of the fields of a kind that stay.
fn of(kind: &GroupVersionKind) -> &'static [&'static str] {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("apps", "ControllerRevision") => &["data"],
        ("batch", "Job") => &[
            "spec.selector",
            "spec.completionMode",
            "spec.podFailurePolicy",
            "spec.backoffLimitPerIndex",
            "spec.managedBy",
            "spec.successPolicy",
        ],
        _ => &[],
    }
}

/// Refuses changes of those fields.
pub(super) fn validate(kind: &GroupVersionKind, new: &Value, old: &Value, errors: &mut Errors) {
    for path in of(kind) {
        let mut at = (new, old, FieldPath::root());
        for part in path.split('.') {
            at = (at.0.at(part), at.1.at(part), at.2.child(part));
        }
        immutable(at.0, at.1, &at.2, errors);
    }
}
