//! Whether what somebody applies is of the type it claims. Owns the texts, which users read: other than decoding,
//! applying refuses unknown fields whatever the request says of field validation.

use std::collections::BTreeSet;

use serde_json::Value;

use super::shape::{Shape, Slot, element_of};
use crate::types::{Of, Type};

/// At most this many problems are told.
const MOST: usize = 100;

/// What is wrong with an applied object, as one text.
///
/// # Errors
/// The text.
pub fn check(of: &Type, object: &Value) -> Result<(), String> {
    let mut problems = Vec::new();
    walk(Slot::whole(of), object, &mut String::new(), &mut problems);
    match &problems[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn walk(slot: Slot, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    if problems.len() >= MOST || value.is_null() {
        return;
    }
    let mut wrong = |text: String| {
        problems.push(if path.is_empty() { text } else { format!("{path}: {text}") });
    };
    match (slot.value_type(), value) {
        (Of::Any, _) => {}
        (Of::Object(_) | Of::Map(_), Value::Object(fields)) => {
            for (name, value) in fields {
                let inner = match slot.structure() {
                    Some(of) => of.field(name).map(Slot::of),
                    None => Some(slot.entry()),
                };
                within(path, &format!(".{name}"), |path| match inner {
                    Some(inner) => walk(inner, value, path, problems),
                    None => problems.push(format!("{path}: field not declared in schema")),
                });
            }
        }
        (Of::List(_), Value::Array(list)) => items(slot, list, path, problems),
        (Of::Object(_) | Of::Map(_), other) => {
            wrong(format!("expected map, got {}", pointer(other)))
        }
        (Of::List(_), other) => wrong(format!("expected list, got {}", pointer(other))),
        (Of::Int32 | Of::Int64 | Of::Double, value) if !value.is_number() => {
            wrong(format!("expected numeric (int or float), got {}", go_type(value)));
        }
        (Of::String | Of::Bytes, value) if !value.is_string() => {
            wrong(format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_value(value)
            ));
        }
        (Of::Bool, value) if !value.is_boolean() => {
            wrong(format!("expected boolean, got {}", pointer(value)));
        }
        (
            Of::Quantity | Of::IntOrString | Of::Time | Of::MicroTime,
            value @ (Value::Object(_) | Value::Array(_)),
        ) => wrong(format!("expected any scalar, got {}", pointer(value))),
        _ => {}
    }
}

fn items(slot: Slot, list: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let shape = slot.container();
    let mut seen = BTreeSet::new();
    for (at, item) in list.iter().enumerate() {
        let step = match shape {
            Shape::Items(inner, keys) => match element_of(item, inner, keys) {
                Ok(element) => {
                    let text = element.to_string();
                    if !seen.insert(element) {
                        problems.push(format!("{path}: duplicate entries for key {text}"));
                    }
                    text
                }
                Err(problem) => {
                    problems.push(format!("{path}: element {at}: {problem}"));
                    return;
                }
            },
            _ => format!("[{at}]"),
        };
        within(path, &step, |path| walk(slot.item(), item, path, problems));
    }
}

fn within(path: &mut String, step: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(step);
    then(path);
    path.truncate(length);
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As Go prints a value with its syntax.
fn go_value(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}:{}", meta::quote(name), go_value(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::String(text) => meta::quote(text),
        other => other.to_string(),
    }
}

/// As Go prints a pointer to a value.
fn pointer(value: &Value) -> String {
    fn plain(value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Object(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}:{}", plain(value))).collect();
                format!("map[{}]", fields.join(" "))
            }
            Value::String(text) => text.clone(),
            Value::Null => "<nil>".to_owned(),
            other => other.to_string(),
        }
    }
    format!("&{{{}}}", plain(value))
}
