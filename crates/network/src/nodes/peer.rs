//! What a Node object says about the way to its pods.
//!
//! Pure. Knows the Node's fields and nothing of devices or routes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

use crate::options::gateway;

/// A node: where its packets go, and which pods are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its own addresses in the order it gives them.
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses of its pods, at most one range a family; the first is primary.
    pub(crate) networks: Vec<IpNet>,
}

/// Nodes by name.
pub(crate) type Peers = BTreeMap<String, Peer>;

impl Peer {
    /// What the object says; `None` while it lacks a pod network or an address.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let networks = pod_networks(node);
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = listed.filter(|address| address.type_ == "InternalIP");
        let addresses: Vec<IpAddr> =
            internal.filter_map(|address| address.address.parse().ok()).collect();
        (!networks.is_empty() && !addresses.is_empty()).then_some(Self { addresses, networks })
    }

    /// The gateway of its pods in the family of `like`.
    pub(crate) fn gateway(&self, like: IpAddr) -> Option<IpAddr> {
        let of_family = |network: &&IpNet| network.addr().is_ipv4() == like.is_ipv4();
        self.networks.iter().find(of_family).map(|network| gateway(*network))
    }
}

/// `spec.podCIDRs`, or the older `spec.podCIDR`; what cannot be read is left out.
pub(crate) fn pod_networks(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = match &spec.pod_cidrs {
        Some(all) if !all.is_empty() => all.as_slice(),
        _ => spec.pod_cidr.as_slice(),
    };
    all.iter().filter_map(|text| text.parse().ok()).map(|network: IpNet| network.trunc()).collect()
}

/// The hardware address of the node's end of the network that joins nodes.
///
/// Derived, so that whoever knows the node's pod network knows it. The ranges of a cluster's nodes
/// differ within the last 16 bits of their prefixes.
pub(crate) fn hardware_address(network: IpNet) -> [u8; 6] {
    let tail = match network {
        IpNet::V4(network) => u32::from(network.network()),
        IpNet::V6(network) => {
            let host_bits = 128 - u32::from(network.prefix_len());
            let prefix = u128::from(network.network()).checked_shr(host_bits).unwrap_or(0);
            (prefix & u128::from(u32::MAX)) as u32
        }
    };
    let [a, b, c, d] = tail.to_be_bytes();
    [0x0a, 0x5a, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn peer(node: serde_json::Value) -> Option<Peer> {
        Peer::of(&serde_json::from_value(node).expect("node"))
    }

    #[test]
    fn nodes_are_read() {
        let address = |kind, text| json!({"type": kind, "address": text});
        let addresses = json!([
            address("Hostname", "n"),
            address("InternalIP", "192.0.2.1"),
            address("ExternalIP", "198.51.100.1"),
            address("InternalIP", "2001:db8::1"),
        ]);
        let full = peer(json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
            "status": {"addresses": addresses},
        }))
        .expect("complete");
        assert_eq!(full.addresses.len(), 2);
        let gateway = |like: &str| full.gateway(like.parse().expect("address"));
        assert_eq!(gateway("192.0.2.9").expect("IPv4").to_string(), "10.244.1.1");
        assert_eq!(gateway("::1").expect("IPv6").to_string(), "fd00:10:244:1::1");
        let one = json!({"spec": {"podCIDR": "10.244.1.7/24"}, "status": {"addresses": addresses}});
        assert_eq!(peer(one).expect("complete").networks[0].to_string(), "10.244.1.0/24");
        assert_eq!(peer(json!({"spec": {}, "status": {"addresses": addresses}})), None);
        assert_eq!(peer(json!({"spec": {"podCIDR": "10.244.1.0/24"}})), None);
    }

    #[test]
    fn hardware_addresses_differ() {
        let hardware = |text: &str| hardware_address(text.parse().expect("network"));
        assert_eq!(hardware("10.244.3.0/24"), [0x0a, 0x5a, 10, 244, 3, 0]);
        assert_eq!(hardware("fd00:10:244:3::/64"), [0x0a, 0x5a, 2, 0x44, 0, 3]);
        assert_eq!(hardware("fd00:10:244:3:100::/72"), [0x0a, 0x5a, 0x44, 0, 3, 1]);
    }
}
