//! `/openapi/v3`: the documents by group and version, made when asked for; `/openapi/v2`, made of them.
//!
//! Documents follow from rows and the binary alone, so their tags are known without making them. Of version 3
//! nothing is kept: clients cache by the hash in the URL. Version 2 is one large document, made once and kept
//! compressed. Refuses to know what is in a document.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use codec::gnostic::{OpenApiVersion, encode};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use registry::Row;
use schema::openapi::{self, Merge, Resource, Subresource};
use serde_json::{Value, json};
use serve::Body;

use super::respond;
use crate::request::Query;

/// A syntax a document is served in.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Syntax {
    /// What follows `application/` in `Accept`.
    accepted: &'static str,
    /// What is answered.
    media: &'static str,
    protobuf: bool,
}

const JSON: Syntax = Syntax { accepted: "json", media: respond::JSON, protobuf: false };
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// The spelling with `@` is deprecated, and kubectl's.
const V2: [Syntax; 3] = [
    JSON,
    Syntax {
        accepted: "com.github.proto-openapi.spec.v2@v1.0+protobuf",
        media: V2_PROTOBUF,
        protobuf: true,
    },
    Syntax {
        accepted: "com.github.proto-openapi.spec.v2.v1.0+protobuf",
        media: V2_PROTOBUF,
        protobuf: true,
    },
];
const V3: [Syntax; 3] = [
    JSON,
    Syntax {
        accepted: "com.github.proto-openapi.spec.v3.v1.0+protobuf",
        media: V3_PROTOBUF,
        protobuf: true,
    },
    Syntax {
        accepted: "com.github.proto-openapi.spec.v3@v1.0+protobuf",
        media: V3_PROTOBUF,
        protobuf: true,
    },
];

/// What is served, by path below `/openapi/v3/`.
pub(crate) struct OpenApi {
    documents: BTreeMap<String, Document>,
    index: Bytes,
    build: String,
    /// Version 2 as JSON and as protobuf, each compressed once it was asked for.
    v2: [OnceLock<Bytes>; 2],
}

struct Document {
    content: Content,
    tag: String,
}

enum Content {
    /// A path that belongs to no group.
    Fixed(&'static str),
    Group(String),
    Version {
        group: String,
        version: String,
        rows: Vec<Arc<Row>>,
    },
}

impl OpenApi {
    /// `build` changes whenever the binary's documents may.
    pub(crate) fn new<'a>(rows: impl Iterator<Item = &'a Arc<Row>>, build: &str) -> Self {
        let mut documents: BTreeMap<String, Document> = BTreeMap::new();
        let mut add = |path: String, content: Content| {
            let tag = respond::entity_tag(format!("{build} {path} {}", content.names()).as_bytes());
            documents.insert(path, Document { content, tag });
        };
        for path in ["api", "apis", "openid/v1/jwks", "version"] {
            add(path.to_owned(), Content::Fixed(path));
        }
        let mut versions: BTreeMap<(String, String), Vec<Arc<Row>>> = BTreeMap::new();
        for row in rows {
            let key = (row.resource.group.clone(), row.resource.version.clone());
            versions.entry(key).or_default().push(row.clone());
        }
        for ((group, version), rows) in versions {
            if group.is_empty() {
                add(format!("api/{version}"), Content::Version { group, version, rows });
            } else {
                add(format!("apis/{group}"), Content::Group(group.clone()));
                add(format!("apis/{group}/{version}"), Content::Version { group, version, rows });
            }
        }
        let paths: serde_json::Map<String, Value> = documents
            .iter()
            .map(|(path, document)| {
                (path.clone(), json!({"serverRelativeURL": address(path, &document.tag)}))
            })
            .collect();
        let index = json!({ "paths": paths }).to_string().into();
        Self { documents, index, build: build.to_owned(), v2: Default::default() }
    }

    /// Answers a GET below `/openapi`.
    pub(crate) fn answer(
        &self,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        match path.trim_start_matches("/openapi/").trim_end_matches('/') {
            "v2" => Some(self.v2(headers)),
            "v3" => {
                let tag = respond::entity_tag(&self.index);
                Some(respond::tagged(headers, respond::JSON, &tag, self.index.clone()))
            }
            path => self.v3(path.strip_prefix("v3/")?, query, headers),
        }
    }

    fn v3(&self, path: &str, query: &Query, headers: &HeaderMap) -> Option<Response<Body>> {
        let document = self.documents.get(path)?;
        let Some(syntax) = wanted(&V3, headers) else { return Some(refused()) };
        let hash = query.get("hash").filter(|hash| !hash.is_empty());
        if hash.is_some_and(|hash| hash != document.tag.trim_matches('"')) {
            let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
            let target = HeaderValue::from_str(&address(path, &document.tag)).ok()?;
            response.headers_mut().insert(header::LOCATION, target);
            return Some(response);
        }
        let bytes = || {
            let value = document.content.make();
            if syntax.protobuf {
                encode(OpenApiVersion::V3, &value).into()
            } else {
                Bytes::from(value.to_string())
            }
        };
        let bytes = if known(headers, &document.tag) { Bytes::new() } else { bytes() };
        let mut response = respond::tagged(headers, syntax.media, &document.tag, bytes);
        if hash.is_some() {
            // The URL names the content: it may be kept forever.
            let forever = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
        }
        Some(response)
    }

    /// The old single document.
    fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let Some(syntax) = wanted(&V2, headers) else { return refused() };
        let tag = respond::entity_tag(format!("{} {}", self.build, self.index.len()).as_bytes());
        if known(headers, &tag) {
            return respond::tagged(headers, syntax.media, &tag, Bytes::new());
        }
        let kept =
            self.v2[usize::from(syntax.protobuf)].get_or_init(|| self.packed(syntax.protobuf));
        if respond::accepts_gzip(headers) {
            let mut response = respond::tagged(headers, syntax.media, &tag, kept.clone());
            respond::mark_gzip(&mut response);
            return response;
        }
        let mut plain = Vec::new();
        match flate2::read::GzDecoder::new(&kept[..]).read_to_end(&mut plain) {
            Ok(_) => respond::tagged(headers, syntax.media, &tag, plain.into()),
            Err(error) => respond::failure(&meta::Status::internal(error)),
        }
    }

    /// Version 2, compressed.
    fn packed(&self, protobuf: bool) -> Bytes {
        let mut merge = Merge::default();
        for document in self.documents.values() {
            merge.add(document.content.make());
        }
        let document = merge.finish(&self.build);
        let bytes = if protobuf {
            encode(OpenApiVersion::V2, &document)
        } else {
            document.to_string().into_bytes()
        };
        respond::gzip(&bytes).unwrap_or_default()
    }
}

fn address(path: &str, tag: &str) -> String {
    format!("/openapi/v3/{path}?hash={}", tag.trim_matches('"'))
}

fn known(headers: &HeaderMap, tag: &str) -> bool {
    headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes())
}

fn refused() -> Response<Body> {
    respond::text(StatusCode::NOT_ACCEPTABLE, "")
}

/// The syntax that fits what the client likes best.
fn wanted(served: &[Syntax], headers: &HeaderMap) -> Option<Syntax> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let accept = accept.filter(|accept| !accept.is_empty()).unwrap_or("*/*");
    let mut clauses: Vec<(f32, &str)> = accept.split(',').map(clause).collect();
    clauses.sort_by(|one, other| other.0.total_cmp(&one.0));
    let fits = |media: &str, syntax: &Syntax| {
        let (kind, rest) = media.split_once('/').unwrap_or((media, "*"));
        matches!(kind, "application" | "*") && (rest == "*" || rest == syntax.accepted)
    };
    clauses.iter().find_map(|(_, media)| served.iter().find(|one| fits(media, one)).copied())
}

/// A media type and how much it is liked.
fn clause(text: &str) -> (f32, &str) {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
    (quality.unwrap_or(1.0), media)
}

impl Content {
    /// What tells contents of one path apart.
    fn names(&self) -> String {
        match self {
            Self::Version { rows, .. } => {
                let names: Vec<&str> =
                    rows.iter().map(|row| row.resource.resource.as_str()).collect();
                names.join(" ")
            }
            Self::Fixed(_) | Self::Group(_) => String::new(),
        }
    }

    fn make(&self) -> Value {
        match self {
            Self::Fixed(path) => openapi::fixed(path).unwrap_or_default(),
            Self::Group(group) => openapi::group(group),
            Self::Version { group, version, rows } => {
                let resources: Vec<Resource> = rows.iter().map(|row| resource(row)).collect();
                openapi::document(group, version, &resources)
            }
        }
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
        // Namespaces are answered with too, but no document ever said so, and clients are made of it.
        returned: row.returned && row.kind.kind != "Namespace",
        subresources: subresources.collect(),
    }
}

#[cfg(test)]
mod tests;
