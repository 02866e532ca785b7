//! What an active pod needs next: volumes, sandbox, init containers in order, then the others in order (the static
//! order of the Kubernetes documentation, sidecars as KEP-753 has them). Ephemeral containers wait for nobody.

use jiff::Timestamp;

use super::{
    ending,
    event::{Effect, EventType},
    machine::{later, stop, warning},
    model::{Cause, Hook, Life, Phase, PodState, Role, Sandbox, Volumes, Waiting},
    phase,
};

/// Moves an active pod as far as it goes now.
pub(super) fn advance(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    if deadline(state).is_some_and(|at| at <= now) {
        let cause = Cause::Failed {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            disrupted: false,
        };
        let grace = phase::spec_grace(&state.pod);
        return ending::begin(state, cause, grace, false, now);
    }
    if completed(state) {
        let grace = phase::spec_grace(&state.pod);
        return ending::begin(state, Cause::Completed, grace, false, now);
    }
    volumes(state, now, effects);
    if state.volumes == Volumes::Ready {
        sandbox(state, now, effects);
        containers(state, now, effects);
    }
    definitions(state, now, effects);
}

/// When `activeDeadlineSeconds` has passed.
pub(super) fn deadline(state: &PodState) -> Option<Timestamp> {
    let limit = state.pod.spec.as_ref()?.active_deadline_seconds?;
    later(state.start_time, phase::seconds(limit))
}

/// Whether nothing of the pod is to run any more.
fn completed(state: &PodState) -> bool {
    let over = |index: usize| match &state.containers[index].phase {
        Phase::Exited(exit) => !phase::should_restart(state, index, exit),
        _ => false,
    };
    let failed_init = |index: usize| match &state.containers[index] {
        c if c.role == Role::Init => {
            matches!(&c.phase, Phase::Exited(exit) if exit.code != 0) && over(index)
        }
        _ => false,
    };
    let mut mains =
        (0..state.containers.len()).filter(|i| state.containers[*i].role == Role::Main).peekable();
    (0..state.containers.len()).any(failed_init) || (mains.peek().is_some() && mains.all(over))
}

fn volumes(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    if let Volumes::Pending { retry_at, failures } = &state.volumes
        && retry_at.is_none_or(|at| at <= now)
    {
        state.volumes = Volumes::Mounting { failures: *failures };
        effects.push(Effect::MountVolumes);
    }
}

fn sandbox(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    // Containers of a broken sandbox must have ended before the next one is made.
    let vacant = !state.containers.iter().any(super::Container::is_up);
    match &state.sandbox {
        Sandbox::Absent { attempt, retry_at, failures }
            if vacant && retry_at.is_none_or(|at| at <= now) =>
        {
            let attempt = *attempt;
            state.sandbox = Sandbox::Starting { attempt, failures: *failures };
            effects.push(Effect::RunSandbox { attempt });
        }
        Sandbox::Broken { id, attempt, retry_at } if retry_at.is_none_or(|at| at <= now) => {
            let (id, attempt) = (id.clone(), *attempt);
            effects.push(Effect::StopSandbox { id: id.clone() });
            state.sandbox = Sandbox::Stopping { id, attempt };
        }
        _ => {}
    }
}

/// Starts what is next. One container is on its way up at a time; those that wait for a retry hold up nobody of
/// their own stage.
fn containers(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    for index in 0..state.containers.len() {
        if state.containers[index].role == Role::Ephemeral {
            drive(state, index, now, effects);
        }
    }
    for index in 0..state.containers.len() {
        let role = state.containers[index].role;
        match role {
            Role::Ephemeral => {}
            Role::Init if state.initialised => continue,
            Role::Init => {
                if matches!(&state.containers[index].phase, Phase::Exited(exit) if exit.code == 0) {
                    continue;
                }
                return drive(state, index, now, effects);
            }
            Role::Sidecar => {
                if !state.containers[index].running().is_some_and(super::Running::started) {
                    drive(state, index, now, effects);
                    if !state.initialised {
                        return;
                    }
                }
            }
            Role::Main => {
                state.initialised = true;
                drive(state, index, now, effects);
                if on_its_way(&state.containers[index].phase) {
                    return;
                }
            }
        }
    }
}

fn on_its_way(phase: &Phase) -> bool {
    match phase {
        Phase::Pulling | Phase::Pulled(_) | Phase::Starting(_) => true,
        Phase::Running(running) => running.post_start == Hook::Running,
        Phase::Waiting(_) | Phase::Exited(_) => false,
    }
}

/// Takes one container a step further, if it is due.
fn drive(state: &mut PodState, index: usize, now: Timestamp, effects: &mut Vec<Effect>) {
    match state.containers[index].phase.clone() {
        Phase::Waiting(waiting) if waiting.retry_at.is_none_or(|at| at <= now) => {
            again(state, index, &waiting, now, effects);
        }
        Phase::Exited(exit) if phase::should_restart(state, index, &exit) => {
            state.containers[index].last = Some(exit);
            restart(state, index, now, effects);
        }
        Phase::Pulled(image) => {
            if let Sandbox::Ready { id, .. } = &state.sandbox {
                let sandbox = id.clone();
                let container = &mut state.containers[index];
                let attempt = if container.existed { container.restarts + 1 } else { 0 };
                container.phase = Phase::Starting(image.clone());
                effects.push(Effect::Start { container: index, attempt, image, sandbox });
            }
        }
        _ => {}
    }
}

/// The wait of a container is over.
fn again(
    state: &mut PodState,
    index: usize,
    waiting: &Waiting,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    match waiting.reason {
        "RunContainerError" if state.containers[index].last.is_some() => {
            restart(state, index, now, effects)
        }
        "CrashLoopBackOff" => {
            let container = &mut state.containers[index];
            if let Some(exit) = &container.last {
                container.back_off.advance(exit.finished_at, now);
            }
            pull(state, index, effects);
        }
        "ErrImagePull" => back_off_pull(state, index, waiting, now, effects),
        _ => pull(state, index, effects),
    }
}

/// A container that has ended starts again, at once or after its back-off.
fn restart(state: &mut PodState, index: usize, now: Timestamp, effects: &mut Vec<Effect>) {
    let whole = full_name(state);
    let container = &mut state.containers[index];
    let Some(finished) = container.last.as_ref().map(|exit| exit.finished_at) else { return };
    let Some((until, length)) = container.back_off.wait(finished, now) else {
        container.back_off.advance(finished, now);
        return pull(state, index, effects);
    };
    let name = &container.name;
    let length = go_duration(length);
    let note = format!("Back-off restarting failed container {name} in pod {whole}");
    let message = format!("back-off {length} restarting failed container={name} pod={whole}");
    container.phase = Phase::Waiting(Waiting {
        reason: "CrashLoopBackOff",
        message,
        retry_at: Some(until),
        since: Some(now),
    });
    effects.push(Effect::Record {
        kind: EventType::Warning,
        reason: "BackOff",
        message: note,
        container: Some(index),
    });
}

/// A failed pull has been shown long enough: from now on its back-off is shown, or it is tried again.
fn back_off_pull(
    state: &mut PodState,
    index: usize,
    waiting: &Waiting,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let image = state.spec_of(index).and_then(|spec| spec.image.clone()).unwrap_or_default();
    let container = &mut state.containers[index];
    let failed = waiting.since.unwrap_or(now);
    let Some((until, _)) = container.pull_back_off.wait(failed, now) else {
        return pull(state, index, effects);
    };
    let note = format!("Back-off pulling image {image:?}");
    let problem = container.pull_problem.as_deref().unwrap_or_default();
    container.phase = Phase::Waiting(Waiting {
        reason: "ImagePullBackOff",
        message: format!("{note}: ErrImagePull: {problem}"),
        retry_at: Some(until),
        since: Some(now),
    });
    effects.push(Effect::Record {
        kind: EventType::Normal,
        reason: "BackOff",
        message: note,
        container: Some(index),
    });
    effects.push(warning("Failed", "Error: ImagePullBackOff".to_owned(), Some(index)));
}

fn pull(state: &mut PodState, index: usize, effects: &mut Vec<Effect>) {
    state.containers[index].phase = Phase::Pulling;
    effects.push(Effect::Pull { container: index });
}

/// Restarts containers whose image was changed in the specification.
fn definitions(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    if state.life != Life::Active {
        return;
    }
    for index in 0..state.containers.len() {
        let wanted =
            state.spec_of(index).and_then(|spec| spec.image.as_deref()).unwrap_or_default();
        let changed = state.containers[index]
            .running()
            .is_some_and(|running| !running.stopping && running.image.name != wanted);
        if changed {
            let message = format!("Container {} definition changed", state.containers[index].name);
            stop(state, index, message, None, now, effects);
        }
    }
}

/// `name_namespace(uid)`, as upstream's messages name pods.
fn full_name(state: &PodState) -> String {
    let meta = &state.pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// `10s`, `1m20s`, `5m0s`: how Go prints whole seconds.
fn go_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
