//! Stored objects and their bytes: what is kept, what is spliced in when they are served.
//!
//! Stored bytes are JSON of the storage version with `metadata` first and without `apiVersion`,
//! `kind` and `metadata.resourceVersion`, so that serving is a concatenation. Owns that layout;
//! nothing else in the engine assumes it.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use meta::Revision;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use store::{Key, Record};

use crate::header::Header;
use crate::outcome::{Identity, List};
use crate::row::Row;

/// What every stored value starts with.
const OPENING: &[u8] = br#"{"metadata":{"#;

/// What a thread keeps for writing objects into, in bytes.
const SCRATCH_BYTES: usize = 64 << 10;

/// Pieces of a served list are about this long.
const CHUNK: usize = 64 << 10;

/// A stored object in the version of the row through which it was read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Object {
    key: Key,
    record: Arc<Record<Header>>,
    /// The bytes in the served version, where that is not the stored one.
    converted: Option<Bytes>,
}

impl Object {
    /// A record as read through `row`; converts it where needed.
    pub(crate) fn new(row: &Row, key: Key, record: Arc<Record<Header>>) -> Self {
        let converted = (!row.served_as_stored())
            .then(|| encode(&crate::convert::to_served(row, parse(&record.value))));
        Self { key, record, converted }
    }

    /// An object whose bytes are in the version in which they are served.
    pub(crate) fn as_stored(key: Key, record: Arc<Record<Header>>) -> Self {
        Self { key, record, converted: None }
    }

    /// `metadata.namespace`; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        split_key(&self.key).0
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        split_key(&self.key).1
    }

    /// The revision that wrote it, `metadata.resourceVersion`.
    pub fn revision(&self) -> Revision {
        self.record.modified
    }

    /// Which object in which version it is.
    pub fn identity(&self) -> Identity {
        Identity { key: self.key.clone(), revision: self.revision() }
    }

    /// What is known of it without parsing.
    pub fn header(&self) -> &Header {
        &self.record.note
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The bytes without `apiVersion`, `kind` and `resourceVersion`.
    fn bare(&self) -> &Bytes {
        self.converted.as_ref().unwrap_or(&self.record.value)
    }

    /// The object's bytes as they are kept: enough to rule out that it mentions something.
    pub fn stored(&self) -> &Bytes {
        &self.record.value
    }

    /// The whole object, parsed.
    pub fn value(&self, row: &Row) -> Value {
        let mut value = parse(self.bare());
        complete(row, self.revision(), &mut value);
        value
    }

    /// The whole object as JSON.
    pub fn to_json(&self, row: &Row) -> Bytes {
        let mut out = Vec::with_capacity(self.bare().len() + 128);
        self.write_json(row, self.revision(), &mut out);
        out.into()
    }

    /// Appends the whole object as JSON, at another revision than the one that wrote it where it
    /// was deleted.
    pub(crate) fn write_json(&self, row: &Row, revision: Revision, out: &mut Vec<u8>) {
        splice(row, revision, self.bare(), out);
    }
}

/// Parses stored bytes; what cannot be parsed shows as an empty object.
pub(crate) fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "a stored object cannot be parsed");
        Value::Object(Map::new())
    })
}

/// Parses stored bytes but for who manages which fields, `metadata.managedFields`: that stays JSON, for writes seldom
/// look into it. Empty where there is none.
pub(crate) fn parse_apart(bytes: &Bytes) -> (Value, Bytes) {
    let mut managed = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Apart { managed: &mut managed, top: true }.deserialize(&mut reader);
    let value = value.unwrap_or_else(|error| {
        tracing::error!(%error, "a stored object cannot be parsed");
        Value::Object(Map::new())
    });
    let managed = managed.map(|raw: &RawValue| bytes.slice_ref(raw.get().as_bytes()));
    (value, managed.unwrap_or_default())
}

/// Reads an object, or its metadata, and keeps apart who manages its fields.
struct Apart<'m, 'de> {
    managed: &'m mut Option<&'de RawValue>,
    top: bool,
}

impl<'de> DeserializeSeed<'de> for Apart<'_, 'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Apart<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = match name.as_str() {
                "metadata" if self.top => {
                    entries.next_value_seed(Apart { managed: self.managed, top: false })?
                }
                "managedFields" if !self.top => {
                    *self.managed = Some(entries.next_value()?);
                    continue;
                }
                _ => entries.next_value()?,
            };
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Puts into a parsed stored object what its bytes omit.
pub(crate) fn complete(row: &Row, revision: Revision, value: &mut Value) {
    if let Value::Object(object) = value {
        object.insert("apiVersion".to_owned(), row.api_version().into());
        object.insert("kind".to_owned(), row.kind.kind.as_str().into());
    }
    metadata(value).insert("resourceVersion".to_owned(), revision.to_string().into());
}

/// The bytes to store for an object, in an allocation of just their length: the store keeps it.
pub(crate) fn encode(value: &Value) -> Bytes {
    encode_managed(value, &[])
}

/// The bytes to store for an object whose fields are managed as this JSON says, unless it is empty.
pub(crate) fn encode_managed(value: &Value, managed: &[u8]) -> Bytes {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        write_stored(value, managed, scratch);
        let bytes = Bytes::copy_from_slice(scratch);
        scratch.shrink_to(SCRATCH_BYTES);
        bytes
    })
}

fn write_stored(value: &Value, managed: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(OPENING);
    let meta = value["metadata"].as_object().into_iter().flatten();
    let left_out = ["resourceVersion", "selfLink", "managedFields"];
    let kept = meta.filter(|(name, _)| !left_out.contains(&name.as_str()));
    let mut comma = false;
    for (name, field) in kept {
        write_field(out, std::mem::replace(&mut comma, true), name, field);
    }
    // Always last, so that equal objects have equal bytes.
    match value["metadata"].get("managedFields") {
        Some(field) if managed.is_empty() => write_field(out, comma, "managedFields", field),
        _ if managed.is_empty() => {}
        _ => {
            if comma {
                out.push(b',');
            }
            out.extend_from_slice(br#""managedFields":"#);
            out.extend_from_slice(managed);
        }
    }
    out.push(b'}');
    for (name, field) in value.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
            write_field(out, true, name, field);
        }
    }
    out.push(b'}');
}

fn write_field(out: &mut Vec<u8>, comma: bool, name: &str, field: &Value) {
    if comma {
        out.push(b',');
    }
    write_json(out, name);
    out.push(b':');
    write_json(out, field);
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "a JSON value cannot be written to memory");
    }
}

/// Appends the served form of stored bytes to `out`.
fn splice(row: &Row, revision: Revision, stored: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(row.head.as_bytes());
    splice_metadata(revision, stored, out);
}

/// What follows `"metadata":{`: the revision, then the stored bytes.
fn splice_metadata(revision: Revision, stored: &[u8], out: &mut Vec<u8>) {
    let rest = stored.get(OPENING.len()..).unwrap_or(b"}}");
    let comma = if rest.first() == Some(&b'}') { "" } else { "," };
    let _ = write!(out, r#""resourceVersion":"{revision}"{comma}"#);
    out.extend_from_slice(rest);
}

/// The `metadata` of an object, made an object if it is none.
pub(crate) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    child(value, "metadata")
}

/// An object-valued field, made an empty object if it is none.
pub(crate) fn child<'a>(value: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let slot = &mut value[name];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("just made an object")
}

/// A text field of the metadata; empty if unset.
pub(crate) fn meta_text<'a>(value: &'a Value, field: &str) -> &'a str {
    value["metadata"][field].as_str().unwrap_or_default()
}

/// Sets a field, or removes it when the new value is null.
pub(crate) fn set_or_remove(value: &mut Value, field: &str, new: &Value) {
    if let Value::Object(object) = value {
        set_or_remove_in(object, field, new);
    }
}

/// As [`set_or_remove`] in the fields of an object.
pub(crate) fn set_or_remove_in(object: &mut Map<String, Value>, field: &str, new: &Value) {
    if new.is_null() {
        object.remove(field);
    } else {
        object.insert(field.to_owned(), new.clone());
    }
}

/// Namespace and name of a storage key.
pub(crate) fn split_key(key: &str) -> (&str, &str) {
    let mut parts = key.splitn(5, '/').skip(3);
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) => (namespace, name),
        (Some(name), None) => ("", name),
        _ => ("", ""),
    }
}

/// The pieces of a list.
pub(crate) fn list_chunks(list: List) -> impl Iterator<Item = Bytes> + Send {
    let mut head = Vec::with_capacity(expected(&list.items));
    let _ = write!(
        head,
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{}""#,
        list.row.list_kind,
        list.row.api_version(),
        list.revision
    );
    if !list.continue_token.is_empty() {
        let _ = write!(head, r#","continue":"{}""#, list.continue_token);
    }
    if let Some(remaining) = list.remaining {
        let _ = write!(head, r#","remainingItemCount":{remaining}"#);
    }
    head.extend_from_slice(br#"},"items":["#);
    let mut items = list.items.into_iter();
    let (mut out, mut first, mut done) = (head, true, false);
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        while out.len() < CHUNK {
            let Some(item) = items.next() else {
                out.extend_from_slice(b"]}");
                done = true;
                break;
            };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(OPENING);
            splice_metadata(item.revision(), item.bare(), &mut out);
        }
        let next = if done { 0 } else { expected(items.as_slice()) };
        Some(std::mem::replace(&mut out, Vec::with_capacity(next)).into())
    })
}

/// Room for the next piece of a list: a short list does not pay for a whole one.
fn expected(items: &[Object]) -> usize {
    let mut length = 256;
    for item in items {
        length += item.bare().len() + 64;
        if length > CHUNK {
            return length.max(CHUNK + 4096);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::row::Rows;

    fn object(revision: u64) -> Object {
        let value = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"},
            "metadata": {"name": "x", "namespace": "d", "resourceVersion": "3"},
        });
        let record = Record {
            value: encode(&value),
            created: Revision(1),
            modified: Revision(revision),
            note: Header::default(),
        };
        let rows = Rows::builtin();
        let row = rows.get("", "v1", "configmaps").expect("row");
        Object::new(row, Key::new("/registry/configmaps/d/x"), Arc::new(record))
    }

    #[test]
    fn bytes_are_stored_bare_and_served_whole() {
        let rows = Rows::builtin();
        let row = rows.get("", "v1", "configmaps").expect("row");
        let object = object(7);
        assert_eq!(
            object.record.value,
            r#"{"metadata":{"name":"x","namespace":"d"},"data":{"a":"1"}}"#
        );
        assert_eq!(
            object.to_json(row),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"x","namespace":"d"},"data":{"a":"1"}}"#
        );
        assert_eq!(
            serde_json::from_slice::<Value>(&object.to_json(row)).expect("JSON"),
            object.value(row)
        );
        assert_eq!((object.namespace(), object.name()), ("d", "x"));
    }

    #[test]
    fn who_manages_fields_is_kept_apart() {
        let text =
            r#"{"metadata":{"name":"x","managedFields":[{"manager":"a"}]},"managedFields":1}"#;
        let (value, managed) = parse_apart(&Bytes::from_static(text.as_bytes()));
        assert_eq!(value, json!({"metadata": {"name": "x"}, "managedFields": 1}));
        assert_eq!(managed, r#"[{"manager":"a"}]"#);
        assert_eq!(encode_managed(&value, &managed), text);
        let (value, managed) = parse_apart(&Bytes::from_static(b"{"));
        assert_eq!((value, managed.len()), (json!({}), 0));
    }

    #[test]
    fn a_list_is_a_concatenation() {
        let rows = Rows::builtin();
        let row = rows.get("", "v1", "configmaps").expect("row").clone();
        let list = List {
            row,
            revision: Revision(9),
            continue_token: String::new(),
            remaining: None,
            items: (0..2000).map(object).collect(),
        };
        let json: Value = serde_json::from_slice(&list.to_json()).expect("JSON");
        assert_eq!(json["kind"], "ConfigMapList");
        assert_eq!(json["items"].as_array().map(Vec::len), Some(2000));
        assert_eq!(json["items"][5]["metadata"]["resourceVersion"], "5");
        assert!(json["items"][5].get("kind").is_none());
    }
}
