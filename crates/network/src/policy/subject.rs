//! A pod as policies see it: labels, addresses, named ports, and whether it lives here.
//!
//! Pure. Host-network pods, finished pods and pods without an address are nobody: their traffic is
//! the node's, or none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};

use super::model::protocol;
use crate::ruleset::Protocol;

/// Annotation by which the kubelet's own pods are known to the runtime, other than by their uid.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// Labels of a pod or namespace.
pub(crate) type Labels = BTreeMap<String, String>;

/// Addresses that this node's network has given to a pod, before the API knows of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty if the runtime does not tell.
    #[serde(default)]
    pub(crate) uid: String,
    /// The node's end of the pod's device pair.
    pub(crate) device: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What is known of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The names under which the runtime may know it.
    pub(crate) uids: Vec<String>,
    pub(crate) node: String,
    pub(crate) labels: Labels,
    /// As its status says.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: BTreeSet<(Protocol, String, u16)>,
    /// Deleted in the API, while its containers may still run: no peer, but policed.
    pub(crate) ghost: bool,
}

impl Facts {
    /// `None` for those that have no network of their own, any more.
    pub(crate) fn read(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if spec.host_network == Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let metadata = &pod.metadata;
        let hash = metadata.annotations.as_ref().and_then(|all| all.get(CONFIG_HASH));
        let restarts = |policy: &Option<String>| policy.as_deref() == Some("Always");
        let sidecars =
            spec.init_containers.iter().flatten().filter(|one| restarts(&one.restart_policy));
        let ports = spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                let number = u16::try_from(port.container_port).ok()?;
                Some((protocol(port.protocol.as_deref())?, port.name.clone()?, number))
            })
            .collect();
        Some(Self {
            uids: metadata.uid.iter().chain(hash).cloned().collect(),
            node: spec.node_name.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            addresses: pod.status.as_ref().map(addresses).unwrap_or_default(),
            ports,
            ghost: false,
        })
    }

    /// Whether `attachment` was made for this pod and not for a namesake.
    pub(crate) fn has(&self, attachment: &Attachment) -> bool {
        attachment.uid.is_empty() || self.uids.contains(&attachment.uid)
    }
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut found: Vec<IpAddr> =
        all.chain(status.pod_ip.as_deref()).filter_map(|text| text.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}
