//! The device that leads to other nodes: which carries the packets, how large they may be, and the
//! VXLAN device on top of it.
//!
//! Knows the kernel; nothing of which nodes there are.

use std::{fs, net::IpAddr, path::Path};

use ipnet::IpNet;

use super::{peer::hardware_address, plan::Here};
use crate::{
    netlink::{
        NetlinkError, Socket,
        ip::{self, Rule},
        route::{self, Link},
        vxlan::{self, Vxlan},
    },
    options::{Backend, NetworkOptions, gateway, overlay_name},
    setup::SetupError,
};

/// What Ethernet carries when nothing else is known, in bytes.
const ETHERNET_MTU: u32 = 1500;
/// Bytes around a packet within VXLAN: outer IP and UDP header, VXLAN and inner Ethernet header.
const AROUND_V4: u32 = 20 + 8 + 8 + 14;
const AROUND_V6: u32 = 40 + 8 + 8 + 14;
/// The smallest that IPv6 allows (RFC 8200), and that every IPv4 host must accept (RFC 791).
const SMALLEST_V6: u32 = 1280;
const SMALLEST_V4: u32 = 576;

/// The first of the tables that pods' packets look into before others, one a network between
/// nodes, and the place of the rules that say so.
const FROM_PODS_TABLES: u32 = 0x736b_0000;
const FROM_PODS_PRIORITY: u32 = 5000;

/// The device that carries packets between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// The address that other nodes send to; `None` on a machine without any.
    pub(crate) address: Option<IpAddr>,
    /// `None` if the device could not be told.
    pub(crate) device: Option<Link>,
    /// Ranges that are directly on it.
    pub(crate) segments: Vec<IpNet>,
}

impl Underlay {
    /// The device that carries the node's address, or that of the default route.
    pub(crate) fn find(
        socket: &mut Socket,
        options: &NetworkOptions,
    ) -> Result<Self, NetlinkError> {
        let links = route::links(socket)?;
        let ours = [options.bridge.clone(), options.overlay_device()];
        let is_ours =
            |index: u32| links.iter().any(|link| link.index == index && ours.contains(&link.name));
        let mut addresses = ip::addresses(socket)?;
        addresses.retain(|(index, _)| !is_ours(*index));
        let carrier = options.node_addresses.iter().find_map(|wanted| {
            let carries = |(_, found): &&(u32, IpNet)| found.addr() == *wanted;
            addresses.iter().find(carries).map(|(index, _)| *index)
        });
        let index = match carrier {
            Some(index) => Some(index),
            None => ip::default_device(socket)?,
        };
        let device = links.into_iter().find(|link| Some(link.index) == index);
        let on_device = addresses.iter().filter(|(on, _)| Some(*on) == index);
        let segments: Vec<IpNet> = on_device.map(|(_, address)| *address).collect();
        let address = options
            .node_addresses
            .iter()
            .copied()
            .find(|address| segments.iter().any(|segment| segment.addr() == *address))
            .or_else(|| segments.first().map(IpNet::addr));
        Ok(Self { address, device, segments })
    }

    /// The largest packet of pods in bytes, or why there is none.
    pub(crate) fn mtu(&self, options: &NetworkOptions) -> Result<u32, String> {
        let (name, carried) = match &self.device {
            Some(device) => (device.name.as_str(), device.mtu),
            None => ("this machine's network", ETHERNET_MTU),
        };
        // The loopback device carries what no wire does.
        let carried = carried.min(u32::from(u16::MAX));
        let around = match options.backend {
            Backend::HostGateway => 0,
            Backend::Vxlan { .. } if self.address.is_some_and(|address| address.is_ipv6()) => {
                AROUND_V6
            }
            Backend::Vxlan { .. } => AROUND_V4,
        };
        let room = carried.saturating_sub(around);
        let v6 = options.pod_networks.iter().any(|network| network.addr().is_ipv6());
        let smallest = if v6 { SMALLEST_V6 } else { SMALLEST_V4 };
        let mtu = options.mtu.unwrap_or(room);
        if mtu < smallest {
            return Err(format!(
                "packets of pods would be at most {mtu} bytes, and must be at least {smallest}: {name} carries {carried}, of which the network between nodes takes {around}; raise its MTU"
            ));
        }
        if mtu > room {
            return Err(format!(
                "an MTU of {mtu} bytes for pods is too large: {name} carries {carried}, of which the network between nodes takes {around}; use at most {room}"
            ));
        }
        Ok(mtu)
    }
}

/// The way to other nodes, made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// `None` on a machine without an address: no other node can be reached.
    pub(crate) here: Option<Here>,
    /// Index of the device that routes to other nodes lead through; 0 if there is none.
    pub(crate) device: u32,
    /// Index of the device that carries the packets; 0 if there is none.
    pub(crate) underlay: u32,
    /// The underlay's largest packet, in bytes.
    pub(crate) underlay_mtu: u32,
}

/// Makes the device and all that does not depend on other nodes; what is right is left alone.
pub(crate) fn make(
    socket: &mut Socket,
    options: &NetworkOptions,
    underlay: &Underlay,
    mtu: u32,
) -> Result<Way, SetupError> {
    let index = underlay.device.as_ref().map(|device| device.index);
    let mut way = Way {
        here: underlay.address.map(|address| Here {
            node: options.node_name.clone(),
            backend: options.backend,
            address,
            segments: underlay.segments.clone(),
            networks: options.pod_networks.clone(),
            cluster: options.cluster_networks.clone(),
        }),
        device: 0,
        underlay: index.unwrap_or(0),
        underlay_mtu: underlay.device.as_ref().map_or(0, |device| device.mtu),
    };
    match (options.backend, underlay.address) {
        (Backend::Vxlan { id, port }, Some(local)) => {
            let name = options.overlay_device();
            let hardware =
                options.pod_networks.first().map_or([0; 6], |network| hardware_address(*network));
            let vxlan = Vxlan { name: &name, id, port, local, underlay: index, hardware, mtu };
            way.device = make_vxlan(socket, options, &vxlan)?;
        }
        _ => {
            remove_all(socket, options)?;
            way.device = way.underlay;
        }
    }
    Ok(way)
}

fn make_vxlan(
    socket: &mut Socket,
    options: &NetworkOptions,
    vxlan: &Vxlan<'_>,
) -> Result<u32, SetupError> {
    if !vxlan::is_like(socket, vxlan)? {
        route::delete_link(socket, vxlan.name)?;
        vxlan::add_vxlan(socket, vxlan).map_err(|error| taken(error, vxlan))?;
    }
    let link = route::link(socket, vxlan.name)?
        .ok_or_else(|| SetupError::Option(format!("device {} vanished", vxlan.name)))?;
    if !link.up || link.mtu != vxlan.mtu {
        route::set_up(socket, link.index, Some(vxlan.mtu))?;
    }
    let wanted: Vec<IpNet> =
        options.pod_networks.iter().map(|network| IpNet::from(gateway(*network))).collect();
    keep_addresses(socket, link.index, &wanted)?;
    // A program of the node that asks 127.0.0.1 for a node port may be led to another node's pod, and
    // answers come back this way. Nothing but the pod network arrives here.
    let local = Path::new("/proc/sys/net/ipv4/conf").join(vxlan.name).join("route_localnet");
    fs::write(&local, "1")
        .map_err(|source| SetupError::Sysctl { name: local.display().to_string(), source })?;
    for network in &options.pod_networks {
        if let Err(error) = ip::add_rule(socket, &rule(options, network.addr().is_ipv6())) {
            tracing::warn!(
                %error,
                "packets of pods to other nodes' own addresses leave under this node's address"
            );
        }
    }
    Ok(link.index)
}

/// A second network with the same number and port cannot be on one machine.
fn taken(error: NetlinkError, vxlan: &Vxlan<'_>) -> SetupError {
    match error.errno {
        nix::errno::Errno::EEXIST | nix::errno::Errno::EADDRINUSE => SetupError::Option(format!(
            "another VXLAN device of this machine has id {} and UDP port {} (see `ip -d link show type vxlan`): choose others with --vxlan-id and --vxlan-port",
            vxlan.id, vxlan.port
        )),
        nix::errno::Errno::EOPNOTSUPP => SetupError::Option(
            "the kernel has no VXLAN: use --network-backend host-gw if all nodes share a segment"
                .to_owned(),
        ),
        _ => error.into(),
    }
}

/// Gives a device these addresses and takes all others.
pub(crate) fn keep_addresses(
    socket: &mut Socket,
    index: u32,
    wanted: &[IpNet],
) -> Result<(), NetlinkError> {
    let present: Vec<IpNet> = ip::addresses(socket)?
        .into_iter()
        .filter(|(on, _)| *on == index)
        .map(|(_, address)| address)
        .collect();
    for address in wanted.iter().filter(|address| !present.contains(address)) {
        ip::add_address(socket, index, *address)?;
    }
    for address in present.iter().filter(|address| !wanted.contains(address)) {
        ip::remove_address(socket, index, *address)?;
    }
    Ok(())
}

/// Removes VXLAN devices that go with the bridge, whatever their number, and the rules that send
/// pods' packets there.
pub(crate) fn remove_all(
    socket: &mut Socket,
    options: &NetworkOptions,
) -> Result<(), NetlinkError> {
    for v6 in [false, true] {
        ip::remove_rule(socket, &rule(options, v6))?;
    }
    let goes_with = |link: &&Link| {
        let id = link.name.rsplit_once('.').and_then(|(_, id)| id.parse().ok());
        link.kind == "vxlan" && id.is_some_and(|id| overlay_name(&options.bridge, id) == link.name)
    };
    for link in route::links(socket)?.iter().filter(goes_with) {
        route::delete_link(socket, &link.name)?;
    }
    Ok(())
}

/// The table that pods' packets look into first.
pub(crate) fn from_pods_table(options: &NetworkOptions) -> u32 {
    match options.backend {
        Backend::Vxlan { id, .. } => FROM_PODS_TABLES | (id & 0xffff),
        Backend::HostGateway => FROM_PODS_TABLES,
    }
}

fn rule(options: &NetworkOptions, v6: bool) -> Rule<'_> {
    let table = from_pods_table(options);
    Rule { v6, input: &options.bridge, table, priority: FROM_PODS_PRIORITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mtu: u32, address: &str, change: fn(&mut NetworkOptions)) -> Result<u32, String> {
        let mut options = NetworkOptions::new("a", "/nonexistent");
        change(&mut options);
        let device = Link {
            index: 2,
            name: "eth0".into(),
            up: true,
            operational: true,
            mtu,
            address: None,
            master: None,
            kind: String::new(),
        };
        let address = Some(address.parse().expect("address"));
        Underlay { address, device: Some(device), segments: Vec::new() }.mtu(&options)
    }

    fn host_gateway(options: &mut NetworkOptions) {
        options.backend = Backend::HostGateway;
    }

    #[test]
    fn packets_are_as_large_as_fits() {
        assert_eq!(check(1500, "192.0.2.1", |_| ()), Ok(1450));
        assert_eq!(check(1500, "2001:db8::1", |_| ()), Ok(1430));
        assert_eq!(check(9000, "192.0.2.1", host_gateway), Ok(9000));
        assert_eq!(check(65_536, "127.0.0.1", host_gateway), Ok(65_535));
        assert_eq!(check(1500, "192.0.2.1", |options| options.mtu = Some(1400)), Ok(1400));
    }

    #[test]
    fn packets_that_do_not_fit_are_refused() {
        let error =
            check(1500, "192.0.2.1", |options| options.mtu = Some(1500)).expect_err("large");
        assert!(
            error.contains("eth0 carries 1500") && error.ends_with("use at most 1450"),
            "{error}"
        );
        let error = check(1300, "192.0.2.1", |options| {
            options.pod_networks.push("fd00::/64".parse().expect("network"));
        })
        .expect_err("small");
        assert!(error.contains("at most 1250 bytes, and must be at least 1280"), "{error}");
        assert!(check(500, "192.0.2.1", host_gateway).is_err());
    }
}
