//! What the runtime has of this node's pods when the kubelet starts, in the machine's words.

use std::collections::HashMap;

use cri::{RuntimeError, v1};
use futures::future::join_all;
use jiff::Timestamp;

use crate::{
    actor::{read_exit, seen_sandbox, time},
    context::Context,
    pod::{ImageReady, Seen, SeenContainer, SeenPhase},
    spec::{self, NODE, POD_UID},
};

/// Everything of this node, by the pods' uids.
pub(crate) async fn look(context: &Context) -> Result<HashMap<String, Seen>, RuntimeError> {
    let mine = HashMap::from([(NODE.to_owned(), context.options.node_name.clone())]);
    let runtime = &context.runtime;
    let sandboxes = runtime
        .list_pod_sandboxes(v1::PodSandboxFilter {
            label_selector: mine.clone(),
            ..Default::default()
        })
        .await?;
    let containers = runtime
        .list_containers(v1::ContainerFilter { label_selector: mine, ..Default::default() })
        .await?;
    let mut found: HashMap<String, Seen> = HashMap::new();
    let statuses =
        join_all(sandboxes.iter().map(|s| runtime.pod_sandbox_status(s.id.clone(), false))).await;
    for (sandbox, status) in sandboxes.iter().zip(statuses) {
        let uid = sandbox.labels.get(POD_UID).cloned().unwrap_or_default();
        if let Some(status) = status.ok().and_then(|answer| answer.status) {
            found.entry(uid).or_default().sandboxes.push(seen_sandbox(context, &status));
        }
    }
    let statuses =
        join_all(containers.iter().map(|c| runtime.container_status(c.id.clone(), false))).await;
    for (container, status) in containers.iter().zip(statuses) {
        let uid = container.labels.get(POD_UID).cloned().unwrap_or_default();
        if let Some(status) = status.ok().and_then(|answer| answer.status) {
            found.entry(uid).or_default().containers.push(seen_container(container, &status));
        }
    }
    Ok(found)
}

fn seen_container(container: &v1::Container, status: &v1::ContainerStatus) -> SeenContainer {
    let note = |key: &str| status.annotations.get(key).cloned();
    let metadata = container.metadata.clone().unwrap_or_default();
    let image = ImageReady {
        name: note(spec::IMAGE).unwrap_or_default(),
        reference: status.image.clone().unwrap_or_default().image,
        id: note(spec::IMAGE_ID).unwrap_or_else(|| status.image_ref.clone()),
    };
    let phase = match status.state() {
        v1::ContainerState::ContainerRunning => {
            SeenPhase::Running(time(status.started_at).unwrap_or_else(Timestamp::now))
        }
        v1::ContainerState::ContainerCreated => SeenPhase::Created,
        v1::ContainerState::ContainerExited | v1::ContainerState::ContainerUnknown => {
            SeenPhase::Exited(read_exit(status))
        }
    };
    SeenContainer {
        name: metadata.name,
        id: container.id.clone(),
        attempt: metadata.attempt,
        image,
        phase,
    }
}
