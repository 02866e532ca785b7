//! An object without some of its fields.

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::shape::{Shape, Slot, element_of};
use crate::types::Type;

/// The object without the members of a set, with all that is in them.
#[must_use]
pub fn remove(of: &Type, object: &Value, set: &Set) -> Value {
    let mut object = object.clone();
    walk(Slot::whole(of), &mut object, set);
    object
}

fn walk(slot: Slot, value: &mut Value, set: &Set) {
    match (slot.shape(value), value) {
        (Shape::Struct(of), Value::Object(fields)) => {
            let inner = |name: &str| of.field(name).map_or(Slot::ANY, Slot::of);
            entries(fields, set, inner);
        }
        (Shape::Map(slot), Value::Object(fields)) => entries(fields, set, |_| slot),
        (Shape::Items(slot, keys), Value::Array(items)) => {
            items.retain_mut(|item| {
                let Ok(element) = element_of(item, slot, keys) else { return true };
                keep(set, &element, item, slot)
            });
        }
        // What is owned as one has nothing to take away from.
        (_, Value::Object(fields)) => fields.clear(),
        (_, Value::Array(items)) => items.clear(),
        _ => {}
    }
}

fn entries(fields: &mut Map<String, Value>, set: &Set, inner: impl Fn(&str) -> Slot) {
    for node in set.nodes() {
        let Element::Field(name) = &node.element else { continue };
        if node.member {
            fields.remove(name.as_ref());
        } else if let Some(value) = fields.get_mut(name.as_ref()) {
            walk(inner(name), value, &node.below);
        }
    }
}

/// Takes from an item what goes; false if all of it does.
fn keep(set: &Set, element: &Element, item: &mut Value, slot: Slot) -> bool {
    let Some(node) = set.get(element) else { return true };
    if !node.member {
        walk(slot, item, &node.below);
    }
    !node.member
}
