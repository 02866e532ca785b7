//! The small documents: discovery of versions and groups, the server's version, token keys.

use serde_json::{Map, Value, json};

use super::{assemble, paths::responses, tag};

/// What discovery answers as.
const DISCOVERY: &[&str] =
    &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The document of a path that belongs to no group: `api`, `apis`, `openid/v1/jwks` or `version`.
#[must_use]
pub fn fixed(path: &str) -> Option<Value> {
    let json: &[&str] = &["application/json"];
    let (id, tag, description, types, answer) = match path {
        "api" => (
            "getCoreAPIVersions",
            "core",
            "get available API versions",
            DISCOVERY,
            format!("{META}.APIVersions"),
        ),
        "apis" => (
            "getAPIVersions",
            "apis",
            "get available API versions",
            DISCOVERY,
            format!("{META}.APIGroupList"),
        ),
        "openid/v1/jwks" => (
            "getServiceAccountIssuerOpenIDKeyset",
            "openid",
            "get the keys that verify tokens of service accounts",
            &["application/jwk-set+json"][..],
            String::new(),
        ),
        "version" => (
            "getCodeVersion",
            "version",
            "get the server's version",
            json,
            "io.k8s.apimachinery.pkg.version.Info".to_owned(),
        ),
        _ => return None,
    };
    Some(one(&format!("/{path}/"), ("", ""), id, tag, description, types, &answer))
}

/// The document of a group, whatever its versions.
#[must_use]
pub fn group(name: &str) -> Value {
    let (tag, camel) = tag(name, "");
    let (id, answer) = (format!("get{camel}APIGroup"), format!("{META}.APIGroup"));
    one(
        &format!("/apis/{name}/"),
        (name, ""),
        &id,
        &tag,
        "get information of a group",
        DISCOVERY,
        &answer,
    )
}

fn one(
    path: &str,
    group_version: (&str, &str),
    id: &str,
    tag: &str,
    description: &str,
    types: &[&str],
    answer: &str,
) -> Value {
    let get = json!({"get": {
        "description": description, "operationId": id,
        "responses": responses(types, answer, &[200]), "tags": [tag],
    }});
    assemble(group_version, Map::from_iter([(path.to_owned(), get)]))
}
