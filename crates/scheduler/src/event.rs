//! What may make an unschedulable pod schedulable. Plugins say which of it does.

use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;

/// Something changed.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A node appeared.
    NodeAdded(&'a NodeInfo),
    /// What a node's object says changed.
    NodeChanged {
        /// What it said before.
        before: &'a NodeFacts,
        /// What it is now.
        after: &'a NodeInfo,
    },
    /// A pod left its node or takes less of it; this is the pod as it was.
    PodFreed(&'a PodInfo),
    /// The waiting pod itself changed.
    PodChanged,
}
