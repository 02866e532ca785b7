//! Effects that are one call or two: volumes, sandboxes, pulls, hooks, events, cleaning up.

use std::{sync::Arc, time::Duration};

use client::EventRecorder;
use cri::v1;
use k8s_openapi::api::core::v1 as api;
use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use super::Message;
use crate::{
    context::Context,
    hooks,
    images::Request,
    mounts,
    pod::{Event, EventType, PodState, Role, SeenSandbox},
    sources::Sources,
    spec::{POD_UID, PodId, fields::Facts, sandbox},
    volumes,
};

/// Longest a postStart hook may take. Upstream sets no limit; a hook that hangs for this long hangs for ever.
const POST_START: Duration = Duration::from_secs(3600);
/// Pauses of a clean-up that does not succeed.
const CLEAN_AGAIN: Duration = Duration::from_secs(1);

/// The pod, or one of its containers, as events name it.
pub(super) fn about(state: &PodState, container: Option<usize>) -> api::ObjectReference {
    let mut reference = client::reference(&*state.pod);
    if let Some(container) = container.and_then(|i| state.containers.get(i)) {
        let list = match container.role {
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
            Role::Init | Role::Sidecar => "initContainers",
        };
        reference.field_path = Some(format!("spec.{list}{{{}}}", container.name));
    }
    reference
}

/// Records an event.
pub(super) fn record(
    recorder: &EventRecorder,
    about: &api::ObjectReference,
    kind: EventType,
    reason: &str,
    message: String,
) {
    match kind {
        EventType::Normal => recorder.normal(about, reason, message),
        EventType::Warning => recorder.warning(about, reason, message),
    }
}

pub(super) async fn mount_volumes(
    context: Arc<Context>,
    pod: Arc<api::Pod>,
    sources: Arc<Sources>,
    facts: Facts,
) -> Option<Event> {
    if !sources.ready().await {
        let message =
            "MountVolume.SetUp failed: timed out waiting for the API to answer".to_owned();
        return Some(Event::VolumesMounted(Err(message)));
    }
    let ingredients = volumes::Ingredients {
        options: &context.options,
        sources: &sources,
        tokens: &context.tokens,
        facts,
    };
    let result = volumes::set_up(&pod, &ingredients).await.map_err(|error| error.to_string());
    Some(Event::VolumesMounted(result))
}

pub(super) async fn run_sandbox(
    context: Arc<Context>,
    pod: Arc<api::Pod>,
    attempt: u32,
    sender: mpsc::Sender<Message>,
) -> Option<Event> {
    if let Err(error) = context.cgroups.create_pod(&pod, context.options.pod_pids) {
        return Some(Event::SandboxStarted(Err(format!(
            "failed to create the pod's cgroup: {error}"
        ))));
    }
    let config = sandbox::config(
        &pod,
        attempt,
        &context.options,
        &context.resolver,
        context.cgroups.pod_path(&pod),
    );
    let started = async {
        tokio::fs::create_dir_all(&config.log_directory)
            .await
            .map_err(|error| error.to_string())?;
        let id =
            context.runtime.run_pod_sandbox(config).await.map_err(|error| error.to_string())?;
        context.monitor.register(&id, &sender);
        let status = context
            .runtime
            .pod_sandbox_status(id, false)
            .await
            .map_err(|error| error.to_string())?;
        status
            .status
            .map(|status| seen_sandbox(&context, &status))
            .ok_or_else(|| "the runtime lost the sandbox".to_owned())
    };
    Some(Event::SandboxStarted(started.await))
}

/// A sandbox's status in the machine's words. Addresses of the family of the node's primary one
/// come first, whatever the runtime's order.
pub(crate) fn seen_sandbox(context: &Context, status: &v1::PodSandboxStatus) -> SeenSandbox {
    let network = status.network.clone().unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    let mut ips: Vec<String> = ips.filter(|ip| !ip.is_empty()).collect();
    let primary_v6 = context.options.node_ips.first().is_some_and(|ip| ip.is_ipv6());
    ips.sort_by_key(|ip| ip.contains(':') != primary_v6);
    SeenSandbox {
        id: status.id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        ready: status.state() == v1::PodSandboxState::SandboxReady,
        ips,
    }
}

pub(super) async fn stop_sandbox(context: Arc<Context>, id: String) -> Option<Event> {
    context.monitor.forget(&id);
    let result = match context.runtime.stop_pod_sandbox(id).await {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
    };
    Some(Event::SandboxStopped(result))
}

/// Whether a sandbox that is said to have exited really has.
pub(super) async fn sandbox_died(context: Arc<Context>, id: String) -> Option<Event> {
    // The runtime's own status follows its event within milliseconds.
    for pause in [0, 10, 50, 200, 1000] {
        sleep(Duration::from_millis(pause)).await;
        match context.runtime.pod_sandbox_status(id.clone(), false).await {
            Ok(answer)
                if answer
                    .status
                    .as_ref()
                    .is_some_and(|s| s.state() == v1::PodSandboxState::SandboxReady) => {}
            Ok(_) => return Some(Event::SandboxDied { id }),
            Err(error) if error.is_not_found() => return Some(Event::SandboxDied { id }),
            Err(_) => {}
        }
    }
    None
}

pub(super) async fn pull(
    context: Arc<Context>,
    pod: Arc<api::Pod>,
    index: usize,
    container: api::Container,
    about: api::ObjectReference,
) -> Option<Event> {
    let request =
        Request { pod: &pod, container: &container, recorder: &context.recorder, about: &about };
    let result = context.images.ensure(&request).await;
    Some(Event::Pulled { container: index, result })
}

pub(super) async fn post_start(
    context: Arc<Context>,
    container: api::Container,
    index: usize,
    id: String,
    facts: Facts,
) -> Option<Event> {
    let handler = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    let host = facts.pod_ips.first().map_or("127.0.0.1", String::as_str);
    let result = match handler {
        Some(handler) => {
            hooks::run(&context.runtime, handler, &container, &id, host, POST_START).await
        }
        None => Ok(()),
    };
    Some(Event::PostStarted { container: index, id, result })
}

/// Removes everything that belonged to the pod; tries again until it succeeds.
pub(super) async fn clean_up(context: Arc<Context>, pod: Arc<api::Pod>) -> Option<Event> {
    let id = PodId::of(&pod);
    let mut attempt = 0u32;
    loop {
        match clean_up_once(&context, &pod, &id).await {
            Ok(()) => break,
            Err(error) if attempt.is_multiple_of(30) => {
                warn!(%error, "the pod's remains could not be removed")
            }
            Err(_) => {}
        }
        attempt += 1;
        sleep(CLEAN_AGAIN).await;
    }
    context.tokens.forget(&id.uid);
    Some(Event::Cleaned)
}

async fn clean_up_once(context: &Arc<Context>, pod: &api::Pod, id: &PodId) -> Result<(), String> {
    remove_sandboxes(context, &id.uid).await?;
    let (dir, logs) = (
        context.options.pod_dir(&id.uid),
        context.options.pod_log_dir(&id.namespace, &id.name, &id.uid),
    );
    let (cgroups, pod) = (context.cgroups.clone(), pod.clone());
    let removed = tokio::task::spawn_blocking(move || {
        cgroups.remove_pod(&pod);
        mounts::remove_tree(&dir).and_then(|()| mounts::remove_tree(&logs))
    });
    match removed.await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Removes every sandbox of a pod from the runtime, with its containers.
pub(crate) async fn remove_sandboxes(context: &Context, uid: &str) -> Result<(), String> {
    let filter = v1::PodSandboxFilter {
        label_selector: [(POD_UID.to_owned(), uid.to_owned())].into(),
        ..Default::default()
    };
    let sandboxes = context.runtime.list_pod_sandboxes(filter).await.map_err(|e| e.to_string())?;
    for sandbox in sandboxes {
        context.monitor.forget(&sandbox.id);
        context.runtime.stop_pod_sandbox(sandbox.id.clone()).await.map_err(|e| e.to_string())?;
        context.runtime.remove_pod_sandbox(sandbox.id).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}
