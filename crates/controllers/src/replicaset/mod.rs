//! ReplicaSets: as many pods as asked for.
//!
//! Owns pods by controller references; knows nothing of Deployments beyond the fact that sibling
//! ReplicaSets share an owner.

mod manage;
mod rank;
mod status;

use std::sync::Arc;

use client::{Cache, Caches, ObjectKey};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use reconcile::{Context, Controller, Deps, Plan, Runtime, controller_of, itself};
use tokio_util::sync::CancellationToken;

use crate::{
    claim::claim,
    objects::{
        BY_CONTROLLER, controller, controller_index, is_active, is_terminating, orphans, selector,
        selects, uid,
    },
};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "replicaset-controller";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let sets = caches.cache::<ReplicaSet>();
    let pods = caches.cache::<Pod>();
    sets.index(BY_CONTROLLER, controller_index);
    pods.index(BY_CONTROLLER, controller_index);
    let adopters = sets.clone();
    Runtime::new(NAME, deps)
        .watch(&sets, itself)
        .watch(&pods, move |change| {
            let mut keys = controller_of::<ReplicaSet, Pod>(change);
            if let Some(pod) = &change.after
                && controller(&pod.metadata).is_none()
            {
                keys.extend(would_adopt(&adopters, pod));
            }
            keys
        })
        .run(ReplicaSets { sets, pods }, shutdown)
        .await;
}

/// The ReplicaSets whose selectors match an orphan.
fn would_adopt(sets: &Cache<ReplicaSet>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    sets.list_in(namespace)
        .iter()
        .filter(|set| {
            set.spec.as_ref().is_some_and(|spec| selects(&selector(&spec.selector), &pod.metadata))
        })
        .map(|set| ObjectKey::of(&**set))
        .collect()
}

struct ReplicaSets {
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

/// A ReplicaSet with the pods it may claim, and the pods of its siblings.
pub(crate) struct Snapshot {
    set: Arc<ReplicaSet>,
    /// Its own and orphans.
    candidates: Vec<Arc<Pod>>,
    /// Pods of ReplicaSets with the same owner, its own included.
    related: Vec<Arc<Pod>>,
}

impl Controller for ReplicaSets {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let set = self.sets.get_key(key)?;
        let mut candidates = self.pods.indexed(BY_CONTROLLER, uid(&set.metadata));
        let mut related = candidates.clone();
        candidates.extend(self.pods.indexed(BY_CONTROLLER, &orphans(key.namespace())));
        if let Some(owner) = controller(&set.metadata) {
            for sibling in self.sets.indexed(BY_CONTROLLER, &owner.uid) {
                if sibling.metadata.uid != set.metadata.uid {
                    related.extend(self.pods.indexed(BY_CONTROLLER, uid(&sibling.metadata)));
                }
            }
        }
        Some(Snapshot { set, candidates, related })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context)
    }
}

/// Adopts, releases, creates and deletes pods, and says what there is.
pub(crate) fn plan(snapshot: &Snapshot, context: &Context) -> Plan {
    let set = &*snapshot.set;
    let Some(spec) = &set.spec else { return Plan::nothing() };
    let claims = claim(set, &selector(&spec.selector), snapshot.candidates.iter().cloned());
    let mut plan = Plan { actions: claims.actions, ..Plan::default() };
    let (active, others): (Vec<_>, Vec<_>) =
        claims.claimed.into_iter().partition(|pod| is_active(pod));
    let terminating = others.iter().filter(|pod| is_terminating(pod)).count();
    if set.metadata.deletion_timestamp.is_none() {
        manage::manage(set, spec, &active, &snapshot.related, context.now, &mut plan);
    }
    status::report(set, spec, &active, terminating, context, &mut plan);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn set(replicas: u32, status: &str) -> Arc<ReplicaSet> {
        Arc::new(from_yaml(&format!(
            "{{metadata: {{name: web, namespace: default, uid: rs, generation: 1}},
              spec: {{replicas: {replicas}, selector: {{matchLabels: {{app: web}}}},
                template: {{metadata: {{labels: {{app: web}}, annotations: {{a: b}}}}, spec: {{containers: []}}}}}},
              status: {status}}}"
        )))
    }

    fn pod(name: &str, node: &str, ready: bool, more: &str) -> Arc<Pod> {
        let (phase, ready) = if node.is_empty() {
            ("Pending", "False")
        } else {
            ("Running", if ready { "True" } else { "False" })
        };
        Arc::new(from_yaml(&format!(
            "{{metadata: {{name: {name}, namespace: default, uid: {name}, labels: {{app: web}},
                creationTimestamp: '2026-01-01T00:00:00Z',
                ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: rs, controller: true}}]{more}}},
              spec: {{nodeName: '{node}', containers: []}},
              status: {{phase: {phase}, conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '2026-01-01T00:30:00Z'}}]}}}}"
        )))
    }

    fn check(set: Arc<ReplicaSet>, pods: Vec<Arc<Pod>>) -> Vec<String> {
        let snapshot = Snapshot { set, related: pods.clone(), candidates: pods };
        told(&plan(&snapshot, &Context::at(time(NOW))))
    }

    #[test]
    fn missing_pods_are_created_from_the_template() {
        let snapshot = Snapshot {
            set: set(2, "{replicas: 0, observedGeneration: 1, terminatingReplicas: 0}"),
            candidates: vec![],
            related: vec![],
        };
        let plan = plan(&snapshot, &Context::at(time(NOW)));
        assert_eq!(told(&plan), ["create Pod ", "create Pod "]);
        let reconcile::Action::Create { object, .. } = &plan.actions[0] else { panic!() };
        assert_eq!(object["metadata"]["generateName"], "web-");
        assert_eq!(object["metadata"]["labels"]["app"], "web");
        assert_eq!(object["metadata"]["annotations"]["a"], "b");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "rs");
        assert_eq!(object["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], true);
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let status = "{replicas: 4, readyReplicas: 2, availableReplicas: 2, fullyLabeledReplicas: 4, observedGeneration: 1, terminatingReplicas: 0}";
        let pods = || {
            vec![
                pod("ready-a", "n1", true, ""),
                pod(
                    "ready-b",
                    "n1",
                    true,
                    ", annotations: {controller.kubernetes.io/pod-deletion-cost: '-1'}",
                ),
                pod("unready", "n1", false, ""),
                pod("unassigned", "", false, ""),
            ]
        };
        assert_eq!(check(set(3, status), pods()), ["delete Pod unassigned"]);
        assert_eq!(check(set(2, status), pods()), ["delete Pod unassigned", "delete Pod unready"]);
        assert_eq!(
            check(set(1, status), pods()),
            ["delete Pod unassigned", "delete Pod unready", "delete Pod ready-b"]
        );
    }

    #[test]
    fn of_equal_pods_one_on_the_fuller_node_goes() {
        let status = "{replicas: 3, readyReplicas: 3, availableReplicas: 3, fullyLabeledReplicas: 3, observedGeneration: 1, terminatingReplicas: 0}";
        let pods =
            vec![pod("a", "n1", true, ""), pod("b", "n2", true, ""), pod("c", "n2", true, "")];
        assert_eq!(check(set(2, status), pods), ["delete Pod b"]);
    }

    #[test]
    fn status_counts_and_omits_what_is_zero() {
        let pods = vec![
            pod("a", "n1", true, ""),
            pod("b", "n1", false, ""),
            pod("c", "n1", true, ", deletionTimestamp: '2026-01-01T00:59:00Z'"),
        ];
        assert_eq!(
            check(
                set(
                    2,
                    "{replicas: 3, readyReplicas: 3, availableReplicas: 3, fullyLabeledReplicas: 3, observedGeneration: 1}"
                ),
                pods
            ),
            [
                "patch ReplicaSet web/status {\"status\":{\"availableReplicas\":1,\"fullyLabeledReplicas\":2,\"readyReplicas\":1,\"replicas\":2,\"terminatingReplicas\":1}}"
            ]
        );
    }

    #[test]
    fn a_pod_is_available_after_min_ready_seconds() {
        let mut set = set(
            1,
            "{replicas: 1, readyReplicas: 1, fullyLabeledReplicas: 1, observedGeneration: 1, terminatingReplicas: 0}",
        );
        Arc::get_mut(&mut set).unwrap().spec.as_mut().unwrap().min_ready_seconds = Some(3600);
        let pods = vec![pod("a", "n1", true, "")];
        let snapshot = Snapshot { set, related: pods.clone(), candidates: pods };
        let plan = plan(&snapshot, &Context::at(time(NOW)));
        assert!(plan.is_empty(), "{:?}", told(&plan));
        assert_eq!(plan.requeue_at, Some(time("2026-01-01T01:30:00Z")));
    }

    #[test]
    fn a_failure_shows_as_a_condition_until_it_is_over() {
        let status = "{replicas: 0, observedGeneration: 1, terminatingReplicas: 0}";
        let snapshot = Snapshot { set: set(1, status), candidates: vec![], related: vec![] };
        let mut context = Context::at(time(NOW));
        context.failure = Some(reconcile::Failure {
            verb: "creating",
            code: Some(403),
            reason: "Forbidden".into(),
            message: "pods \"web-\" is forbidden".into(),
            object: String::new(),
        });
        let told = told(&plan(&snapshot, &context));
        assert!(told[1].contains("\"reason\":\"FailedCreate\""), "{told:?}");
        assert!(told[1].contains("\"type\":\"ReplicaFailure\""), "{told:?}");

        let failed = "{replicas: 1, readyReplicas: 1, availableReplicas: 1, fullyLabeledReplicas: 1, observedGeneration: 1, terminatingReplicas: 0,
            conditions: [{type: ReplicaFailure, status: 'True', reason: FailedCreate}]}";
        assert_eq!(
            check(set(1, failed), vec![pod("a", "n1", true, "")]),
            ["patch ReplicaSet web/status {\"status\":{\"conditions\":null}}"]
        );
    }
}
