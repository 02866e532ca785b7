//! Merging what somebody applies into an object: fields and entries one by one, lists of items in the order that
//! the applied one asks for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::element::Element;
use super::shape::{Shape, Slot, element_of, nothing_in};
use crate::types::Type;

/// The object with what is applied. Fields that it does not mention stay.
#[must_use]
pub fn merge(of: &Type, object: &Value, applied: &Value) -> Value {
    walk(Slot::whole(of), object, applied)
}

fn walk(slot: Slot, old: &Value, new: &Value) -> Value {
    match slot.shape(new) {
        _ if nothing_in(Some(old)) && nothing_in(Some(new)) => new.clone(),
        Shape::Leaf => new.clone(),
        Shape::Struct(_) | Shape::Map(_) => match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let mut merged = old.clone();
                for (name, value) in new {
                    let value = match old.get(name) {
                        Some(old) => walk(below(slot, name), old, value),
                        None => value.clone(),
                    };
                    merged.insert(name.clone(), value);
                }
                Value::Object(merged)
            }
            // Nothing is said of what is in there.
            (Value::Object(_), Value::Null) => old.clone(),
            _ => new.clone(),
        },
        Shape::Items(slot, keys) => match (old, new) {
            (Value::Array(old), Value::Array(new)) => Value::Array(lists(slot, keys, old, new)),
            (Value::Array(_), Value::Null) => old.clone(),
            _ => new.clone(),
        },
    }
}

fn below(slot: Slot, name: &str) -> Slot {
    match slot.container() {
        Shape::Struct(of) => of.field(name).map_or(Slot::ANY, Slot::of),
        Shape::Map(slot) => slot,
        _ => Slot::ANY,
    }
}

/// Merges two lists. Applied items keep their order; items that only the object has stay before the applied item
/// that they stood before, as far as the orders of both agree.
fn lists(slot: Slot, keys: &'static [&'static str], old: &[Value], new: &[Value]) -> Vec<Value> {
    let told_apart = |items: &[Value]| -> Vec<(Element, usize)> {
        let elements =
            items.iter().enumerate().map(|(at, item)| (element_of(item, slot, keys), at));
        elements.filter_map(|(element, at)| Some((element.ok()?, at))).collect()
    };
    let (olds, news) = (told_apart(old), told_apart(new));
    // Where items stand in the object; those that stand there twice cannot be merged with.
    let mut stood: BTreeMap<&Element, Option<usize>> = BTreeMap::new();
    for (element, at) in &olds {
        stood.entry(element).and_modify(|at| *at = None).or_insert(Some(*at));
    }
    let applied: BTreeSet<&Element> = news.iter().map(|(element, _)| element).collect();
    let merged_item = |element: &Element, at: usize| match stood.get(element) {
        Some(Some(stood)) => walk(slot, &old[*stood], &new[at]),
        _ => new[at].clone(),
    };
    let mut shared = news.iter().map(|(element, _)| element).filter(|e| stood.contains_key(e));
    let mut turn = shared.next();
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let (mut out, mut left, mut right) = (Vec::new(), 0, 0);
    while left < olds.len() || right < news.len() {
        if let (Some((was, _)), Some((is, at))) = (olds.get(left), news.get(right)) {
            if was == is {
                out.push(merged_item(is, *at));
                done.insert(is);
                (left, right) = (left + 1, right + 1);
                turn = shared.next();
                continue;
            }
            if applied.contains(was) && turn.is_some_and(|turn| turn != was) {
                left += 1;
                continue;
            }
        }
        if let Some((was, at)) = olds.get(left) {
            if !applied.contains(was) {
                out.push(old[*at].clone());
                left += 1;
                continue;
            }
            if done.contains(was) {
                left += 1;
            }
        }
        if let Some((is, at)) = news.get(right) {
            out.push(merged_item(is, *at));
            done.insert(is);
            right += 1;
            if turn == Some(is) {
                turn = shared.next();
            }
        }
    }
    out
}
