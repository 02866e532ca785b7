//! What is said about a node that stopped reporting, and about its pods.

use std::sync::Arc;

use client::EventKind;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use reconcile::{Action, Plan};
use serde_json::json;

use crate::objects::{is_ready as pod_is_ready, name};

/// Conditions that only the kubelet can know.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The node's condition of that type.
pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the node says that it can run pods.
pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Makes the conditions that the kubelet reports unknown.
pub(super) fn give_up(node: &Node, conditions: &mut Vec<NodeCondition>, now: Timestamp) {
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(known) if known.status != "Unknown" => {
                known.status = "Unknown".into();
                known.reason = Some("NodeStatusUnknown".into());
                known.message = Some("Kubelet stopped posting node status.".into());
                known.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
        }
    }
}

/// Adds the write of the conditions if they differ, and says so if the node was ready until now.
pub(super) fn write(node: &Node, conditions: &[NodeCondition], plan: &mut Plan) -> bool {
    let old = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    if old.unwrap_or_default() == conditions {
        return false;
    }
    let patch = json!({ "status": { "conditions": conditions } });
    plan.act(Action::patch_with(node, Some("status"), patch, true));
    if is_ready(node) {
        let note = format!("Node {} status is now: NodeNotReady", name(&node.metadata));
        plan.note(node, EventKind::Normal, "NodeNotReady", note);
    }
    true
}

/// Says of every pod that claims to be ready that it is not: nobody can know.
pub(super) fn mark_pods(pods: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    for pod in pods.iter().filter(|pod| pod_is_ready(pod)) {
        let Some(mut conditions) = pod.status.as_ref().and_then(|status| status.conditions.clone())
        else {
            continue;
        };
        for condition in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
            condition.status = "False".into();
            condition.last_transition_time = Some(Time(now));
        }
        let patch = json!({ "status": { "conditions": conditions } });
        plan.act(Action::patch_with(&**pod, Some("status"), patch, true));
        plan.note(&**pod, EventKind::Warning, "NodeNotReady", "Node is not ready");
    }
}
