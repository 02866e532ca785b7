//! Writes the table of protobuf fields that `codec` compiles in: of every kind that is served, and of
//! what those refer to.
//!
//! A line `=name` begins a message, a line `number name type` is a field; `~` marks a message whose
//! fields stand in JSON beside those of the message around it. A line `kind group/version name` says
//! which message a kind is.
//!
//! Types: s string, i 32 bits, l 64 bits, b boolean, d double, y bytes, @N a message; [T a list, {T a map
//! of strings to T. Messages whose JSON is not that of their fields: Q quantity, N integer or string, T
//! time, M time with microseconds, J any JSON, X list of strings, A/B/C schema or list, boolean, strings.
//! `?` before a type: the field may be absent. Others are always written, and `!` marks those that JSON
//! shows even when they hold nothing.

mod go;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::schema::{read, schemas, write};
use go::{Field, Source};

/// Messages whose JSON is not that of their fields, by the end of their name.
const SPECIAL: &[(&str, &str)] = &[
    ("api.resource.Quantity", "Q"),
    ("util.intstr.IntOrString", "N"),
    ("meta.v1.Time", "T"),
    ("meta.v1.MicroTime", "M"),
    ("meta.v1.FieldsV1", "J"),
    ("runtime.RawExtension", "J"),
    ("apiextensions.v1.JSON", "J"),
    ("v1.ExtraValue", "X"),
    ("meta.v1.Verbs", "X"),
    ("v1.JSONSchemaPropsOrArray", "A"),
    ("v1.JSONSchemaPropsOrBool", "B"),
    ("v1.JSONSchemaPropsOrStringArray", "C"),
];

/// Kinds that no path of OpenAPI mentions as such: kind, group and version, message.
const UNLISTED: &[(&str, &str, &str)] = &[
    ("ListMeta", "*", "k8s.io.apimachinery.pkg.apis.meta.v1.ListMeta"),
    (
        "APIGroupDiscoveryList",
        "apidiscovery.k8s.io/v2",
        "k8s.io.api.apidiscovery.v2.APIGroupDiscoveryList",
    ),
    (
        "PartialObjectMetadata",
        "meta.k8s.io/v1",
        "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    ),
    (
        "PartialObjectMetadata",
        "meta.k8s.io/v1beta1",
        "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    ),
    (
        "PartialObjectMetadataList",
        "meta.k8s.io/v1",
        "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList",
    ),
    (
        "PartialObjectMetadataList",
        "meta.k8s.io/v1beta1",
        "k8s.io.apimachinery.pkg.apis.meta.v1beta1.PartialObjectMetadataList",
    ),
];

/// Writes `protobuf.tsv` of codec, if `source` in the directory of facts is (a link to) a tree of Kubernetes'
/// own types.
pub(crate) fn generate(reference: &Path) -> anyhow::Result<()> {
    let source = reference.join("source");
    if !source.is_dir() {
        println!("facts: {} is missing: protobuf.tsv is left as it is", source.display());
        return Ok(());
    }
    let fields = read(&reference.join("protobuf-fields.json"))?;
    let messages = fields.as_object().context("protobuf-fields.json holds no messages")?;
    let documents = schemas(&reference.join("openapi-v3"))?;
    let mut table = Table { messages, source: Source::new(&source), written: BTreeMap::new() };
    let mut kinds = BTreeSet::new();
    for (name, schema) in &documents {
        let message = message_of(name);
        for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
            // Options of requests are of every group; they are looked up by kind alone.
            let everywhere = name.starts_with("io.k8s.apimachinery.");
            let group = if everywhere {
                "*".to_owned()
            } else {
                format!("{}/{}", text("group"), text("version"))
            };
            if messages.contains_key(&message) {
                table.add(&message)?;
                kinds.insert(format!("{}\t{group}\t{message}", text("kind")));
            }
        }
    }
    for (kind, group, message) in UNLISTED {
        table.add(message)?;
        kinds.insert(format!("{kind}\t{group}\t{message}"));
    }
    let mut out = String::from(super::schema::HEADER);
    for kind in kinds {
        writeln!(out, "{kind}")?;
    }
    for (name, lines) in table.written {
        writeln!(out, "={name}{}", lines.concat())?;
    }
    write(Path::new("crates/codec/facts/protobuf.tsv"), out.trim_end())
}

/// `io.k8s.api.apps.v1.Deployment` is `k8s.io.api.apps.v1.Deployment` in protobuf.
fn message_of(schema: &str) -> String {
    schema.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_")
}

struct Table<'a> {
    messages: &'a serde_json::Map<String, Value>,
    source: Source,
    written: BTreeMap<String, Vec<String>>,
}

impl Table<'_> {
    /// Adds a message and what it refers to.
    fn add(&mut self, name: &str) -> anyhow::Result<()> {
        if self.written.contains_key(name) {
            return Ok(());
        }
        // A message may refer to itself.
        self.written.insert(name.to_owned(), Vec::new());
        let lines = self.lines(name)?;
        self.written.insert(name.to_owned(), lines);
        Ok(())
    }

    fn lines(&mut self, message: &str) -> anyhow::Result<Vec<String>> {
        let known = self.source.fields(message)?;
        let mut lines = BTreeMap::new();
        let all = self.messages.get(message).and_then(Value::as_array).context("no message")?;
        for field in all {
            let fact = (field[0].as_u64(), field[1].as_str(), field[2].as_str());
            let (Some(number), Some(_), Some(kind)) = fact else { continue };
            let Field { name, pointer, omitted } =
                known.get(&number).with_context(|| format!("{message} has no field {number}"))?;
            let kind = self.kind(kind)?;
            let structure = kind.starts_with(['@', 'Q', 'N']);
            let flag = match () {
                () if kind.starts_with(['[', '{', 'X']) => "",
                () if *pointer => "?",
                () if name != "~" && (structure || !*omitted) => "!",
                () => "",
            };
            lines.insert(number, format!("\n{number}\t{name}\t{flag}{kind}"));
        }
        Ok(lines.into_values().collect())
    }

    fn kind(&mut self, kind: &str) -> anyhow::Result<String> {
        if let Some(element) = kind.strip_prefix("repeated ") {
            return Ok(format!("[{}", self.kind(element)?));
        }
        let value = kind.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>'));
        if let Some(value) = value {
            return Ok(format!("{{{}", self.kind(value)?));
        }
        let special = SPECIAL.iter().find(|(name, _)| kind.ends_with(&format!(".{name}")));
        if let Some((_, letter)) = special {
            if matches!(*letter, "A" | "B" | "C") {
                self.add(
                    &kind.replace(kind.rsplit('.').next().unwrap_or_default(), "JSONSchemaProps"),
                )?;
            }
            return Ok((*letter).to_owned());
        }
        Ok(match kind {
            "string" => "s".to_owned(),
            "int32" => "i".to_owned(),
            "int64" => "l".to_owned(),
            "bool" => "b".to_owned(),
            "double" => "d".to_owned(),
            "bytes" => "y".to_owned(),
            message => {
                self.add(message).with_context(|| message.to_owned())?;
                format!("@{message}")
            }
        })
    }
}
