//! Rows of pods: readiness, the one word that says how a pod is, and restarts.

use jiff::Timestamp;
use schema::View;
use serde_json::{Value, json};

use super::Cells;
use super::format::{age, condition, name, or, since};

/// The table of a kind of this file.
pub(super) fn printer(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    (key == ("", "Pod")).then_some(("pod", pod))
}

/// What marks the row of a pod that has ended.
pub(super) fn row_condition(kind: &meta::GroupVersionKind, object: &Value) -> Option<Value> {
    if !kind.group.is_empty() || kind.kind != "Pod" {
        return None;
    }
    let (reason, message) = match object.at("status").text("phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// Restarts, and the end of the container that was restarted last.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.int("restartCount").unwrap_or_default();
        let finished = status.at("lastState").at("terminated").text("finishedAt");
        self.last = self.last.max(meta::time::parse(finished));
    }
}

/// What the init containers say.
struct Init {
    reason: Option<String>,
    ready: usize,
    all: Restarts,
    sidecars: Restarts,
}

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let sidecars =
        spec.items("initContainers").iter().filter(|container| is_sidecar(container)).count();
    let total = spec.items("containers").len() + sidecars;
    let phase = status.text("phase");
    let mut reason = or(status.text("reason"), phase).to_owned();
    let gated = |condition: &Value| {
        condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated"
    };
    if status.items("conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut reason);
    }
    let init = init_containers(spec, status);
    let (mut ready, mut restarts) = (init.ready, init.all);
    let initializing = init.reason.is_some();
    if let Some(text) = init.reason {
        reason = text;
    }
    if !initializing || condition(status, "Initialized") {
        restarts = init.sidecars;
        ready += containers(status, &mut reason, &mut restarts);
    }
    if pod.at("metadata").has("deletionTimestamp") {
        if status.text("reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    let restarted = match restarts.last {
        Some(last) if restarts.count != 0 => {
            format!("{} ({} ago)", restarts.count, since(&json!(meta::time::seconds(last)), now))
        }
        _ => restarts.count.to_string(),
    };
    let ip = status.items("podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarted.into(),
        age(pod, now),
        or(ip, "<none>").into(),
        or(spec.text("nodeName"), "<none>").into(),
        or(status.text("nominatedNodeName"), "<none>").into(),
        readiness_gates(spec, status).into(),
    ]
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn init_containers(spec: &Value, status: &Value) -> Init {
    let containers = spec.items("initContainers");
    let mut init =
        Init { reason: None, ready: 0, all: Restarts::default(), sidecars: Restarts::default() };
    for (index, state) in status.items("initContainerStatuses").iter().enumerate() {
        init.all.add(state);
        let sidecar = containers
            .iter()
            .any(|container| container.text("name") == state.text("name") && is_sidecar(container));
        if sidecar {
            init.sidecars.add(state);
        }
        let (ended, waiting) =
            (state.at("state").at("terminated"), state.at("state").at("waiting").text("reason"));
        if !ended.is_null() && ended.int("exitCode").unwrap_or_default() == 0 {
            continue;
        }
        if sidecar && state.flag("started") {
            init.ready += usize::from(state.flag("ready"));
            continue;
        }
        init.reason = Some(if !ended.is_null() {
            format!("Init:{}", ended_reason(ended))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", containers.len())
        });
        break;
    }
    init
}

/// Why a container ended.
fn ended_reason(ended: &Value) -> String {
    let signal = ended.int("signal").unwrap_or_default();
    match ended.text("reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", ended.int("exitCode").unwrap_or_default()),
        reason => reason.to_owned(),
    }
}

/// Looks through the containers from the last to the first; returns how many are ready.
fn containers(status: &Value, reason: &mut String, restarts: &mut Restarts) -> usize {
    let (mut ready, mut running, mut failed) = (0, false, String::new());
    for state in status.items("containerStatuses").iter().rev() {
        restarts.add(state);
        let (ended, waiting) =
            (state.at("state").at("terminated"), state.at("state").at("waiting").text("reason"));
        if !waiting.is_empty() {
            waiting.clone_into(reason);
        } else if !ended.is_null() {
            *reason = ended_reason(ended);
            if ended.int("exitCode").unwrap_or_default() != 0 {
                failed.clone_from(reason);
            }
        } else if state.flag("ready") && state.at("state").has("running") {
            running = true;
            ready += 1;
        }
    }
    if reason == "Completed" {
        if running && condition(status, "Ready") {
            "Running".clone_into(reason);
        } else if !failed.is_empty() {
            *reason = failed;
        } else if running {
            "NotReady".clone_into(reason);
        }
    }
    ready
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = spec.items("readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| condition(status, gate.text("conditionType"))).count();
    format!("{open}/{}", gates.len())
}
