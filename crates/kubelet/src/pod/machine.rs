//! The transition function: takes an event into the state, then lets the stage of life decide what follows.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;

use super::{
    active, adopt, ending, ephemeral,
    event::{
        Effect, Event, EventType, ProbeKind, PullProblem, SeenSandbox, StartProblem, Started,
        StopPlan,
    },
    model::{
        Cause, Cleaning, Container, Hook, Life, Phase, PodState, Role, Running, Sandbox, Volumes,
        Waiting,
    },
    phase,
};

/// The first wait after a failed mount or sandbox; doubles.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait after failed mounts (upstream's).
const MOUNT_MOST: Duration = Duration::from_secs(122);
/// The longest wait after failed sandboxes.
const SANDBOX_MOST: Duration = Duration::from_secs(60);
/// Wait before something that no back-off governs is tried again.
const SYNC_AGAIN: Duration = Duration::from_secs(10);
/// How long a fresh failure is shown before the back-off is.
const SHOW: Duration = Duration::from_secs(2);

/// The state of a pod taken up now. A pod that the API already calls finished never runs.
pub(crate) fn new(pod: Arc<api::Pod>, now: Timestamp) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let life = if finished { Life::Finished(Box::new(status.clone())) } else { Life::Active };
    let spec = pod.spec.clone().unwrap_or_default();
    let init = spec.init_containers.unwrap_or_default().into_iter().map(|c| {
        let sidecar = c.restart_policy.as_deref() == Some("Always");
        (c, if sidecar { Role::Sidecar } else { Role::Init })
    });
    let containers = init
        .chain(spec.containers.into_iter().map(|c| (c, Role::Main)))
        .map(|(c, role)| blank(c.name, role))
        .collect();
    let mut state = PodState {
        life,
        volumes: Volumes::Pending { retry_at: None, failures: 0 },
        sandbox: Sandbox::Absent { attempt: 0, retry_at: None, failures: 0 },
        containers,
        ephemeral: Vec::new(),
        start_time: status.start_time.map_or(now, |time| time.0),
        initialised: false,
        cleaned: Cleaning::Not,
        gone: false,
        pod,
    };
    ephemeral::join(&mut state);
    state
}

/// The state of a pod that this node does not admit.
pub(crate) fn rejected(
    pod: Arc<api::Pod>,
    reason: String,
    message: String,
    now: Timestamp,
) -> PodState {
    let mut state = new(pod, now);
    if state.life == Life::Active {
        state.life = Life::Rejected { reason, message };
    }
    state
}

/// A container of which nothing is known yet.
pub(super) fn blank(name: String, role: Role) -> Container {
    Container {
        name,
        role,
        phase: Phase::Waiting(Waiting::default()),
        restarts: 0,
        existed: false,
        last: None,
        back_off: super::BackOff::default(),
        pull_back_off: super::BackOff::default(),
        pull_problem: None,
    }
}

/// One step of the machine.
pub(crate) fn step(mut state: PodState, event: Event, now: Timestamp) -> (PodState, Vec<Effect>) {
    let mut effects = Vec::new();
    take(&mut state, event, now, &mut effects);
    decide(&mut state, now, &mut effects);
    (state, effects)
}

/// What follows from the state as it is.
fn decide(state: &mut PodState, now: Timestamp, effects: &mut Vec<Effect>) {
    if state.life == Life::Active && phase::deletion(&state.pod).is_some() {
        let grace = phase::grace(&state.pod);
        ending::begin(state, Cause::Deleted, grace, !grace.is_zero(), now);
    }
    if state.life == Life::Active {
        active::advance(state, now, effects);
    }
    if let Life::Ending(_) = state.life {
        ending::advance(state, now, effects);
    }
    let over = matches!(state.life, Life::Ended(_) | Life::Rejected { .. } | Life::Finished(_));
    if over
        && state.cleaned == Cleaning::Not
        && (state.gone || phase::deletion(&state.pod).is_some())
    {
        state.cleaned = Cleaning::Running;
        effects.push(Effect::CleanUp);
    }
}

/// Folds an event into the state.
fn take(state: &mut PodState, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
    match event {
        Event::Spec(pod) => take_spec(state, pod, now, effects),
        Event::Gone => {
            state.gone = true;
            if state.life == Life::Active {
                let grace = phase::grace(&state.pod);
                ending::begin(state, Cause::Deleted, grace, false, now);
            }
        }
        Event::Adopt(seen) => adopt::adopt(state, seen, now, effects),
        Event::VolumesMounted(result) => take_volumes(state, result, now, effects),
        Event::SandboxStarted(result) => take_sandbox(state, result, now, effects),
        Event::SandboxStopped(result) => take_sandbox_stopped(state, &result, now, effects),
        Event::SandboxDied { id } => take_sandbox_death(state, &id, effects),
        Event::Pulled { container, result } => take_pull(state, container, result, now),
        Event::Started { container, result } => take_start(state, container, result, now, effects),
        Event::PostStarted { container, id, result } => {
            take_post_start(state, container, &id, result, now, effects)
        }
        Event::Exited { container, exit } => {
            if let Some(c) = state.containers.get_mut(container)
                && c.running().is_some_and(|running| running.id == exit.id)
            {
                c.phase = Phase::Exited(exit);
            }
        }
        Event::Probed { container, id, kind, healthy } => {
            take_probe(state, container, &id, (kind, healthy), now, effects);
        }
        Event::End { reason, message, grace } => {
            let (reason, message) = (reason.to_owned(), message.to_owned());
            let cause = Cause::Failed { reason, message, disrupted: true };
            ending::order(state, cause, grace, now, effects);
        }
        Event::SourcesChanged => retry_now(state),
        Event::Cleaned => {
            state.cleaned = Cleaning::Done;
            if !state.gone {
                effects.push(Effect::Delete);
            }
        }
        Event::Tick => {}
    }
}

fn take_spec(state: &mut PodState, pod: Arc<api::Pod>, now: Timestamp, effects: &mut Vec<Effect>) {
    state.pod = pod;
    ephemeral::join(state);
    if phase::deletion(&state.pod).is_none() {
        return;
    }
    let grace = phase::grace(&state.pod);
    if let Life::Ending(ending) = &mut state.life
        && grace < ending.grace
    {
        ending.grace = grace;
        ending::hasten(state, now, effects);
    }
}

fn take_volumes(
    state: &mut PodState,
    result: Result<(), String>,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let failures = match &state.volumes {
        Volumes::Pending { failures, .. } => *failures,
        Volumes::Mounting { failures } => *failures,
        Volumes::Ready => 0,
    };
    match result {
        Ok(()) => state.volumes = Volumes::Ready,
        Err(message) => {
            let wait = doubled(RETRY_FIRST, failures, MOUNT_MOST);
            state.volumes = Volumes::Pending { retry_at: later(now, wait), failures: failures + 1 };
            effects.push(warning("FailedMount", message, None));
        }
    }
}

fn take_sandbox(
    state: &mut PodState,
    result: Result<SeenSandbox, String>,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let (attempt, failures) = match &state.sandbox {
        Sandbox::Starting { attempt, failures } => (*attempt, *failures),
        _ => return,
    };
    match result {
        Ok(seen) => {
            state.sandbox = Sandbox::Ready { id: seen.id, attempt: seen.attempt, ips: seen.ips }
        }
        Err(message) => {
            let wait = doubled(RETRY_FIRST, failures, SANDBOX_MOST);
            state.sandbox = Sandbox::Absent {
                attempt: attempt + 1,
                retry_at: later(now, wait),
                failures: failures + 1,
            };
            let message = format!("Failed to create pod sandbox: {message}");
            effects.push(warning("FailedCreatePodSandBox", message, None));
        }
    }
}

fn take_sandbox_stopped(
    state: &mut PodState,
    result: &Result<(), String>,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let Sandbox::Stopping { id, attempt } = &state.sandbox else { return };
    match result {
        Ok(()) => {
            state.sandbox = Sandbox::Absent { attempt: attempt + 1, retry_at: None, failures: 0 };
            // Init containers run again in a new sandbox (upstream's rule).
            state.initialised = false;
            for container in &mut state.containers {
                if container.role == Role::Init && state.life == Life::Active {
                    let phase =
                        std::mem::replace(&mut container.phase, Phase::Waiting(Waiting::default()));
                    if let Phase::Exited(exit) = phase {
                        container.last = Some(exit);
                    }
                }
            }
        }
        Err(message) => {
            let message = format!(
                "error killing pod: failed to \"KillPodSandbox\" for sandbox {id}: {message}"
            );
            effects.push(warning("FailedKillPod", message, None));
            // The actor tries again; the sandbox counts as intact for that.
            state.sandbox =
                Sandbox::Broken { id: id.clone(), attempt: *attempt, retry_at: later(now, SHOW) };
        }
    }
}

fn take_sandbox_death(state: &mut PodState, dead: &str, effects: &mut Vec<Effect>) {
    if let Sandbox::Ready { id, attempt, .. } = &state.sandbox
        && id == dead
    {
        state.sandbox = Sandbox::Broken { id: id.clone(), attempt: *attempt, retry_at: None };
        if state.life == Life::Active {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            effects.push(Effect::Record {
                kind: EventType::Normal,
                reason: "SandboxChanged",
                message,
                container: None,
            });
        }
    }
}

fn take_pull(
    state: &mut PodState,
    index: usize,
    result: Result<super::ImageReady, PullProblem>,
    now: Timestamp,
) {
    let Some(container) = state.containers.get_mut(index) else { return };
    if container.phase != Phase::Pulling {
        return;
    }
    match result {
        Ok(image) => {
            container.pull_back_off.reset();
            container.pull_problem = None;
            container.phase = Phase::Pulled(image);
        }
        Err(problem) => {
            let wait = if problem.reason == "ErrImagePull" {
                container.pull_back_off.advance(now, now);
                container.pull_problem = Some(problem.message.clone());
                SHOW
            } else {
                SYNC_AGAIN
            };
            container.phase = Phase::Waiting(Waiting {
                reason: problem.reason,
                message: problem.message,
                retry_at: later(now, wait),
                since: Some(now),
            });
        }
    }
}

fn take_start(
    state: &mut PodState,
    index: usize,
    result: Result<Started, StartProblem>,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let Some(spec) = state.spec_of(index).cloned() else { return };
    let Some(container) = state.containers.get_mut(index) else { return };
    let Phase::Starting(image) = container.phase.clone() else { return };
    let attempt = if container.existed { container.restarts + 1 } else { 0 };
    match result {
        Ok(started) => {
            container.existed = true;
            container.restarts = attempt;
            let hook = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
            let probed = container.role != Role::Init;
            let startup_passed = !probed || spec.startup_probe.is_none();
            let ready = !probed || spec.readiness_probe.is_none();
            container.phase = Phase::Running(Running {
                id: started.id.clone(),
                image,
                started_at: started.started_at,
                post_start: if hook.is_some() { Hook::Running } else { Hook::Done },
                startup_passed,
                ready,
                stopping: false,
            });
            if hook.is_some() {
                effects.push(Effect::PostStart { container: index, id: started.id.clone() });
            }
            if probed {
                let Started { id, started_at } = started;
                effects.push(Effect::Probe {
                    container: index,
                    id,
                    started_at,
                    startup_passed,
                    ready,
                });
            }
        }
        Err(problem) => {
            if let Some(exit) = problem.exit {
                container.existed = true;
                container.restarts = attempt;
                if !phase::should_restart(state, index, &exit) {
                    state.containers[index].phase = Phase::Exited(exit);
                    return;
                }
                state.containers[index].last = Some(exit);
            }
            let container = &mut state.containers[index];
            let wait = if problem.reason == "RunContainerError" { SHOW } else { SYNC_AGAIN };
            container.phase = Phase::Waiting(Waiting {
                reason: problem.reason,
                message: problem.message,
                retry_at: later(now, wait),
                since: Some(now),
            });
        }
    }
}

fn take_post_start(
    state: &mut PodState,
    index: usize,
    id: &str,
    result: Result<(), String>,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let Some(container) = state.containers.get_mut(index) else { return };
    let Phase::Running(running) = &mut container.phase else { return };
    if running.id != id {
        return;
    }
    running.post_start = Hook::Done;
    if result.is_err() {
        effects.push(warning(
            "FailedPostStartHook",
            "PostStartHook failed".to_owned(),
            Some(index),
        ));
        stop(state, index, "FailedPostStartHook".to_owned(), None, now, effects);
    }
}

fn take_probe(
    state: &mut PodState,
    index: usize,
    id: &str,
    (kind, healthy): (ProbeKind, bool),
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let Some(container) = state.containers.get_mut(index) else { return };
    let name = container.name.clone();
    let Phase::Running(running) = &mut container.phase else { return };
    if running.id != id {
        return;
    }
    let failed = match (kind, healthy) {
        (ProbeKind::Startup, true) => {
            running.startup_passed = true;
            return;
        }
        (ProbeKind::Readiness, healthy) => {
            running.ready = healthy;
            return;
        }
        (ProbeKind::Liveness, true) => return,
        (ProbeKind::Startup, false) => "startup",
        (ProbeKind::Liveness, false) => "liveness",
    };
    let probe = state.spec_of(index).and_then(|spec| match kind {
        ProbeKind::Startup => spec.startup_probe.clone(),
        _ => spec.liveness_probe.clone(),
    });
    let own = probe.and_then(|p| p.termination_grace_period_seconds).map(phase::seconds);
    let message = format!("Container {name} failed {failed} probe");
    stop(state, index, message, own, now, effects);
}

/// Stops one container of an active pod; its restart policy decides what follows its end.
pub(super) fn stop(
    state: &mut PodState,
    index: usize,
    message: String,
    grace: Option<Duration>,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let restarts = phase::may_restart(state, index);
    let grace = grace.unwrap_or_else(|| match &state.life {
        Life::Ending(ending) => phase::left(ending, now),
        _ => phase::spec_grace(&state.pod),
    });
    let Some(container) = state.containers.get_mut(index) else { return };
    let Phase::Running(running) = &mut container.phase else { return };
    if running.stopping {
        return;
    }
    running.stopping = true;
    let message = if restarts { format!("{message}, will be restarted") } else { message };
    let id = running.id.clone();
    effects.push(Effect::Stop(StopPlan { container: index, id, grace, drain: false, message }));
}

/// What waits for an object of the API is tried again at once.
fn retry_now(state: &mut PodState) {
    if let Volumes::Pending { retry_at, .. } = &mut state.volumes {
        *retry_at = None;
    }
    for container in &mut state.containers {
        if let Phase::Waiting(waiting) = &mut container.phase
            && waiting.reason == "CreateContainerConfigError"
        {
            waiting.retry_at = None;
        }
    }
}

/// When the machine wants a [`Event::Tick`], if nothing else happens.
pub(crate) fn wake_at(state: &PodState, now: Timestamp) -> Option<Timestamp> {
    let volumes = match &state.volumes {
        Volumes::Pending { retry_at, .. } => *retry_at,
        _ => None,
    };
    let sandbox = match &state.sandbox {
        Sandbox::Absent { retry_at, .. } | Sandbox::Broken { retry_at, .. } => *retry_at,
        _ => None,
    };
    let containers = state.containers.iter().filter_map(|c| match &c.phase {
        Phase::Waiting(waiting) => waiting.retry_at,
        _ => None,
    });
    let timers = containers.chain(volumes).chain(sandbox).chain(active::deadline(state));
    match state.life {
        Life::Active | Life::Ending(_) => timers.filter(|at| *at > now).min(),
        _ => None,
    }
}

pub(super) fn warning(reason: &'static str, message: String, container: Option<usize>) -> Effect {
    Effect::Record { kind: EventType::Warning, reason, message, container }
}

/// A moment after `now`.
pub(super) fn later(now: Timestamp, wait: Duration) -> Option<Timestamp> {
    now.checked_add(wait).ok()
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(most)
}
