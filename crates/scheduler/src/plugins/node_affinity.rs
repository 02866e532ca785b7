//! `nodeSelector`, required and preferred node affinity.

use super::scale;
use crate::affinity::Term;
use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugin::{Filter, Plugin, Preparation, Score, Verdict};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin = Plugin::new("NodeAffinity")
    .filter(&NodeAffinity)
    .score(&NodeAffinity, 2)
    .wakes(|pod, event| match event {
        Event::NodeAdded(node) => suits(pod, &node.facts),
        Event::NodeChanged { before, after } => !suits(pod, before) && suits(pod, &after.facts),
        Event::PodChanged => true,
        Event::PodFreed(_) => false,
    });

struct NodeAffinity;

impl Filter for NodeAffinity {
    type Prepared = ();

    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Preparation<()> {
        let wants = &pod.wants;
        if wants.node_selector.is_empty() && wants.required.is_none() {
            return Preparation::Skip;
        }
        // Pods of daemon sets name their node here: no use asking all the others.
        let terms = wants.required.iter().flatten();
        let named: Option<Vec<Vec<&str>>> = terms.map(Term::named).collect();
        match named {
            Some(lists) if !lists.is_empty() => {
                let mut names: Vec<String> = lists.concat().iter().map(|&n| n.into()).collect();
                names.sort();
                names.dedup();
                Preparation::Only(names, ())
            }
            _ => Preparation::Ask(()),
        }
    }

    fn filter(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let suits = suits(pod, &node.facts);
        Verdict::unless(suits, "node(s) didn't match Pod's node affinity/selector")
    }
}

impl Score for NodeAffinity {
    type Prepared = ();

    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Option<()> {
        (!pod.wants.preferred.is_empty()).then_some(())
    }

    fn score(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> i64 {
        let preferred = pod.wants.preferred.iter();
        preferred.filter(|(_, term)| term.matches(&node.facts)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

fn suits(pod: &PodInfo, node: &NodeFacts) -> bool {
    let wants = &pod.wants;
    wants.node_selector.iter().all(|(key, value)| node.label(key) == Some(value))
        && wants.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
}
