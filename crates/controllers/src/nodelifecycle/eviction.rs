//! Evicting pods from nodes with `NoExecute` taints that they do not tolerate, or tolerate no
//! longer.
//!
//! Reads taints whoever set them; knows nothing of why a node is tainted.

use std::{collections::HashSet, sync::Arc, time::Duration};

use client::{Cache, Caches, EventKind, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use parking_lot::Mutex;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use tokio_util::sync::CancellationToken;

use super::{
    BY_NODE,
    fence::{is_fenced, is_replaced},
    node_index,
    taints::{NOT_READY, UNREACHABLE},
};
use crate::objects::{disruption, pod_condition};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "taint-eviction-controller";

/// Reason of the events.
const REASON: &str = "TaintManagerEviction";
/// The first grace period, unless it is given.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// Runs the controller until `shutdown`. A taint of a node's health that is older than this
/// controller may be stale: nothing is evicted for it in the first `grace`.
pub(crate) async fn run(
    caches: Caches,
    deps: Deps,
    grace: Option<Duration>,
    shutdown: CancellationToken,
) {
    let nodes = caches.cache::<Node>();
    let pods = caches.cache::<Pod>();
    pods.index(BY_NODE, node_index);
    let on_node = pods.clone();
    let grace = grace.and_then(|grace| SignedDuration::try_from(grace).ok()).unwrap_or(GRACE);
    let judged_from = Timestamp::now().checked_add(grace).unwrap_or(Timestamp::MAX);
    Runtime::new(NAME, deps)
        .watch(&nodes, move |change| {
            let before = change.before.as_deref().map(Reasons::of).unwrap_or_default();
            let after = change.after.as_deref().map(Reasons::of).unwrap_or_default();
            if before == after {
                return Vec::new();
            }
            let pods = on_node.indexed(BY_NODE, &change.key.name);
            pods.iter().map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .watch(&pods, itself)
        .run(Evictions { nodes, pods, judged_from, due: Mutex::default() }, shutdown)
        .await;
}

/// Why pods have to leave a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reasons {
    /// The node's `NoExecute` taints.
    taints: Vec<Taint>,
    /// The node has stopped its pods itself: there is nothing to wait for.
    fenced: bool,
}

impl Reasons {
    fn of(node: &Node) -> Self {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let taints = taints.filter(|taint| taint.effect == "NoExecute").cloned().collect();
        Self { taints, fenced: is_fenced(node) }
    }
}

struct Evictions {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    judged_from: Timestamp,
    /// Pods that will have to leave.
    due: Mutex<HashSet<ObjectKey>>,
}

/// A pod with what drives it from its node.
pub(crate) struct Snapshot {
    pod: Arc<Pod>,
    /// When it has to leave.
    at: Option<Timestamp>,
    /// It had to leave when it was last looked at.
    was_due: bool,
}

impl Controller for Evictions {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let mut due = self.due.lock();
        let was_due = due.remove(key);
        let pod = self.pods.get_key(key)?;
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let node = self.nodes.get(None, pod.spec.as_ref()?.node_name.as_deref()?)?;
        let at = leaves_at(&pod, &Reasons::of(&node), self.judged_from);
        if at.is_some() {
            due.insert(key.clone());
        }
        Some(Snapshot { pod, at, was_due })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context.now)
    }
}

/// Deletes the pod when its time on the node is over.
fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let pod = &*snapshot.pod;
    let key = ObjectKey::of(pod);
    match snapshot.at {
        None if snapshot.was_due => {
            let note = format!("Cancelling deletion of Pod {key}");
            plan.note(pod, EventKind::Normal, REASON, note);
        }
        None => {}
        Some(at) if at > now => plan.requeue(at),
        // First the pod says why it goes, then, seeing it say so, it is deleted.
        Some(_) if !says_why(pod) => plan.act(disrupted(pod, now)),
        Some(_) => {
            let note = format!("Marking for deletion Pod {key}");
            plan.note(pod, EventKind::Normal, REASON, note);
            plan.act(Action::delete(pod));
        }
    }
    plan
}

/// When the pod must go: the earliest end of its tolerations, at once for a taint it does not
/// tolerate, never if it tolerates all of them without limit. Taints of the node's health count
/// from `judged_from` on. A node that fenced itself has stopped what others replace already.
fn leaves_at(pod: &Pod, reasons: &Reasons, judged_from: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let stopped = reasons.fenced && is_replaced(pod);
    let leaves = reasons.taints.iter().filter_map(|taint| {
        let of_health = [NOT_READY, UNREACHABLE].contains(&&*taint.key);
        let at = match tolerated_for(tolerations.unwrap_or_default(), taint) {
            Some(None) => return None,
            Some(Some(_)) if stopped && of_health => Timestamp::MIN,
            None => Timestamp::MIN,
            Some(Some(time)) => {
                let added = taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0);
                added.checked_add(time).unwrap_or(Timestamp::MAX)
            }
        };
        Some(if of_health { at.max(judged_from) } else { at })
    });
    leaves.min()
}

/// For how long the taint is tolerated: not at all, for ever (`Some(None)`), or the shortest time
/// of those that tolerate it.
fn tolerated_for(tolerations: &[Toleration], taint: &Taint) -> Option<Option<SignedDuration>> {
    let matching = tolerations.iter().filter(|one| tolerates(one, taint));
    matching
        .map(|one| one.toleration_seconds.map(|seconds| SignedDuration::from_secs(seconds.max(0))))
        .reduce(|a, b| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    if !empty(&toleration.effect) && toleration.effect.as_deref() != Some(&taint.effect) {
        return false;
    }
    if !empty(&toleration.key) && toleration.key.as_deref() != Some(&taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            !empty(&toleration.key)
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

/// The condition by which a pod says why it goes (KEP-3329).
const WHY: &str = "DeletionByTaintManager";

fn says_why(pod: &Pod) -> bool {
    pod_condition(pod, "DisruptionTarget")
        .is_some_and(|one| one.status == "True" && one.reason.as_deref() == Some(WHY))
}

fn disrupted(pod: &Pod, now: Timestamp) -> Action {
    let message = "Taint manager: deleting due to NoExecute taint";
    let conditions = disruption(pod, WHY, message, now);
    let patch = serde_json::json!({ "status": { "conditions": conditions } });
    Action::patch_with(pod, Some("status"), patch, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time};

    const OWNED: &str = "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: r, controller: true}]";
    const GONE: &str = "[{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}]";
    const FIVE_MINUTES: &str = "[{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]";

    fn pod(meta: &str, tolerations: &str) -> Pod {
        from_yaml(&format!(
            "{{metadata: {{name: p, namespace: d, {meta}}}, spec: {{containers: [], tolerations: {tolerations}}}}}"
        ))
    }

    /// Seconds after the taint at which the pod leaves; `None` for never.
    fn check(tolerations: &str, taints: &str) -> Option<i64> {
        check_with(&pod("", tolerations), taints, false, "2025-01-01T00:00:00Z")
    }

    fn check_with(pod: &Pod, taints: &str, fenced: bool, judged_from: &str) -> Option<i64> {
        let added = time("2026-01-01T00:00:00Z");
        let reasons = Reasons { taints: from_yaml(taints), fenced };
        let at = leaves_at(pod, &reasons, time(judged_from))?;
        Some((at.as_second() - added.as_second()).max(0))
    }

    #[test]
    fn tolerations_delay_or_prevent_eviction() {
        assert_eq!(check("[]", GONE), Some(0));
        assert_eq!(check(FIVE_MINUTES, GONE), Some(300));
        assert_eq!(check("[{operator: Exists}]", GONE), None);
        assert_eq!(check("[{key: other, operator: Exists}]", GONE), Some(0));
        let two = "[{key: a, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}, {key: b, value: x, effect: NoExecute}]";
        assert_eq!(
            check("[{key: a, operator: Exists, tolerationSeconds: 5}, {key: b, value: x}]", two),
            Some(5)
        );
        assert_eq!(check("[{key: a, operator: Exists}, {key: b, value: y}]", two), Some(0));
    }

    #[test]
    fn old_taints_of_health_are_looked_at_anew_after_a_start() {
        let started = "2026-01-01T00:10:10Z";
        assert_eq!(check_with(&pod("", FIVE_MINUTES), GONE, false, started), Some(610));
        let other = "[{key: mine, effect: NoExecute}]";
        assert_eq!(check_with(&pod("", "[]"), other, false, started), Some(0));
    }

    #[test]
    fn nobody_waits_for_what_a_fenced_node_has_stopped() {
        let started = "2025-01-01T00:00:00Z";
        assert_eq!(check_with(&pod(OWNED, FIVE_MINUTES), GONE, true, started), Some(0));
        assert_eq!(check_with(&pod("", FIVE_MINUTES), GONE, true, started), Some(300));
        assert_eq!(check_with(&pod(OWNED, FIVE_MINUTES), "[]", true, started), None);
        assert_eq!(check_with(&pod(OWNED, "[{operator: Exists}]"), GONE, true, started), None);
    }

    /// A pod that says why it goes.
    fn said_why() -> Pod {
        from_yaml(
            "{metadata: {name: p, namespace: d}, spec: {containers: []}, status: {conditions: [
               {type: DisruptionTarget, status: 'True', reason: DeletionByTaintManager}]}}",
        )
    }

    #[test]
    fn a_pod_says_why_it_goes_before_it_goes() {
        let silent = Arc::new(pod("resourceVersion: '7'", "[]"));
        let now = time("2026-01-01T00:00:01Z");
        let plan = plan(&Snapshot { pod: silent, at: Some(now), was_due: true }, now);
        let [Action::Patch { patch, subresource, .. }] = &plan.actions[..] else {
            panic!("{plan:?}")
        };
        assert_eq!(*subresource, Some("status"));
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "only as it was seen");
        assert!(plan.notes.is_empty());
    }

    #[test]
    fn a_pod_is_deleted_when_its_time_is_over_and_told_when_it_may_stay() {
        let told = |at: Option<&str>, was_due| {
            let pod = Arc::new(said_why());
            let snapshot = Snapshot { pod, at: at.map(time), was_due };
            let plan = plan(&snapshot, time("2026-01-01T00:00:01Z"));
            let notes: Vec<_> = plan.notes.iter().map(|note| note.note.clone()).collect();
            (plan.actions.len(), notes, plan.requeue_at.map(|at| at.as_second() % 60))
        };
        let soon = (0, vec![], Some(5));
        assert_eq!(told(Some("2026-01-01T00:00:05Z"), false), soon);
        let now = (1, vec!["Marking for deletion Pod d/p".to_owned()], None);
        assert_eq!(told(Some("2026-01-01T00:00:01Z"), true), now);
        let stays = (0, vec!["Cancelling deletion of Pod d/p".to_owned()], None);
        assert_eq!(told(None, true), stays);
        assert_eq!(told(None, false), (0, vec![], None));
    }
}
