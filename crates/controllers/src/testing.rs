//! Objects from text, for tests.

use serde::de::DeserializeOwned;

/// Parses an object from YAML.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).expect("valid object")
}

/// A time in RFC 3339.
pub(crate) fn time(text: &str) -> jiff::Timestamp {
    text.parse().expect("valid time")
}

/// The plan's actions, one line each: verb, kind, name and the patch or object in short.
pub(crate) fn told(plan: &reconcile::Plan) -> Vec<String> {
    plan.actions.iter().chain(&plan.status).map(line).collect()
}

fn line(action: &reconcile::Action) -> String {
    use reconcile::Action;
    let kind = &action.resource().kind;
    let name = action.name();
    match action {
        Action::Create { .. } => format!("create {kind} {name}"),
        Action::Delete { .. } => format!("delete {kind} {name}"),
        Action::Patch { patch, subresource, .. } => {
            let mut patch = patch.clone();
            if let Some(meta) = patch["metadata"].as_object_mut() {
                meta.remove("uid");
                meta.remove("resourceVersion");
                if meta.is_empty() {
                    patch.as_object_mut().expect("object").remove("metadata");
                }
            }
            let part = subresource.map(|part| format!("/{part}")).unwrap_or_default();
            format!("patch {kind} {name}{part} {patch}")
        }
    }
}

/// Applies a JSON merge patch (RFC 7386).
pub(crate) fn merge(target: &mut serde_json::Value, patch: &serde_json::Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = serde_json::json!({});
    }
    let map = target.as_object_mut().expect("object");
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(serde_json::Value::Null), value);
        }
    }
}
