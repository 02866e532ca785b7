//! What is where: nodes, pods on them, and pods on their way to them. Kept up to date piece by
//! piece; between changes it is the immutable snapshot that plugins see.

use std::collections::HashMap;
use std::sync::Arc;

use crate::node::{NodeFacts, NodeInfo};
use crate::pod::{PodInfo, PodKey};

/// The nodes at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    index: HashMap<Arc<str>, usize>,
}

impl Snapshot {
    /// All nodes, in no particular order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    /// Position of the node of that name in [`Snapshot::nodes`].
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        self.index.get(name).map(|at| &mut self.nodes[*at])
    }
}

/// What became of a node's change.
#[derive(Debug, PartialEq)]
pub enum NodeChange {
    /// It is new.
    Added,
    /// It says something else now.
    Changed {
        /// What it said before.
        before: Box<NodeFacts>,
    },
    /// Nothing that matters changed.
    Same,
}

struct Placed {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    /// Decided here and not yet seen in the API.
    assumed: bool,
}

/// Nodes and the pods on them.
#[derive(Default)]
pub struct Cluster {
    snapshot: Snapshot,
    placed: HashMap<PodKey, Placed>,
    /// Pods by node, nodes that are not known (yet, or any more) included.
    by_node: HashMap<Arc<str>, HashMap<PodKey, Arc<PodInfo>>>,
}

impl Cluster {
    /// The nodes as they are now.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes note of a node.
    pub fn set_node(&mut self, facts: NodeFacts) -> NodeChange {
        if let Some(node) = self.snapshot.node_mut(&facts.name) {
            if node.facts == facts {
                return NodeChange::Same;
            }
            let before = std::mem::replace(&mut node.facts, facts);
            return NodeChange::Changed { before: Box::new(before) };
        }
        let name = Arc::clone(&facts.name);
        let mut node = NodeInfo::new(facts);
        for pod in self.by_node.get(&name).into_iter().flat_map(HashMap::values) {
            node.add(pod);
        }
        self.snapshot.index.insert(name, self.snapshot.nodes.len());
        self.snapshot.nodes.push(node);
        NodeChange::Added
    }

    /// Forgets a node; its pods stay until they are deleted themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.snapshot.index.remove(name) else { return };
        self.snapshot.nodes.swap_remove(at);
        if let Some(moved) = self.snapshot.nodes.get(at) {
            self.snapshot.index.insert(Arc::clone(&moved.facts.name), at);
        }
    }

    /// Puts a pod on a node: `assumed` if so decided, else because the API says so. Returns
    /// the pod as it was before, if it was on a node.
    pub fn place(
        &mut self,
        pod: Arc<PodInfo>,
        node: &Arc<str>,
        assumed: bool,
    ) -> Option<Arc<PodInfo>> {
        let before = self.remove(&pod.key);
        if let Some(info) = self.snapshot.node_mut(node) {
            info.add(&pod);
        }
        let there = self.by_node.entry(Arc::clone(node)).or_default();
        there.insert(pod.key.clone(), Arc::clone(&pod));
        let placed = Placed { pod, node: Arc::clone(node), assumed };
        self.placed.insert(placed.pod.key.clone(), placed);
        before
    }

    /// Takes a pod off its node and returns it.
    pub fn remove(&mut self, key: &PodKey) -> Option<Arc<PodInfo>> {
        let placed = self.placed.remove(key)?;
        if let Some(info) = self.snapshot.node_mut(&placed.node) {
            info.remove(&placed.pod);
        }
        if let Some(there) = self.by_node.get_mut(&placed.node) {
            there.remove(key);
            if there.is_empty() {
                self.by_node.remove(&placed.node);
            }
        }
        Some(placed.pod)
    }

    /// The pod of that key, if it is on a node or on its way there.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<&Arc<PodInfo>> {
        self.placed.get(key).map(|placed| &placed.pod)
    }

    /// Whether the pod is on its way to a node.
    #[must_use]
    pub fn is_assumed(&self, key: &PodKey, uid: &str) -> bool {
        self.placed.get(key).is_some_and(|placed| placed.assumed && *placed.pod.uid == *uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(name: &str) -> NodeFacts {
        NodeFacts { name: name.into(), ..NodeFacts::default() }
    }

    fn pod(name: &str, cpu: &str) -> Arc<PodInfo> {
        let pod = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": name, "uid": name},
            "spec": {"containers": [{
                "name": "c",
                "ports": [{"containerPort": 80, "hostPort": 80}],
                "resources": {"requests": {"cpu": cpu}},
            }]},
        }))
        .unwrap();
        Arc::new(PodInfo::new(&pod))
    }

    fn state(cluster: &Cluster, node: &str) -> (i64, i64, usize) {
        let node = cluster.snapshot().node(node).unwrap();
        (node.requested.cpu, node.pods, node.host_ports.len())
    }

    #[test]
    fn pods_count_where_they_are() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut cluster = Cluster::default();
        // Before its node is known a pod already counts.
        cluster.place(pod("x", "1"), &a, false);
        assert_eq!(cluster.set_node(facts("a")), NodeChange::Added);
        cluster.set_node(facts("b"));
        assert_eq!(state(&cluster, "a"), (1000, 1, 1));
        // Assumed, then confirmed with other requests: counted once.
        cluster.place(pod("y", "2"), &a, true);
        assert!(cluster.is_assumed(&PodKey::new("default", "y"), "y"));
        cluster.place(pod("y", "3"), &a, false);
        assert!(!cluster.is_assumed(&PodKey::new("default", "y"), "y"));
        assert_eq!(state(&cluster, "a"), (4000, 2, 2));
        cluster.place(pod("y", "3"), &b, false);
        assert_eq!((state(&cluster, "a"), state(&cluster, "b")), ((1000, 1, 1), (3000, 1, 1)));
        // Removing one node keeps the other addressable.
        cluster.remove_node("a");
        assert_eq!(state(&cluster, "b"), (3000, 1, 1));
        cluster.remove(&PodKey::new("default", "y"));
        assert_eq!(state(&cluster, "b"), (0, 0, 0));
        cluster.set_node(facts("a"));
        assert_eq!(state(&cluster, "a"), (1000, 1, 1));
    }

    #[test]
    fn unchanged_nodes_are_no_news() {
        let mut cluster = Cluster::default();
        cluster.set_node(facts("a"));
        assert_eq!(cluster.set_node(facts("a")), NodeChange::Same);
        let cordoned = NodeFacts { unschedulable: true, ..facts("a") };
        assert!(matches!(cluster.set_node(cordoned), NodeChange::Changed { .. }));
    }
}
