//! Objects of built-in types, filled at random, and the places in them: what a schema says of a value without
//! saying whether it is any good.

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use schema::types::{self, Of, Type};
use serde_json::{Map, Value, json};

use crate::Rng;

/// An object in which a part of the fields are set to values of their types, at most `depth` deep.
#[must_use]
pub fn any(rng: &mut Rng, of: &Type, depth: usize) -> Value {
    let mut object = Map::new();
    for field in of.fields {
        if depth > 0 && rng.random_bool(0.4) {
            object.insert(field.name.to_owned(), value(rng, &field.of, depth - 1));
        }
    }
    object.into()
}

/// A value of a type.
#[must_use]
pub fn value(rng: &mut Rng, of: &Of, depth: usize) -> Value {
    let many = rng.random_range(0..3);
    match of {
        Of::String => ["a", "web", "TCP", "10.0.0.1", "example.com/x", "é", "x y", ""]
            .choose(rng)
            .copied()
            .into(),
        Of::Bool => rng.random::<bool>().into(),
        Of::Int32 => [0, 1, -1, 80, i32::MAX, i32::MIN].choose(rng).copied().into(),
        Of::Int64 => [0, 1, -1, 3600, i64::MAX, i64::MIN].choose(rng).copied().into(),
        Of::Double => json!(f64::from(rng.random_range(-8..8)) / 4.0),
        Of::Bytes => ["", "AA==", "aGVsbG8="].choose(rng).copied().into(),
        Of::Quantity => ["0", "1", "100m", "1Gi", "-3k"].choose(rng).copied().into(),
        Of::IntOrString if rng.random() => rng.random_range(0..100).into(),
        Of::IntOrString => ["http", "50%"].choose(rng).copied().into(),
        Of::Time => "2026-01-02T03:04:05Z".into(),
        Of::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
        Of::Any => json!({"a": [1, "b", null]}),
        Of::Object(id) => any(rng, types::by_id(*id), depth),
        Of::List(of) => (0..many).map(|_| value(rng, of, depth)).collect(),
        Of::Map(of) => (0..many)
            .map(|key| (format!("k{key}"), value(rng, of, depth)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// A place in an object, as different readers of the object name it.
#[derive(Debug, Clone)]
pub struct Place {
    /// As a JSON pointer.
    pub pointer: String,
    /// As errors of validation name it: `spec.containers[0].image`.
    pub path: String,
    /// As errors of decoding do: the struct that holds it, and the names of fields that lead to it.
    pub owner: &'static str,
    /// Those names, without positions and keys of maps.
    pub names: String,
    /// What stands there.
    pub of: Of,
}

/// Every place in an object that has a type, outer ones first.
#[must_use]
pub fn places(of: &'static Type, object: &Value) -> Vec<Place> {
    let root = Place {
        pointer: String::new(),
        path: String::new(),
        owner: of.short_name(),
        names: String::new(),
        of: Of::Object(of.id),
    };
    let mut found = Vec::new();
    walk(&root, object, &mut found);
    found
}

fn walk(at: &Place, value: &Value, found: &mut Vec<Place>) {
    let mut step =
        |pointer: String, path: String, field: Option<&'static str>, of: Of, value: &Value| {
            let mut next = at.clone();
            next.pointer.push_str(&pointer);
            next.path
                .push_str(path.strip_prefix('.').filter(|_| at.path.is_empty()).unwrap_or(&path));
            if let Some(name) = field {
                let dot = if at.names.is_empty() { "" } else { "." };
                next.names.push_str(&format!("{dot}{name}"));
            }
            if let (Some(_), Of::Object(id)) = (field, at.of) {
                next.owner = types::by_id(id).short_name();
            }
            next.of = of;
            found.push(next.clone());
            walk(&next, value, found);
        };
    match (at.of, value) {
        (Of::Object(id), Value::Object(map)) => {
            for field in types::by_id(id).fields {
                if let Some(value) = map.get(field.name) {
                    let (name, of) = (field.name, field.of);
                    step(format!("/{name}"), format!(".{name}"), Some(name), of, value);
                }
            }
        }
        (Of::List(of), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                step(format!("/{index}"), format!("[{index}]"), None, *of, value);
            }
        }
        (Of::Map(of), Value::Object(map)) => {
            for (key, value) in map {
                let pointer = key.replace('~', "~0").replace('/', "~1");
                step(format!("/{pointer}"), format!("[{key}]"), None, *of, value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_errors_name_them() {
        let pod = types::by_kind("", "v1", "Pod").expect("a kind");
        let object =
            json!({"metadata": {"labels": {"a/b": "c"}}, "spec": {"containers": [{"image": "i"}]}});
        let found = places(pod, &object);
        let shown: Vec<_> =
            found.iter().map(|at| (at.path.as_str(), at.owner, at.names.as_str())).collect();
        assert!(
            shown.contains(&("metadata.labels[a/b]", "ObjectMeta", "metadata.labels")),
            "{shown:?}"
        );
        assert!(
            shown.contains(&("spec.containers[0].image", "Container", "spec.containers.image")),
            "{shown:?}"
        );
        assert!(found.iter().all(|at| object.pointer(&at.pointer).is_some()));
    }
}
