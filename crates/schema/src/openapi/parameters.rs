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
const TABLE: &[(&str, &str, &str)] = &[
    (
        "allowWatchBookmarks",
        "boolean",
        "send BOOKMARK events now and then, which tell how far a watch has come",
    ),
    (
        "command",
        "string",
        "the program to run and its arguments, one parameter each; no shell is involved",
    ),
    ("container", "string", "the container of the pod; needed where there are several"),
    (
        "continue",
        "string",
        "the token of the page before, to go on from there with the same selectors. A token that has expired is answered by 410 with another one, which goes on from the same place in the newest state",
    ),
    ("dryRun", "string", "All: do everything but store the outcome"),
    (
        "fieldManager",
        "string",
        "who makes the change, in at most 128 printable characters. An apply needs it",
    ),
    ("fieldSelector", "string", "fields that the objects must have, such as metadata.name=a"),
    (
        "fieldValidation",
        "string",
        "what becomes of unknown and repeated fields: Ignore drops them, Warn (the default) drops them with a Warning header, Strict refuses the request",
    ),
    ("follow", "boolean", "go on with lines as they are written"),
    ("force", "boolean", "of an apply: take over fields that others own"),
    (
        "gracePeriodSeconds",
        "integer",
        "how long the object may take to end, in seconds; 0 ends it at once, unset is the default of the kind",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "delete an object although it cannot be read from the store. No finalizer and no precondition is heeded",
    ),
    ("insecureSkipTLSVerifyBackend", "boolean", "do not verify the certificate of the kubelet"),
    ("labelSelector", "string", "labels that the objects must have, such as app=web,tier!=db"),
    (
        "limit",
        "integer",
        "the most objects to answer with; the list then carries a token for the next page",
    ),
    ("limitBytes", "integer", "the most bytes to answer with"),
    ("orphanDependents", "boolean", "deprecated: use propagationPolicy"),
    ("path", "string", "the path of the proxied request"),
    ("ports", "integer", "the ports to forward; needed over WebSocket only"),
    ("pretty", "string", "true: indent the answer"),
    ("previous", "boolean", "the log of the container that ran before"),
    (
        "propagationPolicy",
        "string",
        "what becomes of dependents: Orphan leaves them, Background deletes them afterwards, Foreground deletes them first",
    ),
    (
        "resourceVersion",
        "string",
        "the state that the answer may be taken from; resourceVersionMatch says how it binds",
    ),
    ("resourceVersionMatch", "string", "how resourceVersion binds: Exact or NotOlderThan"),
    (
        "sendInitialEvents",
        "boolean",
        "begin a watch with everything there is, followed by a bookmark with the annotation k8s.io/initial-events-end",
    ),
    ("shardSelector", "string", "an alpha feature that is off"),
    ("sinceSeconds", "integer", "lines of this many last seconds"),
    ("stderr", "boolean", "connect standard error"),
    ("stdin", "boolean", "connect standard input"),
    ("stdout", "boolean", "connect standard output"),
    ("stream", "string", "which stream: All, Stdout or Stderr"),
    ("tailLines", "integer", "this many last lines"),
    ("timeoutSeconds", "integer", "the longest time the request may take"),
    ("timestamps", "boolean", "begin every line with its time"),
    ("tty", "boolean", "use a terminal"),
    ("watch", "boolean", "answer with a stream of changes"),
];

/// A query parameter.
pub(super) fn query(name: &str) -> Value {
    let known = TABLE.binary_search_by(|row| row.0.cmp(name)).ok().map(|at| TABLE[at]);
    let (_, kind, description) = known.unwrap_or((name, "string", ""));
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
