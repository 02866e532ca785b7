//! The schemas of a document: the graph of types written as OpenAPI, with descriptions and extensions.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Map, Value, json};

use super::{object, reference};
use crate::types::{self, Field, ListType, Of, Type};

/// Descriptions of all types and fields, packed by the build script.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// The schemas of these types and of all they refer to, by name.
pub(super) fn components(
    group: &str,
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
            all.insert(of.name.to_owned(), schema(group, of, own, &fields));
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
        let inner = field.of.object().or_else(|| types::by_name(scalar_name(of, &field.of)?));
        if let Some(inner) = inner {
            collect(inner, wanted);
        }
    }
}

/// The named type of a value that is no object; `owner` is where the field is.
fn scalar_name(owner: &Type, of: &Of) -> Option<&'static str> {
    Some(match of {
        Of::Quantity => QUANTITY,
        Of::IntOrString => INT_OR_STRING,
        Of::Time => TIME,
        Of::MicroTime => MICRO_TIME,
        Of::Any if owner.short_name() == "ManagedFieldsEntry" => FIELDS,
        Of::Any if owner.name.starts_with("io.k8s.apiextensions-apiserver") => JSON,
        Of::Any => RAW_EXTENSION,
        Of::List(of) | Of::Map(of) => return scalar_name(owner, of),
        _ => return None,
    })
}

fn schema(group: &str, of: &'static Type, description: &str, fields: &[&str]) -> Value {
    let mut schema = match of.scalar {
        Some(Of::Quantity) => object([("oneOf", json!([{"type": "string"}, {"type": "number"}]))]),
        Some(Of::IntOrString) => object([
            ("format", json!("int-or-string")),
            ("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
        ]),
        Some(Of::Time | Of::MicroTime) => {
            object([("type", json!("string")), ("format", json!("date-time"))])
        }
        Some(_) if of.name == JSON => Map::new(),
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
            .map(|(field, description)| (field.name.to_owned(), property(of, field, description)))
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
    let kinds = kinds(group, of);
    if !kinds.is_empty() {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
    Value::Object(schema)
}

/// The kinds a type stands for; option types belong to every group.
fn kinds(group: &str, of: &Type) -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    if matches!(of.short_name(), "DeleteOptions" | "WatchEvent") {
        let mut kinds = vec![kind("", "v1", of.short_name())];
        if !group.is_empty() {
            kinds.push(kind(group, "v1", of.short_name()));
        }
        return kinds;
    }
    types::kind_of(of).map(|found| vec![kind(found.0, found.1, found.2)]).unwrap_or_default()
}

fn property(owner: &Type, field: &Field, description: &str) -> Value {
    let mut property = match type_of(owner, &field.of) {
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
    if matches!(field.of, Of::List(_)) {
        match field.list {
            ListType::Set => drop(extend("list-type", json!("set"))),
            ListType::Map(keys) => {
                extend("list-type", json!("map"));
                extend("list-map-keys", json!(keys));
            }
            // The items of a list of objects are not patched as one.
            ListType::Atomic if field.name == "items" && owner.short_name().ends_with("List") => {}
            ListType::Atomic => drop(extend("list-type", json!("atomic"))),
        }
    }
    if field.atomic {
        extend("map-type", json!("atomic"));
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
    Value::Object(property)
}

fn type_of(owner: &Type, of: &Of) -> Value {
    match of {
        Of::String => json!({"type": "string"}),
        Of::Bool => json!({"type": "boolean"}),
        Of::Int32 => json!({"type": "integer", "format": "int32"}),
        Of::Int64 => json!({"type": "integer", "format": "int64"}),
        Of::Double => json!({"type": "number", "format": "double"}),
        Of::Bytes => json!({"type": "string", "format": "byte"}),
        Of::Object(id) => reference(types::by_id(*id).name),
        Of::List(items) => json!({"type": "array", "items": type_of(owner, items)}),
        Of::Map(values) => {
            json!({"type": "object", "additionalProperties": type_of(owner, values)})
        }
        other => scalar_name(owner, other).map_or_else(|| json!({"type": "object"}), reference),
    }
}
