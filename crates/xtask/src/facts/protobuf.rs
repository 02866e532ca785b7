//! Writes the table of protobuf fields that `codec` compiles in: of every kind that is served, and of
//! what those refer to.
//!
//! A line `=name` begins a message, a line `number name type` is a field; `~` marks a message whose
//! fields stand in JSON beside those of the message around it. Types: s string, i integer, b boolean,
//! d double, y bytes, @N a message; [T a list, {T a map of strings to T. A line `kind group/version name`
//! says which message a kind is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::schema::{read, schemas, write};

/// Messages whose JSON is not that of their fields; the reader knows them by name.
const SPECIAL: &[&str] = &[
    "k8s.io.apimachinery.pkg.api.resource.Quantity",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time",
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime",
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "k8s.io.apimachinery.pkg.runtime.RawExtension",
    "k8s.io.api.authorization.v1.ExtraValue",
    "k8s.io.api.authentication.v1.ExtraValue",
    "k8s.io.api.certificates.v1.ExtraValue",
];

/// Writes `protobuf.tsv` of codec.
pub(crate) fn generate(reference: &Path) -> anyhow::Result<()> {
    let fields = read(&reference.join("protobuf-fields.json"))?;
    let messages = fields.as_object().context("protobuf-fields.json holds no messages")?;
    let documents = schemas(&reference.join("openapi-v3"))?;
    let mut table = Table { messages, documents: &documents, written: BTreeMap::new() };
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
            if messages.contains_key(&message) && table.add(&message) {
                kinds.insert(format!("{}\t{group}\t{message}", text("kind")));
            }
        }
    }
    let mut out = String::from(super::schema::HEADER);
    for kind in kinds {
        writeln!(out, "{kind}")?;
    }
    for (name, lines) in table.written {
        if let Some(lines) = lines {
            writeln!(out, "={name}\n{lines}")?;
        }
    }
    write(Path::new("crates/codec/facts/protobuf.tsv"), out.trim_end())
}

/// `io.k8s.api.apps.v1.Deployment` is `k8s.io.api.apps.v1.Deployment` in protobuf.
fn message_of(schema: &str) -> String {
    schema.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_")
}

fn schema_of(message: &str) -> String {
    message.replacen("k8s.io.", "io.k8s.", 1).replace('_', "-")
}

struct Table<'a> {
    messages: &'a serde_json::Map<String, Value>,
    documents: &'a BTreeMap<String, Value>,
    /// `None` while a message is being written, or where its JSON cannot be told from its fields.
    written: BTreeMap<String, Option<String>>,
}

impl Table<'_> {
    /// Adds a message and what it refers to; whether its JSON can be told from its fields.
    fn add(&mut self, name: &str) -> bool {
        if SPECIAL.contains(&name) {
            return true;
        }
        if let Some(written) = self.written.get(name) {
            return written.is_some();
        }
        // A message that refers to itself is fine if the rest of it is.
        self.written.insert(name.to_owned(), Some(String::new()));
        let lines = self.lines(name);
        let fine = lines.is_some();
        self.written.insert(name.to_owned(), lines);
        fine
    }

    fn lines(&mut self, name: &str) -> Option<String> {
        let mut lines = Vec::new();
        let properties = self.documents.get(&schema_of(name)).map(|schema| &schema["properties"]);
        for field in self.messages.get(name)?.as_array()? {
            let (number, name, kind) = (field[0].as_u64()?, field[1].as_str()?, field[2].as_str()?);
            // Initialisms are spelt otherwise in JSON: `uID` is `uid` there.
            let known = match properties.map(|properties| properties.as_object()) {
                None | Some(None) => Some(name),
                Some(Some(properties)) => {
                    properties.keys().map(String::as_str).find(|known| *known == name).or_else(
                        || {
                            properties
                                .keys()
                                .map(String::as_str)
                                .find(|known| known.eq_ignore_ascii_case(name))
                        },
                    )
                }
            };
            let kind = self.kind(kind)?;
            if let Some(name) = known {
                lines.push(format!("{number}\t{name}\t{kind}"));
            } else if kind.starts_with('@') {
                lines.push(format!("{number}\t~\t{kind}"));
            } else {
                return None;
            }
        }
        Some(lines.join("\n"))
    }

    fn kind(&mut self, kind: &str) -> Option<String> {
        if let Some(element) = kind.strip_prefix("repeated ") {
            return Some(format!("[{}", self.kind(element)?));
        }
        if let Some(value) =
            kind.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>'))
        {
            return Some(format!("{{{}", self.kind(value)?));
        }
        Some(match kind {
            "string" => "s".to_owned(),
            "int32" | "int64" | "uint32" | "uint64" => "i".to_owned(),
            "bool" => "b".to_owned(),
            "double" => "d".to_owned(),
            "bytes" => "y".to_owned(),
            message => self.add(message).then(|| format!("@{message}"))?,
        })
    }
}
