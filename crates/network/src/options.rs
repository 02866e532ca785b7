//! What the parts of a node's network agree on: names, address ranges, places on disk.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net};

/// How packets get from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Within UDP packets between the nodes' addresses: works wherever nodes reach each other.
    Vxlan {
        /// Number of the network, below 2^24; the same on all nodes.
        id: u32,
        /// UDP port, the same on all nodes.
        port: u16,
    },
    /// As they are, with the node as next hop: needs nodes on one network segment.
    HostGateway,
}

/// One node's network. The same options go to [`crate::setup()`], [`crate::cni::install`],
/// [`crate::Proxy`] and [`crate::cleanup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of pods on this node, at most one range a family, the primary one first; the first
    /// address of each is the bridge's, the pods' gateway.
    pub pod_networks: Vec<IpNet>,
    /// Addresses of pods on all nodes, at most one range a family.
    pub cluster_networks: Vec<IpNet>,
    /// Addresses of Services, at most one range a family.
    pub service_networks: Vec<IpNet>,
    /// The node's own addresses, at most one a family; other nodes send to the first. Empty: that
    /// of the default route's device.
    pub node_addresses: Vec<IpAddr>,
    /// How packets get to other nodes.
    pub backend: Backend,
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Name of the nftables table (family `inet`) that holds everything of ours.
    pub table: String,
    /// Largest packet of pods in bytes; `None` takes what the device between nodes carries, less
    /// what the backend adds.
    pub mtu: Option<u32>,
    /// Directory for address leases and what `cleanup` restores. Ours alone.
    pub data_dir: PathBuf,
    /// Whether [`crate::Policy`] runs on this node: new pods wait for it.
    pub policy: bool,
    /// The `nft` program.
    pub nft: PathBuf,
    /// The one bit of the packet mark that means "masquerade on the way out".
    pub masquerade_mark: u32,
    /// Addresses of the node that offer node ports; all of them if empty.
    pub node_port_addresses: Vec<IpNet>,
    /// Port at which load balancers ask whether the node is well; none if 0.
    pub health_port: u16,
}

impl NetworkOptions {
    /// Options with the usual names, ranges of a first node and state below `data_dir`.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let net =
            |a, b, length| vec![Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length).into()];
        Self {
            node_name: node_name.into(),
            pod_networks: net(10, 244, 24),
            cluster_networks: net(10, 244, 16),
            service_networks: net(10, 96, 12),
            node_addresses: Vec::new(),
            backend: Backend::Vxlan { id: 1, port: 8472 },
            bridge: "skiff0".to_owned(),
            table: "skiff".to_owned(),
            mtu: None,
            data_dir: data_dir.into(),
            policy: false,
            nft: "nft".into(),
            masquerade_mark: 0x4000,
            node_port_addresses: Vec::new(),
            health_port: 10_256,
        }
    }

    /// The bridge's addresses, the pods' gateways: the first of each range.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.pod_networks.iter().map(|network| gateway(*network)).collect()
    }

    /// Name of the VXLAN device: the bridge's without its number, and the network's number.
    pub(crate) fn overlay_device(&self) -> String {
        let id = match self.backend {
            Backend::Vxlan { id, .. } => id,
            Backend::HostGateway => 0,
        };
        overlay_name(&self.bridge, id)
    }

    /// Where address leases are kept.
    pub(crate) fn leases_dir(&self) -> PathBuf {
        self.data_dir.join("leases")
    }
}

/// Longest name of a device, in bytes (`IFNAMSIZ` without the NUL).
pub(crate) const DEVICE_NAME_BYTES: usize = 15;

/// What the names of VXLAN devices that go with a bridge begin with.
fn overlay_stem(bridge: &str) -> &str {
    bridge.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Name of the VXLAN device of a network's number that goes with a bridge.
pub(crate) fn overlay_name(bridge: &str, id: u32) -> String {
    let number = format!(".{id}");
    let room = DEVICE_NAME_BYTES.saturating_sub(number.len());
    let stem = overlay_stem(bridge);
    format!("{}{number}", stem.get(..room).unwrap_or(stem))
}

/// An address as a number, whatever its family.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address at a distance from the beginning of a range; its end where the range is smaller.
pub(crate) fn address_at(network: IpNet, offset: u32) -> IpAddr {
    let last = number(network.broadcast());
    let found = number(network.network()).saturating_add(u128::from(offset)).min(last);
    match network {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(found).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => std::net::Ipv6Addr::from(found).into(),
    }
}

/// The gateway of a node's pod network: its first address.
pub(crate) fn gateway(network: IpNet) -> IpAddr {
    address_at(network, 1)
}

/// The hardware address that goes with an address on the pod network.
///
/// Derived, so that an address that passes from one pod to the next keeps its hardware address
/// and no neighbour table is ever stale. Addresses on one bridge differ in their last 32 bits.
pub(crate) fn hardware_address(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = (number(address) as u32).to_be_bytes();
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_derived() {
        let mut options = NetworkOptions::new("n", "/nonexistent");
        assert_eq!(options.overlay_device(), "skiff.1");
        options.bridge = "a-rather-long0".to_owned();
        options.backend = Backend::Vxlan { id: 16_777_215, port: 4789 };
        assert_eq!(options.overlay_device(), "a-rath.16777215");
        options.pod_networks.push("fd00:10:244:3::/64".parse().expect("network"));
        let gateways: Vec<String> = options.gateways().iter().map(ToString::to_string).collect();
        assert_eq!(gateways, ["10.244.0.1", "fd00:10:244:3::1"]);
        assert_eq!(hardware_address(options.gateways()[0]), [0x0a, 0x58, 10, 244, 0, 1]);
        assert_eq!(hardware_address(options.gateways()[1]), [0x0a, 0x58, 0, 0, 0, 1]);
        let net = |text: &str| text.parse::<IpNet>().expect("network");
        assert_eq!(address_at(net("10.244.3.0/24"), 300).to_string(), "10.244.3.255");
    }
}
