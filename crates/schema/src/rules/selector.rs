//! Validation of label selectors.

use meta::{Selector, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::metadata;
use crate::view::View;

/// What is let pass in selectors.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lenient {
    /// Values that are no label values: the object had such before.
    pub(crate) values: bool,
    /// Operators that nobody knows yet.
    pub(crate) operators: bool,
}

impl Lenient {
    /// Lets values be what they are if `any` is set.
    pub(crate) fn values(any: bool) -> Self {
        Self { values: any, operators: false }
    }
}

/// Checks a label selector object; an absent one is fine.
pub(crate) fn label_selector(at: &At<'_>, errors: &mut Errors) {
    label_selector_with(at, Lenient::default(), errors);
}

/// Checks a label selector object less strictly.
pub(crate) fn label_selector_with(at: &At<'_>, lenient: Lenient, errors: &mut Errors) {
    metadata::labels(at.entries("matchLabels"), &at.path.child("matchLabels"), errors);
    for requirement in at.each("matchExpressions") {
        self::requirement(&requirement, lenient, errors);
    }
}

/// Whether anything is wrong with a selector: updates then tolerate values that are.
pub(crate) fn is_invalid(selector: &Value) -> bool {
    let mut errors = Errors::new();
    label_selector(&At::root(selector), &mut errors);
    !errors.is_empty()
}

/// Checks one requirement of a label selector.
pub(crate) fn requirement(at: &At<'_>, lenient: Lenient, errors: &mut Errors) {
    operator(at, lenient, errors);
    at.field("key").check(names::is_qualified_name, errors);
    if !lenient.values {
        for value in at.each("values") {
            value.check(names::is_label_value, errors);
        }
    }
}

/// Checks that a requirement has the values which its operator needs.
pub(crate) fn operator(at: &At<'_>, lenient: Lenient, errors: &mut Errors) {
    let (values, none) = (at.field("values"), at.items("values").is_empty());
    match at.str_of("operator") {
        "In" | "NotIn" if none => {
            values.required("must be specified when `operator` is 'In' or 'NotIn'", errors);
        }
        "Exists" | "DoesNotExist" if !none => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            values.forbidden(text, errors);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ if lenient.operators => {}
        _ => at.field("operator").invalid_text("not a valid selector operator", errors),
    }
}

/// Whether an expression of a label selector holds a value that is none of a label.
pub(crate) fn has_bad_value(selector: &Value) -> bool {
    let mut values = selector.items("matchExpressions").iter().flat_map(|e| e.items("values"));
    values.any(|v| !names::is_label_value(v.as_str().unwrap_or_default()).is_empty())
}

/// Whether a label selector object selects by nothing at all.
pub(crate) fn is_empty(selector: &Value) -> bool {
    selector.entries("matchLabels").is_empty() && selector.items("matchExpressions").is_empty()
}

/// Whether a selector matches labels in an object.
pub(crate) fn matches(selector: &Selector, labels: &Value) -> bool {
    selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
}
