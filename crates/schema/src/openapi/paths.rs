//! The paths of a document: one entry per path and method, from the resources that are served.

use serde_json::{Map, Value, json};

use super::reference;

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

impl Resource {
    /// The kinds whose types the document must hold.
    pub(super) fn kinds(&self, group: &str, version: &str) -> Vec<(String, String, String)> {
        let own =
            |suffix: &str| (group.to_owned(), version.to_owned(), format!("{}{suffix}", self.kind));
        let mut kinds = vec![own(""), own("List")];
        kinds.extend(self.subresources.iter().map(|subresource| subresource.kind.clone()));
        kinds
    }
}

/// One method of one path.
struct Operation<'a> {
    /// Such as `post`.
    method: &'static str,
    /// Such as `list`.
    action: &'static str,
    /// Group, version and kind it deals with.
    kind: (&'a str, &'a str, &'a str),
    /// Beginning of its id, and what comes between group and kind.
    id: (&'static str, String),
    /// For people.
    description: String,
    /// Query parameters.
    query: &'static [&'static str],
    /// The type of the request's body.
    body: Option<String>,
    /// The type of the response.
    response: String,
}

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const META_DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const META_PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// All paths of a group and version.
pub(super) fn paths(group: &str, version: &str, resources: &[Resource]) -> Map<String, Value> {
    let prefix = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let mut paths = Map::new();
    paths.insert(
        format!("{prefix}/"),
        json!({"get": {
            "description": "get available resources",
            "operationId": format!("get{}APIResources", tag(group, version).1),
            "responses": responses("io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList"),
            "tags": [tag(group, version).0],
        }}),
    );
    for resource in resources {
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{prefix}{scope}/{}", resource.name);
        let one = format!("{collection}/{{name}}");
        let mut add = |path: String, operations: Vec<Operation<'_>>| {
            if !operations.is_empty() {
                let parameters = path_parameters(&path, &resource.kind);
                let mut item: Map<String, Value> = operations
                    .into_iter()
                    .map(|operation| {
                        (operation.method.to_owned(), render(group, version, operation))
                    })
                    .collect();
                item.insert("parameters".to_owned(), parameters);
                paths.insert(path, Value::Object(item));
            }
        };
        if resource.namespaced {
            let everywhere =
                list(group, version, resource, "ForAllNamespaces").into_iter().collect();
            add(format!("{prefix}/{}", resource.name), everywhere);
        }
        add(collection, of_collection(group, version, resource));
        for subresource in &resource.subresources {
            add(format!("{one}/{}", subresource.name), of_subresource(resource, subresource));
        }
        add(one, of_object(group, version, resource));
    }
    paths
}

/// The tag of a document's operations and its CamelCase, as in ids: `apps_v1`, `AppsV1`.
fn tag(group: &str, version: &str) -> (String, String) {
    let parts: Vec<&str> = match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => vec!["core"],
        group => group.split('.').collect(),
    };
    let (camel, lower): (String, String) =
        (parts.iter().map(|part| capital(part)).collect(), parts.concat());
    (format!("{lower}_{version}"), format!("{camel}{}", capital(version)))
}

/// A kind with its article.
fn a(kind: &str) -> String {
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn type_name(kind: (&str, &str, &str)) -> String {
    crate::types::by_kind(kind.0, kind.1, kind.2).map_or("", |of| of.name).to_owned()
}

fn does(verbs: &[String], verb: &str) -> bool {
    verbs.iter().any(|candidate| candidate == verb)
}

fn list<'a>(
    group: &'a str,
    version: &'a str,
    resource: &'a Resource,
    suffix: &str,
) -> Option<Operation<'a>> {
    let kind = (group, version, resource.kind.as_str());
    let inside = if resource.namespaced && suffix.is_empty() { "Namespaced" } else { "" };
    let list = format!("{}List", resource.kind);
    does(&resource.verbs, "list").then(|| Operation {
        method: "get",
        action: "list",
        kind,
        id: ("list", format!("{inside}{}{suffix}", resource.kind)),
        description: format!("list or watch objects of kind {}", resource.kind),
        query: LIST,
        body: None,
        response: type_name((group, version, &list)),
    })
}

fn of_collection<'a>(
    group: &'a str,
    version: &'a str,
    resource: &'a Resource,
) -> Vec<Operation<'a>> {
    let kind = (group, version, resource.kind.as_str());
    let inside = if resource.namespaced { "Namespaced" } else { "" };
    let mut operations: Vec<Operation<'_>> =
        list(group, version, resource, "").into_iter().collect();
    if does(&resource.verbs, "create") {
        operations.push(Operation {
            method: "post",
            action: "post",
            kind,
            id: ("create", format!("{inside}{}", resource.kind)),
            description: format!("create {}", a(&resource.kind)),
            query: WRITE,
            body: Some(type_name(kind)),
            response: type_name(kind),
        });
    }
    if does(&resource.verbs, "deletecollection") {
        operations.push(Operation {
            method: "delete",
            action: "deletecollection",
            kind,
            id: ("delete", format!("Collection{inside}{}", resource.kind)),
            description: format!("delete collection of {}", resource.kind),
            query: DELETE,
            body: Some(META_DELETE_OPTIONS.to_owned()),
            response: STATUS.to_owned(),
        });
    }
    operations
}

fn of_object<'a>(group: &'a str, version: &'a str, resource: &'a Resource) -> Vec<Operation<'a>> {
    let kind = (group, version, resource.kind.as_str());
    let name = format!("{}{}", if resource.namespaced { "Namespaced" } else { "" }, resource.kind);
    let mut operations =
        read_write(&resource.verbs, kind, &name, &format!("the specified {}", resource.kind));
    if does(&resource.verbs, "delete") {
        operations.push(Operation {
            method: "delete",
            action: "delete",
            kind,
            id: ("delete", name),
            description: format!("delete {}", a(&resource.kind)),
            query: DELETE,
            body: Some(META_DELETE_OPTIONS.to_owned()),
            response: STATUS.to_owned(),
        });
    }
    operations
}

fn of_subresource<'a>(resource: &Resource, subresource: &'a Subresource) -> Vec<Operation<'a>> {
    let kind =
        (subresource.kind.0.as_str(), subresource.kind.1.as_str(), subresource.kind.2.as_str());
    let inside = if resource.namespaced { "Namespaced" } else { "" };
    let name = format!("{inside}{}{}", resource.kind, capital(&subresource.name));
    let what = format!("{} of the specified {}", subresource.name, resource.kind);
    let mut operations = read_write(&subresource.verbs, kind, &name, &what);
    if does(&subresource.verbs, "create") {
        operations.push(Operation {
            method: "post",
            action: "post",
            kind,
            id: ("create", name),
            description: format!("create {what}"),
            query: WRITE,
            body: Some(type_name(kind)),
            response: type_name(kind),
        });
    }
    operations
}

fn read_write<'a>(
    verbs: &[String],
    kind: (&'a str, &'a str, &'a str),
    name: &str,
    what: &str,
) -> Vec<Operation<'a>> {
    let one = type_name(kind);
    let all = [
        ("get", "get", "get", "read", "read", &[][..], None),
        ("update", "put", "put", "replace", "replace", WRITE, Some(one.clone())),
        (
            "patch",
            "patch",
            "patch",
            "patch",
            "partially update",
            PATCH,
            Some(META_PATCH.to_owned()),
        ),
    ];
    let wanted = all.into_iter().filter(|(verb, ..)| does(verbs, verb));
    wanted
        .map(|(_, method, action, id, word, query, body)| Operation {
            method,
            action,
            kind,
            id: (id, name.to_owned()),
            description: format!("{word} {what}"),
            query,
            body,
            response: one.clone(),
        })
        .collect()
}

fn render(group: &str, version: &str, operation: Operation<'_>) -> Value {
    let (tag, camel) = tag(group, version);
    let mut out = json!({
        "description": operation.description,
        "operationId": format!("{}{camel}{}", operation.id.0, operation.id.1),
        "responses": responses(&operation.response),
        "tags": [tag],
        // Streams and proxies are connections, whatever the method.
        "x-kubernetes-action": if operation.kind.2.ends_with("Options") { "connect" } else { operation.action },
        "x-kubernetes-group-version-kind":
            {"group": operation.kind.0, "version": operation.kind.1, "kind": operation.kind.2},
    });
    if !operation.query.is_empty() {
        out["parameters"] = operation.query.iter().map(|name| query_parameter(name)).collect();
    }
    if let Some(body) = operation.body {
        let types: &[&str] = match operation.method {
            "patch" => &[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ],
            _ => &["*/*"],
        };
        out["requestBody"] = json!({"content": content(types, &body)});
    }
    out
}

fn content(types: &[&str], name: &str) -> Map<String, Value> {
    let schema = if name.is_empty() { json!({"type": "string"}) } else { reference(name) };
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
}

fn responses(name: &str) -> Value {
    let content = content(&["application/json", "application/yaml"], name);
    json!({"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}})
}

fn query_parameter(name: &str) -> Value {
    let kind = match name {
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => {
            "boolean"
        }
        _ => "string",
    };
    json!({"in": "query", "name": name, "schema": {"type": kind, "uniqueItems": true}})
}

fn path_parameters(path: &str, kind: &str) -> Value {
    let mut parameters = Vec::new();
    let mut add = |name: &str, place: &str, description: String| {
        let mut parameter = json!({
            "description": description, "in": place, "name": name,
            "schema": {"type": "string", "uniqueItems": true}
        });
        if place == "path" {
            parameter["required"] = json!(true);
        }
        parameters.push(parameter);
    };
    if path.contains("{name}") {
        add("name", "path", format!("name of the {kind}"));
    }
    if path.contains("{namespace}") {
        add("namespace", "path", "namespace of the object".to_owned());
    }
    add("pretty", "query", "whether to indent the answer".to_owned());
    Value::Array(parameters)
}
