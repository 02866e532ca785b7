//! Self-fencing: a node that has lost the server for as long as its lease holds stops the pods
//! that others will replace, so that the control plane may replace them without asking it.
//!
//! Off unless asked for: a node goes on by itself otherwise. Knows nothing of how pods are stopped.

use std::{fs, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lease::{Pulse, mark};
use crate::{
    context::Context,
    kubelet::Order,
    pod::{Event, Life},
    spec::REPLACED,
};

/// Says when the node has stopped its pods, in seconds after the last renewal of its lease.
const ANNOTATION: &str = "skiff.dev/self-fence";
/// What pods get to end by themselves, at the most.
const GRACE: Duration = Duration::from_secs(10);
/// What containers always get between signal and kill, sidecars after the others, and until they are gone.
const KILL: Duration = Duration::from_secs(6);

/// The annotations of a Node that fences itself, or of one that does not.
pub(crate) fn annotation(fences: bool, lease: Duration) -> Value {
    let seconds = (lease + GRACE + KILL).as_secs();
    json!({ ANNOTATION: fences.then(|| seconds.to_string()) })
}

/// Whether a pod's controller makes another one elsewhere when this one is lost. Pods of a
/// DaemonSet belong to their node.
pub(crate) fn is_replaced(pod: &api::Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    controller.is_some_and(|owner| !matches!(&*owner.kind, "DaemonSet" | "Node"))
}

/// Watches the pulse until `shutdown`.
pub(crate) async fn run(
    context: Arc<Context>,
    mut pulse: watch::Receiver<Pulse>,
    orders: mpsc::Sender<Order>,
    shutdown: CancellationToken,
) {
    let began = last_contact(&context);
    let work = async {
        loop {
            let Pulse { renewed, duration } = *pulse.borrow_and_update();
            let due = renewed.unwrap_or(began) + duration;
            tokio::select! {
                changed = pulse.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = sleep_until(due) => {}
            }
            warn!("no server for {duration:?}: stopping the pods that others replace");
            fence(&context, &orders).await;
            if pulse.wait_for(|pulse| pulse.renewed != renewed).await.is_err() {
                return;
            }
            info!("the server is back");
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// When the kubelet before this one last reached the server; now, if nobody knows.
fn last_contact(context: &Context) -> Instant {
    let written = fs::metadata(mark(&context.options)).and_then(|meta| meta.modified());
    let age = written.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

async fn fence(context: &Arc<Context>, orders: &mpsc::Sender<Order>) {
    let states: Vec<_> = context.pods.lock().values().cloned().collect();
    for state in states.iter().filter(|state| is_replaced(&state.pod)) {
        if matches!(state.life, Life::Active | Life::Ending(_)) {
            let event = Event::End {
                reason: "NodeLost",
                message: "The node lost the API server and stopped the pod (--self-fence).",
                grace: GRACE,
            };
            let uid = state.pod.metadata.uid.clone().unwrap_or_default();
            let _ = orders.send(Order { uid, event }).await;
        }
    }
    // A kubelet that has not reached the server since its start knows no pods, but the runtime does.
    let filter = cri::v1::PodSandboxFilter {
        label_selector: [(crate::spec::NODE.to_owned(), context.options.node_name.clone())].into(),
        ..Default::default()
    };
    let sandboxes = match context.runtime.list_pod_sandboxes(filter).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return warn!(%error, "the runtime cannot be listed"),
    };
    let unknown = sandboxes.into_iter().filter(|sandbox| {
        let uid = sandbox.labels.get(crate::spec::POD_UID).cloned().unwrap_or_default();
        sandbox.annotations.contains_key(REPLACED) && !context.pods.lock().contains_key(&uid)
    });
    let stops = unknown.map(|sandbox| context.runtime.stop_pod_sandbox(sandbox.id));
    for result in futures::future::join_all(stops).await {
        if let Err(error) = result {
            warn!(%error, "a pod that others replace could not be stopped");
        }
    }
}
