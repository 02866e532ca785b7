//! Writing a pod's status: one write at a time, the newest status wins, nothing is written twice. Other writers'
//! conditions are kept by writing against the revision they were read at.

use std::{sync::Arc, time::Duration};

use client::ErrorExt;
use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::api::core::v1 as api;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use meta::Revision;
use serde_json::{Map, Value, json};
use tracing::{debug, warn};

const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_MOST: Duration = Duration::from_secs(10);

/// What became of a write.
pub(super) enum Outcome {
    /// The API has it, or will be told again.
    Written,
    /// The API no longer has the object.
    Gone,
}

/// How a flight ended.
enum Landed {
    Object(Box<api::Pod>),
    Conflict,
    Gone,
    Failed(kube::Error),
}

/// The writer of one pod's status.
pub(super) struct Publisher {
    api: Api<api::Pod>,
    name: String,
    uid: String,
    /// The newest object known, from watch or from our own writes.
    latest: Arc<api::Pod>,
    wanted: Option<api::PodStatus>,
    delete: bool,
    deleted: bool,
    gone: bool,
    failures: u32,
    flight: Option<BoxFuture<'static, Landed>>,
}

impl Publisher {
    pub(super) fn new(client: kube::Client, pod: Arc<api::Pod>) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        Self {
            api: Api::namespaced(client, &namespace),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            latest: pod,
            wanted: None,
            delete: false,
            deleted: false,
            gone: false,
            failures: 0,
            flight: None,
        }
    }

    /// The newest object known.
    pub(super) fn latest(&self) -> Arc<api::Pod> {
        self.latest.clone()
    }

    /// An object from the watch, which may be older than our own last write.
    pub(super) fn heard(&mut self, pod: &Arc<api::Pod>) {
        if revision(pod) >= revision(&self.latest) {
            self.latest = pod.clone();
        }
    }

    /// The API no longer has the object: nothing more is written.
    pub(super) fn gone(&mut self) {
        self.gone = true;
        self.flight = None;
    }

    /// What the API should have; with `delete`, the object is deleted once it has that.
    pub(super) fn want(&mut self, status: api::PodStatus, delete: bool) {
        self.delete = delete;
        self.wanted = Some(status);
        self.take_off();
    }

    /// Begins the next write, if one is due and none is under way.
    fn take_off(&mut self) {
        if self.gone || self.flight.is_some() {
            return;
        }
        let Some(wanted) = &self.wanted else { return };
        let changes = difference(self.latest.status.as_ref(), wanted);
        let (api, name, uid) = (self.api.clone(), self.name.clone(), self.uid.clone());
        let pause = match self.failures {
            0 => Duration::ZERO,
            n => AGAIN_FIRST.saturating_mul(1 << n.min(8)).min(AGAIN_MOST),
        };
        if !changes.is_empty() {
            let patch = json!({
                "metadata": {"uid": uid, "resourceVersion": self.latest.metadata.resource_version},
                "status": changes,
            });
            self.flight = Some(
                async move {
                    tokio::time::sleep(pause).await;
                    landed(
                        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
                            .await,
                    )
                }
                .boxed(),
            );
        } else if self.delete && !self.deleted {
            self.flight = Some(
                async move {
                    tokio::time::sleep(pause).await;
                    let preconditions = Preconditions { uid: Some(uid), resource_version: None };
                    let params = DeleteParams {
                        grace_period_seconds: Some(0),
                        preconditions: Some(preconditions),
                        ..Default::default()
                    };
                    match api.delete(&name, &params).await {
                        Ok(_) => Landed::Gone,
                        Err(error) if error.is_not_found() || error.is_conflict() => Landed::Gone,
                        Err(error) => Landed::Failed(error),
                    }
                }
                .boxed(),
            );
        }
    }

    /// Waits for the end of the write under way; for ever if there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> Outcome {
        let landed = match &mut self.flight {
            Some(flight) => flight.await,
            None => std::future::pending().await,
        };
        self.flight = None;
        match landed {
            Landed::Object(pod) => {
                self.failures = 0;
                if pod.metadata.uid.as_deref() != Some(&self.uid) {
                    self.gone = true;
                    return Outcome::Gone;
                }
                self.latest = Arc::new(*pod);
            }
            Landed::Gone => {
                self.deleted = true;
                self.gone = true;
                return Outcome::Gone;
            }
            Landed::Conflict => {
                // Somebody else wrote: read what there is now and write against that.
                let (api, name) = (self.api.clone(), self.name.clone());
                self.flight = Some(async move { landed_opt(api.get_opt(&name).await) }.boxed());
            }
            Landed::Failed(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures > 3 {
                    warn!(%error, "the pod's status could not be written");
                } else {
                    debug!(%error, "the pod's status could not be written");
                }
            }
        }
        Outcome::Written
    }
}

fn landed(result: Result<api::Pod, kube::Error>) -> Landed {
    match result {
        Ok(pod) => Landed::Object(Box::new(pod)),
        Err(error) if error.is_not_found() => Landed::Gone,
        Err(error) if error.is_conflict() => Landed::Conflict,
        Err(error) => Landed::Failed(error),
    }
}

fn landed_opt(result: Result<Option<api::Pod>, kube::Error>) -> Landed {
    match result {
        Ok(None) => Landed::Gone,
        Ok(Some(pod)) => Landed::Object(Box::new(pod)),
        Err(error) => Landed::Failed(error),
    }
}

fn revision(pod: &api::Pod) -> Revision {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(Revision(0))
}

/// What a JSON merge patch of the status has to say: fields that differ, and null for fields that are gone.
fn difference(before: Option<&api::PodStatus>, after: &api::PodStatus) -> Map<String, Value> {
    let object = |status: Option<&api::PodStatus>| match status.map(serde_json::to_value) {
        Some(Ok(Value::Object(map))) => map,
        _ => Map::new(),
    };
    let (before, after) = (object(before), object(Some(after)));
    let mut changes = Map::new();
    for (key, value) in &after {
        if before.get(key) != Some(value) {
            changes.insert(key.clone(), value.clone());
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    // Objects inside the status would be merged field by field; these are replaced as a whole.
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_written() {
        let status = |value: Value| -> api::PodStatus { serde_json::from_value(value).unwrap() };
        let before = status(json!({"phase": "Pending", "podIP": "10.0.0.1", "reason": "X"}));
        let after = status(json!({"phase": "Running", "podIP": "10.0.0.1"}));
        let changes = Value::Object(difference(Some(&before), &after));
        assert_eq!(changes, json!({"phase": "Running", "reason": null}));
        assert!(difference(Some(&after), &after).is_empty());
    }
}
