//! What differs between two objects, as text for people.

use meta::FieldPath;
use serde_json::Value;

use crate::view::{View, same};

/// The fields that differ, one a line: as they were, and as they would be.
pub(super) fn lines(new: &Value, old: &Value) -> String {
    let mut lines = String::new();
    compare(&FieldPath::root(), new, old, &mut lines);
    lines
}

fn compare(path: &FieldPath, new: &Value, old: &Value, lines: &mut String) {
    match (new, old) {
        _ if same(new, old) => {}
        (Value::Object(after), Value::Object(before)) => {
            for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
                compare(&path.child(key), after.at(key), before.at(key), lines);
            }
        }
        (Value::Array(after), Value::Array(before)) if after.len() == before.len() => {
            for (index, (after, before)) in after.iter().zip(before).enumerate() {
                compare(&path.index(index), after, before, lines);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    lines.push_str(&format!("{sign} {path}: {value}\n"));
                }
            }
        }
    }
}
