//! OpenAPI documents in the protobuf form that Kubernetes' clients read (gnostic's `openapi.v2` and
//! `openapi.v3` messages).
//!
//! Driven by one table of messages. Works on finished documents and knows nothing of what they say.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

/// Which version of OpenAPI a document follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenApiVersion {
    /// `openapi.v2.Document`.
    V2,
    /// `openapi.v3.Document`.
    V3,
}

/// Messages with their fields, `name=number:type`. Types: `s` text, `b` truth, `d` a number, `a` anything
/// (as YAML), or a message; `[T` is a list, `{N.T` a message whose field N holds a map as pairs of name and
/// value, `N.T` a message whose field N is the value. `x-` stands for all extensions.
const TABLE: &str = include_str!("gnostic/messages.txt");

/// Fields by name, with number and type.
type Fields = HashMap<&'static str, (u32, &'static str)>;
type Messages = HashMap<&'static str, Fields>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(message).collect()
});

fn message(line: &'static str) -> Option<(&'static str, Fields)> {
    let (name, fields) = line.split_once(' ')?;
    let fields = fields.split(' ').filter_map(|field| {
        let (name, rest) = field.split_once('=')?;
        let (number, kind) = rest.split_once(':')?;
        Some((name, (number.parse().ok()?, kind)))
    });
    Some((name, fields.collect()))
}

/// Encodes a document. What the table has no field for is left out.
#[must_use]
pub fn encode(version: OpenApiVersion, document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    write_message(
        if version == OpenApiVersion::V2 { "2Document" } else { "3Document" },
        document,
        &mut out,
    );
    out
}

fn write_message(name: &str, value: &Value, out: &mut Vec<u8>) {
    let Some(fields) = MESSAGES.get(name) else { return };
    for (key, value) in value.as_object().into_iter().flatten() {
        if let Some((number, kind)) = fields.get(key.as_str()) {
            write_field(*number, kind, value, out);
        } else if let Some((number, _)) = fields.get("x-").filter(|_| key.starts_with("x-")) {
            bytes(*number, &pair(key, "a", value), out);
        }
    }
}

/// An entry of a map: name and value.
fn pair(name: &str, kind: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(1, name.as_bytes(), &mut out);
    write_field(2, kind, value, &mut out);
    out
}

fn write_field(number: u32, kind: &str, value: &Value, out: &mut Vec<u8>) {
    if let Some(items) = kind.strip_prefix('[') {
        value
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|item| write_field(number, items, item, out));
        return;
    }
    if let Some((entry, values)) = kind.strip_prefix('{').and_then(numbered) {
        let mut inner = Vec::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            bytes(entry, &pair(name, values, value), &mut inner);
        }
        bytes(number, &inner, out);
        return;
    }
    if let Some((inside, kind)) = numbered(kind) {
        let mut inner = Vec::new();
        write_field(inside, kind, value, &mut inner);
        bytes(number, &inner, out);
        return;
    }
    match kind {
        "s" => bytes(number, value.as_str().unwrap_or_default().as_bytes(), out),
        "b" => integer(number, u64::from(value.as_bool().unwrap_or(false)), out),
        "d" => {
            varint(u64::from(number) << 3 | 1, out);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        // JSON is YAML.
        "a" => {
            let mut inner = Vec::new();
            bytes(2, value.to_string().as_bytes(), &mut inner);
            bytes(number, &inner, out);
        }
        message => {
            let mut inner = Vec::new();
            match chosen(message, value) {
                Some(other) => write_field(other.0, other.1, value, &mut inner),
                None => write_message(message, value, &mut inner),
            }
            bytes(number, &inner, out);
        }
    }
}

/// Which of several messages a value is, as field number and type.
fn chosen(message: &str, value: &Value) -> Option<(u32, &'static str)> {
    Some(match (message, value["in"].as_str()) {
        ("2ParameterChoice", Some("body")) => (1, "1.2BodyParameter"),
        ("2ParameterChoice", Some("path")) => (1, "2.4.2PathParameter"),
        ("2ParameterChoice", _) => (1, "2.3.2QueryParameter"),
        ("3SchemaChoice", _) if value.get("$ref").is_some() => (2, "3Reference"),
        ("3SchemaChoice", _) => (1, "3Schema"),
        ("3DefaultChoice", _) => match value {
            Value::Bool(_) => (2, "b"),
            Value::String(_) => (3, "s"),
            Value::Number(_) => (1, "d"),
            // There is no word for a default that is an object.
            _ => return None,
        },
        _ => return None,
    })
}

/// `4.Rest`: a field number and what is in it. Messages begin with a digit too, but no point follows it.
fn numbered(kind: &str) -> Option<(u32, &str)> {
    let (number, rest) = kind.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn integer(number: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3, out);
    varint(value, out);
}

#[cfg(test)]
mod tests;
