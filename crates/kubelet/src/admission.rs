//! Whether this node takes a pod: room, ports, kernel settings. About room and ports the scheduler has decided
//! already; this guards against two schedulers, or none. Pure.

use k8s_openapi::api::core::v1 as api;

use crate::resources;

/// What the node has for pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Thousandths of a core.
    pub(crate) cpu_milli: i64,
    /// Bytes.
    pub(crate) memory: i64,
    /// Number of pods.
    pub(crate) pods: u32,
}

/// Why a pod is refused: the API's reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Why a node that goes down takes nothing any more (upstream's words).
pub(crate) fn going_down() -> Refusal {
    Refusal {
        reason: "NodeShutdown".to_owned(),
        message: "Pod was rejected as the node is shutting down.".to_owned(),
    }
}

/// Decides about `pod` beside the pods that are here.
pub(crate) fn admit<'a>(
    pod: &api::Pod,
    others: impl Iterator<Item = &'a api::Pod> + Clone,
    room: Room,
) -> Result<(), Refusal> {
    sysctls(pod)?;
    let count = i64::try_from(others.clone().count()).unwrap_or(i64::MAX);
    enough("pods", 1, count, i64::from(room.pods))?;
    let used = |name: &str, of: fn(&meta::Quantity) -> i64| -> (i64, i64) {
        let sum = others.clone().map(|other| of(&resources::pod_request(other, name))).sum();
        (of(&resources::pod_request(pod, name)), sum)
    };
    let (wanted, taken) = used("cpu", meta::Quantity::milli_value);
    enough("cpu", wanted, taken, room.cpu_milli)?;
    let (wanted, taken) = used("memory", meta::Quantity::value);
    enough("memory", wanted, taken, room.memory)?;
    let mine = host_ports(pod);
    let clash =
        others.flat_map(host_ports).any(|theirs| mine.iter().any(|own| overlap(own, &theirs)));
    if clash {
        return Err(Refusal {
            reason: "NodePorts".to_owned(),
            message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested \
                      pod ports"
                .to_owned(),
        });
    }
    Ok(())
}

fn enough(name: &str, wanted: i64, used: i64, capacity: i64) -> Result<(), Refusal> {
    if wanted == 0 || used.saturating_add(wanted) <= capacity {
        return Ok(());
    }
    Err(Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, \
             capacity: {capacity}"
        ),
    })
}

/// Settings that concern nobody but the pod (upstream's list).
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Kernel settings must be safe, and of a namespace that is the pod's own.
fn sysctls(pod: &api::Pod) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let asked = spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    let forbidden = |text: String| Refusal {
        reason: "SysctlForbidden".to_owned(),
        message: format!("Pod was rejected: forbidden sysctl: {text}"),
    };
    for sysctl in asked {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(forbidden(format!("{name:?} not allowlisted")));
        }
        if name.starts_with("net.") && spec.host_network.unwrap_or(false) {
            return Err(forbidden(format!("{name:?} not allowed with host net enabled")));
        }
        if name.starts_with("kernel.") && spec.host_ipc.unwrap_or(false) {
            return Err(forbidden(format!("{name:?} not allowed with host ipc enabled")));
        }
    }
    Ok(())
}

/// Address, protocol and number of a port on the host.
type HostPort = (String, String, i32);

fn host_ports(pod: &api::Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    sidecars
        .chain(&spec.containers)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let address = port.host_ip.clone().unwrap_or_default();
            Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
        })
        .collect()
}

fn overlap(one: &HostPort, other: &HostPort) -> bool {
    let any = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
    one.1 == other.1 && one.2 == other.2 && (any(&one.0) || any(&other.0) || one.0 == other.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str, host_port: i32) -> api::Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c",
            "ports": [{"containerPort": 80, "hostPort": host_port}],
            "resources": {"requests": {"cpu": cpu}}}]}}),
        )
        .unwrap()
    }

    #[test]
    fn only_safe_sysctls() {
        let room = Room { cpu_milli: 1000, memory: 1 << 30, pods: 2 };
        let check = |name: &str, host_network: bool| {
            let pod = json!({"spec": {"hostNetwork": host_network, "containers": [],
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}});
            let pod: api::Pod = serde_json::from_value(pod).unwrap();
            admit(&pod, std::iter::empty(), room).map_err(|refusal| refusal.message)
        };
        assert_eq!(check("net.ipv4.tcp_syncookies", false), Ok(()));
        assert_eq!(check("net/ipv4/tcp_syncookies", false), Ok(()));
        let not_listed = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        assert_eq!(check("kernel.msgmax", false), Err(not_listed.to_owned()));
        assert!(check("net.ipv4.tcp_syncookies", true).unwrap_err().contains("host net enabled"));
    }

    #[test]
    fn room_and_ports() {
        let room = Room { cpu_milli: 1000, memory: 1 << 30, pods: 2 };
        let one = pod("600m", 8080);
        assert_eq!(admit(&one, std::iter::empty(), room), Ok(()));
        let refusal = admit(&pod("500m", 0), [&one].into_iter(), room).unwrap_err();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert!(
            refusal.message.ends_with("cpu, requested: 500, used: 600, capacity: 1000"),
            "{}",
            refusal.message
        );
        assert_eq!(
            admit(&pod("1m", 8080), [&one].into_iter(), room).unwrap_err().reason,
            "NodePorts"
        );
        assert_eq!(
            admit(&pod("0", 0), [&one, &one].into_iter(), room).unwrap_err().reason,
            "OutOfpods"
        );
    }
}
