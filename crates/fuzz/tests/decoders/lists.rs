//! Lists of every built-in type, long: what looks at them may not compare each item with each other.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use meta::GroupVersionKind;
use schema::types::{self, Field, ListType, Of, Type};
use schema::{FieldValidation, apply, rules};
use serde_json::{Map, Value, json};

use crate::kinds;

/// How many items: enough that comparing all with all takes longer than a test may.
const ITEMS: usize = 400;
const MANY_ITEMS: usize = 20_000;
/// How long one list may take on a busy machine. Linear work on it takes a hundredth.
const FOREVER: Duration = Duration::from_secs(60);

/// The fields that lead to a list.
type Route = Vec<&'static Field>;

/// Every list of a type that was not seen before, and how to get there.
fn routes(
    of: &'static Type,
    route: &mut Route,
    seen: &mut HashSet<(u16, &'static str)>,
    found: &mut Vec<Route>,
) {
    for field in of.fields {
        if route.len() > 12 || !seen.insert((of.id, field.name)) {
            continue;
        }
        route.push(field);
        if matches!(field.of, Of::List(_) | Of::Map(_)) {
            found.push(route.clone());
        }
        if let Some(inner) = field.of.object() {
            routes(inner, route, seen, found);
        }
        route.pop();
    }
}

/// The item of that number.
fn item(of: &Of, keys: &[&str], number: usize) -> Value {
    match of {
        Of::Object(id) => {
            let named = ["name", "key", "path", "host", "ip", "mountPath", "devicePath"];
            let of = types::by_id(*id);
            let fields = of
                .fields
                .iter()
                .filter(|field| keys.contains(&field.name) || named.contains(&field.name));
            fields
                .map(|field| (field.name.to_owned(), item(&field.of, &[], number)))
                .collect::<Map<_, _>>()
                .into()
        }
        Of::Int32 | Of::Int64 | Of::IntOrString | Of::Double => number.into(),
        Of::Bool => true.into(),
        Of::Quantity => number.to_string().into(),
        Of::List(of) => json!([item(of, &[], number)]),
        Of::Map(of) => json!({"a": item(of, &[], number)}),
        Of::Any => json!({"a": number}),
        Of::Bytes => "AA==".into(),
        Of::Time | Of::MicroTime => "2026-01-02T03:04:05Z".into(),
        Of::String => format!("v{number}").into(),
    }
}

/// An object with a long list at the end of the route.
fn long(route: &Route, items: usize) -> Value {
    let (last, before) = route.split_last().expect("a field");
    let keys = match last.list {
        ListType::Map(keys) => keys,
        _ => &[],
    };
    // In the wrong order, which is the harder one.
    let numbers = (0..items).rev();
    let list: Value = match last.of {
        Of::List(of) => numbers.map(|number| item(of, keys, number)).collect(),
        Of::Map(of) => numbers
            .map(|number| (format!("v{number}"), item(of, &[], number)))
            .collect::<Map<_, _>>()
            .into(),
        _ => unreachable!("routes lead to lists and maps"),
    };
    before.iter().rev().fold(json!({last.name: list}), |inner, field| {
        let value = match field.of {
            Of::List(_) => json!([inner]),
            Of::Map(_) => json!({"a": inner}),
            _ => inner,
        };
        json!({field.name: value})
    })
}

fn check(kind: &GroupVersionKind, of: &'static Type, value: &Value) {
    let Ok(decoded) = schema::decode_value(kind, value, FieldValidation::Ignore) else { return };
    let mut object = decoded.value;
    rules::default(kind, &mut object);
    let _ = rules::prepare_create(kind, &mut object);
    let _ = rules::validate(kind, &object);
    let _ = rules::warnings(kind, &object, None);
    let mut other = object.clone();
    other["metadata"]["labels"]["other"] = "one".into();
    let _ = rules::validate_update(kind, &other, &object);
    let _ = rules::validate_status(kind, &other, &object);
    let _ = rules::warnings(kind, &other, Some(&object));
    let set = apply::mentioned(of, &object);
    let _ = (apply::compare(of, &json!({}), &object), apply::compare(of, &object, &other));
    let _ = apply::check(of, &object);
    let _ = apply::merge(of, &object, &other);
    let mut both = set.clone();
    both.add(set.clone());
    both.remove(&set);
    let patch = object.clone();
    let _ = schema::strategic_merge_patch(of, &mut object, patch);
}

#[test]
fn long_lists_are_walked_and_not_searched() {
    let items = if std::env::var_os("SKIFF_FUZZ_SECONDS").is_some() { MANY_ITEMS } else { ITEMS };
    let (mut seen, mut slow, mut walked) = (HashSet::new(), Vec::new(), 0);
    for (kind, of) in kinds() {
        let mut found = Vec::new();
        routes(of, &mut Vec::new(), &mut seen, &mut found);
        for route in found {
            let begun = Instant::now();
            check(&kind, of, &long(&route, items));
            walked += 1;
            let path: Vec<_> = route.iter().map(|field| field.name).collect();
            if begun.elapsed() > FOREVER / 20 {
                println!("{} {}: {:?}", kind.kind, path.join("."), begun.elapsed());
            }
            if begun.elapsed() > FOREVER {
                slow.push(format!("{} {}", kind.kind, path.join(".")));
            }
        }
    }
    assert!(walked > 300, "{walked}");
    assert!(slow.is_empty(), "{slow:?}");
}
