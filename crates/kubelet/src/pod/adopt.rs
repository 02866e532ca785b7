//! Rebuilding a pod's state from what the runtime has, after the kubelet was restarted: nothing that runs is touched.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;

use super::{
    ending,
    event::{Effect, Seen, SeenContainer, SeenPhase},
    model::{Cause, Hook, Life, Phase, PodState, Role, Running, Sandbox},
    phase,
};

/// Takes over what runs.
pub(super) fn adopt(state: &mut PodState, seen: Seen, now: Timestamp, effects: &mut Vec<Effect>) {
    let newest = seen.sandboxes.iter().max_by_key(|sandbox| sandbox.attempt);
    if let Some(sandbox) = newest {
        let (id, attempt) = (sandbox.id.clone(), sandbox.attempt);
        state.sandbox = match (&state.life, sandbox.ready) {
            (_, true) => Sandbox::Ready { id, attempt, ips: sandbox.ips.clone() },
            // Stopping it again is harmless and releases what a crash may have left.
            (Life::Active, false) => Sandbox::Broken { id, attempt, retry_at: None },
            (_, false) => Sandbox::Absent { attempt: attempt + 1, retry_at: None, failures: 0 },
        };
    }
    let status = state.pod.status.clone().unwrap_or_default();
    for index in 0..state.containers.len() {
        let name = state.containers[index].name.clone();
        let mut mine: Vec<&SeenContainer> = seen
            .containers
            .iter()
            .filter(|c| c.name == name && !matches!(c.phase, SeenPhase::Created))
            .collect();
        mine.sort_by_key(|c| c.attempt);
        take(state, index, &mine, &status, effects);
    }
    resume_ending(state, now);
    let seen = |name: &str| seen.containers.iter().any(|c| c.name == name);
    state.initialised =
        state.containers.iter().any(|c| c.role == Role::Main && c.existed && seen(&c.name));
}

/// A pod may have been called finished before everything of it was stopped: that is made up for.
fn resume_ending(state: &mut PodState, now: Timestamp) {
    let Life::Finished(status) = &state.life else { return };
    let up = state.containers.iter().any(super::Container::is_up);
    if !up && !matches!(state.sandbox, Sandbox::Ready { .. }) {
        return;
    }
    let cause = match (&status.reason, &status.message) {
        (Some(reason), message) => {
            let message = message.clone().unwrap_or_default();
            Cause::Failed { reason: reason.clone(), message, disrupted: false }
        }
        _ => Cause::Completed,
    };
    let grace = phase::spec_grace(&state.pod);
    ending::begin(state, cause, grace, false, now);
}

/// The runtime has lost a container that there was, as after a restart of the machine: counting goes on.
fn remember(state: &mut PodState, index: usize, status: &api::PodStatus) {
    let container = &mut state.containers[index];
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut started = all.filter(|s| s.container_id.as_ref().is_some_and(|id| !id.is_empty()));
    if let Some(known) = started.find(|s| s.name == container.name) {
        container.existed = true;
        container.restarts = u32::try_from(known.restart_count).unwrap_or(0);
    }
}

/// Takes over one container: the newest is what it is now, the one before how it ended last time.
fn take(
    state: &mut PodState,
    index: usize,
    mine: &[&SeenContainer],
    status: &api::PodStatus,
    effects: &mut Vec<Effect>,
) {
    let Some(newest) = mine.last() else { return remember(state, index, status) };
    let spec = state.spec_of(index).cloned().unwrap_or_default();
    let container = &mut state.containers[index];
    container.existed = true;
    container.restarts = newest.attempt;
    container.last = mine.iter().rev().nth(1).and_then(|c| match &c.phase {
        SeenPhase::Exited(exit) => Some(exit.clone()),
        _ => None,
    });
    match &newest.phase {
        SeenPhase::Created => {}
        SeenPhase::Exited(exit) => container.phase = Phase::Exited(exit.clone()),
        SeenPhase::Running(started_at) => {
            // The verdict of probes is not in the runtime. What was ready stays so until a probe says otherwise:
            // a restart of the kubelet must not take pods out of service.
            let known = known_status(status, &container.name, &newest.id);
            let probed = container.role != Role::Init;
            let startup_passed = !probed
                || spec.startup_probe.is_none()
                || known.is_some_and(|s| s.started == Some(true));
            let ready = !probed || spec.readiness_probe.is_none() || known.is_some_and(|s| s.ready);
            container.phase = Phase::Running(Running {
                id: newest.id.clone(),
                image: newest.image.clone(),
                started_at: *started_at,
                post_start: Hook::Done,
                startup_passed,
                ready,
                stopping: false,
            });
            if probed {
                effects.push(Effect::Probe {
                    container: index,
                    id: newest.id.clone(),
                    started_at: *started_at,
                    startup_passed,
                    ready,
                });
            }
        }
    }
}

fn known_status<'a>(
    status: &'a api::PodStatus,
    name: &str,
    id: &str,
) -> Option<&'a api::ContainerStatus> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|s| s.name == name)
        .find(|s| s.container_id.as_deref().is_some_and(|known| known.ends_with(id)))
}
