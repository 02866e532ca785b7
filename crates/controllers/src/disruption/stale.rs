//! Pods that were told they would be disrupted and never were: after a while that is taken back.

use std::sync::Arc;

use client::{Cache, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{NAME, plan::PATIENCE};
use crate::objects::{is_active, pod_condition};

/// Runs until `shutdown`.
pub(super) async fn run(pods: Cache<Pod>, deps: Deps, shutdown: CancellationToken) {
    Runtime::new(NAME, deps)
        .watch(&pods, |change| {
            let told = change.after.as_deref().and_then(announced_at);
            told.map(|_| change.key.clone()).into_iter().collect()
        })
        .run(Stale { pods }, shutdown)
        .await;
}

/// Since when the pod is said to be about to go, if it is and does not.
fn announced_at(pod: &Pod) -> Option<Timestamp> {
    let condition = pod_condition(pod, "DisruptionTarget").filter(|one| one.status == "True")?;
    let since = condition.last_transition_time.as_ref()?.0;
    is_active(pod).then_some(since)
}

struct Stale {
    pods: Cache<Pod>,
}

impl Controller for Stale {
    type Snapshot = Arc<Pod>;

    fn observe(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.pods.get_key(key)
    }

    fn plan(&self, pod: &Arc<Pod>, context: &Context) -> Plan {
        plan(pod, context.now)
    }
}

fn plan(pod: &Pod, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(since) = announced_at(pod) else { return plan };
    let due = since.checked_add(PATIENCE).unwrap_or(Timestamp::MAX);
    if due > now {
        plan.requeue(due);
        return plan;
    }
    let mut conditions =
        pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for condition in conditions.iter_mut().filter(|one| one.type_ == "DisruptionTarget") {
        condition.status = "False".into();
        condition.reason = None;
        condition.message = None;
        condition.last_transition_time = Some(Time(now));
    }
    let patch = json!({ "status": { "conditions": conditions } });
    plan.act(Action::patch_with(pod, Some("status"), patch, true));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    #[test]
    fn an_announcement_is_taken_back_after_two_minutes() {
        let check = |more: &str, now: &str| {
            let pod = from_yaml(&format!(
                "{{metadata: {{name: p{more}}}, status: {{phase: Running, conditions: [{{type: DisruptionTarget,
                  status: 'True', reason: EvictionByEvictionAPI, lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}}}"
            ));
            told(&plan(&pod, time(now)))
        };
        assert!(check("", "2026-01-01T00:01:59Z").is_empty());
        let back = check("", "2026-01-01T00:02:00Z");
        assert!(back.len() == 1 && back[0].contains("\"status\":\"False\""), "{back:?}");
        let going = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        assert!(check(going, "2026-01-01T01:00:00Z").is_empty());
    }
}
