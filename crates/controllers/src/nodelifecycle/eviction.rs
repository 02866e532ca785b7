//! Evicting pods from nodes with `NoExecute` taints that they do not tolerate, or tolerate no
//! longer.
//!
//! Reads taints whoever set them; knows nothing of why a node is tainted.

use std::sync::Arc;

use client::{Cache, Caches, EventKind, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{BY_NODE, node_index};
use crate::objects::name;

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "taint-eviction-controller";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let nodes = caches.cache::<Node>();
    let pods = caches.cache::<Pod>();
    pods.index(BY_NODE, node_index);
    let on_node = pods.clone();
    Runtime::new(NAME, deps)
        .watch(&nodes, move |change| {
            let before = change.before.as_deref().map(executing).unwrap_or_default();
            let after = change.after.as_deref().map(executing).unwrap_or_default();
            if before == after {
                return Vec::new();
            }
            let pods = on_node.indexed(BY_NODE, &change.key.name);
            pods.iter().map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .watch(&pods, itself)
        .run(Evictions { nodes, pods }, shutdown)
        .await;
}

/// The node's `NoExecute` taints.
fn executing(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

struct Evictions {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
}

impl Controller for Evictions {
    type Snapshot = (Arc<Pod>, Vec<Taint>);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        let pod = self.pods.get_key(key)?;
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let node = self.nodes.get(None, pod.spec.as_ref()?.node_name.as_deref()?)?;
        let taints = executing(&node);
        (!taints.is_empty()).then_some((pod, taints))
    }

    fn plan(&self, (pod, taints): &Self::Snapshot, context: &Context) -> Plan {
        plan(pod, taints, context.now)
    }
}

/// Deletes the pod when its time on the node is over.
fn plan(pod: &Pod, taints: &[Taint], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    match leaves_at(pod, taints) {
        None => {}
        Some(at) if at > now => plan.requeue(at),
        Some(_) => {
            let key = ObjectKey::of(pod);
            let note = format!("Marking for deletion Pod {key}");
            plan.note(pod, EventKind::Normal, "TaintManagerEviction", note);
            plan.status = Some(disrupted(pod, now));
            plan.act(Action::delete(pod));
        }
    }
    plan
}

/// When the pod must go: the earliest end of its tolerations, at once for a taint it does not
/// tolerate, never if it tolerates all of them without limit.
fn leaves_at(pod: &Pod, taints: &[Taint]) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let mut leaves: Option<Timestamp> = None;
    for taint in taints {
        let mut limit: Option<Option<i64>> = None;
        for toleration in tolerations.unwrap_or_default().iter().filter(|one| tolerates(one, taint))
        {
            let seconds = toleration.toleration_seconds.map(|seconds| seconds.max(0));
            limit = Some(match (limit.flatten(), seconds) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            });
        }
        let at = match limit {
            None => Timestamp::MIN,
            Some(None) => continue,
            Some(Some(seconds)) => {
                let added = taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0);
                added.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
            }
        };
        leaves = Some(leaves.map_or(at, |known| known.min(at)));
    }
    leaves
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

/// Says why the pod went (KEP-3329).
fn disrupted(pod: &Pod, now: Timestamp) -> Action {
    let status = pod.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByTaintManager".into()),
        message: Some("Taint manager: deleting due to NoExecute taint".into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    debug_assert!(!name(&pod.metadata).is_empty());
    let patch = json!({ "status": { "conditions": conditions } });
    Action::patch_with(pod, Some("status"), patch, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time};

    /// Seconds after the taint at which the pod leaves; `None` for never.
    fn check(tolerations: &str, taints: &str) -> Option<i64> {
        let pod: Pod = from_yaml(&format!(
            "{{metadata: {{name: p, namespace: d}}, spec: {{containers: [], tolerations: {tolerations}}}}}"
        ));
        let taints: Vec<Taint> = from_yaml(taints);
        let added = time("2026-01-01T00:00:00Z");
        let at = leaves_at(&pod, &taints)?;
        Some(if at == Timestamp::MIN { 0 } else { at.as_second() - added.as_second() })
    }

    const GONE: &str = "[{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}]";

    #[test]
    fn tolerations_delay_or_prevent_eviction() {
        assert_eq!(check("[]", GONE), Some(0));
        let five_minutes = "[{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]";
        assert_eq!(check(five_minutes, GONE), Some(300));
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
    fn a_pod_whose_time_is_over_is_deleted() {
        let pod: Pod = from_yaml("{metadata: {name: p, namespace: d}, spec: {containers: []}}");
        let taints: Vec<Taint> = from_yaml(GONE);
        let plan = plan(&pod, &taints, time("2026-01-01T00:00:01Z"));
        assert_eq!(plan.notes[0].note, "Marking for deletion Pod d/p");
        assert_eq!(plan.actions.len(), 1);
    }
}
