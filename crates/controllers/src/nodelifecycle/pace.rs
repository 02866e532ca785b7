//! How often kubelets renew their leases: every few seconds in a small cluster, in a large one as
//! seldom as upstream's. They are told by an annotation of their Node, and say in the lease itself
//! what they promise, so that a node is never judged by a pace that it has not heard of.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use crate::objects::annotation;

/// Read by kubelets: seconds after which a lease that is not renewed is over.
pub(super) const ANNOTATION: &str = "skiff.dev/lease-duration-seconds";

/// With more nodes than this the pace is slow …
const MOST: usize = 100;
/// … until there are no more than this.
const FEW: usize = 90;
/// Upstream's duration.
const SLOW: u64 = 40;

/// The annotation as it should be: what was asked for, or by the size of the cluster.
pub(super) fn wanted(grace: Option<Duration>, nodes: usize, node: &Node) -> Option<u64> {
    let slow = nodes > MOST || (told(node) == Some(SLOW) && nodes > FEW);
    grace.map(|grace| grace.as_secs().max(1)).or_else(|| slow.then_some(SLOW))
}

/// Whether the pace of others may be another when there are so many nodes instead of so many.
pub(super) fn differs(before: usize, after: usize) -> bool {
    [MOST, FEW].iter().any(|limit| (before > *limit) != (after > *limit))
}

/// The annotation as it is.
pub(super) fn told(node: &Node) -> Option<u64> {
    annotation(&node.metadata, ANNOTATION)?.parse().ok()
}
