//! Finding a pod and its containers by the names a request gives.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use crate::{
    context::Context,
    pod::{Phase, PodState},
    spec::{PodId, container::log_path},
};

/// The pod of that name on this node. Of two with the same name, the one that is not being deleted.
pub(super) fn pod(context: &Context, namespace: &str, name: &str) -> Option<Arc<PodState>> {
    let pods = context.pods.lock();
    let named = pods.values().filter(|state| {
        let meta = &state.pod.metadata;
        meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
    });
    named.min_by_key(|state| (state.gone, state.pod.metadata.deletion_timestamp.is_some())).cloned()
}

/// The status of a pod as its state has it now.
pub(super) fn status(context: &Context, state: &PodState) -> api::PodStatus {
    let previous = state.pod.status.clone().unwrap_or_default();
    let now = jiff::Timestamp::now();
    crate::pod::project(state, &previous, &context.host_ips(), &context.runtime_name, now)
}

/// A log and whether it may still grow.
pub(super) struct Log {
    pub(super) path: std::path::PathBuf,
    /// The runtime's id of the container that writes it, if it runs.
    pub(super) running: Option<String>,
}

/// The log of a container, or of the one before it.
///
/// # Errors
/// The sentence upstream answers with.
pub(super) fn log(
    context: &Context,
    state: &PodState,
    name: &str,
    previous: bool,
) -> Result<Log, String> {
    let id = PodId::of(&state.pod);
    let pod = &id.name;
    let container = state
        .containers
        .iter()
        .find(|c| c.name == name)
        .ok_or_else(|| format!("container {name:?} in pod {pod:?} is not available"))?;
    let current = match &container.phase {
        Phase::Running(_) | Phase::Exited(_) => true,
        // The latest container of this name has ended and is shown as the last state.
        _ => false,
    };
    let attempt = match (previous, current) {
        (false, _) if container.existed => container.restarts,
        (false, _) => {
            let reason = waiting_reason(context, state, name);
            return Err(format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"));
        }
        (true, true) if container.last.is_some() && container.restarts > 0 => {
            container.restarts - 1
        }
        (true, false) if container.last.is_some() => container.restarts,
        (true, _) => {
            return Err(format!("previous terminated container {name:?} in pod {pod:?} not found"));
        }
    };
    let path =
        context.options.pod_log_dir(&id.namespace, &id.name, &id.uid).join(log_path(name, attempt));
    let running = container.running().filter(|_| !previous).map(|r| r.id.clone());
    Ok(Log { path, running })
}

fn waiting_reason(context: &Context, state: &PodState, name: &str) -> String {
    let status = status(context, state);
    let all = [
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    ];
    let mut all = all.into_iter().flatten().flatten().filter(|s| s.name == name);
    let reason = all.find_map(|s| s.state?.waiting?.reason).unwrap_or_default();
    match reason.as_str() {
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        _ => reason,
    }
}

/// Whether the container with this id still runs in this pod.
pub(super) fn runs(context: &Context, uid: &str, id: &str) -> bool {
    let pods = context.pods.lock();
    pods.get(uid).is_some_and(|state| {
        state.containers.iter().any(|c| c.running().is_some_and(|r| r.id == id))
    })
}
