//! Nodes that stop reporting: their conditions become unknown, taints keep new pods away and, in
//! time, evict the old ones.
//!
//! `health` judges a node, `zones` says whether a fault is that of the node, `taints` derives its
//! taints, `eviction` removes pods. Nothing here talks to a kubelet: a node's lease and status are
//! all there is. A node is judged by what its lease promised.

pub(crate) mod eviction;
pub(crate) mod fence;
pub(crate) mod health;
mod pace;
mod taints;
#[cfg(test)]
mod tests;
mod zones;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{Cache, Caches, EventKind, ObjectKey, Select};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use parking_lot::Mutex;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::zones::{Concerned, Zones};
use crate::objects::name;

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "node-lifecycle-controller";

/// The index of pods by node.
pub(crate) const BY_NODE: &str = "node";
/// Where kubelets renew their leases.
const LEASES: &str = "kube-node-lease";
/// How long a node may be silent whose lease does not say.
const GRACE: SignedDuration = SignedDuration::from_secs(40);
/// Nobody may be silent for longer, whatever was promised.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 365);
/// How long a node may take from its creation to its first sign of life.
const STARTUP: SignedDuration = SignedDuration::from_secs(60);

/// The node a pod is on, as an index.
pub(crate) fn node_index(pod: &Pod) -> Vec<String> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.filter(|node| !node.is_empty()).into_iter().collect()
}

/// Runs the controller until `shutdown`. A node silent for `grace`, or for as long as its lease
/// says, is given up.
pub(crate) async fn run(
    caches: Caches,
    deps: Deps,
    grace: Option<Duration>,
    shutdown: CancellationToken,
) {
    let nodes = caches.cache::<Node>();
    let pods = caches.cache::<Pod>();
    let leases = caches.selected::<Lease>(Select::all().namespace(LEASES));
    pods.index(BY_NODE, node_index);
    let all = nodes.clone();
    let zones = Arc::new(Mutex::new(Zones::default()));
    let counted = zones.clone();
    Runtime::new(NAME, deps)
        .watch(&nodes, move |change| {
            let now = all.get_key(&change.key);
            let concerned = counted.lock().note(&change.key.name, now.as_deref(), Timestamp::now());
            match concerned {
                Concerned::Nobody => itself(change),
                Concerned::Silent(names) => {
                    names.into_iter().map(ObjectKey::cluster).chain(itself(change)).collect()
                }
                Concerned::Everybody => {
                    let others = all.list();
                    others.iter().map(|node| ObjectKey::of(&**node)).chain(itself(change)).collect()
                }
            }
        })
        .watch(&leases, |change| vec![ObjectKey::cluster(change.key.name.clone())])
        .reading(&pods)
        .run(Nodes { nodes, pods, leases, grace, beats: Mutex::default(), zones }, shutdown)
        .await;
}

/// Signs of life as last seen, and when we saw them: clocks of nodes are not trusted, and a node
/// has a whole grace period after this controller's own start.
struct Beat {
    signs: (Option<Timestamp>, Option<Timestamp>),
    seen: Timestamp,
}

struct Nodes {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    leases: Cache<Lease>,
    grace: Option<Duration>,
    beats: Mutex<HashMap<String, Beat>>,
    zones: Arc<Mutex<Zones>>,
}

/// A node, when it last gave a sign of life, and what depends on it.
pub(crate) struct Snapshot {
    node: Arc<Node>,
    /// Seen for the first time.
    new: bool,
    /// By our clock.
    last_sign: Timestamp,
    grace: SignedDuration,
    /// From when on its pods may be evicted, if it is not ready.
    evict_from: Option<Timestamp>,
    /// The annotation by which kubelets are told how often to renew, if it is to be there.
    pace: Option<u64>,
    pods: Vec<Arc<Pod>>,
}

impl Controller for Nodes {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let Some(node) = self.nodes.get_key(key) else {
            self.beats.lock().remove(&key.name);
            return None;
        };
        let now = Timestamp::now();
        let lease = self.leases.get(Some(LEASES), &key.name);
        let lease = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let renewed = lease.and_then(|lease| lease.renew_time.as_ref().map(|time| time.0));
        let reported = health::condition(&node, "Ready")
            .filter(|ready| ready.status != "Unknown")
            .and_then(|ready| ready.last_heartbeat_time.as_ref().map(|time| time.0));
        let promised = lease.and_then(|lease| lease.lease_duration_seconds);
        let alive = renewed.is_some() || reported.is_some();
        let grace = self.grace_of(promised, alive);
        let (last_sign, new) = self.beat(&key.name, (renewed, reported), now);
        let evict_from = self.evict_from(&node, last_sign, grace, now);
        let pace = pace::wanted(self.grace, self.zones.lock().nodes(), &node);
        let pods = self.pods.indexed(BY_NODE, name(&node.metadata));
        Some(Snapshot { node, new, last_sign, grace, evict_from, pace, pods })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context.now)
    }
}

impl Nodes {
    fn grace_of(&self, promised: Option<i32>, alive: bool) -> SignedDuration {
        let grace = match (self.grace, promised) {
            (Some(grace), _) => SignedDuration::try_from(grace).unwrap_or(LONGEST),
            (None, Some(seconds)) if seconds > 0 => SignedDuration::from_secs(seconds.into()),
            _ if alive => GRACE,
            _ => STARTUP,
        };
        grace.min(LONGEST)
    }

    /// Notes the signs of life; when they last changed, and whether the node is new.
    fn beat(
        &self,
        node: &str,
        signs: (Option<Timestamp>, Option<Timestamp>),
        now: Timestamp,
    ) -> (Timestamp, bool) {
        let mut beats = self.beats.lock();
        match beats.get_mut(node) {
            Some(beat) if beat.signs == signs => (beat.seen, false),
            Some(beat) => {
                *beat = Beat { signs, seen: now };
                (now, false)
            }
            None => {
                beats.insert(node.to_owned(), Beat { signs, seen: now });
                (now, true)
            }
        }
    }

    /// From when on a node's pods may be evicted. Others that fell silent with it need another
    /// renewal's time to be missed: only then is it known how many there are.
    fn evict_from(
        &self,
        node: &Node,
        last_sign: Timestamp,
        grace: SignedDuration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut zones = self.zones.lock();
        if !zones.are_counted() {
            zones.count(self.nodes.list().iter().map(|node| &**node), now);
        }
        if health::is_ready(node) && last_sign + grace > now {
            return None;
        }
        let known = last_sign.checked_add(grace + grace * 3 / 10).unwrap_or(Timestamp::MAX);
        let silent = health::condition(node, "Ready").is_none_or(|ready| ready.status != "False");
        let evicting = taints::evicts(node);
        if silent && !evicting && known > now {
            return Some(known);
        }
        zones.evict_from(node, evicting, grace, now)
    }
}

/// Gives up a silent node, taints it by its conditions, and says that its pods are not ready.
pub(crate) fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let node = &*snapshot.node;
    let due = snapshot.last_sign.checked_add(snapshot.grace).unwrap_or(Timestamp::MAX);
    let mut conditions =
        node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let silent = due <= now;
    if silent {
        health::give_up(node, &mut conditions, now);
        if health::write(node, &conditions, &mut plan) {
            // Taints follow when this has been seen: a write of the node before would be stale.
            health::mark_pods(&snapshot.pods, now, &mut plan);
            return plan;
        }
    } else {
        plan.requeue(due);
    }
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = ready.is_none_or(|ready| ready.status == "True");
    let evict = !ready && snapshot.evict_from.is_some_and(|at| at <= now);
    if let Some(at) = snapshot.evict_from.filter(|at| !ready && *at > now) {
        plan.requeue(at);
    }
    taints::write(node, &conditions, evict, now, &mut plan);
    annotate(snapshot, silent, ready, now, &mut plan);
    if silent {
        // A kubelet that speaks says itself which of its pods are ready.
        health::mark_pods(&snapshot.pods, now, &mut plan);
    }
    if snapshot.new {
        let name = name(&node.metadata);
        let note = format!("Node {name} event: Registered Node {name} in Controller");
        plan.note(node, EventKind::Normal, "RegisteredNode", note);
    }
    plan
}

/// Annotations: how often to renew, and whether the node has fenced itself.
fn annotate(snapshot: &Snapshot, silent: bool, ready: bool, now: Timestamp, plan: &mut Plan) {
    let node = &*snapshot.node;
    let mut changes = serde_json::Map::new();
    if pace::told(node) != snapshot.pace {
        changes.insert(
            pace::ANNOTATION.to_owned(),
            json!(snapshot.pace.map(|seconds| seconds.to_string())),
        );
    }
    let fenced_at = fence::fenced_after(node)
        .filter(|_| silent)
        .map(|after| snapshot.last_sign.checked_add(after).unwrap_or(Timestamp::MAX));
    if let Some(at) = fenced_at.filter(|at| *at > now) {
        plan.requeue(at);
    }
    // What a fenced node stopped stays so until it is back, whenever this controller started.
    let fenced = fenced_at.is_some_and(|at| at <= now) || (fence::is_fenced(node) && !ready);
    if fenced != fence::is_fenced(node) {
        changes.insert(fence::FENCED.to_owned(), json!(fenced.then_some("true")));
    }
    if !changes.is_empty() {
        plan.act(Action::patch(node, json!({ "metadata": { "annotations": changes } })));
    }
}
