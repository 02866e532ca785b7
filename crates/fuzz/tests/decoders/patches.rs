//! Patches of the three kinds that do not apply: whatever they make of an object is an object or an error.

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use schema::FieldValidation;
use schema::types::Type;
use serde_json::{Value, json};
use skiff_fuzz::{Rng, campaign, mutate, object};

use crate::{damaged, frugal, kinds, some};

/// What a patch may hold for each byte of it and of the object.
const PATCHED: usize = 100;

#[test]
fn merge_patches_end_in_an_object_or_an_error() {
    let kinds = kinds();
    campaign("merge patches", 800, |rng| {
        let (kind, of, value) = some(rng, &kinds);
        let patch = mutate::json(rng, &value);
        let mut merged = mutate::json(rng, &value);
        schema::merge_patch(&mut merged, &patch);
        let mut again = merged.clone();
        schema::merge_patch(&mut again, &patch);
        assert_eq!(again, merged, "{kind:?}: a merge patch has an effect once");
        let patch = with_directives(rng, of, &value);
        let size = patch.to_string().len() + value.to_string().len();
        let mut patched = value.clone();
        if frugal(size, PATCHED, || schema::strategic_merge_patch(of, &mut patched, patch)).is_ok()
        {
            let _ = schema::decode_value(&kind, &patched, FieldValidation::Strict);
        }
    });
}

/// A strategic merge patch for an object: parts of it, with directives at some places.
fn with_directives(rng: &mut Rng, of: &'static Type, value: &Value) -> Value {
    let mut patch = mutate::json(rng, value);
    let places = object::places(of, &patch);
    for _ in 0..rng.random_range(0..4) {
        let Some(place) = places.choose(rng) else { break };
        let name = place.pointer.rsplit('/').next().unwrap_or_default().to_owned();
        let Some((above, _)) = place.pointer.rsplit_once('/') else { continue };
        let some = patch.pointer(&place.pointer).cloned().unwrap_or_default();
        let some = if rng.random_bool(0.2) { mutate::odd(rng) } else { some };
        let Some(Value::Object(holder)) = patch.pointer_mut(above) else { continue };
        match rng.random_range(0..6) {
            0 => drop(holder.insert(
                "$patch".into(),
                ["replace", "delete", "merge", "x"].choose(rng).copied().into(),
            )),
            1 => drop(holder.insert("$retainKeys".into(), json!([name, "other"]))),
            2 => drop(holder.insert(format!("$setElementOrder/{name}"), some)),
            3 => drop(holder.insert(format!("$deleteFromPrimitiveList/{name}"), some)),
            4 => drop(holder.insert("$retainKeys".into(), some)),
            _ => drop(holder.insert(name, Value::Null)),
        }
    }
    patch
}

#[test]
fn json_patches_end_in_an_object_or_an_error() {
    let kinds = kinds();
    campaign("json patches", 800, |rng| {
        let (_, of, value) = some(rng, &kinds);
        let places = object::places(of, &value);
        let pointer = |rng: &mut Rng| {
            let place = places.choose(rng).map(|place| place.pointer.clone()).unwrap_or_default();
            match rng.random_range(0..5) {
                0 => format!("{place}/-"),
                1 => mutate::text(rng, &[place.as_str(), "/a/~1/~0/-/18446744073709551616"]),
                _ => place,
            }
        };
        let mut operations = Vec::new();
        for _ in 0..rng.random_range(0..8) {
            let op = ["add", "remove", "replace", "move", "copy", "test"]
                .choose(rng)
                .copied()
                .unwrap_or_default();
            let (from, path, value) = (pointer(rng), pointer(rng), mutate::odd(rng));
            operations.push(json!({"op": op, "from": from, "path": path, "value": value}));
        }
        let patch = damaged(rng, &operations.into());
        let size = patch.len() + value.to_string().len();
        let mut patched = value.clone();
        if frugal(size, PATCHED, || schema::json_patch(&mut patched, &patch)).is_ok() {
            let text = patched.to_string();
            let read: Value =
                serde_json::from_str(&text).expect("what is patched is stored and read again");
            assert_eq!(read, patched);
        }
    });
}
