//! The taints that follow from a node's conditions.
//!
//! Owns the `node.kubernetes.io/` taints listed here and leaves all others alone.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use reconcile::{Action, Plan};
use serde_json::json;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that keep pods away while true, with their taints.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Whether pods are being evicted because the node is not ready.
pub(super) fn evicts(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| taint.effect == "NoExecute" && is_ours(taint))
}

/// Adds the write of the taints if they differ; those that `evict` pods only if that is wanted.
pub(super) fn write(
    node: &Node,
    conditions: &[NodeCondition],
    evict: bool,
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted = wanted(node, conditions, evict);
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|taint| {
            !is_ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()))
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !new.iter().any(|taint| taint.key == key && taint.effect == effect) {
            new.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: (effect == "NoExecute").then_some(Time(now)),
            });
        }
    }
    if new != old {
        let taints = if new.is_empty() { json!(null) } else { json!(new) };
        plan.act(Action::patch_exact(node, json!({ "spec": { "taints": taints } })));
    }
}

fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
                || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
        }
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&key),
        _ => false,
    }
}

/// Keys and effects.
fn wanted(
    node: &Node,
    conditions: &[NodeCondition],
    evict: bool,
) -> Vec<(&'static str, &'static str)> {
    let status = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind).map(|one| one.status.as_str())
    };
    let mut wanted = Vec::new();
    let health = match status("Ready") {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    if let Some(key) = health {
        wanted.push((key, "NoSchedule"));
        if evict {
            wanted.push((key, "NoExecute"));
        }
    }
    for (condition, key) in PRESSURES {
        if status(condition) == Some("True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}
