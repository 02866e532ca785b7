//! Telling users: the `PodScheduled` condition, one write after the other so that the last word
//! is the newest, and events. Knows nothing of why.

use std::sync::Arc;

use client::{ErrorExt, EventKind, EventRecorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::pod::PodInfo;

/// Conditions that may wait to be written; of more than that the rest is left to the pods' next
/// attempts.
const QUEUE: usize = 4096;

/// Reason of a pod that fits nowhere.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";
/// Reason of a pod whose attempt failed otherwise.
pub(crate) const SCHEDULER_ERROR: &str = "SchedulerError";

/// Writes conditions and events. Never waits, never fails.
pub(crate) struct Reporter {
    events: EventRecorder,
    conditions: mpsc::Sender<Condition>,
}

struct Condition {
    pod: Arc<PodInfo>,
    status: Value,
}

impl Reporter {
    /// A reporter and the task that writes for it, to be run by its owner.
    pub(crate) fn new(
        client: kube::Client,
        name: &str,
        shutdown: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (conditions, queue) = mpsc::channel(QUEUE);
        let events = EventRecorder::new(client.clone(), name, None, shutdown.clone());
        (Self { events, conditions }, write_all(client, queue))
    }

    /// The pod has its node.
    pub(crate) fn scheduled(&self, pod: &PodInfo, node: &str) {
        let note = format!("Successfully assigned {} to {node}", pod.key);
        self.events.event(&pod.reference(), EventKind::Normal, "Scheduled", "Binding", note);
    }

    /// The attempt failed. `reported` is what was said last, and becomes what is said now.
    pub(crate) fn failed(
        &self,
        pod: &Arc<PodInfo>,
        reason: &str,
        message: &str,
        reported: &mut Option<(String, String)>,
    ) {
        let warning = EventKind::Warning;
        self.events.event(&pod.reference(), warning, "FailedScheduling", "Scheduling", message);
        let now_said = Some((reason.to_owned(), message.to_owned()));
        let said = if reported.is_some() { &*reported } else { &pod.unscheduled };
        if *said == now_said {
            return;
        }
        let status = condition(pod, reason, message, Timestamp::now());
        match self.conditions.try_send(Condition { pod: Arc::clone(pod), status }) {
            Ok(()) => *reported = now_said,
            Err(_) => debug!(pod = %pod.key, "condition not written: too many wait"),
        }
    }
}

/// The part of a pod's status that says why it has no node. The transition time stays if the
/// pod was unscheduled before.
fn condition(pod: &PodInfo, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
    });
    if pod.unscheduled.is_none() {
        condition["lastTransitionTime"] = meta::time::seconds(now).into();
    }
    if let Some(generation) = pod.generation {
        condition["observedGeneration"] = generation.into();
    }
    json!({"metadata": {"uid": *pod.uid}, "status": {"conditions": [condition]}})
}

async fn write_all(client: kube::Client, mut queue: mpsc::Receiver<Condition>) {
    while let Some(Condition { pod, status }) = queue.recv().await {
        let api: Api<Pod> = Api::namespaced(client.clone(), pod.key.namespace());
        let patch = Patch::Strategic(&status);
        match api.patch_status(pod.key.name(), &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {
                debug!(pod = %pod.key, "condition not written: the pod is gone");
            }
            Err(error) => warn!(pod = %pod.key, %error, "condition not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_is_that_of_the_first_failure() {
        let pod = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "a", "uid": "u", "generation": 1},
        }));
        let mut pod = PodInfo::new(&pod.unwrap());
        let first = condition(&pod, UNSCHEDULABLE, "no", Timestamp::UNIX_EPOCH);
        assert_eq!(
            first["status"]["conditions"][0],
            json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "no", "lastTransitionTime": "1970-01-01T00:00:00Z",
                "observedGeneration": 1,
            })
        );
        pod.unscheduled = Some(("Unschedulable".to_owned(), "no".to_owned()));
        let second = condition(&pod, UNSCHEDULABLE, "still no", Timestamp::UNIX_EPOCH);
        assert!(second["status"]["conditions"][0].get("lastTransitionTime").is_none());
    }
}
