//! The end of a pod: containers together, then sidecars in reverse order, then the sandbox (KEP-753).

use std::time::Duration;

use jiff::Timestamp;

use super::{
    event::{Effect, StopPlan},
    model::{Cause, Ending, Life, Phase, PodState, Role, Sandbox, Volumes},
    phase,
};

/// Begins the end of a pod.
pub(super) fn begin(
    state: &mut PodState,
    cause: Cause,
    grace: Duration,
    drain: bool,
    now: Timestamp,
) {
    state.life = Life::Ending(Ending { cause, since: now, grace, drain });
}

/// Ends the pod within `grace` or its own grace period, whichever is shorter.
pub(super) fn order(
    state: &mut PodState,
    cause: Cause,
    grace: Duration,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    match &mut state.life {
        Life::Active => {
            let grace = grace.min(phase::grace(&state.pod));
            begin(state, cause, grace, !grace.is_zero(), now);
        }
        Life::Ending(ending) => {
            let used = Duration::try_from(now.duration_since(ending.since)).unwrap_or_default();
            if used + grace < ending.grace {
                ending.grace = used + grace;
                hasten(state, now, effects);
            }
        }
        _ => {}
    }
}

/// Stops what is next to be stopped.
pub(super) fn advance(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    let Life::Ending(ending) = state.life.clone() else { return };
    let indices: Vec<usize> = (0..state.containers.len()).collect();
    let ordinary = indices.iter().copied().filter(|i| state.containers[*i].role != Role::Sidecar);
    for index in ordinary.collect::<Vec<_>>() {
        stop(state, index, &ending, now, effects);
    }
    let up = |state: &PodState, sidecar: bool| {
        indices.iter().rev().copied().find(|i| {
            (state.containers[*i].role == Role::Sidecar) == sidecar && state.containers[*i].is_up()
        })
    };
    if up(state, false).is_some() {
        return;
    }
    if let Some(last) = up(state, true) {
        return stop(state, last, &ending, now, effects);
    }
    finish(state, ending.cause, now, effects);
}

/// No container is left: the sandbox goes, and the pod has ended.
fn finish(state: &mut PodState, cause: Cause, now: Timestamp, effects: &mut Vec<Effect>) {
    if matches!(state.volumes, Volumes::Mounting { .. }) {
        return;
    }
    match &state.sandbox {
        Sandbox::Ready { id, attempt, .. } => {
            let (id, attempt) = (id.clone(), *attempt);
            effects.push(Effect::StopSandbox { id: id.clone() });
            state.sandbox = Sandbox::Stopping { id, attempt };
        }
        Sandbox::Broken { id, attempt, retry_at } if retry_at.is_none_or(|at| at <= now) => {
            let (id, attempt) = (id.clone(), *attempt);
            effects.push(Effect::StopSandbox { id: id.clone() });
            state.sandbox = Sandbox::Stopping { id, attempt };
        }
        Sandbox::Absent { .. } => state.life = Life::Ended(cause),
        Sandbox::Starting { .. } | Sandbox::Stopping { .. } | Sandbox::Broken { .. } => {}
    }
}

fn stop(
    state: &mut PodState,
    index: usize,
    ending: &Ending,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let container = &mut state.containers[index];
    let Phase::Running(running) = &mut container.phase else { return };
    if running.stopping {
        return;
    }
    running.stopping = true;
    effects.push(Effect::Stop(StopPlan {
        container: index,
        id: running.id.clone(),
        grace: phase::left(ending, now),
        drain: ending.drain && container.role == Role::Main,
        message: format!("Stopping container {}", container.name),
    }));
}

/// The grace period was shortened while containers are being stopped.
pub(super) fn hasten(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    let Life::Ending(ending) = &state.life else { return };
    let grace = phase::left(ending, now);
    for (index, container) in state.containers.iter().enumerate() {
        if let Some(running) = container.running().filter(|running| running.stopping) {
            effects.push(Effect::Hasten { container: index, id: running.id.clone(), grace });
        }
    }
}
