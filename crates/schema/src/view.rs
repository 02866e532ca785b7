//! Reading JSON objects the way Go reads its structs: what is absent has its zero value.

use serde_json::{Map, Value};

/// The zero value of objects.
static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// Access to the fields of an object; on anything else, every field is absent.
pub trait View {
    /// The field, or null.
    #[must_use]
    fn at(&self, key: &str) -> &Value;
    /// The text in the field, or "".
    #[must_use]
    fn text(&self, key: &str) -> &str {
        self.at(key).as_str().unwrap_or_default()
    }
    /// The number in the field.
    #[must_use]
    fn int(&self, key: &str) -> Option<i64> {
        self.at(key).as_i64()
    }
    /// Whether the field is `true`.
    #[must_use]
    fn flag(&self, key: &str) -> bool {
        self.at(key).as_bool().unwrap_or_default()
    }
    /// The items of the list in the field.
    #[must_use]
    fn items(&self, key: &str) -> &[Value] {
        self.at(key).as_array().map(Vec::as_slice).unwrap_or_default()
    }
    /// The entries of the map in the field.
    #[must_use]
    fn entries(&self, key: &str) -> &Map<String, Value> {
        self.at(key).as_object().unwrap_or(&EMPTY)
    }
    /// Whether the field is there and not null.
    #[must_use]
    fn has(&self, key: &str) -> bool {
        !self.at(key).is_null()
    }
}

impl View for Value {
    fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&Value::Null)
    }
}

impl View for Map<String, Value> {
    fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&Value::Null)
    }
}

/// Whether two values mean the same: absent, null and empty lists and maps are one, order of keys is none.
#[must_use]
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.iter().all(|(key, value)| same(value, other.at(key)))
                && other.iter().all(|(key, value)| one.contains_key(key) || nothing(value))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (one, other) => one == other || (nothing(one) && nothing(other)),
    }
}

fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}
