//! The annotations through which Deployments and ReplicaSets remember revisions and sizes, and
//! through which `kubectl rollout` reads them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::objects::annotation;

/// The revision of a ReplicaSet, and the current one of a Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that was rolled back to, comma separated.
pub(super) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last sized.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The Deployment's size with surge when the ReplicaSet was last sized.
pub(super) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// Longest history kept, in bytes.
const HISTORY_LENGTH: usize = 2000;

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// The ReplicaSet's revision; zero if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A number kept in one of the size annotations.
pub(super) fn size(set: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(&set.metadata, key).and_then(|text| text.parse().ok())
}

/// What the newest ReplicaSet's annotations become at `revision`: the Deployment's, and the
/// revision with the history behind it. Returns only what changes.
pub(super) fn of_newest(
    deployment: &Deployment,
    current: &BTreeMap<String, String>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut changes = BTreeMap::new();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_INHERITED.contains(&key.as_str()) && current.get(key) != Some(value) {
            changes.insert(key.clone(), value.clone());
        }
    }
    let old = current.get(REVISION);
    let old_number = match old.map(|text| text.parse::<i64>()) {
        None => 0,
        Some(Ok(number)) => number,
        // Not ours to overwrite.
        Some(Err(_)) => return changes,
    };
    if old_number < revision {
        changes.insert(REVISION.into(), revision.to_string());
        if let Some(old) = old {
            let history = current.get(HISTORY).map_or_else(String::new, Clone::clone);
            changes.insert(HISTORY.into(), extend(&history, old));
        }
    }
    changes
}

/// Appends to a history, dropping the oldest entries when it grows too long.
fn extend(history: &str, entry: &str) -> String {
    let mut entries: Vec<&str> =
        history.split(',').filter(|known| !known.is_empty()).chain([entry]).collect();
    while entries.len() > 1
        && entries.iter().map(|entry| entry.len() + 1).sum::<usize>() > HISTORY_LENGTH
    {
        entries.remove(0);
    }
    entries.join(",")
}

/// The size annotations for a Deployment of `wanted` pods and `surge` more.
pub(super) fn sizes(
    current: &BTreeMap<String, String>,
    wanted: i32,
    surge: i32,
) -> BTreeMap<String, String> {
    [(DESIRED, wanted), (MAXIMUM, wanted.saturating_add(surge))]
        .into_iter()
        .map(|(key, number)| (key.to_owned(), number.to_string()))
        .filter(|(key, number)| current.get(key) != Some(number))
        .collect()
}
