//! Host ports: each once a node and address.

use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::NodeInfo;
use crate::plugin::{Filter, Plugin, Preparation, Verdict};
use crate::pod::{HostPort, PodInfo};

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodePorts").filter(&NodePorts).wakes(|pod, event| match event {
        Event::NodeAdded(node) => !conflict(&pod.wants.host_ports, &node.host_ports),
        Event::PodFreed(freed) => conflict(&pod.wants.host_ports, &freed.wants.host_ports),
        Event::PodChanged => true,
        Event::NodeChanged { .. } => false,
    });

struct NodePorts;

impl Filter for NodePorts {
    type Prepared = ();

    fn prepare(&self, pod: &PodInfo, _: &Snapshot) -> Preparation<()> {
        if pod.wants.host_ports.is_empty() { Preparation::Skip } else { Preparation::Ask(()) }
    }

    fn filter(&self, (): &(), pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let free = !conflict(&pod.wants.host_ports, &node.host_ports);
        Verdict::unless(free, "node(s) didn't have free ports for the requested pod ports")
    }
}

fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|one| taken.iter().any(|other| one.conflicts(other)))
}
