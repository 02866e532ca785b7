//! What scheduling needs to know of a pod, parsed once. Knows no node.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodSpec, Toleration};

use crate::affinity::Term;
use crate::resources::{Resources, assumed_requests, requests};

/// `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey(Arc<str>);

impl PodKey {
    /// A key from its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pod, as far as scheduling goes.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: PodKey,
    /// Uid: a new pod of the same name is another pod.
    pub uid: Arc<str>,
    /// `metadata.generation`, repeated in conditions.
    pub generation: Option<i64>,
    /// The node it is bound to.
    pub node: Option<Arc<str>>,
    /// Whether it has ended, for better or worse.
    pub finished: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The scheduler it asks for.
    pub scheduler: Arc<str>,
    /// Reason and message of its `PodScheduled` condition while that is false.
    pub unscheduled: Option<(String, String)>,
    /// What it asks of a node.
    pub wants: Wants,
}

/// What a pod asks of its node: as long as this stays, so does the verdict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    /// Higher goes first.
    pub priority: i32,
    /// What it takes.
    pub requests: Resources,
    /// What it counts as where nodes are compared.
    pub assumed: Resources,
    /// Ports of the node's own addresses.
    pub host_ports: Vec<HostPort>,
    /// Names of what must be taken off before it may be scheduled.
    pub gates: Vec<String>,
    /// Taints it bears.
    pub tolerations: Vec<Toleration>,
    /// Labels the node must have.
    pub node_selector: Vec<(String, String)>,
    /// Required affinity: at least one must match; `None` is no requirement.
    pub required: Option<Vec<Term>>,
    /// Preferred affinity with weights.
    pub preferred: Vec<(i64, Term)>,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address; `0.0.0.0` is all of them.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ALL || other.address == ALL)
    }
}

impl PodInfo {
    /// Parses a pod.
    #[must_use]
    pub fn new(pod: &Pod) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let condition = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|list| list.iter().find(|one| one.type_ == "PodScheduled"))
            .filter(|one| one.status == "False");
        Self {
            key: PodKey::new(&text(&pod.metadata.namespace), &text(&pod.metadata.name)),
            uid: text(&pod.metadata.uid).into(),
            generation: pod.metadata.generation,
            node: spec
                .and_then(|spec| spec.node_name.as_deref())
                .filter(|name| !name.is_empty())
                .map(Into::into),
            finished: matches!(phase, "Succeeded" | "Failed"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            scheduler: spec
                .and_then(|spec| spec.scheduler_name.as_deref())
                .unwrap_or("default-scheduler")
                .into(),
            unscheduled: condition.map(|one| (text(&one.reason), text(&one.message))),
            wants: spec.map(wants).unwrap_or_default(),
        }
    }

    /// How events refer to it.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.key.namespace().to_owned()),
            name: Some(self.key.name().to_owned()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

/// Of a pod that has its node only what it takes there is worth keeping.
fn wants(spec: &PodSpec) -> Wants {
    if spec.node_name.as_deref().is_none_or(str::is_empty) {
        return Wants::new(spec);
    }
    Wants {
        priority: spec.priority.unwrap_or(0),
        requests: requests(spec),
        assumed: assumed_requests(spec),
        host_ports: host_ports(spec),
        ..Wants::default()
    }
}

impl Wants {
    /// Parses what a pod without a node asks of one.
    #[must_use]
    pub fn new(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity
            .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|selector| selector.node_selector_terms.iter().map(Term::new).collect());
        let preferred = affinity
            .and_then(|node| node.preferred_during_scheduling_ignored_during_execution.as_ref());
        let preferred = preferred
            .into_iter()
            .flatten()
            .filter(|one| one.weight != 0)
            .map(|one| (i64::from(one.weight), Term::new(&one.preference)))
            .filter(|(_, term)| !term.is_empty())
            .collect();
        Self {
            priority: spec.priority.unwrap_or(0),
            requests: requests(spec),
            assumed: assumed_requests(spec),
            host_ports: host_ports(spec),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec
                .node_selector
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            required,
            preferred,
        }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            Some(HostPort {
                address: address.unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_conflict_on_common_addresses() {
        let port = |address: &str, protocol: &str, port| HostPort {
            address: address.to_owned(),
            protocol: protocol.to_owned(),
            port,
        };
        assert!(port("0.0.0.0", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("10.0.0.2", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("0.0.0.0", "UDP", 80).conflicts(&port("0.0.0.0", "TCP", 80)));
        assert!(!port("0.0.0.0", "TCP", 81).conflicts(&port("0.0.0.0", "TCP", 80)));
    }
}
