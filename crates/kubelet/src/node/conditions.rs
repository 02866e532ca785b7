//! The node's conditions, from figures. Pure.

use cri::v1;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::Time};

/// Free memory below which the node is under pressure, bytes (upstream's default).
const MEMORY: i64 = 100 << 20;
/// Free share of the disk below which the node is under pressure, per cent (upstream's default).
const DISK: i64 = 10;

/// What the conditions follow from.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) memory_available: i64,
    pub(super) disk_size: i64,
    pub(super) disk_free: i64,
    pub(super) pids: i64,
    pub(super) pids_max: i64,
    /// Why the runtime is not ready, if it is not.
    pub(super) runtime_problem: Option<String>,
}

/// Why a runtime cannot run pods, in upstream's words.
pub(super) fn runtime_problem(status: &v1::RuntimeStatus) -> Option<String> {
    let failing = |kind: &str, what: &str| {
        let condition = status.conditions.iter().find(|c| c.r#type == kind);
        match condition {
            Some(c) if c.status => None,
            Some(c) => Some(format!(
                "container runtime {what}not ready: {kind}=false reason:{} message:{}",
                c.reason, c.message
            )),
            None => Some(format!("container runtime {what}not ready: {kind} is unknown")),
        }
    };
    failing("RuntimeReady", "").or_else(|| failing("NetworkReady", "network "))
}

/// The four conditions; transition times are kept from `before` where the status is the same.
pub(super) fn conditions(
    figures: &Figures,
    before: &[api::NodeCondition],
    now: Timestamp,
) -> Vec<api::NodeCondition> {
    let memory = figures.memory_available < MEMORY;
    let disk = figures.disk_size > 0 && figures.disk_free * 100 / figures.disk_size.max(1) < DISK;
    let pids = figures.pids_max > 0 && figures.pids * 10 > figures.pids_max * 9;
    let pressure = |kind: &str, under: bool, yes: (&str, &str), no: (&str, &str)| {
        let (reason, message) = if under { yes } else { no };
        (kind.to_owned(), under, reason.to_owned(), message.to_owned())
    };
    let ready = match &figures.runtime_problem {
        None => (
            "Ready".to_owned(),
            true,
            "KubeletReady".to_owned(),
            "kubelet is posting ready status".to_owned(),
        ),
        Some(problem) => ("Ready".to_owned(), false, "KubeletNotReady".to_owned(), problem.clone()),
    };
    let all = [
        pressure(
            "MemoryPressure",
            memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ];
    all.into_iter()
        .map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" }.to_owned();
            let since = before.iter().find(|c| c.type_ == kind && c.status == status);
            let last_transition_time =
                since.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now)));
            api::NodeCondition {
                type_: kind,
                status,
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_network_makes_the_node_not_ready() {
        let condition = |kind: &str, status| v1::RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            reason: "NetworkPluginNotReady".to_owned(),
            message: "cni plugin not initialized".to_owned(),
        };
        let status = v1::RuntimeStatus {
            conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", false)],
        };
        let problem = runtime_problem(&status);
        assert_eq!(
            problem.as_deref(),
            Some(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                 message:cni plugin not initialized"
            )
        );
        let now = Timestamp::UNIX_EPOCH;
        let figures =
            Figures { memory_available: 1 << 30, runtime_problem: problem, ..Default::default() };
        let all = conditions(&figures, &[], now);
        let status = |kind: &str| all.iter().find(|c| c.type_ == kind).unwrap().status.clone();
        assert_eq!((status("Ready"), status("MemoryPressure")), ("False".into(), "False".into()));
        let low = Figures { memory_available: 1 << 20, ..Default::default() };
        assert!(
            conditions(&low, &all, now)
                .iter()
                .any(|c| c.type_ == "MemoryPressure" && c.status == "True")
        );
    }
}
