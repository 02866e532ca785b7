//! Decoders of what clients send, on damaged input: a value or an error, never a panic, in memory that is a
//! multiple of the input. What is read is read the same again.

mod apply;
mod bombs;
mod lists;
mod objects;
mod patches;
mod streams;
mod words;

use meta::GroupVersionKind;
use rand::seq::IndexedRandom as _;
use schema::types::{self, Type};
use serde_json::Value;
use skiff_fuzz::{Rng, memory, mutate, object};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// What any decoder may hold, whatever it reads, in bytes: tables that are made at first use, and buffers.
const BASE: usize = 48 << 20;

/// Runs `work` on an input of that length. It may hold `factor` times as much.
#[track_caller]
fn frugal<T>(length: usize, factor: usize, work: impl FnOnce() -> T) -> T {
    let (yielded, held) = memory::peak(work);
    assert!(held <= BASE + factor * length, "{held} bytes are held for {length}");
    yielded
}

/// Every built-in kind and its type.
fn kinds() -> Vec<(GroupVersionKind, &'static Type)> {
    let all = types::all().iter();
    let kinds: Vec<_> = all
        .filter_map(|of| {
            types::kind_of(of)
                .map(|(group, version, kind)| (GroupVersionKind::new(group, version, kind), of))
        })
        .collect();
    assert!(kinds.len() > 100, "{}", kinds.len());
    kinds
}

/// An object of some kind, which says what it is.
fn some(
    rng: &mut Rng,
    kinds: &[(GroupVersionKind, &'static Type)],
) -> (GroupVersionKind, &'static Type, Value) {
    let (kind, of) = kinds.choose(rng).expect("there are kinds").clone();
    let value = of_kind(rng, &kind, of);
    (kind, of, value)
}

fn of_kind(rng: &mut Rng, kind: &GroupVersionKind, of: &Type) -> Value {
    let mut value = object::any(rng, of, 7);
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.as_str().into();
    value
}

/// JSON, and then perhaps not any more.
fn damaged(rng: &mut Rng, value: &Value) -> Vec<u8> {
    use rand::Rng as _;
    let text = match rng.random_range(0..4) {
        0 => value.clone(),
        _ => mutate::json(rng, value),
    };
    let text = text.to_string().into_bytes();
    if rng.random_bool(0.4) { mutate::bytes(rng, &[text]) } else { text }
}
