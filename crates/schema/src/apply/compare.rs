//! What differs between two objects, as sets of fields.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::element::{Element, order};
use super::set::{Mark, Set};
use super::shape::{Shape, Slot, field_of, index, nothing_in};
use crate::types::Type;

/// The fields by which two objects differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Fields that are new or have another value.
    pub changed: Set,
    /// Fields that are gone.
    pub removed: Set,
}

impl Diff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Compares two objects of a type.
#[must_use]
pub fn compare(of: &Type, old: &Value, new: &Value) -> Diff {
    let marks = walk(Slot::whole(of), Some(old), Some(new));
    Diff { changed: marks.changed.below, removed: marks.removed.below }
}

/// The same for one value.
#[derive(Default)]
struct Marks {
    changed: Mark,
    removed: Mark,
}

impl Marks {
    fn put(&mut self, element: impl Fn() -> Element, below: Self) {
        self.changed.below.put_if(&element, below.changed);
        self.removed.below.put_if(&element, below.removed);
    }
}

impl Set {
    fn put_if(&mut self, element: &impl Fn() -> Element, mark: Mark) {
        if mark.member || !mark.below.is_empty() {
            self.put(element(), mark);
        }
    }
}

fn walk(slot: Slot, old: Option<&Value>, new: Option<&Value>) -> Marks {
    let Some(given) = new.filter(|new| !new.is_null()).or(old).or(new) else {
        return Marks::default();
    };
    if old == new {
        return Marks::default();
    }
    let shape = slot.shape(given);
    let mut marks = match shape {
        Shape::Leaf => {
            let mut marks = leaf(old, new);
            // Arbitrary JSON may have been a map before.
            if let Some(old) = old.filter(|old| !matches!(slot.shape(old), Shape::Leaf)) {
                marks.removed.below = walk(slot, Some(old), None).removed.below;
            }
            return marks;
        }
        _ if nothing_in(old) && nothing_in(new) => return leaf(old, new),
        Shape::Struct(of) => fields(of, entries(old), entries(new)),
        Shape::Map(inner) => map(inner, entries(old), entries(new)),
        Shape::Items(inner, keys) => items(inner, keys, old, new),
    };
    marks.changed.member |= old.is_none();
    marks.removed.member |= new.is_none();
    // A scalar where there is a map now.
    marks.changed.member |= old.is_some_and(|old| !nothing_in(Some(old)) && !alike(old, given));
    marks
}

fn alike(one: &Value, other: &Value) -> bool {
    one.is_object() == other.is_object() && one.is_array() == other.is_array()
}

/// The fields of an object; none if it is null or not there.
fn entries(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Marks {
    let mut marks = Marks::default();
    match (old, new) {
        (Some(_), None) => marks.removed.member = true,
        (None, Some(_)) => marks.changed.member = true,
        (Some(old), Some(new)) => marks.changed.member = order(old, new).is_ne(),
        (None, None) => {}
    }
    marks
}

fn fields(
    of: &'static Type,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
) -> Marks {
    let mut marks = Marks::default();
    for field in of.fields {
        let below = walk(Slot::of(field), field_of(old, field), field_of(new, field));
        marks.put(|| Element::Field(field.name.into()), below);
    }
    marks
}

fn map(slot: Slot, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) -> Marks {
    let names: BTreeSet<&String> = [old, new].into_iter().flatten().flat_map(Map::keys).collect();
    let mut marks = Marks::default();
    for name in names {
        let (old, new) = (old.and_then(|map| map.get(name)), new.and_then(|map| map.get(name)));
        marks.put(|| Element::Field(name.clone().into()), walk(slot, old, new));
    }
    marks
}

fn items(
    slot: Slot,
    keys: &'static [&'static str],
    old: Option<&Value>,
    new: Option<&Value>,
) -> Marks {
    let (old, new) = (index(old, slot, keys), index(new, slot, keys));
    let (mut olds, mut news) = (&old[..], &new[..]);
    let mut marks = Marks::default();
    while let Some(first) = olds.first().into_iter().chain(news.first()).map(|(e, _)| e).min() {
        let (was, is) = (take(&mut olds, first), take(&mut news, first));
        let below = match (was, is) {
            ([] | [_], [] | [_]) => walk(slot, was.first().map(|i| i.1), is.first().map(|i| i.1)),
            // What stands there more than once is owned as one.
            ([_, _, ..], [_, _, ..]) => {
                let same = was.len() == is.len() && was.iter().zip(is).all(|(a, b)| a.1 == b.1);
                let mut marks = Marks::default();
                marks.changed.member = !same;
                marks
            }
            ([_, _, ..], _) => {
                let mut marks = walk(slot, None, is.first().map(|item| item.1));
                marks.removed.member = true;
                marks
            }
            (_, _) => {
                let mut marks = walk(slot, was.first().map(|item| item.1), None);
                marks.changed.member = true;
                marks
            }
        };
        marks.put(|| first.clone(), below);
    }
    marks
}

/// Splits off the items at the front that are told apart by `element`.
fn take<'a, 'v>(
    list: &mut &'a [(Element, &'v Value)],
    element: &Element,
) -> &'a [(Element, &'v Value)] {
    let count = list.iter().take_while(|item| item.0 == *element).count();
    let (taken, rest) = list.split_at(count);
    *list = rest;
    taken
}
