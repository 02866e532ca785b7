//! Nodes that stop reporting: their conditions become unknown, taints keep new pods away and, in
//! time, evict the old ones.
//!
//! `health` judges a node, `taints` derives its taints, `eviction` removes pods. Nothing here
//! talks to a kubelet: a node's lease and status are all there is.

pub(crate) mod eviction;
mod health;
mod taints;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{Cache, Caches, ObjectKey, Select};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use parking_lot::Mutex;
use reconcile::{Context, Controller, Deps, Plan, Runtime, itself};
use tokio_util::sync::CancellationToken;

use crate::objects::name;

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "node-lifecycle-controller";

/// The index of pods by node.
pub(crate) const BY_NODE: &str = "node";
/// Where kubelets renew their leases.
const LEASES: &str = "kube-node-lease";

/// The node a pod is on, as an index.
pub(crate) fn node_index(pod: &Pod) -> Vec<String> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.filter(|node| !node.is_empty()).into_iter().collect()
}

/// Runs the controller until `shutdown`. A node silent for `grace` is given up.
pub(crate) async fn run(caches: Caches, deps: Deps, grace: Duration, shutdown: CancellationToken) {
    let nodes = caches.cache::<Node>();
    let pods = caches.cache::<Pod>();
    let leases = caches.selected::<Lease>(Select::all().namespace(LEASES));
    pods.index(BY_NODE, node_index);
    let all = nodes.clone();
    Runtime::new(NAME, deps)
        .watch(&nodes, move |change| {
            // Whether a node is the last one that works concerns all others.
            if readiness(change.before.as_deref()) == readiness(change.after.as_deref()) {
                return itself(change);
            }
            all.list().iter().map(|node| ObjectKey::of(&**node)).collect()
        })
        .watch(&leases, |change| vec![ObjectKey::cluster(change.key.name.clone())])
        .reading(&pods)
        .run(Nodes { nodes, pods, leases, grace, beats: Mutex::default() }, shutdown)
        .await;
}

fn readiness(node: Option<&Node>) -> Option<&str> {
    node.map(|node| health::condition(node, "Ready").map_or("", |ready| ready.status.as_str()))
}

/// Signs of life as last seen, and when we saw them: clocks of nodes are not trusted.
struct Beat {
    signs: (Option<Timestamp>, Option<Timestamp>),
    seen: Timestamp,
}

struct Nodes {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    leases: Cache<Lease>,
    grace: Duration,
    beats: Mutex<HashMap<String, Beat>>,
}

/// A node, when it last gave a sign of life, and what depends on it.
pub(crate) struct Snapshot {
    node: Arc<Node>,
    /// By our clock.
    last_sign: Timestamp,
    grace: SignedDuration,
    /// Whether any node at all is ready.
    some_ready: bool,
    pods: Vec<Arc<Pod>>,
}

impl Controller for Nodes {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let Some(node) = self.nodes.get_key(key) else {
            self.beats.lock().remove(&key.name);
            return None;
        };
        let renewed = self
            .leases
            .get(Some(LEASES), &key.name)
            .and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let reported = health::condition(&node, "Ready")
            .filter(|ready| ready.status != "Unknown")
            .and_then(|ready| ready.last_heartbeat_time.as_ref().map(|time| time.0));
        let last_sign = self.beat(&key.name, (renewed, reported), Timestamp::now());
        let some_ready = self.nodes.list().iter().any(|node| readiness(Some(node)) == Some("True"));
        let pods = self.pods.indexed(BY_NODE, name(&node.metadata));
        let grace = SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX);
        Some(Snapshot { node, last_sign, grace, some_ready, pods })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context.now)
    }
}

impl Nodes {
    /// Notes the signs of life; when they last changed.
    fn beat(
        &self,
        node: &str,
        signs: (Option<Timestamp>, Option<Timestamp>),
        now: Timestamp,
    ) -> Timestamp {
        let mut beats = self.beats.lock();
        match beats.get_mut(node) {
            Some(beat) if beat.signs == signs => beat.seen,
            Some(beat) => {
                *beat = Beat { signs, seen: now };
                now
            }
            None => {
                beats.insert(node.to_owned(), Beat { signs, seen: now });
                now
            }
        }
    }
}

/// Gives up a silent node, taints it by its conditions, and says that its pods are not ready.
pub(crate) fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let node = &*snapshot.node;
    let due = snapshot.last_sign.checked_add(snapshot.grace).unwrap_or(Timestamp::MAX);
    let mut conditions =
        node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    if due <= now {
        health::give_up(node, &mut conditions, now);
        health::write(node, &conditions, &mut plan);
    } else {
        plan.requeue(due);
    }
    taints::write(node, &conditions, snapshot.some_ready, now, &mut plan);
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|ready| ready.status != "True") {
        health::mark_pods(&snapshot.pods, now, &mut plan);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn check(node: &str, silent: i64, some_ready: bool, pods: Vec<Arc<Pod>>) -> Vec<String> {
        let now = time(NOW);
        let snapshot = Snapshot {
            node: Arc::new(from_yaml(node)),
            last_sign: now - SignedDuration::from_secs(silent),
            grace: SignedDuration::from_secs(50),
            some_ready,
            pods,
        };
        told(&plan(&snapshot, now))
    }

    fn pod() -> Arc<Pod> {
        Arc::new(from_yaml(
            "{metadata: {name: p, namespace: default}, spec: {nodeName: n, containers: []},
              status: {conditions: [{type: Ready, status: 'True'}]}}",
        ))
    }

    const READY: &str = "{metadata: {name: n}, status: {conditions: [
        {type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T00:00:00Z'}]}}";

    #[test]
    fn a_node_that_reports_is_left_alone() {
        assert!(check(READY, 49, true, vec![pod()]).is_empty());
    }

    #[test]
    fn a_silent_node_is_unknown_tainted_and_its_pods_not_ready() {
        let told = check(READY, 50, true, vec![pod()]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("patch Node n/status"), "{told:?}");
        assert!(told[0].contains("Kubelet stopped posting node status."), "{told:?}");
        assert!(told[1].contains("node.kubernetes.io/unreachable"), "{told:?}");
        assert!(told[1].contains("NoExecute") && told[1].contains("NoSchedule"), "{told:?}");
        assert!(told[2].starts_with("patch Pod p/status"), "{told:?}");
        assert!(told[2].contains("\"status\":\"False\""), "{told:?}");
    }

    #[test]
    fn nothing_is_evicted_when_no_node_is_ready() {
        let told = check(READY, 50, false, vec![]);
        assert!(told[1].contains("NoSchedule") && !told[1].contains("NoExecute"), "{told:?}");
    }

    #[test]
    fn taints_follow_conditions_and_go_with_them() {
        let not_ready = "{metadata: {name: n}, status: {conditions: [
            {type: Ready, status: 'False'}, {type: DiskPressure, status: 'True'}]},
            spec: {unschedulable: true, taints: [{key: mine, effect: NoSchedule}]}}";
        let told = check(not_ready, 0, true, vec![]);
        assert_eq!(told.len(), 1);
        for part in ["\"mine\"", "not-ready", "disk-pressure", "unschedulable"] {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
        let recovered =
            "{metadata: {name: n}, status: {conditions: [{type: Ready, status: 'True'}]},
            spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoExecute},
                {key: node.kubernetes.io/not-ready, effect: NoSchedule}]}}";
        assert_eq!(
            check(recovered, 0, true, vec![]),
            ["patch Node n {\"spec\":{\"taints\":null}}"]
        );
    }

    #[test]
    fn a_node_that_never_reported_says_so() {
        let told = check(
            "{metadata: {name: n, creationTimestamp: '2026-01-01T00:00:00Z'}}",
            60,
            true,
            vec![],
        );
        assert!(told[0].contains("Kubelet never posted node status."), "{told:?}");
    }
}
