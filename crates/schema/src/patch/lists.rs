//! Lists in strategic merge patches: merging by key or as a set, and the order of the outcome.

use std::collections::{HashMap, HashSet};

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
    let mut places = Positions::of(&before, Some(key));
    for patched in &patch {
        let Value::Object(item) = patched else { continue };
        key_of(item, key)?;
        match places.get(patched) {
            Some(at) => {
                if let Value::Object(target) = merged[at].take() {
                    merged[at] = Value::Object(merge_objects(target, item.clone(), of)?);
                }
            }
            None => {
                if let Some(plain) = plain(Value::Object(item.clone())) {
                    places.add(patched, merged.len());
                    merged.push(plain);
                }
            }
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
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in new {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default().to_owned()) {
            None => rest.push(item),
            Some(directive) if directive == "delete" => {
                let Value::Object(item) = &item else { continue };
                deleted.insert(key_of(item, key)?.clone());
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
    if !deleted.is_empty() {
        old.retain(|candidate| !candidate.get(key).is_some_and(|value| deleted.contains(value)));
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

fn merge_sets(old: &[Value], new: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::with_capacity(old.len() + new.len());
    let merged = old.iter().chain(&new).filter(|item| seen.insert(*item)).cloned().collect();
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
        let values: HashSet<&Value> = values.iter().collect();
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// What tells the items of a list apart: the value of `key`, or the item itself.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        None => Some(item),
        Some(key) => item.get(key),
    }
}

/// Where the items of a list stand. Lists come from clients: searching them over and over would take forever.
struct Positions<'a> {
    key: Option<&'a str>,
    positions: HashMap<&'a Value, usize>,
}

impl<'a> Positions<'a> {
    fn of(list: &'a [Value], key: Option<&'a str>) -> Self {
        let mut places = Self { key, positions: HashMap::with_capacity(list.len()) };
        for (at, item) in list.iter().enumerate() {
            places.add(item, at);
        }
        places
    }

    /// The first of equal items counts.
    fn add(&mut self, item: &'a Value, at: usize) {
        if let Some(identity) = identity(item, self.key) {
            self.positions.entry(identity).or_insert(at);
        }
    }

    fn get(&self, item: &Value) -> Option<usize> {
        identity(item, self.key).and_then(|identity| self.positions.get(identity)).copied()
    }
}

/// Puts a merged list in order: items in `order` as there, the others as they stood `before`, interleaved by
/// where both stood.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (order, before) = (Positions::of(order, key), Positions::of(before, key));
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| order.get(item).is_some());
    patched.sort_by_cached_key(|item| order.get(item));
    others.sort_by_cached_key(|item| before.get(item));
    let mut arranged = Vec::with_capacity(patched.len() + others.len());
    let mut patched = patched.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    while let (Some(other), Some(patch)) = (others.peek(), patched.peek()) {
        let first = match (before.get(other), before.get(patch)) {
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
        match order[from..]
            .iter()
            .position(|candidate| identity(candidate, key) == identity(item, key))
        {
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
