//! The fields that an object mentions.

use serde_json::Value;

use super::element::Element;
use super::set::{Mark, Set};
use super::shape::{Shape, Slot, index, nothing_in};
use crate::types::Type;

/// The fields that what somebody applies mentions.
#[must_use]
pub fn mentioned(of: &Type, object: &Value) -> Set {
    walk(Slot::whole(of), object).below
}

fn walk(slot: Slot, value: &Value) -> Mark {
    let mut mark = Mark::default();
    match slot.shape(value) {
        Shape::Leaf => return Mark::leaf(),
        Shape::Struct(of) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let Some(field) = of.field(name) else { continue };
                let mut below = walk(Slot::of(field), value);
                below.member |= nothing_in(Some(value)) && !value.is_array();
                mark.below.put(Element::Field(field.name.into()), below);
            }
        }
        Shape::Map(slot) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let below = Mark { member: true, ..walk(slot, value) };
                mark.below.put(Element::Field(name.clone().into()), below);
            }
        }
        Shape::Items(slot, keys) => {
            let items = index(Some(value), slot, keys);
            for same in items.chunk_by(|one, other| one.0 == other.0) {
                let below = match same {
                    [(_, item)] => Mark { member: true, ..walk(slot, item) },
                    _ => Mark::leaf(),
                };
                mark.below.put(same[0].0.clone(), below);
            }
        }
    }
    mark
}
