//! Pods stay off nodes whose taints they do not tolerate, and rather off those whose
//! `PreferNoSchedule` taints they do not.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::scale;
use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugin::{Filter, Plugin, Preparation, Score, Verdict};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin = Plugin::new("TaintToleration")
    .filter(&TaintToleration)
    .score(&TaintToleration, 3)
    .wakes(|pod, event| {
        let bears = |facts: &NodeFacts| untolerated(pod, facts).is_none();
        match event {
            Event::NodeAdded(node) => bears(&node.facts),
            Event::NodeChanged { before, after } => !bears(before) && bears(&after.facts),
            Event::PodChanged => true,
            Event::PodFreed(_) => false,
        }
    });

struct TaintToleration;

impl Filter for TaintToleration {
    type Prepared = ();

    fn prepare(&self, _: &PodInfo, _: &Snapshot) -> Preparation<()> {
        Preparation::Ask(())
    }

    fn filter(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let bears = untolerated(pod, &node.facts).is_none();
        Verdict::unless(bears, "node(s) had untolerated taint(s)")
    }
}

impl Score for TaintToleration {
    /// Tolerations that speak of `PreferNoSchedule`.
    type Prepared = Vec<Toleration>;

    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Option<Vec<Toleration>> {
        let prefers = |one: &&Toleration| {
            matches!(one.effect.as_deref(), None | Some("" | "PreferNoSchedule"))
        };
        Some(pod.wants.tolerations.iter().filter(prefers).cloned().collect())
    }

    /// The number of taints that speak against the node.
    fn score(&self, tolerations: &Vec<Toleration>, _: &PodInfo, node: &NodeInfo) -> i64 {
        let against =
            node.facts.taints.iter().filter(|taint| {
                taint.effect == "PreferNoSchedule" && !tolerates(tolerations, taint)
            });
        i64::try_from(against.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
}

/// The first taint that keeps the pod off.
fn untolerated<'a>(pod: &PodInfo, facts: &'a NodeFacts) -> Option<&'a Taint> {
    facts
        .taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerates(&pod.wants.tolerations, taint))
}

/// Whether any of the tolerations bears the taint.
pub(super) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|one| {
        let (effect, key) = (text(one.effect.as_ref()), text(one.key.as_ref()));
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() || key == taint.key)
            && match one.operator.as_deref() {
                Some("Exists") => true,
                None | Some("" | "Equal") => text(one.value.as_ref()) == text(taint.value.as_ref()),
                Some(_) => false,
            }
    })
}

fn text(field: Option<&String>) -> &str {
    field.map_or("", String::as_str)
}
