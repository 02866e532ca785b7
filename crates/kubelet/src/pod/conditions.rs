//! The pod conditions that the kubelet owns, with upstream's reasons and messages.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::Time};

use super::model::{Cause, Life, PodState, Role, Sandbox};

/// A condition's verdict with its reason and message.
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn no(reason: Option<&'static str>, message: Option<String>) -> Self {
        Self { holds: false, reason, message }
    }
}

/// Brings the conditions of `status` up to date; those of other owners stay.
pub(super) fn update(state: &PodState, status: &mut api::PodStatus, phase: &str, now: Timestamp) {
    let containers_ready = containers_ready(state, status, phase);
    let ready = ready(state, status, &containers_ready);
    let initialized = initialized(state, status, phase);
    let sandbox = match &state.sandbox {
        Sandbox::Ready { .. } => Verdict::yes(),
        _ => Verdict::no(None, None),
    };
    let generation = state.pod.metadata.generation;
    let conditions = status.conditions.get_or_insert_default();
    for (kind, verdict) in [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ] {
        set(conditions, kind, verdict, generation, now);
    }
    if let Life::Ended(Cause::Failed { message, disrupted: true, .. }) = &state.life {
        let message = Some(message.clone());
        let verdict = Verdict { holds: true, reason: Some("TerminationByKubelet"), message };
        set(conditions, "DisruptionTarget", verdict, generation, now);
    }
}

fn set(
    conditions: &mut Vec<api::PodCondition>,
    kind: &str,
    verdict: Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if verdict.holds { "True" } else { "False" };
    let fresh = api::PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        observed_generation: generation,
        last_transition_time: Some(Time(now)),
        last_probe_time: None,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(known) => {
            let since =
                if known.status == status { known.last_transition_time.clone() } else { None };
            *known = api::PodCondition {
                last_transition_time: since.or(fresh.last_transition_time),
                ..fresh
            };
        }
        None => conditions.push(fresh),
    }
}

/// Go's way to print a list of names.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn containers_ready(state: &PodState, status: &api::PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no(Some("PodCompleted"), None),
        "Failed" => return Verdict::no(Some("PodFailed"), None),
        _ => {}
    }
    let sidecar =
        |name: &str| state.containers.iter().any(|c| c.name == name && c.role == Role::Sidecar);
    let init = status.init_container_statuses.iter().flatten().filter(|s| sidecar(&s.name));
    let unready: Vec<&str> = init
        .chain(status.container_statuses.iter().flatten())
        .filter(|s| !s.ready)
        .map(|s| s.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        Some("ContainersNotReady"),
        Some(format!("containers with unready status: {}", list(&unready))),
    )
}

fn ready(state: &PodState, status: &api::PodStatus, containers: &Verdict) -> Verdict {
    if !containers.holds {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    let gates = state.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let problems: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match status.conditions.iter().flatten().find(|c| c.type_ == *kind) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {kind:?} does not exist."
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if problems.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(Some("ReadinessGatesNotReady"), Some(problems.join(", ")))
}

fn initialized(state: &PodState, status: &api::PodStatus, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let main_existed = state.containers.iter().any(|c| c.role == Role::Main && c.existed);
    if main_existed && (state.initialised || state.life != Life::Active) {
        return Verdict::yes();
    }
    let role = |name: &str| state.containers.iter().find(|c| c.name == name).map(|c| c.role);
    let incomplete: Vec<&str> = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|s| match role(&s.name) {
            Some(Role::Sidecar) => s.started != Some(true),
            _ => !s.ready,
        })
        .map(|s| s.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with incomplete status: {}", list(&incomplete));
    Verdict::no(Some("ContainersNotInitialized"), Some(message))
}
