//! OpenAPI v3 documents, one per group and version, made when they are asked for.
//!
//! Types and facts come from the graph, descriptions from a packed blob, paths from the resources that the
//! caller serves. Nothing is kept between calls: a document takes some milliseconds and up to 2 MB.

mod paths;
mod schemas;

use serde_json::{Map, Value, json};

pub use paths::{Resource, Subresource};

/// The document of a group and version that serves these resources, as JSON.
///
/// It holds what kubectl needs for `explain`, `apply` and validation: schemas with descriptions and
/// `x-kubernetes-*` extensions, and paths with their actions, kinds and query parameters.
#[must_use]
pub fn document(group: &str, version: &str, resources: &[Resource]) -> Vec<u8> {
    let mut roots: Vec<&str> =
        ["APIResourceList", "DeleteOptions", "Patch", "Status", "WatchEvent"].to_vec();
    let meta = roots.drain(..).filter_map(|kind| {
        crate::types::by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))
    });
    let served = resources.iter().flat_map(|resource| resource.kinds(group, version));
    let types =
        served.filter_map(|(group, version, kind)| crate::types::by_kind(&group, &version, &kind));
    let components = schemas::components(group, meta.chain(types));
    let security = json!({
        "BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}
    });
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths::paths(group, version, resources),
        "components": {"schemas": components, "securitySchemes": security},
    });
    document.to_string().into_bytes()
}

/// `{"$ref": …}` to a type of the same document.
fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A JSON object from pairs.
fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
