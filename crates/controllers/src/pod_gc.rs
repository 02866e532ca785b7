//! Pods that nobody will clean up: on nodes that are gone, deleted before they got a node, or
//! finished in great number.
//!
//! Knows nothing of what made the pods.

use std::{collections::HashMap, sync::Arc};

use client::{Cache, Caches, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    nodelifecycle::{BY_NODE, node_index},
    nodelifecycle::{fence, health},
    objects::{disruption, is_finished},
};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "pod-garbage-collector-controller";

/// How long a node must have been gone before its pods are: it may be registering again.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// The index of finished pods.
const FINISHED: &str = "finished";
/// The taint by which users say that a node is off and its pods may be taken for dead.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Runs the controller until `shutdown`. Beyond `threshold` finished pods the oldest go.
pub(crate) async fn run(caches: Caches, deps: Deps, threshold: usize, shutdown: CancellationToken) {
    let nodes = caches.cache::<Node>();
    let pods = caches.cache::<Pod>();
    pods.index(BY_NODE, node_index);
    pods.index(FINISHED, |pod| if is_finished(pod) { vec![String::new()] } else { Vec::new() });
    let on_node = pods.clone();
    Runtime::new(NAME, deps)
        .watch(&pods, |change| {
            let mut keys = vec![change.key.clone()];
            if change.after.as_deref().is_some_and(is_finished) {
                keys.push(all_finished());
            }
            keys
        })
        .watch(&nodes, move |change| {
            let before = change.before.as_deref().map(Home::of);
            let after = change.after.as_deref().map(Home::of);
            if before == after {
                return Vec::new();
            }
            let pods = on_node.indexed(BY_NODE, &change.key.name);
            pods.iter().map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .run(PodGc { nodes, pods, threshold, missing: Mutex::default() }, shutdown)
        .await;
}

/// The key that stands for all finished pods together.
fn all_finished() -> ObjectKey {
    ObjectKey::cluster("")
}

struct PodGc {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    threshold: usize,
    /// Since when we know of nodes with pods that they do not exist.
    missing: Mutex<HashMap<String, Timestamp>>,
}

/// What is looked at: one pod with the state of its node, or all finished ones.
pub(crate) enum Snapshot {
    One(Arc<Pod>, Home),
    Finished(Vec<Arc<Pod>>, usize),
}

/// The node of a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Home {
    /// Not assigned yet.
    None,
    Exists,
    /// Users say that nothing runs on it.
    OutOfService,
    /// It has stopped what others replace.
    Fenced,
    /// Not there since then.
    Missing(Timestamp),
}

impl Home {
    fn of(node: &Node) -> Self {
        let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        if health::is_ready(node) {
            Self::Exists
        } else if taints.any(|taint| taint.key == OUT_OF_SERVICE) {
            Self::OutOfService
        } else if fence::is_fenced(node) {
            Self::Fenced
        } else {
            Self::Exists
        }
    }
}

impl Controller for PodGc {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        if *key == all_finished() {
            let finished = self.pods.indexed(FINISHED, "");
            return (finished.len() > self.threshold)
                .then_some(Snapshot::Finished(finished, self.threshold));
        }
        let pod = self.pods.get_key(key)?;
        let home = self.home(&pod, Timestamp::now());
        Some(Snapshot::One(pod, home))
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context.now)
    }
}

impl PodGc {
    fn home(&self, pod: &Pod, now: Timestamp) -> Home {
        let Some(name) = node_index(pod).pop() else { return Home::None };
        let mut missing = self.missing.lock();
        match self.nodes.get(None, &name) {
            Some(node) => {
                missing.remove(&name);
                Home::of(&node)
            }
            None => {
                missing.retain(|node, _| {
                    *node == name || !self.pods.indexed(BY_NODE, node).is_empty()
                });
                Home::Missing(*missing.entry(name).or_insert(now))
            }
        }
    }
}

/// Deletes what nobody else will.
fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    match snapshot {
        Snapshot::One(pod, home) => plan_one(pod, *home, now, &mut plan),
        Snapshot::Finished(pods, threshold) => {
            let mut oldest: Vec<_> = pods.iter().collect();
            oldest.sort_by_key(|pod| {
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (created, pod.metadata.name.clone())
            });
            let surplus = pods.len().saturating_sub(*threshold);
            for pod in oldest.into_iter().take(surplus) {
                plan.act(Action::delete(&**pod).with_grace(0));
            }
        }
    }
    plan
}

fn plan_one(pod: &Pod, home: Home, now: Timestamp, plan: &mut Plan) {
    let going = pod.metadata.deletion_timestamp.is_some();
    match home {
        Home::None if going => plan.act(Action::delete(pod).with_grace(0)),
        Home::OutOfService if going => remove(pod, now, plan, None),
        Home::Fenced if going && fence::is_replaced(pod) => remove(pod, now, plan, None),
        Home::Missing(since) => {
            let due = since.checked_add(QUARANTINE).unwrap_or(Timestamp::MAX);
            if due > now {
                plan.requeue(due);
            } else {
                remove(pod, now, plan, Some("PodGC: node no longer exists"));
            }
        }
        _ => {}
    }
}

/// Marks the pod failed, so that its owner counts it as such, and removes it at once.
fn remove(pod: &Pod, now: Timestamp, plan: &mut Plan, message: Option<&str>) {
    if !is_finished(pod) {
        let mut status = json!({ "phase": "Failed" });
        if let Some(message) = message {
            let conditions = disruption(pod, "DeletionByPodGC", message, now);
            status["conditions"] = json!(conditions);
        }
        // First the status, then, seeing it finished, the deletion.
        plan.act(Action::patch_with(pod, Some("status"), json!({ "status": status }), true));
        return;
    }
    plan.act(Action::delete(pod).with_grace(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    fn check(pod: &str, home: Home) -> Vec<String> {
        told(&plan(&Snapshot::One(Arc::new(from_yaml(pod)), home), time("2026-01-01T00:01:00Z")))
    }

    const RUNNING: &str = "{metadata: {name: p, namespace: d}, status: {phase: Running}}";
    const GOING: &str =
        "{metadata: {name: p, namespace: d, deletionTimestamp: '2026-01-01T00:00:00Z'}}";

    #[test]
    fn pods_of_missing_nodes_fail_and_go() {
        assert!(check(RUNNING, Home::Exists).is_empty());
        assert!(check(RUNNING, Home::Missing(time("2026-01-01T00:00:30Z"))).is_empty());
        let told = check(RUNNING, Home::Missing(time("2026-01-01T00:00:20Z")));
        assert!(told[0].contains("\"phase\":\"Failed\"") && told.len() == 1, "{told:?}");
        let failed = "{metadata: {name: p, namespace: d}, status: {phase: Failed}}";
        assert_eq!(check(failed, Home::Missing(time("2026-01-01T00:00:20Z"))), ["delete Pod p"]);
    }

    #[test]
    fn a_deleted_pod_without_a_node_goes_at_once() {
        assert_eq!(check(GOING, Home::None), ["delete Pod p"]);
        assert!(check(RUNNING, Home::None).is_empty());
        assert!(check(GOING, Home::Exists).is_empty());
        assert_eq!(check(GOING, Home::OutOfService).len(), 1);
        assert!(check(GOING, Home::Fenced).is_empty(), "nobody stopped it");
        let owned = GOING.replace("name: p,", "name: p, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: s, uid: s, controller: true}],");
        assert_eq!(check(&owned, Home::Fenced).len(), 1);
    }

    #[test]
    fn only_a_node_that_is_not_ready_can_be_out_of_service() {
        let home = |ready: &str, more: &str| {
            Home::of(&from_yaml(&format!(
                "{{metadata: {{name: n{more}}}, status: {{conditions: [{{type: Ready, status: '{ready}'}}]}},
                  spec: {{taints: [{{key: node.kubernetes.io/out-of-service, effect: NoExecute}}]}}}}"
            )))
        };
        assert_eq!(home("True", ""), Home::Exists);
        assert_eq!(home("Unknown", ""), Home::OutOfService);
        let fenced =
            from_yaml("{metadata: {name: n, annotations: {skiff.dev/self-fenced: 'true'}}}");
        assert_eq!(Home::of(&fenced), Home::Fenced);
    }

    #[test]
    fn the_oldest_finished_pods_beyond_the_threshold_go() {
        let pod = |name: &str, minute: u32| {
            Arc::new(from_yaml(&format!(
                "{{metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:{minute:02}:00Z'}}}}"
            )))
        };
        let finished = vec![pod("a", 3), pod("b", 1), pod("c", 2)];
        let plan = plan(&Snapshot::Finished(finished, 1), time("2026-01-01T01:00:00Z"));
        assert_eq!(told(&plan), ["delete Pod b", "delete Pod c"]);
    }
}
