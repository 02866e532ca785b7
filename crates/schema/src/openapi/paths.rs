//! The paths of a document: one entry per path and method, from the resources that are served.
//!
//! What all operations of a path share is said once, at the path. Refuses to know schemas.

use serde_json::{Map, Value, json};

use super::operations::{self, META, Operation, does};
use super::{parameters, reference, tag};

/// A resource that is served in the document's group and version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its plural name, as in paths.
    pub name: String,
    /// The kind of its objects.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: Vec<String>,
    /// Whether a deletion is documented to answer with the object rather than with a `Status`.
    pub returned: bool,
    /// What is below its objects.
    pub subresources: Vec<Subresource>,
}

/// A subresource such as `status` or `scale`.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// Its name, as in paths.
    pub name: String,
    /// Group, version and kind of what is read and written; the kind may be one of options, as of `exec`.
    pub kind: (String, String, String),
    /// What can be done with it: `create`, `get`, `patch`, `update`.
    pub verbs: Vec<String>,
}

/// What every object is answered as.
const OBJECT: &[&str] = &[
    "application/cbor",
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
/// What a list or watch is answered as beside that.
const STREAM: &[&str] = &[
    "application/cbor-seq",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: &[&str] = &[
    "application/apply-patch+cbor",
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// All paths of a group and version.
pub(super) fn paths(group: &str, version: &str, resources: &[Resource]) -> Map<String, Value> {
    let mut out = Paths { group, version, items: Map::new() };
    let prefix = match group {
        "" => format!("/api/{version}"),
        _ => format!("/apis/{group}/{version}"),
    };
    out.items.insert(format!("{prefix}/"), available(group, version));
    for resource in resources {
        out.resource(&prefix, resource);
    }
    out.items
}

fn available(group: &str, version: &str) -> Value {
    let (tag, camel) = tag(group, version);
    json!({"get": {
        "description": "get available resources",
        "operationId": format!("get{camel}APIResources"),
        "responses": responses(OBJECT, &format!("{META}.APIResourceList"), &[200]),
        "tags": [tag],
    }})
}

struct Paths<'a> {
    group: &'a str,
    version: &'a str,
    items: Map<String, Value>,
}

impl Paths<'_> {
    fn resource(&mut self, prefix: &str, resource: &Resource) {
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{scope}/{}", resource.name);
        let one = format!("{collection}/{{name}}");
        let everywhere = format!("/{}", resource.name);
        let kind = self.kind(&resource.kind);
        if resource.namespaced {
            self.add(
                prefix,
                &everywhere,
                &kind,
                resource,
                operations::lists(self.own(), resource, "ForAllNamespaces"),
            );
        }
        self.add(
            prefix,
            &collection,
            &kind,
            resource,
            operations::of_collection(self.own(), resource),
        );
        self.add(prefix, &one, &kind, resource, operations::of_object(self.own(), resource));
        for subresource in &resource.subresources {
            let path = format!("{one}/{}", subresource.name);
            let (group, version, kind) = &subresource.kind;
            let kind = json!({"group": group, "version": version, "kind": kind});
            if operations::connects(subresource) {
                self.add(
                    prefix,
                    &path,
                    &kind,
                    resource,
                    operations::connections(resource, subresource, ""),
                );
                if subresource.name == "proxy" {
                    let more = operations::connections(resource, subresource, "WithPath");
                    self.add(prefix, &format!("{path}/{{path}}"), &kind, resource, more);
                }
            } else {
                self.add(
                    prefix,
                    &path,
                    &kind,
                    resource,
                    operations::of_subresource(resource, subresource),
                );
            }
        }
        if does(&resource.verbs, "watch") {
            let watch = format!("{prefix}/watch");
            if resource.namespaced {
                let all = operations::watches(resource, "ListForAllNamespaces");
                self.add(&watch, &everywhere, &kind, resource, all);
            }
            self.add(&watch, &collection, &kind, resource, operations::watches(resource, "List"));
            self.add(&watch, &one, &kind, resource, operations::watches(resource, ""));
        }
    }

    fn kind(&self, kind: &str) -> Value {
        json!({"group": self.group, "version": self.version, "kind": kind})
    }

    fn own(&self) -> (&str, &str) {
        (self.group, self.version)
    }

    fn add(
        &mut self,
        prefix: &str,
        path: &str,
        kind: &Value,
        resource: &Resource,
        operations: Vec<Operation>,
    ) {
        if operations.is_empty() {
            return;
        }
        let path = format!("{prefix}{path}");
        let in_path = parameters::of_path(&path, &resource.kind);
        // What every operation of the path takes is said at the path.
        let shared: Vec<&str> = operations[0]
            .query
            .iter()
            .filter(|name| operations.iter().all(|other| other.query.contains(name)))
            .copied()
            .collect();
        let mut item: Map<String, Value> = operations
            .iter()
            .map(|operation| (operation.method.to_owned(), self.render(operation, kind, &shared)))
            .collect();
        let mut all: Vec<Value> =
            in_path.into_iter().chain(shared.iter().map(|name| parameters::query(name))).collect();
        all.sort_by_key(|parameter| parameter["name"].as_str().unwrap_or_default().to_owned());
        if !all.is_empty() {
            item.insert("parameters".to_owned(), Value::Array(all));
        }
        self.items.insert(path, Value::Object(item));
    }

    fn render(&self, operation: &Operation, kind: &Value, shared: &[&str]) -> Value {
        let (tag, camel) = tag(self.group, self.version);
        let mut out = json!({
            "description": operation.description,
            "operationId": format!("{}{camel}{}", operation.id.0, operation.id.1),
            "responses": self.responses(operation),
            "tags": [tag],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": kind,
        });
        let own: Vec<Value> = operation
            .query
            .iter()
            .filter(|name| !shared.contains(name))
            .map(|name| parameters::query(name))
            .collect();
        if !own.is_empty() {
            out["parameters"] = own.into();
        }
        if let Some(body) = &operation.body {
            let types: &[&str] = if operation.action == "patch" { PATCHES } else { &["*/*"] };
            out["requestBody"] = json!({"content": content(types, body)});
            if !operation.action.starts_with("delete") {
                out["requestBody"]["required"] = true.into();
            }
        }
        out
    }

    fn responses(&self, operation: &Operation) -> Value {
        let codes: &[u16] = match operation.action {
            "post" => &[200, 201, 202],
            "put" | "patch" => &[200, 201],
            "delete" => &[200, 202],
            _ => &[200],
        };
        match operation.action {
            "connect" => responses(&["*/*"], "", codes),
            "list" | "watch" | "watchlist" => {
                responses(&[OBJECT, STREAM].concat(), &operation.answer, codes)
            }
            _ if operation.answer.is_empty() => {
                responses(&[OBJECT, &["text/plain"][..]].concat(), "", codes)
            }
            _ => responses(OBJECT, &operation.answer, codes),
        }
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn content(types: &[&str], name: &str) -> Map<String, Value> {
    let schema = if name.is_empty() { json!({"type": "string"}) } else { reference(name) };
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
}

/// The answers of an operation: these codes with a body, and 401 without.
pub(super) fn responses(types: &[&str], name: &str, codes: &[u16]) -> Value {
    let mut out = json!({"401": {"description": "Unauthorized"}});
    for code in codes {
        let description = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        out[code.to_string()] =
            json!({"description": description, "content": content(types, name)});
    }
    out
}
