//! OpenAPI documents: version 3, one per group and version, and what version 2 makes of them.
//!
//! Types and facts come from the graph, descriptions from a packed blob, paths from the resources that the
//! caller serves. Nothing is kept between calls: a document takes some milliseconds and up to 2 MB.

mod fixed;
mod operations;
mod outline;
mod parameters;
mod paths;
mod schemas;
mod v2;

use serde_json::{Map, Value, json};

pub use fixed::{fixed, group};
pub use outline::outline;
pub use paths::{Resource, Subresource};
pub use v2::Merge;

/// The document of a group and version that serves these resources.
#[must_use]
pub fn document(group: &str, version: &str, resources: &[Resource]) -> Value {
    assemble((group, version), paths::paths(group, version, resources))
}

/// A document of these paths with the schemas that they refer to.
fn assemble(group_version: (&str, &str), paths: Map<String, Value>) -> Value {
    let paths = Value::Object(paths);
    let mut roots = Vec::new();
    references(&paths, &mut roots);
    let types = roots.into_iter().filter_map(crate::types::by_name);
    let schemas = schemas::components(group_version, types);
    let mut components = json!({"securitySchemes": security()});
    if !schemas.is_empty() {
        components["schemas"] = schemas.into();
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths, "components": components,
    })
}

fn security() -> Value {
    json!({
        "BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}
    })
}

const SCHEMAS: &str = "#/components/schemas/";

/// `{"$ref": …}` to a type of the same document.
fn reference(name: &str) -> Value {
    json!({"$ref": format!("{SCHEMAS}{name}")})
}

/// The names of all types that something refers to.
fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            out.extend(
                map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(SCHEMAS)),
            );
            map.values().for_each(|value| references(value, out));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

/// The tag of a group's operations and how their ids name it: `apps_v1`, `AppsV1`; without a version, `apps`,
/// `Apps`.
fn tag(group: &str, version: &str) -> (String, String) {
    let mut camel = String::new();
    for part in group.strip_suffix(".k8s.io").unwrap_or(group).split('.') {
        camel.push_str(&paths::capital(if group.is_empty() { "core" } else { part }));
    }
    let mut lower: Vec<char> = camel.chars().collect();
    lower[0].make_ascii_lowercase();
    let lower: String = lower.into_iter().collect();
    match version {
        "" => (lower, camel),
        _ => (format!("{lower}_{version}"), format!("{camel}{}", paths::capital(version))),
    }
}

/// A JSON object from pairs.
fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
