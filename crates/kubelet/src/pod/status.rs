//! The API status of a pod, projected from its state. The previous status is read only for what a projection cannot
//! know: transition times, other owners' conditions, and addresses of a sandbox that is gone.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    conditions,
    model::{Cause, Container, Exit, Life, Phase, PodState, Role, Running, Sandbox, Waiting},
};

/// The status to publish. `host_ips` are the node's addresses, primary first; `runtime` is the scheme of container
/// ids, such as `containerd`.
pub(crate) fn project(
    state: &PodState,
    previous: &api::PodStatus,
    host_ips: &[String],
    runtime: &str,
    now: Timestamp,
) -> api::PodStatus {
    if let Life::Finished(status) = &state.life {
        return (**status).clone();
    }
    let mut status = previous.clone();
    status.observed_generation = state.pod.metadata.generation;
    status.qos_class = Some(crate::resources::qos_class(&state.pod).name().to_owned());
    status.start_time = Some(Time(state.start_time));
    status.host_ip = host_ips.first().cloned();
    status.host_ips = (!host_ips.is_empty())
        .then(|| host_ips.iter().map(|ip| api::HostIP { ip: ip.clone() }).collect());
    if let Life::Rejected { reason, message } = &state.life {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(reason.clone());
        status.message = Some(message.clone());
        return status;
    }
    addresses(state, &mut status, host_ips);
    let render = |roles: &[Role], known: &Option<Vec<api::ContainerStatus>>| -> Vec<_> {
        let all = state.containers.iter().enumerate().filter(|(_, c)| roles.contains(&c.role));
        all.map(|(index, c)| {
            let before = known.iter().flatten().find(|s| s.name == c.name);
            container_status(state, index, c, before, runtime)
        })
        .collect()
    };
    let init = render(&[Role::Init, Role::Sidecar], &previous.init_container_statuses);
    let main = render(&[Role::Main], &previous.container_statuses);
    let ephemeral = render(&[Role::Ephemeral], &previous.ephemeral_container_statuses);
    let phase = phase(state, &init, &main);
    status.phase = Some(phase.to_owned());
    (status.reason, status.message) = match &state.life {
        Life::Ended(Cause::Failed { reason, message, .. }) => {
            (Some(reason.clone()), Some(message.clone()))
        }
        _ => (None, None),
    };
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.container_statuses = Some(main);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    conditions::update(state, &mut status, phase, now);
    status
}

fn addresses(state: &PodState, status: &mut api::PodStatus, host_ips: &[String]) {
    let host_network = state.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let ips = match &state.sandbox {
        Sandbox::Ready { .. } if host_network => host_ips,
        Sandbox::Ready { ips, .. } => ips,
        _ => return,
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips =
        (!ips.is_empty()).then(|| ips.iter().map(|ip| api::PodIP { ip: ip.clone() }).collect());
}

fn container_status(
    state: &PodState,
    index: usize,
    container: &Container,
    before: Option<&api::ContainerStatus>,
    runtime: &str,
) -> api::ContainerStatus {
    let spec = state.spec_of(index).cloned().unwrap_or_default();
    let mut status = api::ContainerStatus {
        name: container.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        restart_count: i32::try_from(container.restarts).unwrap_or(i32::MAX),
        started: (container.role != Role::Ephemeral).then_some(false),
        last_state: container.last.as_ref().map(|exit| terminated(exit, runtime)),
        ..Default::default()
    };
    let latest = match &container.phase {
        Phase::Exited(exit) => Some(exit),
        _ => container.last.as_ref(),
    };
    if let Some(exit) = latest {
        status.container_id = Some(container_id(runtime, &exit.id));
        status.image.clone_from(&exit.image);
        status.image_id.clone_from(&exit.image_id);
    }
    match &container.phase {
        Phase::Waiting(waiting) => status.state = Some(waiting_state(state, waiting)),
        Phase::Pulling | Phase::Pulled(_) | Phase::Starting(_) => {
            on_its_way(state, container, before, &mut status, runtime)
        }
        Phase::Running(running) => {
            fill_running(&mut status, &spec, running, container.role, runtime)
        }
        Phase::Exited(exit) => {
            status.state = Some(terminated(exit, runtime));
            status.ready = container.role == Role::Init && exit.code == 0;
        }
    }
    status
}

/// What is on its way up shows what it showed before: the way is short, and a changing reason helps nobody.
fn on_its_way(
    state: &PodState,
    container: &Container,
    before: Option<&api::ContainerStatus>,
    status: &mut api::ContainerStatus,
    runtime: &str,
) {
    let shown = before.and_then(|b| b.state.clone());
    match (shown, &container.last) {
        (Some(shown), Some(_)) if shown.terminated.is_some() => {
            status.state = Some(shown);
            status.last_state = before.and_then(|b| b.last_state.clone());
        }
        (Some(shown), _) if shown.waiting.is_some() => status.state = Some(shown),
        (_, Some(exit)) => {
            status.state = Some(terminated(exit, runtime));
            status.last_state = before.and_then(|b| b.last_state.clone());
        }
        (_, None) => status.state = Some(waiting_state(state, &Waiting::default())),
    }
}

fn fill_running(
    status: &mut api::ContainerStatus,
    spec: &api::Container,
    running: &Running,
    role: Role,
    runtime: &str,
) {
    status.container_id = Some(container_id(runtime, &running.id));
    status.image.clone_from(&running.image.name);
    status.image_id.clone_from(&running.image.id);
    let started_at = Some(Time(running.started_at));
    status.state = Some(api::ContainerState {
        running: Some(api::ContainerStateRunning { started_at }),
        ..Default::default()
    });
    if role == Role::Ephemeral {
        return;
    }
    status.started = Some(running.started());
    status.ready = role != Role::Init && running.started() && running.ready;
    let resources = spec.resources.clone().unwrap_or_default();
    status.allocated_resources.clone_from(&resources.requests);
    status.resources = Some(api::ResourceRequirements { claims: None, ..resources });
    let mounts = spec.volume_mounts.iter().flatten();
    let mounts: Vec<_> = mounts
        .map(|mount| api::VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: mount.read_only.unwrap_or(false).then(|| "Disabled".to_owned()),
            ..Default::default()
        })
        .collect();
    status.volume_mounts = (!mounts.is_empty()).then_some(mounts);
}

fn container_id(runtime: &str, id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("{runtime}://{id}") }
}

fn waiting_state(state: &PodState, waiting: &Waiting) -> api::ContainerState {
    let has_init = state.containers.iter().any(|c| matches!(c.role, Role::Init | Role::Sidecar));
    let reason = match waiting.reason {
        "" if has_init && !state.initialised => "PodInitializing",
        "" => "ContainerCreating",
        reason => reason,
    };
    let message = (!waiting.message.is_empty()).then(|| waiting.message.clone());
    let waiting = api::ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    api::ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn terminated(exit: &Exit, runtime: &str) -> api::ContainerState {
    api::ContainerState {
        terminated: Some(api::ContainerStateTerminated {
            container_id: Some(container_id(runtime, &exit.id)),
            exit_code: exit.code,
            finished_at: Some(Time(exit.finished_at)),
            started_at: Some(Time(exit.started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            reason: Some(exit.reason.clone()),
            signal: None,
        }),
        ..Default::default()
    }
}

/// The pod's phase, by upstream's counting.
fn phase(
    state: &PodState,
    init: &[api::ContainerStatus],
    main: &[api::ContainerStatus],
) -> &'static str {
    let over = matches!(state.life, Life::Ended(_));
    if let Life::Ended(Cause::Failed { .. }) = state.life {
        return "Failed";
    }
    let code =
        |s: &api::ContainerStatus| s.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code);
    let never = |name: &str| {
        let index = state.containers.iter().position(|c| c.name == name);
        index
            .and_then(|i| state.spec_of(i))
            .is_some_and(|c| super::restart_policy(&state.pod, c) == "Never")
    };
    let failed_init = init.iter().any(|s| code(s).is_some_and(|c| c != 0) && never(&s.name));
    if failed_init {
        return "Failed";
    }
    let stopped = main
        .iter()
        .filter(|s| code(s).is_some() || (is_waiting(s) && s.last_state.is_some()))
        .count();
    let waiting = main.iter().filter(|s| is_waiting(s) && s.last_state.is_none()).count();
    let running = main.len() - stopped - waiting;
    let succeeded = main.iter().filter(|s| code(s) == Some(0)).count();
    if over {
        return match (waiting, succeeded == stopped) {
            (0, true) => "Succeeded",
            _ if stopped > 0 || matches!(state.life, Life::Ended(Cause::Deleted)) => "Failed",
            _ => "Pending",
        };
    }
    if waiting > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    let all_final = state.containers.iter().enumerate().filter(|(_, c)| c.role == Role::Main).all(|(i, c)| {
        matches!(&c.phase, Phase::Exited(exit) if !super::phase::should_restart(state, i, exit))
    });
    match (all_final, succeeded == stopped) {
        (true, true) => "Succeeded",
        (true, false) => "Failed",
        (false, _) => "Running",
    }
}

fn is_waiting(status: &api::ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.waiting.is_some())
}
