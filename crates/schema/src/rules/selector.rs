//! Validation of label selectors.

use meta::{Selector, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::metadata;
use crate::view::View;

/// Checks a label selector object; an absent one is fine.
pub(crate) fn label_selector(at: &At<'_>, errors: &mut Errors) {
    metadata::labels(at.entries("matchLabels"), &at.path.child("matchLabels"), errors);
    for requirement in at.each("matchExpressions") {
        let values = requirement.items("values");
        match requirement.str_of("operator") {
            "In" | "NotIn" if values.is_empty() => requirement
                .field("values")
                .required("must be specified when `operator` is 'In' or 'NotIn'", errors),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                requirement.field("values").forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    errors,
                )
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                requirement.field("operator").invalid_text("not a valid selector operator", errors)
            }
        }
        requirement.field("key").check(names::is_qualified_name, errors);
        for value in requirement.each("values") {
            value.check(names::is_label_value, errors);
        }
    }
}

/// Whether a label selector object selects by nothing at all.
pub(crate) fn is_empty(selector: &Value) -> bool {
    selector.entries("matchLabels").is_empty() && selector.items("matchExpressions").is_empty()
}

/// Whether a selector matches labels in an object.
pub(crate) fn matches(selector: &Selector, labels: &Value) -> bool {
    selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
}
