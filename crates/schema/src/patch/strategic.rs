//! Strategic merge patch: a merge patch that knows which lists are maps and which are sets.
//!
//! Directives: `$patch` (replace, delete, merge), `$retainKeys`, `$deleteFromPrimitiveList/…`,
//! `$setElementOrder/…` (Kubernetes' sig-api-machinery document on strategic merge patch).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::PatchError;
use super::lists::{self, merge_lists};
use crate::types::{Of, Patch, Type};

pub(super) const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// How a field without facts is patched.
const PLAIN: Patch = Patch { merge: false, replace: false, retain_keys: false, key: None };

/// Applies a strategic merge patch to an object of a built-in type.
///
/// # Errors
/// When a directive is malformed, or a list item lacks the merge key; `object` is then partly patched.
pub fn strategic_merge_patch(
    of: &Type,
    object: &mut Value,
    patch: Value,
) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed(
            "invalid strategic merge patch: the patch is no object".to_owned(),
        ));
    };
    let target = match object {
        Value::Object(target) => std::mem::take(target),
        _ => Map::new(),
    };
    *object = Value::Object(merge_objects(target, patch, &Of::Object(of.id))?);
    Ok(())
}

/// Merges one object; `of` is the type of the object itself.
pub(super) fn merge_objects(
    mut target: Map<String, Value>,
    mut patch: Map<String, Value>,
    of: &Of,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            Some("merge") => merge_objects(target, patch, of),
            _ => Err(PatchError::Failed(format!("unknown patch type found: {directive}"))),
        };
    }
    retain_keys(&mut target, &mut patch)?;
    set_orders(&mut target, &mut patch, of)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            lists::delete_values(&mut target, list, &value)?;
            continue;
        }
        if value.is_null() {
            target.remove(&key);
            continue;
        }
        let (inner, strategy) = field_of(of, &key);
        let merged = match (target.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !strategy.replace => {
                Some(Value::Object(merge_objects(old, new, &inner)?))
            }
            (Some(Value::Array(old)), Value::Array(new)) if strategy.merge => {
                Some(Value::Array(merge_lists(old, new, &item_of(&inner), strategy.key)?.items))
            }
            (_, value) => plain(value),
        };
        if let Some(merged) = merged {
            target.insert(key, merged);
        }
    }
    Ok(target)
}

/// The type and strategy of an object's field or a map's entry.
fn field_of(of: &Of, key: &str) -> (Of, Patch) {
    match of {
        Of::Object(id) => match crate::types::by_id(*id).field(key) {
            Some(field) => (field.of, field.patch),
            None => (Of::Any, PLAIN),
        },
        Of::Map(values) => (**values, PLAIN),
        _ => (Of::Any, PLAIN),
    }
}

fn item_of(of: &Of) -> Of {
    match of {
        Of::List(items) => **items,
        _ => Of::Any,
    }
}

/// `$retainKeys`: everything else goes from the target.
fn retain_keys(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let keys: HashSet<&str> = directive
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|key| key.as_str().ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    let known = |key: &str| keys.contains(key);
    if patch.iter().any(|(key, value)| !value.is_null() && !key.starts_with('$') && !known(key)) {
        return Err(malformed());
    }
    target.retain(|key, _| known(key));
    Ok(())
}

/// `$setElementOrder/list`: merges the list here and arranges it.
fn set_orders(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    of: &Of,
) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(PatchError::Malformed(
                "invalid patch format of setElementOrder list".to_owned(),
            ));
        };
        let name = directive[SET_ORDER.len()..].to_owned();
        let (inner, strategy) = field_of(of, &name);
        let new = match patch.get(&name) {
            Some(Value::Array(_)) => match patch.remove(&name) {
                Some(Value::Array(new)) => Some(new),
                _ => None,
            },
            // Null removes the list; the order is then of no interest.
            Some(_) => continue,
            None => None,
        };
        if let Some(new) = &new {
            lists::check_order(new, &order, strategy.key)?;
        }
        let old = match target.get(&name) {
            Some(Value::Array(old)) => Some(old.clone()),
            _ => None,
        };
        let (merged, before) = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => (old.clone(), old),
            (None, Some(new)) => match plain(Value::Array(new)) {
                Some(Value::Array(new)) => (new, Vec::new()),
                _ => continue,
            },
            (Some(old), Some(new)) if strategy.merge => {
                let merged = merge_lists(old, new, &item_of(&inner), strategy.key)?;
                (merged.items, merged.before)
            }
            (Some(old), Some(new)) => (new, old),
        };
        let arranged = lists::arrange(merged, &order, &before, strategy.key);
        target.insert(name, Value::Array(arranged));
    }
    Ok(())
}

/// A patch's value where the target has nothing to merge with: without directives and nulls.
pub(super) fn plain(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(mut object) => {
            if object.get(PATCH).is_some_and(|directive| directive == "delete") {
                return None;
            }
            object.retain(|key, value| !directive(key) && !value.is_null());
            let kept = object.into_iter().filter_map(|(key, value)| Some((key, plain(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => {
            let alone =
                |item: &Value| item.get(PATCH).is_some_and(|directive| directive == "replace");
            Some(Value::Array(
                items.into_iter().filter(|item| !alone(item)).filter_map(plain).collect(),
            ))
        }
        other => Some(other),
    }
}

fn directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

#[cfg(test)]
mod tests;
