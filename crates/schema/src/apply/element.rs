//! One step of a field path: a field, or how a list's item is told apart. Owns its order, its form in
//! `fieldsV1` and how messages print it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

/// A step down into a value.
#[derive(Debug, Clone)]
pub enum Element {
    /// `f:NAME`: a field of an object or an entry of a map.
    Field(Cow<'static, str>),
    /// `k:{…}`: the item of a list whose key fields have these values, sorted by name.
    Key(Box<[(Cow<'static, str>, Value)]>),
    /// `v:…`: the item of a set.
    Value(Value),
    /// `i:N`: the item at a position.
    Index(i64),
}

impl Element {
    /// Reads the form that `fieldsV1` gives it. `Ok(None)` for kinds of steps that nobody knows yet.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        let json = |error: serde_json::Error| error.to_string();
        Ok(Some(match kind {
            "f:" => Self::Field(Cow::Owned(rest.to_owned())),
            "v:" => Self::Value(serde_json::from_str(rest).map_err(json)?),
            "i:" => Self::Index(
                rest.parse().map_err(|error: std::num::ParseIntError| error.to_string())?,
            ),
            "k:" => {
                let fields: serde_json::Map<String, Value> =
                    serde_json::from_str(rest).map_err(json)?;
                let fields = fields.into_iter().map(|(name, value)| (Cow::Owned(name), value));
                Self::Key(fields.collect())
            }
            _ if kind.ends_with(':') => return Ok(None),
            _ => return Err(format!("missing colon: {text}")),
        }))
    }

    /// Appends the form in `fieldsV1`, as a JSON string.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Field(name) if name.bytes().all(plain) => {
                out.extend_from_slice(b"\"f:");
                out.extend_from_slice(name.as_bytes());
                out.push(b'"');
            }
            other => write_json(out, &other.encoded()),
        }
    }

    fn encoded(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
            Self::Key(fields) => {
                let mut text = b"k:{".to_vec();
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        text.push(b',');
                    }
                    write_json(&mut text, name);
                    text.push(b':');
                    write_json(&mut text, value);
                }
                text.push(b'}');
                String::from_utf8(text).unwrap_or_default()
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

/// Bytes that stand for themselves in JSON text.
fn plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Appends a value as JSON.
pub(super) fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing JSON values to memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

/// How messages print it: `.spec`, `[name="web"]`, `[="x"]`, `[3]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={}]", printed(value)),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}={}", printed(value)))
                    .collect();
                write!(f, "[{}]", fields.join(","))
            }
        }
    }
}

fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => meta::quote(text),
        other => other.to_string(),
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(one), Self::Field(other)) => one.cmp(other),
            (Self::Key(one), Self::Key(other)) => one
                .iter()
                .zip(other.iter())
                .map(|(one, other)| one.0.cmp(&other.0).then_with(|| order(&one.1, &other.1)))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| one.len().cmp(&other.len())),
            (Self::Value(one), Self::Value(other)) => order(one, other),
            (Self::Index(one), Self::Index(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// A total order of JSON values in which numbers count by what they amount to.
pub(super) fn order(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => one.as_f64().unwrap_or(0.0).total_cmp(&other.as_f64().unwrap_or(0.0)),
        },
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Array(one), Value::Array(other)) => sequence(one.iter(), other.iter(), order),
        (Value::Object(one), Value::Object(other)) => {
            sequence(one.iter(), other.iter(), |a, b| a.0.cmp(b.0).then_with(|| order(a.1, b.1)))
        }
        _ => rank(one).cmp(&rank(other)),
    }
}

fn sequence<T>(
    one: impl ExactSizeIterator<Item = T>,
    other: impl ExactSizeIterator<Item = T>,
    order: impl Fn(T, T) -> Ordering,
) -> Ordering {
    let lengths = one.len().cmp(&other.len());
    one.zip(other).map(|(a, b)| order(a, b)).find(|order| order.is_ne()).unwrap_or(lengths)
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
