//! Parameters of paths and queries: their names, types and what they are for.
//!
//! One table for all of them; which operation takes which is said by its list of names.

use serde_json::{Value, json};

/// Parameters of a list or watch.
pub(super) const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];

/// Parameters of a deletion.
pub(super) const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
];

/// Parameters of a deletion of all that match.
pub(super) const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];

/// Parameters of a stream or proxied request.
pub(super) fn of_connection(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "attach" => &["container", "stderr", "stdin", "stdout", "tty"],
        "exec" => &["command", "container", "stderr", "stdin", "stdout", "tty"],
        "portforward" => &["ports"],
        "log" => &[
            "container",
            "follow",
            "insecureSkipTLSVerifyBackend",
            "limitBytes",
            "pretty",
            "previous",
            "sinceSeconds",
            "stream",
            "tailLines",
            "timestamps",
        ],
        _ => &["path"],
    }
}

/// Name, type and purpose.
const TABLE: &str = include_str!("parameters.tsv");

/// A query parameter.
pub(super) fn query(name: &str) -> Value {
    let mut rows = TABLE.lines().filter_map(|line| line.split_once('\t'));
    let known = rows.find(|(known, _)| *known == name).and_then(|(_, row)| row.split_once('\t'));
    let (kind, description) = known.unwrap_or(("string", ""));
    let schema = json!({"type": kind, "uniqueItems": true});
    json!({"description": description, "in": "query", "name": name, "schema": schema})
}

/// The parameters that stand in a path.
pub(super) fn of_path(path: &str, kind: &str) -> Vec<Value> {
    let all = [
        ("name", format!("name of the {kind}")),
        ("namespace", "namespace of the object".to_owned()),
        ("path", "path to the resource".to_owned()),
    ];
    let there = all.into_iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    let schema = json!({"type": "string", "uniqueItems": true});
    there
        .map(|(name, description)| {
            json!({"description": description, "in": "path", "name": name, "required": true, "schema": schema})
        })
        .collect()
}
