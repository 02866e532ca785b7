//! What the server serves, told to clients: the plain discovery documents and the aggregated one.
//!
//! All documents are made once from the rows and sent as they are. Refuses to know how a resource behaves.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use codec::Encoding;
use http::{HeaderMap, Response, StatusCode, header};
use meta::{GroupVersionKind, Status};
use registry::{Row, Scope, Subresource, Verb};
use serde_json::{Value, json};
use serve::Body;
use sha2::{Digest as _, Sha256};

use super::respond;

/// The media type parameters of the aggregated document.
const AGGREGATED: &str = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups in the order in which clients should prefer them, where it matters; others follow by name.
const ORDER: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// A finished document with its entity tag.
struct Document {
    bytes: Bytes,
    tag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let bytes = Bytes::from(value.to_string());
        Self { tag: respond::entity_tag(&bytes), bytes }
    }
}

/// All discovery documents, by path.
pub(crate) struct Discovery {
    plain: BTreeMap<String, Document>,
    aggregated_core: Document,
    aggregated_groups: Document,
}

impl Discovery {
    /// Makes the documents. `address` is where clients reach the server, `host:port`.
    pub(crate) fn new<'a>(rows: impl Iterator<Item = &'a Arc<Row>>, address: &str) -> Self {
        let mut groups: BTreeMap<String, BTreeMap<String, Vec<Arc<Row>>>> = BTreeMap::new();
        for row in rows {
            let versions = groups.entry(row.resource.group.clone()).or_default();
            versions.entry(row.resource.version.clone()).or_default().push(row.clone());
        }
        let mut ordered: Vec<Group> = groups
            .into_iter()
            .map(|(name, versions)| {
                let mut versions: Vec<_> = versions.into_iter().collect();
                versions.sort_by_key(|(version, _)| Reverse(version_rank(version)));
                Group { name, versions }
            })
            .collect();
        ordered.sort_by_key(|group| {
            let place = ORDER.iter().position(|name| *name == group.name);
            (place.unwrap_or(ORDER.len()), group.name.clone())
        });
        let (core, named): (Vec<_>, Vec<_>) =
            ordered.into_iter().partition(|group| group.name.is_empty());
        Self {
            plain: plain(&core, &named, address),
            aggregated_core: Document::new(&aggregated(&core)),
            aggregated_groups: Document::new(&aggregated(&named)),
        }
    }

    /// Answers a GET of a discovery path, or none if the path is no such.
    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let path = path.trim_end_matches('/');
        let plain = self.plain.get(path)?;
        let aggregated = match path {
            "/api" => Some(&self.aggregated_core),
            "/apis" => Some(&self.aggregated_groups),
            _ => None,
        };
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let Some(form) = wanted(accept.unwrap_or_default()) else {
            return Some(respond::failure(&Status::not_acceptable(
                &SERVED.map(|(media, _)| media),
            )));
        };
        let (document, aggregated) = match aggregated.filter(|_| form.aggregated) {
            Some(document) => (document, true),
            None => (plain, false),
        };
        let media = form.encoding.media_type();
        Some(match form.encoded(document) {
            Err(error) => respond::failure(&Status::internal(error)),
            Ok(bytes) if aggregated => {
                let mut response = respond::tagged(headers, media, &document.tag, bytes);
                let described = format!("{media};{AGGREGATED}").parse().ok();
                if let (true, Some(media)) = (response.status() == StatusCode::OK, described) {
                    response.headers_mut().insert(header::CONTENT_TYPE, media);
                }
                response
            }
            Ok(bytes) => respond::bytes(StatusCode::OK, media, bytes),
        })
    }

    /// The paths there are.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.plain.keys().map(String::as_str)
    }
}

struct Group {
    name: String,
    /// Versions with their rows, the preferred version first.
    versions: Vec<(String, Vec<Arc<Row>>)>,
}

/// How a document is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Sent {
    encoding: Encoding,
    aggregated: bool,
}

impl Sent {
    fn encoded(self, document: &Document) -> Result<Bytes, String> {
        let wrong = |error: &dyn std::fmt::Display| error.to_string();
        match self.encoding {
            Encoding::Json => Ok(document.bytes.clone()),
            Encoding::Yaml => {
                let text =
                    codec::yaml::from_json(&document.bytes).map_err(|error| wrong(&error))?;
                Ok(text.into())
            }
            Encoding::Protobuf => {
                let mut value: Value =
                    serde_json::from_slice(&document.bytes).map_err(|error| wrong(&error))?;
                // The oldest documents do not say which version they are of.
                value["apiVersion"] = value["apiVersion"].as_str().unwrap_or("v1").into();
                let json = value.to_string();
                codec::protobuf::object(json.as_bytes())
                    .map(Bytes::from)
                    .map_err(|error| wrong(&error))
            }
        }
    }
}

/// What documents are served as.
const SERVED: [(&str, Encoding); 3] = [
    ("application/json", Encoding::Json),
    ("application/yaml", Encoding::Yaml),
    ("application/vnd.kubernetes.protobuf", Encoding::Protobuf),
];

/// The form liked best of those that can be sent.
fn wanted(accept: &str) -> Option<Sent> {
    let accept = if accept.is_empty() { "*/*" } else { accept };
    let mut fitting: Vec<(f32, Sent)> = accept.split(',').filter_map(fit).collect();
    fitting.sort_by(|one, other| other.0.total_cmp(&one.0));
    fitting.first().map(|(_, form)| *form)
}

/// How much a media type is liked and what it is, if it can be sent.
fn fit(media: &str) -> Option<(f32, Sent)> {
    let mut parts = media.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let parameters: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
    let get = |name: &str| parameters.get(name).copied();
    let quality = get("q").and_then(|q| q.parse().ok()).unwrap_or(1.0);
    let any = matches!(kind, "application/*" | "*/*");
    let encoding = SERVED.iter().find(|(media, _)| any || *media == kind)?.1;
    let aggregated = match get("as") {
        None => false,
        Some("APIGroupDiscoveryList")
            if (get("g"), get("v")) == (Some("apidiscovery.k8s.io"), Some("v2")) =>
        {
            true
        }
        Some(_) => return None,
    };
    Some((quality, Sent { encoding, aggregated }))
}

/// Kubernetes' order of versions: GA before beta before alpha, then higher before lower.
pub(crate) fn version_rank(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or_default();
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<u32>() else { return (0, 0, 0) };
    let stage = &rest[digits..];
    let minor = |prefix: &str| stage.strip_prefix(prefix).and_then(|minor| minor.parse().ok());
    match (stage, minor("beta"), minor("alpha")) {
        ("", ..) => (3, major, 0),
        (_, Some(minor), _) => (2, major, minor),
        (_, _, Some(minor)) => (1, major, minor),
        _ => (0, 0, 0),
    }
}

fn plain(core: &[Group], named: &[Group], address: &str) -> BTreeMap<String, Document> {
    let mut documents = BTreeMap::new();
    let versions: Vec<&str> = core
        .iter()
        .flat_map(|group| &group.versions)
        .map(|(version, _)| version.as_str())
        .collect();
    let api = json!({
        "kind": "APIVersions", "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    });
    documents.insert("/api".to_owned(), Document::new(&api));
    for (version, rows) in core.iter().flat_map(|group| &group.versions) {
        let mut list = resource_list(version, rows);
        // The core list predates the field and never got it.
        list.as_object_mut().map(|list| list.remove("apiVersion"));
        documents.insert(format!("/api/{version}"), Document::new(&list));
    }
    let groups: Vec<Value> = named.iter().map(group_entry).collect();
    let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
    documents.insert("/apis".to_owned(), Document::new(&list));
    for group in named {
        let mut entry = group_entry(group);
        entry["kind"] = "APIGroup".into();
        entry["apiVersion"] = "v1".into();
        documents.insert(format!("/apis/{}", group.name), Document::new(&entry));
        for (version, rows) in &group.versions {
            let group_version = format!("{}/{version}", group.name);
            let path = format!("/apis/{group_version}");
            documents.insert(path, Document::new(&resource_list(&group_version, rows)));
        }
    }
    documents
}

fn group_entry(group: &Group) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|(name, _)| version(name)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn resource_list(group_version: &str, rows: &[Arc<Row>]) -> Value {
    let mut resources = Vec::new();
    for row in rows {
        let mut entry = json!({
            "name": row.resource.resource, "singularName": row.singular, "namespaced": row.namespaced(),
            "kind": row.kind.kind, "verbs": verbs(&row.verbs)
        });
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        if let Some(storage) = &row.storage {
            entry["storageVersionHash"] = storage_version_hash(&storage.kind).into();
        }
        resources.push(entry);
        for subresource in &row.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", row.resource.resource, subresource.name), "singularName": "",
                "namespaced": row.namespaced(), "kind": subresource.kind.kind,
                "verbs": verbs(&subresource.verbs)
            });
            if subresource.foreign {
                entry["group"] = subresource.kind.group.as_str().into();
                entry["version"] = subresource.kind.version.as_str().into();
            }
            resources.push(entry);
        }
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources
    })
}

/// What changes with the version that a resource is stored in; migrators compare it.
fn storage_version_hash(kind: &GroupVersionKind) -> String {
    let name = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    BASE64.encode(&Sha256::digest(name)[..8])
}

fn aggregated(groups: &[Group]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(version, rows)| {
                    let resources: Vec<Value> =
                        rows.iter().map(|row| aggregated_resource(row)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.name.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group.name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items
    })
}

fn aggregated_resource(row: &Row) -> Value {
    let kind = &row.kind;
    let mut entry = json!({
        "resource": row.resource.resource,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if row.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(&row.verbs)
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        let parts: Vec<Value> = row.subresources.iter().map(aggregated_subresource).collect();
        entry["subresources"] = parts.into();
    }
    entry
}

fn aggregated_subresource(subresource: &Subresource) -> Value {
    let kind = &subresource.kind;
    json!({
        "subresource": subresource.name,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "verbs": verbs(&subresource.verbs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::Rows;

    #[test]
    fn the_form_liked_best_is_sent() {
        let check = |accept: &str, encoding: Encoding, aggregated: bool| {
            assert_eq!(wanted(accept), Some(Sent { encoding, aggregated }), "{accept}");
        };
        let new = format!("application/json;{AGGREGATED}");
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        check(&new, Encoding::Json, true);
        check(&format!("{new},{old},application/json"), Encoding::Json, true);
        check(&format!("{old},application/json"), Encoding::Json, false);
        check(&format!("{new};q=0.5,application/json"), Encoding::Json, false);
        check(&format!("application/json;q=0.5,{new};profile=nopeer"), Encoding::Json, true);
        let protobuf = "application/vnd.kubernetes.protobuf";
        check(&format!("{protobuf};{AGGREGATED},application/json"), Encoding::Protobuf, true);
        check(&format!("{protobuf},application/json"), Encoding::Protobuf, false);
        check("application/yaml", Encoding::Yaml, false);
        check("", Encoding::Json, false);
        check("text/html,*/*;q=0.1", Encoding::Json, false);
        assert_eq!(wanted("text/html"), None);
    }

    #[test]
    fn every_document_is_sent_in_every_encoding() {
        let discovery = Discovery::new(Rows::builtin().iter(), "127.0.0.1:6443");
        for (path, document) in &discovery.plain {
            for (_, encoding) in SERVED {
                let bytes = Sent { encoding, aggregated: false }.encoded(document);
                let bytes = bytes.unwrap_or_else(|error| panic!("{path} as {encoding:?}: {error}"));
                assert!(!bytes.is_empty(), "{path}");
            }
        }
        for document in [&discovery.aggregated_core, &discovery.aggregated_groups] {
            Sent { encoding: Encoding::Protobuf, aggregated: true }
                .encoded(document)
                .expect("encoded");
        }
    }

    #[test]
    fn versions_are_ranked_as_kubernetes_ranks_them() {
        let mut versions = ["v1beta1", "v2", "v1", "v1alpha3", "v2beta2", "x"];
        versions.sort_by_key(|version| Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v2beta2", "v1beta1", "v1alpha3", "x"]);
    }

    #[test]
    fn documents_follow_from_rows() {
        let rows = Rows::builtin();
        let discovery = Discovery::new(rows.iter(), "127.0.0.1:6443");
        let core: Value = serde_json::from_slice(&discovery.plain["/api/v1"].bytes).expect("JSON");
        let pods = core["resources"]
            .as_array()
            .and_then(|list| list.iter().find(|one| one["name"] == "pods"));
        assert_eq!(pods.expect("pods")["shortNames"], json!(["po"]));
        assert_eq!(pods.expect("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
        let scaling: Value =
            serde_json::from_slice(&discovery.plain["/apis/autoscaling"].bytes).expect("JSON");
        assert_eq!(scaling["preferredVersion"]["version"], "v2");
        let groups: Value =
            serde_json::from_slice(&discovery.aggregated_groups.bytes).expect("JSON");
        let apps = groups["items"]
            .as_array()
            .and_then(|list| list.iter().find(|one| one["metadata"]["name"] == "apps"));
        let resources = &apps.expect("apps")["versions"][0]["resources"];
        let deployments = resources
            .as_array()
            .and_then(|list| list.iter().find(|one| one["resource"] == "deployments"));
        assert_eq!(
            deployments.expect("deployments")["subresources"][0]["responseKind"]["kind"],
            "Scale"
        );
    }
}
