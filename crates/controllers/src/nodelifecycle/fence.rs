//! Nodes that stop their own pods when they lose the server: `skiff agent --self-fence` says so in
//! an annotation, and when its time has passed the pods are as good as confirmed to have ended.
//!
//! Knows which pods such a node stops: those that somebody replaces elsewhere.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::objects::{annotation, controller};

/// Set by the kubelet: seconds after the last renewal of its lease when nothing of what others
/// replace runs on it any more.
const SELF_FENCE: &str = "skiff.dev/self-fence";
/// Set by us on a node of which that is true now.
pub(super) const FENCED: &str = "skiff.dev/self-fenced";
/// The node's clock may run a little slower than ours.
const MARGIN: SignedDuration = SignedDuration::from_secs(3);

/// How long after its last sign of life the node has stopped its pods, if it does.
pub(super) fn fenced_after(node: &Node) -> Option<SignedDuration> {
    let seconds: u32 = annotation(&node.metadata, SELF_FENCE)?.parse().ok()?;
    Some(SignedDuration::from_secs(i64::from(seconds)) + MARGIN)
}

/// Whether the node is known to have stopped its pods.
pub(crate) fn is_fenced(node: &Node) -> bool {
    annotation(&node.metadata, FENCED).is_some()
}

/// Whether a node that fences itself stops the pod: its controller makes another one elsewhere.
/// Pods of a DaemonSet belong to their node, and nobody replaces a pod without a controller.
pub(crate) fn is_replaced(pod: &Pod) -> bool {
    controller(&pod.metadata).is_some_and(|owner| !matches!(&*owner.kind, "DaemonSet" | "Node"))
}
