//! Gives every node its pod networks: one range of each family that the cluster has, out of the
//! cluster's own.
//!
//! What is taken is read off the Nodes, so nothing needs remembering and ranges of deleted nodes
//! are free again. One node is served at a time and only when the cache has seen the range given
//! before: no two get the same. Knows nothing of what nodes do with their ranges.

mod options;
mod ranges;

use std::{collections::HashMap, sync::Arc};

use client::{Cache, Caches, Change, EventKind, ObjectKey};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub use options::{NodeIpamError, NodeIpamOptions};

use self::ranges::ClusterRange;
use crate::objects::name;

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "node-ipam-controller";

/// The event's reason, as upstream.
const NOT_AVAILABLE: &str = "CIDRNotAvailable";
/// Of so many deleted nodes at most it is remembered what they had.
const REMEMBERED: usize = 1000;

/// What deleted nodes had: one that registers again finds its pods' addresses still right.
type Former = Arc<Mutex<HashMap<String, Vec<IpNet>>>>;

/// Runs the controller until `shutdown`.
pub(crate) async fn run(
    caches: Caches,
    deps: Deps,
    options: NodeIpamOptions,
    shutdown: CancellationToken,
) {
    let ranges = match options.ranges() {
        Ok(ranges) => ranges,
        Err(error) => {
            tracing::error!(%error, "no pod networks are given to nodes");
            return shutdown.cancelled().await;
        }
    };
    let nodes = caches.cache::<Node>();
    let (all, former) = (nodes.clone(), Former::default());
    let left = former.clone();
    let next = Mutex::new(vec![0; ranges.len()]);
    Runtime::new(NAME, deps)
        .watch(&nodes, move |change| {
            remember(&left, change);
            wake(&all, change)
        })
        .concurrent(1)
        .run(Ipam { nodes, next, ranges, former }, shutdown)
        .await;
}

/// Notes what a node had that is deleted.
fn remember(former: &Former, change: &Change<Node>) {
    if let (Some(before), None) = (&change.before, &change.after) {
        let mut former = former.lock();
        if former.len() >= REMEMBERED {
            former.clear();
        }
        former.insert(change.key.name.clone(), pod_networks(before));
    }
}

/// A new node wants ranges; those of one that is gone are for whoever waits.
fn wake(nodes: &Cache<Node>, change: &Change<Node>) -> Vec<ObjectKey> {
    match (&change.before, &change.after) {
        (_, None) => {
            let waiting = nodes.list().into_iter().filter(|node| pod_networks(node).is_empty());
            waiting.map(|node| ObjectKey::of(&*node)).collect()
        }
        (Some(before), Some(after)) if before.metadata.uid == after.metadata.uid => Vec::new(),
        _ => vec![change.key.clone()],
    }
}

/// The ranges a node has; what cannot be read is left out.
fn pod_networks(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = match &spec.pod_cidrs {
        Some(all) if !all.is_empty() => all.as_slice(),
        _ => spec.pod_cidr.as_slice(),
    };
    all.iter().filter_map(|text| text.parse().ok()).collect()
}

struct Ipam {
    nodes: Cache<Node>,
    ranges: Vec<ClusterRange>,
    /// Where to look first, so that a range is used again as late as possible.
    next: Mutex<Vec<u32>>,
    former: Former,
}

/// A node without ranges, and those that are chosen for it.
pub(crate) struct Snapshot {
    node: Arc<Node>,
    /// One of each family; `None` if a family has none left.
    chosen: Option<Vec<IpNet>>,
}

impl Controller for Ipam {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let node = self.nodes.get_key(key)?;
        if !pod_networks(&node).is_empty() || node.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let taken: Vec<IpNet> =
            self.nodes.list().iter().flat_map(|node| pod_networks(node)).collect();
        let former = self.former.lock().get(&key.name).cloned().unwrap_or_default();
        // What is chosen here may be on its way to the API when the next node is looked at.
        let mut next = self.next.lock();
        let chosen = choose(&self.ranges, &taken, &next, &former);
        if let Some(chosen) = &chosen {
            *next = chosen.iter().map(|index| index + 1).collect();
        }
        let network = |(range, index): (&ClusterRange, u32)| range.at(index);
        let chosen = chosen.map(|chosen| self.ranges.iter().zip(chosen).map(network).collect());
        Some(Snapshot { node, chosen })
    }

    fn plan(&self, snapshot: &Snapshot, _: &Context) -> Plan {
        plan(snapshot)
    }
}

/// The index of a free network in each range: what a node of this name had before, or the first
/// from `next` on.
fn choose(
    ranges: &[ClusterRange],
    taken: &[IpNet],
    next: &[u32],
    former: &[IpNet],
) -> Option<Vec<u32>> {
    let one = |(range, next): (&ClusterRange, &u32)| {
        let former = former.iter().find_map(|network| range.index_of(*network));
        let first = former.filter(|index| range.free(*index, taken) == Some(*index));
        first.or_else(|| range.free(*next, taken))
    };
    ranges.iter().zip(next).map(one).collect()
}

/// Gives the node its ranges, or says that there are none.
fn plan(snapshot: &Snapshot) -> Plan {
    let node = &*snapshot.node;
    let mut plan = Plan::nothing();
    let Some(chosen) = &snapshot.chosen else {
        let text = format!("Node {} status is now: {NOT_AVAILABLE}", name(&node.metadata));
        plan.note(node, EventKind::Normal, NOT_AVAILABLE, text);
        tracing::warn!(
            node = name(&node.metadata),
            "no pod network is left for this node: delete Nodes that are gone, or use a larger --cluster-cidr"
        );
        return plan;
    };
    let networks: Vec<String> = chosen.iter().map(ToString::to_string).collect();
    let spec = json!({ "podCIDR": networks.first(), "podCIDRs": networks });
    plan.act(Action::patch(node, json!({ "spec": spec })));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    fn node(name: &str, networks: &str) -> Node {
        from_yaml(&format!(
            "{{metadata: {{name: {name}, uid: u}}, spec: {{podCIDRs: [{networks}]}}}}"
        ))
    }

    fn ipam(cidrs: &str, nodes: Vec<Node>) -> Ipam {
        let ranges = NodeIpamOptions {
            cluster_cidrs: cidrs.split(',').map(|cidr| cidr.parse().expect("network")).collect(),
            ..NodeIpamOptions::default()
        }
        .ranges()
        .expect("ranges");
        let next = Mutex::new(vec![0; ranges.len()]);
        Ipam { nodes: Cache::fixed(nodes), ranges, next, former: Former::default() }
    }

    /// The plan for node `name`, in words.
    fn check(ipam: &Ipam, name: &str) -> Vec<String> {
        let Some(snapshot) = ipam.observe(&ObjectKey::cluster(name)) else { return Vec::new() };
        let plan = ipam.plan(&snapshot, &Context::at(jiff::Timestamp::UNIX_EPOCH));
        let notes = plan.notes.iter().map(|note| format!("{}: {}", note.reason, note.note));
        told(&plan).into_iter().chain(notes).collect()
    }

    #[test]
    fn a_new_node_gets_one_range_of_each_family() {
        let nodes = vec![node("a", "10.244.0.0/24, 'fd00:10:244::/64'"), node("b", "")];
        let two = ipam("10.244.0.0/16,fd00:10:244::/48", nodes);
        assert!(check(&two, "a").is_empty());
        assert!(check(&two, "gone").is_empty());
        assert_eq!(
            check(&two, "b"),
            [
                r#"patch Node b {"spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"]}}"#
            ]
        );
    }

    #[test]
    fn what_was_given_is_not_given_next() {
        let one = ipam("10.244.0.0/16", vec![node("a", "")]);
        assert!(check(&one, "a")[0].contains("10.244.0.0/24"));
        assert!(check(&one, "a")[0].contains("10.244.1.0/24"), "the first may be on its way");
    }

    #[test]
    fn who_registers_again_has_what_it_had() {
        let ipam = ipam("10.244.0.0/16", vec![node("a", ""), node("b", "10.244.9.0/24")]);
        let left = |name: &str, networks: &str| Change {
            key: ObjectKey::cluster(name),
            before: Some(Arc::new(node(name, networks))),
            after: None,
        };
        remember(&ipam.former, &left("a", "10.244.7.0/24"));
        assert!(check(&ipam, "a")[0].contains("10.244.7.0/24"));
        remember(&ipam.former, &left("a", "10.244.9.0/24"));
        assert!(check(&ipam, "a")[0].contains("10.244.8.0/24"), "another has it by now");
    }

    #[test]
    fn exhaustion_is_an_event_and_deletion_wakes_who_waits() {
        let full = ipam("10.244.0.0/24", vec![node("a", "10.244.0.0/24"), node("b", "")]);
        assert_eq!(check(&full, "b"), ["CIDRNotAvailable: Node b status is now: CIDRNotAvailable"]);
        let change = |before: Option<Node>, after: Option<Node>| Change {
            key: ObjectKey::cluster("a"),
            before: before.map(Arc::new),
            after: after.map(Arc::new),
        };
        let woken = |change| wake(&full.nodes, &change);
        let a = || Some(node("a", "10.244.0.0/24"));
        assert_eq!(woken(change(a(), None)), [ObjectKey::cluster("b")]);
        assert!(woken(change(a(), a())).is_empty(), "heartbeats wake nobody");
        assert_eq!(woken(change(None, a())), [ObjectKey::cluster("a")]);
    }
}
