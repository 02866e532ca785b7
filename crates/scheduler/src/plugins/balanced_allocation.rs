//! Rather nodes whose CPU and memory would be used to the same degree.

use crate::cluster::Snapshot;
use crate::node::NodeInfo;
use crate::plugin::{MAX_SCORE, Plugin, Score};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodeResourcesBalancedAllocation").score(&BalancedAllocation, 1);

struct BalancedAllocation;

impl Score for BalancedAllocation {
    type Prepared = ();

    /// Pods without requests balance nothing, and would gather where the balance is best.
    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Option<()> {
        let requests = &pod.wants.requests;
        (requests.cpu != 0 || requests.memory != 0).then_some(())
    }

    /// 100 less the standard deviation of the two degrees, in percent.
    fn score(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (total, taken, more) = (&node.facts.allocatable, &node.requested, &pod.wants.requests);
        let cpu = degree(taken.cpu.saturating_add(more.cpu), total.cpu);
        let memory = degree(taken.memory.saturating_add(more.memory), total.memory);
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and 100")]
        #[expect(clippy::cast_precision_loss, reason = "the constant 100")]
        let score = ((1.0 - deviation) * MAX_SCORE as f64) as i64;
        score
    }
}

/// How much of `total` is taken, from 0 to 1; `None` where there is none.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn degree(taken: i64, total: i64) -> Option<f64> {
    (total != 0).then(|| (taken as f64 / total as f64).min(1.0))
}
