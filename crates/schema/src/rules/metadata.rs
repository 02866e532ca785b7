//! The checks of names that kinds choose from, and of labels and annotations inside specs.

use meta::{FieldError, FieldPath, names};
use serde_json::{Map, Value};

use super::at::Errors;
use crate::view::same;

/// How many bytes the keys and values of all annotations may have together.
pub const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// What upstream says of a field that must not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Names that are DNS subdomains: most kinds.
pub(crate) fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    names::is_dns1123_subdomain(&unmask(name, prefix))
}

/// Names that are DNS labels.
pub(crate) fn label(name: &str, prefix: bool) -> Vec<String> {
    names::is_dns1123_label(&unmask(name, prefix))
}

/// Names that are one segment of a URL path.
pub(crate) fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    // A prefix may be a dot or two: more follows.
    if prefix && matches!(name, "." | "..") { Vec::new() } else { names::is_path_segment(name) }
}

fn unmask(name: &str, prefix: bool) -> String {
    if prefix { names::mask_trailing_dash(name) } else { name.to_owned() }
}

/// Refuses a change of a field that must stay.
pub(crate) fn immutable(new: &Value, old: &Value, path: impl Into<String>, errors: &mut Errors) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new.clone(), IMMUTABLE));
    }
}

/// Checks labels, or anything that must look like labels.
pub fn labels(labels: &Map<String, Value>, path: &FieldPath, errors: &mut Errors) {
    for (key, value) in labels {
        errors.extend(
            names::is_qualified_name(key)
                .into_iter()
                .map(|text| FieldError::invalid(path, key.as_str(), text)),
        );
        let value = value.as_str().unwrap_or_default();
        errors.extend(
            names::is_label_value(value)
                .into_iter()
                .map(|text| FieldError::invalid(path, value, text)),
        );
    }
}

/// Checks annotations; their keys may be in upper case.
pub fn annotations(annotations: &Map<String, Value>, path: &FieldPath, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations {
        let problems = names::is_qualified_name(&key.to_lowercase());
        errors
            .extend(problems.into_iter().map(|text| FieldError::invalid(path, key.as_str(), text)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MOST_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(path, MOST_ANNOTATION_BYTES));
    }
}
