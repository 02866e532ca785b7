//! Tables: what `kubectl get` prints, computed by the server.
//!
//! Owns the columns (a table of facts) and one function a kind that computes the cells. A kind without such a
//! function gets its name and the time it was created.

mod core;
mod format;
mod others;
mod pod;
mod workloads;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::media::MetaVersion;
use crate::partial::{ListMeta, write_partial};
use schema::View;

/// What each row says of its object, the `includeObject` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// Everything.
    Object,
}

impl Include {
    /// Reads the query parameter; empty means [`Include::Metadata`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "None" => Self::None,
            "" | "Metadata" => Self::Metadata,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// OpenAPI type of its cells.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// OpenAPI format of its cells; `name` marks the column with the object's name.
    pub format: &'static str,
    /// Text for people; unused.
    pub description: &'static str,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: u8,
}

/// Computes the cells of one object.
type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// The columns of a table, and how to fill them.
struct Printer {
    columns: Vec<Column>,
    cells: Cells,
}

static COLUMNS: LazyLock<BTreeMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    include_str!("../facts/columns.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (table, columns) = line.split_once('\t')?;
            Some((table, columns.split('\t').filter_map(column).collect()))
        })
        .collect()
});

fn column(text: &'static str) -> Option<Column> {
    let mut parts = text.split('|');
    let (name, kind, format) = (parts.next()?, parts.next()?, parts.next()?);
    let priority = parts.next()?.parse().ok()?;
    Some(Column { name, kind, format, description: "", priority })
}

/// The table of a kind, by the name it has among the facts.
fn printer(kind: &meta::GroupVersionKind) -> Printer {
    let key = (kind.group.as_str(), kind.kind.as_str());
    let found = pod::printer(key)
        .or_else(|| core::printer(key))
        .or_else(|| workloads::printer(key))
        .or_else(|| others::printer(key));
    match found.and_then(|(table, cells)| Some((COLUMNS.get(table)?, cells))) {
        Some((columns, cells)) => Printer { columns: columns.clone(), cells },
        None => Printer {
            columns: vec![
                Column {
                    name: "Name",
                    kind: "string",
                    format: "name",
                    description: "",
                    priority: 0,
                },
                Column {
                    name: "Created At",
                    kind: "date",
                    format: "",
                    description: "",
                    priority: 0,
                },
            ],
            cells: |object, _| {
                let metadata = object.at("metadata");
                vec![metadata.at("name").clone(), metadata.at("creationTimestamp").clone()]
            },
        },
    }
}

/// Renders objects of one kind as a table.
///
/// `headers` is false for all but the first event of a watch. `now` is what ages are counted from.
///
/// # Errors
/// When an object is no JSON.
pub fn table(
    kind: &meta::GroupVersionKind,
    meta: &ListMeta,
    objects: impl IntoIterator<Item = impl AsRef<[u8]>>,
    include: Include,
    version: MetaVersion,
    headers: bool,
    now: Timestamp,
) -> serde_json::Result<Vec<u8>> {
    let printer = printer(kind);
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"kind\":\"Table\",\"apiVersion\":\"");
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    serde_json::to_writer(&mut out, meta)?;
    out.extend_from_slice(b",\"columnDefinitions\":");
    serde_json::to_writer(&mut out, if headers { printer.columns.as_slice() } else { &[] })?;
    out.extend_from_slice(b",\"rows\":[");
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        row(&mut out, kind, &printer, object.as_ref(), include, version, now)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn row(
    out: &mut Vec<u8>,
    kind: &meta::GroupVersionKind,
    printer: &Printer,
    bytes: &[u8],
    include: Include,
    version: MetaVersion,
    now: Timestamp,
) -> serde_json::Result<()> {
    let object: Value = serde_json::from_slice(bytes)?;
    let mut cells = (printer.cells)(&object, now);
    cells.resize(printer.columns.len(), Value::String(String::new()));
    out.extend_from_slice(b"{\"cells\":");
    serde_json::to_writer(&mut *out, &cells)?;
    if let Some(condition) = pod::row_condition(kind, &object) {
        out.extend_from_slice(b",\"conditions\":[");
        serde_json::to_writer(&mut *out, &condition)?;
        out.push(b']');
    }
    out.extend_from_slice(b",\"object\":");
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Metadata => write_partial(out, bytes, version)?,
        Include::Object if object.has("kind") => out.extend_from_slice(bytes),
        Include::Object => {
            let mut object = object;
            if let Value::Object(fields) = &mut object {
                fields.insert("kind".to_owned(), kind.kind.clone().into());
                fields.insert("apiVersion".to_owned(), kind.api_version().into());
            }
            serde_json::to_writer(&mut *out, &object)?;
        }
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests;
