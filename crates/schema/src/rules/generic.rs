//! Validation from the type graph alone, for kinds without rules of their own.

use meta::{FieldError, FieldPath};
use serde_json::Value;

use crate::types::{self, Of, Type};

/// Reports required text that is absent in everything but metadata and status.
///
/// Go does not tell absent objects, lists and numbers from empty ones, so upstream cannot require those here.
pub(super) fn required(of: &Type, object: &Value, errors: &mut Vec<FieldError>) {
    for field in of.fields {
        if matches!(field.name, "metadata" | "status") {
            continue;
        }
        check(field, object, &FieldPath::root(), errors);
    }
}

fn check(field: &types::Field, object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child(field.name);
    match object.get(field.name) {
        Some(value) => walk(&field.of, value, &path, errors),
        None if field.required && matches!(field.of, Of::String) => {
            errors.push(FieldError::required(&path, ""))
        }
        None => {}
    }
}

fn walk(of: &Of, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (of, value) {
        (Of::Object(id), Value::Object(_)) => {
            for field in types::by_id(*id).fields.iter().filter(|field| field.name != "metadata") {
                check(field, value, path, errors);
            }
        }
        (Of::List(of), Value::Array(items)) if of.object().is_some() => {
            for (index, item) in items.iter().enumerate() {
                walk(of, item, &path.index(index), errors);
            }
        }
        (Of::Map(of), Value::Object(entries)) if of.object().is_some() => {
            for (key, value) in entries {
                walk(of, value, &path.key(key), errors);
            }
        }
        _ => {}
    }
}
