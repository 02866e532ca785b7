//! Ephemeral containers: how they join a pod that is already there (KEP-277). Pure.

use k8s_openapi::api::core::v1 as api;

use super::{
    machine::blank,
    model::{PodState, Role},
};

/// Takes up the ephemeral containers that the pod has got since. The API only ever appends to their list.
pub(super) fn join(state: &mut PodState) {
    let pod = state.pod.clone();
    let listed = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    for added in listed.skip(state.ephemeral.len()) {
        state.containers.push(blank(added.name.clone(), Role::Ephemeral));
        state.ephemeral.push(as_container(added));
    }
}

/// The specification as that of a container. What ephemeral containers cannot have (probes, hooks, ports, resources)
/// the API has refused.
pub(crate) fn as_container(ephemeral: &api::EphemeralContainer) -> api::Container {
    let from = ephemeral.clone();
    api::Container {
        name: from.name,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        command: from.command,
        args: from.args,
        env: from.env,
        env_from: from.env_from,
        volume_mounts: from.volume_mounts,
        volume_devices: from.volume_devices,
        working_dir: from.working_dir,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        restart_policy: Some("Never".to_owned()),
        ..api::Container::default()
    }
}
