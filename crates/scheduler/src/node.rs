//! What scheduling needs to know of a node: what its object says, and what its pods take.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;

/// What a node's object says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What pods may take in all.
    pub allocatable: Resources,
    /// How many pods it runs at most.
    pub max_pods: i64,
}

impl NodeFacts {
    /// Parses a node.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let max_pods = allocatable
            .and_then(|list| list.get("pods"))
            .and_then(|quantity| quantity.0.parse::<meta::Quantity>().ok());
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: Resources::parse(allocatable),
            max_pods: max_pods.map_or(0, |quantity| quantity.value()),
        }
    }

    /// Value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// A node with what its pods take, pods on their way to it included.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// What its object says.
    pub facts: NodeFacts,
    /// Sum of its pods' requests.
    pub requested: Resources,
    /// The same in the measure by which nodes are compared.
    pub assumed: Resources,
    /// How many pods it has.
    pub pods: i64,
    /// Ports its pods take.
    pub host_ports: Vec<HostPort>,
}

impl NodeInfo {
    /// A node without pods.
    #[must_use]
    pub fn new(facts: NodeFacts) -> Self {
        Self { facts, ..Self::default() }
    }

    /// Counts a pod in.
    pub fn add(&mut self, pod: &PodInfo) {
        self.requested.add(&pod.wants.requests);
        self.assumed.add(&pod.wants.assumed);
        self.pods += 1;
        self.host_ports.extend(pod.wants.host_ports.iter().cloned());
    }

    /// Counts a pod out.
    pub fn remove(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.wants.requests);
        self.assumed.subtract(&pod.wants.assumed);
        self.pods -= 1;
        for port in &pod.wants.host_ports {
            if let Some(at) = self.host_ports.iter().position(|one| one == port) {
                self.host_ports.swap_remove(at);
            }
        }
    }
}
