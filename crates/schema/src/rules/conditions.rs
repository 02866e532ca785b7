//! Rules of `metav1.Condition`, the conditions that newer kinds share.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors};
use crate::view::View;

const STATUSES: &[&str] = &["False", "True", "Unknown"];
const LONGEST_REASON: usize = 1 << 10;
const LONGEST_MESSAGE: usize = 32 << 10;

/// Checks the conditions in a field.
pub(super) fn conditions(status: &At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for condition in status.each("conditions") {
        let kind = condition.field("type");
        if !known.insert(kind.str()) {
            errors.push(FieldError::duplicate(&kind.path, kind.str()));
        }
        self::condition(&condition, errors);
    }
}

fn condition(condition: &At<'_>, errors: &mut Errors) {
    condition.field("type").check(names::is_qualified_name, errors);
    let status = condition.field("status");
    if !STATUSES.contains(&status.str()) {
        status.unsupported(STATUSES, errors);
    }
    let generation = condition.field("observedGeneration");
    if generation.number() < 0 {
        generation.invalid("must be greater than or equal to zero", errors);
    }
    let time = condition.field("lastTransitionTime");
    if time.str().is_empty() {
        time.required("", errors);
    }
    let reason = condition.field("reason");
    reason.required_name(check_reason, errors);
    reason.no_longer(LONGEST_REASON, errors);
    condition.field("message").no_longer(LONGEST_MESSAGE, errors);
}

fn check_reason(text: &str) -> Vec<String> {
    const FORMAT: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    const PROBLEM: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let fine = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|last| word(*last))
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b',' | b':'));
    if fine {
        return Vec::new();
    }
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![names::regex_error(PROBLEM, FORMAT, &examples)]
}

/// Whether a condition of that type has that status.
pub(super) fn is(status: &Value, kind: &str, wanted: &str) -> bool {
    let mut all = status.items("conditions").iter();
    all.any(|condition| condition.text("type") == kind && condition.text("status") == wanted)
}
