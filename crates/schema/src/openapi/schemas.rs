//! The schemas of a document: the graph of types written as OpenAPI, with descriptions and extensions.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Map, Value, json};

use super::{object, reference};
use crate::types::{self, Field, ListType, Of, Type};

/// Descriptions of all types and fields, packed by the build script.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

/// The schemas of these types and of all they refer to, by name.
pub(super) fn components(
    group_version: (&str, &str),
    roots: impl Iterator<Item = &'static Type>,
) -> Map<String, Value> {
    let mut wanted = BTreeSet::new();
    for root in roots {
        collect(root, &mut wanted);
    }
    let text = unpack();
    let mut descriptions = text.split('\0');
    let mut all = Map::new();
    for of in types::all() {
        // One description of the type and one of each field, whether they are wanted or not.
        let own = descriptions.next().unwrap_or_default();
        let fields: Vec<&str> =
            of.fields.iter().map(|_| descriptions.next().unwrap_or_default()).collect();
        if wanted.contains(&of.id) {
            all.insert(of.name.to_owned(), schema(group_version, of, own, &fields));
        }
    }
    all
}

/// All descriptions, each ended by a zero byte.
fn unpack() -> String {
    let mut text = String::new();
    // The blob is our own; were it broken, documents would lack descriptions and nothing else.
    if let Err(error) = flate2::read::ZlibDecoder::new(PACKED).read_to_string(&mut text) {
        debug_assert!(false, "descriptions: {error}");
    }
    text
}

fn collect(of: &'static Type, wanted: &mut BTreeSet<u16>) {
    if !wanted.insert(of.id) {
        return;
    }
    for field in of.fields {
        let inner = field.of.object().or_else(|| types::by_name(field.value));
        if let Some(inner) = inner {
            collect(inner, wanted);
        }
    }
}

fn schema(
    group_version: (&str, &str),
    of: &'static Type,
    description: &str,
    fields: &[&str],
) -> Value {
    let mut schema = match of.scalar {
        Some(Of::Quantity) => object([("oneOf", json!([{"type": "string"}, {"type": "number"}]))]),
        Some(Of::IntOrString) => object([
            ("format", json!("int-or-string")),
            ("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
        ]),
        Some(Of::Time | Of::MicroTime) => {
            object([("type", json!("string")), ("format", json!("date-time"))])
        }
        // Any JSON at all.
        Some(_) if of.short_name().starts_with("JSON") => Map::new(),
        _ => object([("type", json!("object"))]),
    };
    if !description.is_empty() {
        schema.insert("description".to_owned(), json!(description));
    }
    if !of.fields.is_empty() {
        let properties: Map<String, Value> = of
            .fields
            .iter()
            .zip(fields)
            .map(|(field, description)| (field.name.to_owned(), property(field, description)))
            .collect();
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    let required: Vec<&str> =
        of.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if of.atomic {
        schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    if let Some(union) = of.union {
        schema.insert("x-kubernetes-unions".to_owned(), unions(union));
    }
    let kinds = kinds(group_version, of);
    if !kinds.is_empty() {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
    Value::Object(schema)
}

/// Which fields exclude one another: `discriminator;field=Value,…`.
fn unions(text: &str) -> Value {
    let (discriminator, fields) = text.split_once(';').unwrap_or_default();
    let fields = fields.split(',').filter_map(|pair| pair.split_once('='));
    let fields: Map<String, Value> =
        fields.map(|(field, value)| (field.to_owned(), value.into())).collect();
    let mut union = object([("fields-to-discriminateBy", fields.into())]);
    if !discriminator.is_empty() {
        union.insert("discriminator".to_owned(), discriminator.into());
    }
    json!([union])
}

/// The kinds a type stands for; option types belong to every group.
fn kinds((group, version): (&str, &str), of: &Type) -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    if matches!(of.short_name(), "DeleteOptions" | "WatchEvent") {
        let mut kinds = vec![kind("", "v1", of.short_name())];
        if !group.is_empty() {
            kinds.push(kind(group, version, of.short_name()));
        }
        return kinds;
    }
    types::kind_of(of).map(|found| vec![kind(found.0, found.1, found.2)]).unwrap_or_default()
}

fn property(field: &Field, description: &str) -> Value {
    let mut property = match type_of(field, &field.of) {
        // What stands beside a reference is ignored, so it is wrapped.
        Value::Object(found) if found.contains_key("$ref") => object([("allOf", json!([found]))]),
        Value::Object(found) => found,
        _ => Map::new(),
    };
    if !description.is_empty() {
        property.insert("description".to_owned(), json!(description));
    }
    if let Some(default) = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        property.insert("default".to_owned(), default);
    }
    let mut extend =
        |name: &str, value: Value| property.insert(format!("x-kubernetes-{name}"), value);
    if field.stated {
        match field.list {
            ListType::Set => drop(extend("list-type", json!("set"))),
            ListType::Map(keys) => {
                extend("list-type", json!("map"));
                extend("list-map-keys", json!(keys));
            }
            ListType::Atomic => drop(extend("list-type", json!("atomic"))),
        }
    }
    if field.atomic {
        extend("map-type", json!("atomic"));
    } else if field.granular {
        extend("map-type", json!("granular"));
    }
    let mut strategies = Vec::new();
    if field.patch.merge {
        strategies.push("merge");
    }
    if field.patch.replace {
        strategies.push("replace");
    }
    if field.patch.retain_keys {
        strategies.push("retainKeys");
    }
    if !strategies.is_empty() {
        extend("patch-strategy", json!(strategies.join(",")));
    }
    if let Some(key) = field.patch.key {
        extend("patch-merge-key", json!(key));
    }
    match property.get("allOf") {
        Some(alone) if property.len() == 1 => alone[0].clone(),
        _ => Value::Object(property),
    }
}

fn type_of(field: &Field, of: &Of) -> Value {
    match of {
        Of::String => json!({"type": "string"}),
        Of::Bool => json!({"type": "boolean"}),
        Of::Int32 => json!({"type": "integer", "format": "int32"}),
        Of::Int64 => json!({"type": "integer", "format": "int64"}),
        Of::Double => json!({"type": "number", "format": "double"}),
        Of::Bytes => json!({"type": "string", "format": "byte"}),
        Of::Object(id) => reference(types::by_id(*id).name),
        Of::List(items) => json!({"type": "array", "items": type_of(field, items)}),
        Of::Map(values) => {
            json!({"type": "object", "additionalProperties": type_of(field, values)})
        }
        _ if field.value.is_empty() => json!({"type": "object"}),
        _ => reference(field.value),
    }
}
