//! Defaulting: what upstream fills in right after decoding, by type and from the outside in.
//!
//! Owns the walk over the type graph; the files below say what each type gets. An empty string or a zero in a
//! field that Go does not tell from an absent one counts as absent.

mod core;
mod others;
mod pod;
mod workloads;

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::types::{self, Of, Type};

/// Fills in one object of a type; what is inside its fields comes later.
pub(super) type Fill = fn(&mut Map<String, Value>);

/// What the walk does at a type.
#[derive(Default)]
struct Step {
    fill: Option<Fill>,
    /// Defaults that the fact table states.
    stated: Vec<(&'static str, Value)>,
    /// Whether anything at or below this type has defaults.
    reached: bool,
    /// Fields that are there even if nobody names them, and have defaults in them.
    always: Vec<(&'static str, &'static Type)>,
}

static STEPS: LazyLock<Vec<Step>> = LazyLock::new(steps);

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = types::all().iter().map(step).collect();
    loop {
        let mut changed = false;
        for of in types::all() {
            let at = usize::from(of.id);
            let below = || of.fields.iter().filter_map(|field| field.of.object());
            if !steps[at].reached && below().any(|inner| steps[usize::from(inner.id)].reached) {
                steps[at].reached = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for of in types::all() {
        let structs = of.fields.iter().filter(|field| field.default == Some("{}"));
        let inner = structs.filter_map(|field| Some((field.name, field.of.object()?)));
        steps[usize::from(of.id)].always =
            inner.filter(|(_, inner)| steps[usize::from(inner.id)].reached).collect();
    }
    steps
}

fn step(of: &Type) -> Step {
    let fill = pod::of(of.name)
        .or_else(|| core::of(of.name))
        .or_else(|| workloads::of(of.name))
        .or_else(|| others::of(of.name));
    let stated: Vec<(&'static str, Value)> = of
        .fields
        .iter()
        .filter_map(|field| Some((field.name, serde_json::from_str(field.default?).ok()?)))
        .filter(|(_, value): &(_, Value)| {
            !matches!(value, Value::Object(_) | Value::Bool(false)) && value != "" && *value != 0
        })
        .collect();
    let reached = fill.is_some() || !stated.is_empty();
    Step { fill, stated, reached, always: Vec::new() }
}

/// Defaults an object of a built-in type in place.
pub(super) fn default(of: &Type, value: &mut Value) {
    let step = &STEPS[usize::from(of.id)];
    let Value::Object(object) = value else { return };
    if !step.reached {
        return;
    }
    if let Some(fill) = step.fill {
        fill(object);
    }
    for (name, value) in &step.stated {
        fill_in(object, name, value.clone());
    }
    for (name, inner) in &step.always {
        if !object.contains_key(*name) {
            let mut value = Value::Object(Map::new());
            default(inner, &mut value);
            if value.as_object().is_some_and(|filled| !filled.is_empty()) {
                object.insert((*name).to_owned(), value);
            }
        }
    }
    for field in of.fields {
        if field.of.object().is_some_and(|inner| STEPS[usize::from(inner.id)].reached)
            && let Some(value) = object.get_mut(field.name)
        {
            walk(&field.of, value);
        }
    }
}

/// An object in which nobody has said anything, with what is shown even then.
pub(super) fn zero(of: &Type) -> Map<String, Value> {
    let shown = |field: &types::Field| {
        let value = match (field.default?, field.of.object()) {
            ("{}", Some(inner)) => Value::Object(zero(inner)),
            (text @ ("0" | "false" | "\"\""), None) => serde_json::from_str(text).ok()?,
            _ => return None,
        };
        Some((field.name.to_owned(), value))
    };
    of.fields.iter().filter_map(shown).collect()
}

fn walk(of: &Of, value: &mut Value) {
    match (of, value) {
        (Of::Object(id), value) => default(types::by_id(*id), value),
        (Of::List(of), Value::Array(items)) => items.iter_mut().for_each(|item| walk(of, item)),
        (Of::Map(of), Value::Object(entries)) => {
            entries.values_mut().for_each(|value| walk(of, value))
        }
        _ => {}
    }
}

/// Sets a field that is absent, null or empty text.
pub(super) fn fill_in(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if object.get(key).is_none_or(|old| old.is_null() || old == "") {
        object.insert(key.to_owned(), value.into());
    }
}

/// Sets a field that is absent or null: Go tells it from an empty one.
pub(super) fn fill_nil(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if object.get(key).is_none_or(Value::is_null) {
        object.insert(key.to_owned(), value.into());
    }
}

/// Sets a field that is absent, null or zero.
pub(super) fn fill_zero(object: &mut Map<String, Value>, key: &str, value: i64) {
    if object.get(key).is_none_or(|old| old.is_null() || *old == 0) {
        object.insert(key.to_owned(), value.into());
    }
}

/// The object in a field, made if it is not there.
pub(super) fn object_in<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let value = object.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// Makes the object in a field if it is not there: a struct that Go cannot leave out.
pub(super) fn make(object: &mut Map<String, Value>, key: &str) {
    object_in(object, key);
}

#[cfg(test)]
mod tests;
