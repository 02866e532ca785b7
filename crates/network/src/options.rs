//! What the parts of a node's network agree on: names, address ranges, places on disk.

use std::{net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;

/// One node's network. The same options go to [`crate::setup()`], [`crate::cni::install`],
/// [`crate::Proxy`] and [`crate::cleanup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of pods on this node; the first is the bridge's, the pods' gateway.
    pub pod_network: Ipv4Net,
    /// Addresses of pods on all nodes.
    pub cluster_network: Ipv4Net,
    /// Addresses of Services.
    pub service_network: Ipv4Net,
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Name of the nftables table (family `ip`) that holds everything of ours.
    pub table: String,
    /// Largest packet in bytes; `None` takes that of the default route's device, or 1500.
    pub mtu: Option<u32>,
    /// Directory for address leases and what `cleanup` restores. Ours alone.
    pub data_dir: PathBuf,
    /// The `nft` program.
    pub nft: PathBuf,
    /// The one bit of the packet mark that means "masquerade on the way out".
    pub masquerade_mark: u32,
}

impl NetworkOptions {
    /// Options with the usual names, ranges of a first node and state below `data_dir`.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let net = |a, b, length| {
            Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length).expect("prefix lengths are below 33")
        };
        Self {
            node_name: node_name.into(),
            pod_network: net(10, 244, 24),
            cluster_network: net(10, 244, 16),
            service_network: net(10, 96, 12),
            bridge: "skiff0".to_owned(),
            table: "skiff".to_owned(),
            mtu: None,
            data_dir: data_dir.into(),
            nft: "nft".into(),
            masquerade_mark: 0x4000,
        }
    }

    /// The bridge's address: the first of the pods' network.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.pod_network)
    }

    /// Where address leases are kept.
    pub(crate) fn leases_dir(&self) -> PathBuf {
        self.data_dir.join("leases")
    }
}

/// The gateway of a node's pod network: its first address.
pub(crate) fn gateway(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()).wrapping_add(1))
}

/// The hardware address that goes with an address on the pod network.
///
/// Derived, so that an address that passes from one pod to the next keeps its hardware address
/// and no neighbour table is ever stale.
pub(crate) fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}
