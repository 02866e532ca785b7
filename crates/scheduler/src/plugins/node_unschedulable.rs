//! Cordoned nodes take no pods, but those that tolerate the taint of that name.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::NodeInfo;
use crate::plugin::{Filter, Plugin, Preparation, Verdict};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodeUnschedulable").filter(&NodeUnschedulable).wakes(|_, event| match event {
        Event::NodeAdded(node) => !node.facts.unschedulable,
        Event::NodeChanged { before, after } => before.unschedulable && !after.facts.unschedulable,
        Event::PodChanged => true,
        Event::PodFreed(_) => false,
    });

struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    type Prepared = ();

    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Preparation<()> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if tolerates(&pod.wants.tolerations, &taint) {
            Preparation::Skip
        } else {
            Preparation::Ask(())
        }
    }

    fn filter(&self, (): &(), _: &PodInfo, node: &NodeInfo) -> Verdict {
        Verdict::unless(!node.facts.unschedulable, "node(s) were unschedulable")
    }
}
