//! Lists in strategic merge patches: merging by key or as a set, and the order of the outcome.

use serde_json::{Map, Value};

use super::PatchError;
use super::strategic::{PATCH, merge_objects, plain};
use crate::types::Of;

/// A merged list.
pub(super) struct Merged {
    pub(super) items: Vec<Value>,
    /// Where items of the target stood, by which those that a patch does not mention are placed.
    pub(super) before: Vec<Value>,
}

/// Merges two lists: objects by `key`, other values as a set.
pub(super) fn merge_lists(
    mut old: Vec<Value>,
    new: Vec<Value>,
    of: &Of,
    key: Option<&str>,
) -> Result<Merged, PatchError> {
    let objects = old.iter().chain(&new).filter(|item| item.is_object()).count();
    if objects == 0 {
        return Ok(Merged { items: merge_sets(&old, new), before: old });
    }
    if objects != old.len() + new.len() {
        return Err(PatchError::Failed("list element types are not identical".to_owned()));
    }
    let Some(key) = key else {
        let name = of.object().map_or("list", |of| of.short_name());
        return Err(PatchError::Failed(format!(
            "cannot merge lists without merge key for type {name}"
        )));
    };
    let stood = old.len();
    let (before, patch) = directives(&mut old, new, key)?;
    let mut merged = before.clone();
    for item in &patch {
        let Value::Object(item) = item else { continue };
        let value = key_of(item, key)?;
        let at = merged
            .iter()
            .position(|candidate| candidate.get(key).is_some_and(|other| same(other, value)));
        match at {
            Some(at) => {
                if let Value::Object(target) = merged[at].take() {
                    merged[at] = Value::Object(merge_objects(target, item.clone(), of)?);
                }
            }
            None => merged.extend(plain(Value::Object(item.clone()))),
        }
    }
    // As upstream does it, new items take the places of deleted ones.
    let places = merged[..merged.len().min(stood)].to_vec();
    Ok(Merged { items: arrange(merged, &patch, &before, Some(key)), before: places })
}

/// Carries out the `$patch` directives among list items; yields the target's items and the patch's others.
fn directives(
    old: &mut Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(new.len());
    let mut replace = false;
    for item in new {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default().to_owned()) {
            None => rest.push(item),
            Some(directive) if directive == "delete" => {
                let Value::Object(item) = &item else { continue };
                let value = key_of(item, key)?;
                old.retain(|candidate| !candidate.get(key).is_some_and(|other| same(other, value)));
            }
            Some(directive) if directive == "replace" => replace = true,
            Some(directive) if directive == "merge" => {
                return Err(PatchError::Failed(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(directive) => {
                return Err(PatchError::Failed(format!("unknown patch type found: {directive}")));
            }
        }
    }
    if replace {
        let rest = rest.into_iter().filter_map(plain).collect();
        return Ok((rest, Vec::new()));
    }
    Ok((std::mem::take(old), rest))
}

fn key_of<'a>(item: &'a Map<String, Value>, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| {
        let item = Value::Object(item.clone());
        PatchError::Failed(format!("map: {item} does not contain declared merge key: {key}"))
    })
}

/// Merge keys are compared as text, so that `80` in a patch finds `80` whatever its type.
fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && other.is_number() && *one == *other)
}

fn merge_sets(old: &[Value], new: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
    for item in old.iter().chain(&new) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, &new, old, None)
}

/// `$deleteFromPrimitiveList/list`: removes values from a list of scalars.
pub(super) fn delete_values(
    target: &mut Map<String, Value>,
    list: &str,
    values: &Value,
) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return Err(PatchError::Malformed("invalid patch format of primitive list".to_owned()));
    };
    if let Some(Value::Array(items)) = target.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// Whether two items stand for the same element.
fn matches(one: &Value, other: &Value, key: Option<&str>) -> bool {
    match key {
        None => one == other,
        Some(key) => match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => same(one, other),
            _ => false,
        },
    }
}

fn index(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|candidate| matches(candidate, item, key))
}

/// Puts a merged list in order: items in `order` as there, the others as they stood `before`, interleaved by
/// where both stood.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(order, item, key).is_some());
    patched.sort_by_key(|item| index(order, item, key));
    others.sort_by_key(|item| index(before, item, key));
    let mut arranged = Vec::with_capacity(patched.len() + others.len());
    let mut patched = patched.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    while let (Some(other), Some(patch)) = (others.peek(), patched.peek()) {
        let first = match (index(before, other, key), index(before, patch, key)) {
            (Some(other), Some(patch)) => other < patch,
            _ => false,
        };
        arranged.extend(if first { others.next() } else { patched.next() });
    }
    arranged.extend(patched);
    arranged.extend(others);
    arranged
}

/// Refuses a patch list whose items are not in the order that `$setElementOrder` gives.
pub(super) fn check_order(
    patch: &[Value],
    order: &[Value],
    key: Option<&str>,
) -> Result<(), PatchError> {
    let mut from = 0;
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        match order[from..].iter().position(|candidate| matches(candidate, item, key)) {
            Some(at) => from += at + 1,
            None => {
                let (patch, order) = (Value::Array(patch.to_vec()), Value::Array(order.to_vec()));
                return Err(PatchError::Malformed(format!(
                    "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            }
        }
    }
    Ok(())
}
