//! What can be done with a resource: one operation per method, as the documents name and describe it.
//!
//! Refuses to know paths.

use super::parameters;
use super::paths::{Resource, Subresource, capital};

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    /// What the id begins with, and what follows group and version.
    pub(super) id: (&'static str, String),
    pub(super) description: String,
    /// Query parameters of its own.
    pub(super) query: &'static [&'static str],
    /// The type of the request's body.
    pub(super) body: Option<String>,
    /// The type of the answer; empty for text.
    pub(super) answer: String,
}

/// Group and version of a document.
type Own<'a> = (&'a str, &'a str);

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "pretty"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"];
const READ: &[&str] = &["pretty"];

/// Where the types are that all groups share.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

pub(super) fn lists(own: Own<'_>, resource: &Resource, suffix: &str) -> Vec<Operation> {
    let inside = if suffix.is_empty() { namespaced(resource) } else { "" };
    let or_watch = if does(&resource.verbs, "watch") { " or watch" } else { "" };
    let list = Operation {
        method: "get",
        action: "list",
        id: ("list", format!("{inside}{}{suffix}", resource.kind)),
        description: format!("list{or_watch} objects of kind {}", resource.kind),
        query: parameters::LIST,
        body: None,
        answer: type_of(own, &format!("{}List", resource.kind)),
    };
    if does(&resource.verbs, "list") { vec![list] } else { Vec::new() }
}

pub(super) fn of_collection(own: Own<'_>, resource: &Resource) -> Vec<Operation> {
    let inside = namespaced(resource);
    let mut operations = lists(own, resource, "");
    if does(&resource.verbs, "create") {
        operations.push(Operation {
            method: "post",
            action: "post",
            id: ("create", format!("{inside}{}", resource.kind)),
            description: format!("create {}", a(&resource.kind)),
            query: WRITE,
            body: Some(type_of(own, &resource.kind)),
            answer: type_of(own, &resource.kind),
        });
    }
    if does(&resource.verbs, "deletecollection") {
        operations.push(Operation {
            method: "delete",
            action: "deletecollection",
            id: ("delete", format!("Collection{inside}{}", resource.kind)),
            description: format!("delete collection of {}", resource.kind),
            query: parameters::DELETE_COLLECTION,
            body: Some(format!("{META}.DeleteOptions")),
            answer: format!("{META}.Status"),
        });
    }
    operations
}

pub(super) fn of_object(own: Own<'_>, resource: &Resource) -> Vec<Operation> {
    let object = type_of(own, &resource.kind);
    let name = format!("{}{}", namespaced(resource), resource.kind);
    let what = format!("the specified {}", resource.kind);
    let mut operations = read_write(&resource.verbs, &object, &name, &what);
    if does(&resource.verbs, "delete") {
        operations.push(Operation {
            method: "delete",
            action: "delete",
            id: ("delete", name),
            description: format!("delete {}", a(&resource.kind)),
            query: parameters::DELETE,
            body: Some(format!("{META}.DeleteOptions")),
            answer: if resource.returned { object } else { format!("{META}.Status") },
        });
    }
    operations
}

fn namespaced(resource: &Resource) -> &'static str {
    if resource.namespaced { "Namespaced" } else { "" }
}

pub(super) fn watches(resource: &Resource, suffix: &str) -> Vec<Operation> {
    let inside = if suffix.ends_with("Namespaces") { "" } else { namespaced(resource) };
    let (action, what) = match suffix {
        "" => ("watch", "changes of one"),
        _ => ("watchlist", "changes of a list of"),
    };
    vec![Operation {
        method: "get",
        action,
        id: ("watch", format!("{inside}{}{suffix}", resource.kind)),
        description: format!(
            "watch {what} {}. deprecated: lists take the parameter 'watch'.",
            resource.kind
        ),
        query: parameters::LIST,
        body: None,
        answer: format!("{META}.WatchEvent"),
    }]
}

/// Streams and proxies are connections, whatever the method.
pub(super) fn connects(subresource: &Subresource) -> bool {
    subresource.kind.2.ends_with("Options")
}

pub(super) fn connections(
    resource: &Resource,
    subresource: &Subresource,
    suffix: &str,
) -> Vec<Operation> {
    let all: &[&'static str] = match subresource.name.as_str() {
        "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
        _ => &["get", "post"],
    };
    let part = &subresource.name;
    let name = format!("{}{}{}", namespaced(resource), resource.kind, capital(part));
    let one = |method: &'static str| Operation {
        method,
        action: "connect",
        id: ("connect", format!("{}{name}{suffix}", capital(method))),
        description: format!(
            "connect {} requests to {part} of {}",
            method.to_uppercase(),
            resource.kind
        ),
        query: parameters::of_connection(part),
        body: None,
        answer: String::new(),
    };
    all.iter().copied().map(one).collect()
}

pub(super) fn of_subresource(resource: &Resource, subresource: &Subresource) -> Vec<Operation> {
    let (group, version, kind) = &subresource.kind;
    let own = type_name((group, version, kind));
    let name = format!("{}{}{}", namespaced(resource), resource.kind, capital(&subresource.name));
    let what = format!("{} of the specified {}", subresource.name, resource.kind);
    let mut operations = read_write(&subresource.verbs, &own, &name, &what);
    if subresource.name == "log" {
        for operation in &mut operations {
            operation.answer.clear();
            operation.query = parameters::of_connection("log");
        }
    }
    if does(&subresource.verbs, "create") {
        operations.push(Operation {
            method: "post",
            action: "post",
            id: ("create", name),
            description: format!("create {} of {}", subresource.name, a(&resource.kind)),
            query: WRITE,
            body: Some(own.clone()),
            answer: own,
        });
    }
    operations
}

fn read_write(verbs: &[String], own: &str, name: &str, what: &str) -> Vec<Operation> {
    let all = [
        ("get", "get", "read", "read", READ, None),
        ("update", "put", "replace", "replace", WRITE, Some(own.to_owned())),
        ("patch", "patch", "patch", "partially update", PATCH, Some(format!("{META}.Patch"))),
    ];
    let wanted = all.into_iter().filter(|(verb, ..)| does(verbs, verb));
    wanted
        .map(|(_, method, id, word, query, body)| Operation {
            method,
            action: method,
            id: (id, name.to_owned()),
            description: format!("{word} {what}"),
            query,
            body,
            answer: own.to_owned(),
        })
        .collect()
}

/// A kind with its article; what is many already has none.
fn a(kind: &str) -> String {
    match kind {
        "Endpoints" => kind.to_owned(),
        _ if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn type_of((group, version): Own<'_>, kind: &str) -> String {
    type_name((group, version, kind))
}

fn type_name(kind: (&str, &str, &str)) -> String {
    crate::types::by_kind(kind.0, kind.1, kind.2).map_or("", |of| of.name).to_owned()
}

pub(super) fn does(verbs: &[String], verb: &str) -> bool {
    verbs.iter().any(|candidate| candidate == verb)
}
