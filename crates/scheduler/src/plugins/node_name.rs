//! A pod that names its node runs there or nowhere.

use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::NodeInfo;
use crate::plugin::{Filter, Plugin, Preparation, Verdict};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodeName").filter(&NodeName).wakes(|pod, event| match event {
        Event::NodeAdded(node) => pod.node.as_deref() == Some(&*node.facts.name),
        Event::PodChanged => true,
        Event::NodeChanged { .. } | Event::PodFreed(_) => false,
    });

struct NodeName;

impl Filter for NodeName {
    type Prepared = ();

    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Preparation<()> {
        if pod.node.is_some() { Preparation::Ask(()) } else { Preparation::Skip }
    }

    fn filter(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let same = pod.node.as_deref() == Some(&*node.facts.name);
        Verdict::unless(same, "node(s) didn't match the requested node name")
    }
}
