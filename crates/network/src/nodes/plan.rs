//! From a node to the kernel's entries that lead to its pods.
//!
//! Pure. Knows the two ways, VXLAN and routers on one segment, and nothing of how entries get into
//! the kernel or of other nodes.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::peer::{Peer, hardware_address};
use crate::{
    netlink::route::Mac,
    options::{Backend, gateway},
};

/// One entry on the device that leads to other nodes. Those of a node are set in this order, and
/// removed in the opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// A hardware address is behind a machine's address.
    Forward(Mac, IpAddr),
    /// An address within the network that joins nodes has a hardware address.
    Neighbour(IpAddr, Mac),
    /// Packets to a range go to a next hop.
    Route {
        /// For packets of pods only, looked at before all others.
        from_pods: bool,
        to: IpNet,
        via: IpAddr,
        /// Source of what the node itself sends.
        source: Option<IpAddr>,
    },
}

/// This node, as far as the way to others depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) node: String,
    pub(crate) backend: Backend,
    /// The address that other nodes send to.
    pub(crate) address: IpAddr,
    /// Ranges that are directly on the device that carries `address`.
    pub(crate) segments: Vec<IpNet>,
    /// Addresses of pods here.
    pub(crate) networks: Vec<IpNet>,
    /// Addresses of pods on all nodes.
    pub(crate) cluster: Vec<IpNet>,
}

/// Why a node's pods cannot be reached.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unreachable {
    #[error("its pod network {0} is not within the cluster's")]
    Foreign(IpNet),
    #[error("its pod network {0} overlaps this node's")]
    Overlap(IpNet),
    #[error("it has no address of the family of {0}, this node's")]
    Family(IpAddr),
    #[error("its address {0} is not on this node's network segment: use --network-backend vxlan")]
    Segment(IpAddr),
}

/// The entries that lead to a node's pods; none for this node itself.
pub(crate) fn plan(here: &Here, name: &str, peer: &Peer) -> Result<BTreeSet<Entry>, Unreachable> {
    if name == here.node {
        return Ok(BTreeSet::new());
    }
    for network in &peer.networks {
        if !here.cluster.iter().any(|cluster| cluster.contains(network)) {
            return Err(Unreachable::Foreign(*network));
        }
        let overlaps = |own: &IpNet| own.contains(network) || network.contains(own);
        if here.networks.iter().any(overlaps) {
            return Err(Unreachable::Overlap(*network));
        }
    }
    match here.backend {
        Backend::Vxlan { .. } => vxlan(here, peer),
        Backend::HostGateway => host_gateway(here, peer),
    }
}

/// Packets go encapsulated to the node. So do those of pods to the node's own addresses: whatever
/// lies between would drop what comes from a pod's address, and the answer comes the same way.
fn vxlan(here: &Here, peer: &Peer) -> Result<BTreeSet<Entry>, Unreachable> {
    let to = of_family(&peer.addresses, here.address).ok_or(Unreachable::Family(here.address))?;
    let Some(primary) = peer.networks.first() else { return Ok(BTreeSet::new()) };
    let hardware = hardware_address(*primary);
    let mut entries = BTreeSet::from([Entry::Forward(hardware, to)]);
    for network in &peer.networks {
        let via = gateway(*network);
        entries.insert(Entry::Neighbour(via, hardware));
        let source = source(here, via);
        entries.insert(Entry::Route { from_pods: false, to: *network, via, source });
    }
    let among_pods = |address: &&IpAddr| here.cluster.iter().any(|pods| pods.contains(*address));
    for address in peer.addresses.iter().filter(|address| !among_pods(address)) {
        if let (Some(via), Some(_)) = (peer.gateway(*address), source(here, *address)) {
            let to = IpNet::from(*address);
            entries.insert(Entry::Route { from_pods: true, to, via, source: None });
        }
    }
    Ok(entries)
}

/// The node is the next hop, in each family in which both have addresses.
fn host_gateway(here: &Here, peer: &Peer) -> Result<BTreeSet<Entry>, Unreachable> {
    let mut entries = BTreeSet::new();
    for network in &peer.networks {
        let Some(source) = source(here, network.addr()) else { continue };
        let via = of_family(&peer.addresses, network.addr())
            .ok_or(Unreachable::Family(network.addr()))?;
        if !here.segments.iter().any(|segment| segment.contains(&via)) {
            return Err(Unreachable::Segment(via));
        }
        entries.insert(Entry::Route { from_pods: false, to: *network, via, source: Some(source) });
    }
    Ok(entries)
}

/// This node's own address among pods, in the family of `like`.
fn source(here: &Here, like: IpAddr) -> Option<IpAddr> {
    let network = here.networks.iter().find(|own| own.addr().is_ipv4() == like.is_ipv4());
    network.map(|network| gateway(*network))
}

fn of_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(backend: Backend, networks: &[&str]) -> Here {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("net")).collect();
        Here {
            node: "a".into(),
            backend,
            address: "192.0.2.1".parse().expect("address"),
            segments: nets(&["192.0.2.1/24"]),
            networks: nets(networks),
            cluster: nets(&["10.244.0.0/16", "fd00:10:244::/48"]),
        }
    }

    fn peer(addresses: &[&str], networks: &[&str]) -> Peer {
        Peer {
            addresses: addresses.iter().map(|text| text.parse().expect("address")).collect(),
            networks: networks.iter().map(|text| text.parse().expect("net")).collect(),
        }
    }

    /// The plan in words.
    fn check(here: &Here, peer: &Peer) -> Vec<String> {
        match plan(here, "b", peer) {
            Err(error) => vec![error.to_string()],
            Ok(entries) => entries.iter().map(word).collect(),
        }
    }

    fn word(entry: &Entry) -> String {
        let mac = |mac: &Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        match entry {
            Entry::Forward(hardware, to) => format!("{} behind {to}", mac(hardware)),
            Entry::Neighbour(address, hardware) => format!("{address} is {}", mac(hardware)),
            Entry::Route { from_pods, to, via, source } => {
                let who = if *from_pods { "pods to" } else { "to" };
                let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
                format!("{who} {to} via {via}{from}")
            }
        }
    }

    const VXLAN: Backend = Backend::Vxlan { id: 1, port: 8472 };

    #[test]
    fn a_node_behind_a_vxlan() {
        let one = here(VXLAN, &["10.244.0.0/24"]);
        assert_eq!(
            check(&one, &peer(&["192.0.2.2"], &["10.244.1.0/24"])),
            [
                "0a:5a:0a:f4:01:00 behind 192.0.2.2",
                "10.244.1.1 is 0a:5a:0a:f4:01:00",
                "to 10.244.1.0/24 via 10.244.1.1 from 10.244.0.1",
                "pods to 192.0.2.2/32 via 10.244.1.1",
            ]
        );
        assert!(plan(&one, "a", &peer(&["192.0.2.1"], &["10.244.1.0/24"])).expect("me").is_empty());
        let both = here(VXLAN, &["10.244.0.0/24", "fd00:10:244::/64"]);
        let far = peer(&["2001:db8::2", "192.0.2.2"], &["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(
            check(&both, &far),
            [
                "0a:5a:0a:f4:01:00 behind 192.0.2.2",
                "10.244.1.1 is 0a:5a:0a:f4:01:00",
                "fd00:10:244:1::1 is 0a:5a:0a:f4:01:00",
                "to 10.244.1.0/24 via 10.244.1.1 from 10.244.0.1",
                "to fd00:10:244:1::/64 via fd00:10:244:1::1 from fd00:10:244::1",
                "pods to 192.0.2.2/32 via 10.244.1.1",
                "pods to 2001:db8::2/128 via fd00:10:244:1::1",
            ]
        );
    }

    #[test]
    fn a_node_on_the_same_segment() {
        let one = here(Backend::HostGateway, &["10.244.0.0/24"]);
        let near = peer(&["192.0.2.2"], &["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(check(&one, &near), ["to 10.244.1.0/24 via 192.0.2.2 from 10.244.0.1"]);
        let far = peer(&["198.51.100.2"], &["10.244.1.0/24"]);
        assert!(check(&one, &far)[0].contains("198.51.100.2 is not on this node's"));
    }

    #[test]
    fn what_would_lead_astray_is_refused() {
        let one = here(VXLAN, &["10.244.0.0/24"]);
        let error = |addresses: &[&str], networks: &[&str]| check(&one, &peer(addresses, networks));
        assert!(error(&["192.0.2.2"], &["0.0.0.0/0"])[0].contains("not within the cluster's"));
        assert!(error(&["192.0.2.2"], &["10.244.0.0/23"])[0].contains("overlaps this node's"));
        assert!(
            error(&["2001:db8::2"], &["10.244.1.0/24"])[0].contains("no address of the family")
        );
    }
}
