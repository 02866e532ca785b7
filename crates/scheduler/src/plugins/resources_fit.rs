//! A node must have what a pod requests; of those that do, the emptier one is better
//! (LeastAllocated).

use std::borrow::Cow;

use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::NodeInfo;
use crate::plugin::{Filter, MAX_SCORE, Plugin, Preparation, Reason, Score, Verdict};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin = Plugin::new("NodeResourcesFit")
    .filter(&ResourcesFit)
    .score(&ResourcesFit, 1)
    .wakes(|pod, event| match event {
        Event::NodeAdded(node) => lacking(pod, node).is_empty(),
        Event::NodeChanged { before, after } => {
            let grew = after.facts.allocatable.exceeds(&before.allocatable)
                || after.facts.max_pods > before.max_pods;
            grew && lacking(pod, after).is_empty()
        }
        // Leaving frees a place, whatever else the pod took.
        Event::PodFreed(_) | Event::PodChanged => true,
    });

struct ResourcesFit;

impl Filter for ResourcesFit {
    type Prepared = ();

    fn prepare(&self, _: &PodInfo, _: &Snapshot) -> Preparation<()> {
        Preparation::Ask(())
    }

    fn filter(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let reasons = lacking(pod, node);
        if reasons.is_empty() { Verdict::Suits } else { Verdict::FailsFor(reasons) }
    }
}

impl Score for ResourcesFit {
    type Prepared = ();

    fn prepare(&self, _: &PodInfo, _: &Snapshot) -> Option<()> {
        Some(())
    }

    /// The share of CPU and memory that would stay free, on average.
    fn score(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (total, taken, more) = (&node.facts.allocatable, &node.assumed, &pod.wants.assumed);
        let shares = [
            free(total.cpu, taken.cpu.saturating_add(more.cpu)),
            free(total.memory, taken.memory.saturating_add(more.memory)),
        ];
        let count = shares.iter().flatten().count();
        let sum: i64 = shares.iter().flatten().sum();
        i64::try_from(count).ok().filter(|count| *count > 0).map_or(0, |count| sum / count)
    }
}

/// Free share from 0 to [`MAX_SCORE`]; `None` of a resource the node does not have.
fn free(total: i64, taken: i64) -> Option<i64> {
    if total == 0 {
        return None;
    }
    let rest = total.saturating_sub(taken).max(0);
    // Only amounts beyond 90 PB need the slow division.
    Some(match rest.checked_mul(MAX_SCORE) {
        Some(product) => product / total,
        None => rest / (total / MAX_SCORE).max(1),
    })
}

/// What the node has too little of.
fn lacking(pod: &PodInfo, node: &NodeInfo) -> Vec<Reason> {
    let (total, taken, wanted) = (&node.facts.allocatable, &node.requested, &pod.wants.requests);
    let mut reasons = Vec::new();
    if node.pods + 1 > node.facts.max_pods {
        reasons.push(Cow::Borrowed("Too many pods"));
    }
    let short = |wanted: i64, total: i64, taken: i64| wanted > 0 && wanted > total - taken;
    if short(wanted.cpu, total.cpu, taken.cpu) {
        reasons.push(Cow::Borrowed("Insufficient cpu"));
    }
    if short(wanted.memory, total.memory, taken.memory) {
        reasons.push(Cow::Borrowed("Insufficient memory"));
    }
    if short(wanted.ephemeral_storage, total.ephemeral_storage, taken.ephemeral_storage) {
        reasons.push(Cow::Borrowed("Insufficient ephemeral-storage"));
    }
    for (name, amount) in &wanted.other {
        if short(*amount, total.other(name), taken.other(name)) {
            reasons.push(Cow::Owned(format!("Insufficient {name}")));
        }
    }
    reasons
}
