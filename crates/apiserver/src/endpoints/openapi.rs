//! `/openapi/v3`: the documents by group and version, made when asked for; `/openapi/v2` is made of them.
//!
//! Documents follow from rows and the binary alone, so their tags are known without making them. Nothing is
//! kept: clients cache by the hash in the URL. Refuses to know what is in a document.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use registry::Row;
use schema::openapi::{Resource, Subresource, document};
use serde_json::{Value, json};
use serve::Body;

use super::respond;
use crate::request::Query;

/// The media type kubectl asks for.
const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What is served, by path below `/openapi/v3/`.
pub(crate) struct OpenApi {
    versions: BTreeMap<String, Version>,
    index: Bytes,
}

struct Version {
    group: String,
    version: String,
    rows: Vec<Arc<Row>>,
    tag: String,
}

impl OpenApi {
    /// `build` changes whenever the binary's documents may.
    pub(crate) fn new<'a>(rows: impl Iterator<Item = &'a Arc<Row>>, build: &str) -> Self {
        let mut versions: BTreeMap<String, Version> = BTreeMap::new();
        for row in rows {
            let prefix = if row.resource.group.is_empty() { "api" } else { "apis" };
            let path = format!("{prefix}/{}", row.api_version());
            let entry = versions.entry(path).or_insert_with(|| Version {
                group: row.resource.group.clone(),
                version: row.resource.version.clone(),
                rows: Vec::new(),
                tag: String::new(),
            });
            entry.rows.push(row.clone());
        }
        let mut paths = serde_json::Map::new();
        for (path, version) in &mut versions {
            let names: Vec<&str> =
                version.rows.iter().map(|row| row.resource.resource.as_str()).collect();
            version.tag =
                respond::entity_tag(format!("{build} {path} {}", names.join(" ")).as_bytes());
            let hash = version.tag.trim_matches('"');
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
        Self { versions, index: json!({ "paths": paths }).to_string().into() }
    }

    /// Answers a GET below `/openapi`.
    pub(crate) fn answer(
        &self,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        let path = path.trim_start_matches("/openapi/").trim_end_matches('/');
        match path {
            "v2" => Some(self.v2(headers)),
            "v3" => Some(respond::json(StatusCode::OK, self.index.clone())),
            _ => self.v3(path.strip_prefix("v3/")?, query, headers),
        }
    }

    fn v3(&self, path: &str, query: &Query, headers: &HeaderMap) -> Option<Response<Body>> {
        let version = self.versions.get(path)?;
        let hash = version.tag.trim_matches('"');
        match query.get("hash") {
            Some(given) if given != hash => {
                let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
                let target = format!("/openapi/v3/{path}?hash={hash}");
                response
                    .headers_mut()
                    .insert(header::LOCATION, HeaderValue::from_str(&target).ok()?);
                return Some(response);
            }
            _ => {}
        }
        if !accepts_json(headers) {
            return Some(respond::text(
                StatusCode::NOT_ACCEPTABLE,
                "only application/json is served\n",
            ));
        }
        let known = headers
            .get(header::IF_NONE_MATCH)
            .is_some_and(|tag| tag.as_bytes() == version.tag.as_bytes());
        let bytes = if known { Bytes::new() } else { version.document() };
        let mut response = respond::tagged(headers, respond::JSON, &version.tag, bytes);
        if query.get("hash").is_some() {
            // The URL names the content: it may be kept forever.
            let forever = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
        }
        Some(response)
    }

    /// The old single document, for clients that read JSON. In protobuf it is empty: kubectl up to 1.27 fails
    /// without one, but takes nothing from it that version 3 has.
    fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if accept.contains("com.github.proto-openapi.spec.v2") {
            return respond::bytes(StatusCode::OK, V2_PROTOBUF_TYPE, empty_v2_protobuf());
        }
        if !accepts_json(headers) {
            return respond::text(StatusCode::NOT_ACCEPTABLE, "only application/json is served\n");
        }
        let mut definitions = serde_json::Map::new();
        let mut paths = serde_json::Map::new();
        for version in self.versions.values() {
            let text = String::from_utf8_lossy(&version.document())
                .replace("#/components/schemas/", "#/definitions/");
            let Ok(mut document) = serde_json::from_str::<Value>(&text) else { continue };
            if let Value::Object(schemas) = document["components"]["schemas"].take() {
                definitions.extend(schemas);
            }
            if let Value::Object(more) = document["paths"].take() {
                paths.extend(more.into_iter().map(|(path, item)| (path, operations(item))));
            }
        }
        let document = json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": "unversioned"},
            "paths": paths, "definitions": definitions
        });
        respond::json(StatusCode::OK, document.to_string())
    }
}

/// A document of gnostic's `openapi.v2.Document` with nothing but what is required: `swagger` (field 1) and
/// `info` (2), which holds `title` (1) and `version` (2).
fn empty_v2_protobuf() -> Vec<u8> {
    fn text(field: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap_or(0);
        let mut out = vec![field << 3 | 2, length];
        out.extend_from_slice(value);
        out
    }
    let info = [text(1, b"Kubernetes"), text(2, b"unversioned")].concat();
    [text(1, b"2.0"), text(2, &info)].concat()
}

/// The operations of a path without what version 3 says differently: bodies and responses.
fn operations(mut item: Value) -> Value {
    for operation in item.as_object_mut().into_iter().flatten().map(|(_, operation)| operation) {
        if let Some(fields) = operation.as_object_mut() {
            fields.remove("requestBody");
            fields.remove("parameters");
            fields.insert("responses".into(), json!({"200": {"description": "OK"}}));
        }
    }
    item
}

impl Version {
    fn document(&self) -> Bytes {
        let resources: Vec<Resource> = self.rows.iter().map(|row| resource(row)).collect();
        document(&self.group, &self.version, &resources).into()
    }
}

fn resource(row: &Row) -> Resource {
    let verbs = |verbs: &[registry::Verb]| verbs.iter().map(ToString::to_string).collect();
    let subresources = row.subresources.iter().map(|subresource| Subresource {
        name: subresource.name.clone(),
        kind: (
            subresource.kind.group.clone(),
            subresource.kind.version.clone(),
            subresource.kind.kind.clone(),
        ),
        verbs: verbs(&subresource.verbs),
    });
    Resource {
        name: row.resource.resource.clone(),
        kind: row.kind.kind.clone(),
        namespaced: row.namespaced(),
        verbs: verbs(&row.verbs),
        subresources: subresources.collect(),
    }
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let accept =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.is_empty()
        || accept.split(',').any(|media| {
            matches!(
                media.split(';').next().unwrap_or_default().trim(),
                "application/json" | "application/*" | "*/*"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::Rows;

    #[tokio::test]
    async fn the_index_leads_to_documents() {
        let rows = Rows::builtin();
        let openapi = OpenApi::new(rows.iter(), "test");
        let index: Value = serde_json::from_slice(&openapi.index).expect("JSON");
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
        let (path, query) = url.split_once('?').expect("a hash");
        let headers = HeaderMap::new();
        let response = openapi.answer(path, &Query::parse(query), &headers).expect("served");
        assert_eq!(response.status(), StatusCode::OK);
        let tag = response.headers()[header::ETAG].clone();
        let body = response.into_body().read(1 << 24).await.expect("body");
        let document: Value = serde_json::from_slice(&body).expect("JSON");
        assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
        let mut again = HeaderMap::new();
        again.insert(header::IF_NONE_MATCH, tag);
        let response = openapi.answer(path, &Query::parse(query), &again).expect("served");
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        let moved = openapi.answer(path, &Query::parse("hash=old"), &headers).expect("served");
        assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
        assert!(openapi.answer("/openapi/v3/apis/none/v1", &Query::default(), &headers).is_none());
    }
}
