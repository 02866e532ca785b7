//! Links: the few rtnetlink(7) requests about devices that the pod network needs.
//!
//! Knows the kernel's structures and nothing of pods.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::{errno::Errno, libc};

use super::{Message, NetlinkError, Reply, Socket, attribute, u32_at};

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
pub(super) const UP: u32 = libc::IFF_UP as u32;

/// `VETH_INFO_PEER` of linux/veth.h.
pub(super) const VETH_INFO_PEER: u16 = 1;
/// Attributes of `IFLA_INFO_SLAVE_DATA` for ports of a bridge (linux/if_link.h).
const BRIDGE_PORT_HAIRPIN: u16 = 4;
/// `IFLA_INFO_SLAVE_KIND` and `IFLA_INFO_SLAVE_DATA`.
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;

/// `IFLA_OPERSTATE` and its value `IF_OPER_UP`.
const OPERATIONAL_STATE: u16 = 16;
const OPERATIONAL: u8 = 6;
/// How long a device that was brought up may take to carry packets.
const OPERATIONAL_WAIT: Duration = Duration::from_secs(1);

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A network device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    /// Whether it carries packets.
    pub(crate) operational: bool,
    pub(crate) mtu: u32,
    pub(crate) address: Option<Mac>,
    /// Index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// `bridge`, `veth`, …; empty for hardware.
    pub(crate) kind: String,
}

/// How to make one pair of virtual Ethernet devices.
pub(crate) struct VethPair<'a> {
    /// Name of the end that stays here.
    pub(crate) host: &'a str,
    /// Index of the bridge the host's end joins.
    pub(crate) bridge: u32,
    /// Name of the other end.
    pub(crate) peer: &'a str,
    /// Hardware address of the other end.
    pub(crate) peer_address: Mac,
    /// Network namespace of the other end.
    pub(crate) peer_netns: BorrowedFd<'a>,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
}

/// The device called `name`, if there is one.
pub(crate) fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let what = format!("look up device {name}");
    let request = Message::new(libc::RTM_GETLINK, 0)
        .fixed(&interface(0, 0, 0))
        .string(libc::IFLA_IFNAME, name);
    match socket.query(&what, request) {
        Ok(replies) => Ok(replies.iter().find_map(parse_link)),
        Err(NetlinkError { errno: Errno::ENODEV, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every device.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let request = Message::new(libc::RTM_GETLINK, 0).fixed(&interface(0, 0, 0));
    Ok(socket.dump("list devices", request)?.iter().filter_map(parse_link).collect())
}

/// Makes a bridge with a fixed hardware address, up. One that exists is left as it is.
///
/// The address is fixed because a bridge otherwise takes the lowest of its ports', and pods would
/// lose their gateway for seconds whenever that changes.
pub(crate) fn add_bridge(
    socket: &mut Socket,
    name: &str,
    address: Mac,
    mtu: u32,
) -> Result<(), NetlinkError> {
    let request = Message::new(libc::RTM_NEWLINK, CREATE)
        .fixed(&interface(0, UP, UP))
        .string(libc::IFLA_IFNAME, name)
        .attribute(libc::IFLA_ADDRESS, &address)
        .number(libc::IFLA_MTU, mtu)
        .nested(libc::IFLA_LINKINFO, |info| info.string(libc::IFLA_INFO_KIND, "bridge"));
    socket.call_unless(&format!("create bridge {name}"), &[Errno::EEXIST], request)
}

/// Makes the pair: the host's end up and a port of the bridge, the peer still down (it cannot be
/// opened before its creation is complete).
///
/// The port may send a frame back where it came from: where the kernel filters bridged traffic,
/// that is how a pod reaches itself through a Service. For the same reason ports are not isolated
/// from each other: such a kernel bridges what it has translated.
pub(crate) fn add_veth(socket: &mut Socket, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
    let peer_netns = pair.peer_netns.as_raw_fd().cast_unsigned();
    let request = Message::new(libc::RTM_NEWLINK, CREATE)
        .fixed(&interface(0, UP, UP))
        .string(libc::IFLA_IFNAME, pair.host)
        .number(libc::IFLA_MTU, pair.mtu)
        .number(libc::IFLA_MASTER, pair.bridge)
        .nested(libc::IFLA_LINKINFO, |info| {
            info.string(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.fixed(&interface(0, 0, 0))
                        .string(libc::IFLA_IFNAME, pair.peer)
                        .attribute(libc::IFLA_ADDRESS, &pair.peer_address)
                        .number(libc::IFLA_MTU, pair.mtu)
                        .number(libc::IFLA_NET_NS_FD, peer_netns)
                })
            })
        });
    socket.call(&format!("create device pair {} and {}", pair.host, pair.peer), request)?;
    let port = Message::new(libc::RTM_NEWLINK, 0)
        .fixed(&interface(0, 0, 0))
        .string(libc::IFLA_IFNAME, pair.host)
        .nested(libc::IFLA_LINKINFO, |info| {
            info.string(INFO_SLAVE_KIND, "bridge")
                .nested(INFO_SLAVE_DATA, |data| data.attribute(BRIDGE_PORT_HAIRPIN, &[1]))
        });
    socket.call(&format!("set up bridge port {}", pair.host), port)
}

/// Brings a device up.
pub(crate) fn set_up(
    socket: &mut Socket,
    index: u32,
    mtu: Option<u32>,
) -> Result<(), NetlinkError> {
    let mut request = Message::new(libc::RTM_NEWLINK, 0).fixed(&interface(index, UP, UP));
    if let Some(mtu) = mtu {
        request = request.number(libc::IFLA_MTU, mtu);
    }
    socket.call(&format!("bring device {index} up"), request)
}

/// Waits until a device that was brought up carries packets; gives up silently after a second.
///
/// The kernel finishes in the background, and until then drops what is sent: also the first
/// question for a new pod's hardware address, which is repeated only a second later.
pub(crate) fn wait_operational(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let began = Instant::now();
    // Asking makes newer kernels finish at once.
    while link(socket, name)?.is_some_and(|link| !link.operational)
        && began.elapsed() < OPERATIONAL_WAIT
    {
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// Deletes the device called `name`; nothing happens if there is none.
pub(crate) fn delete_link(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let request = Message::new(libc::RTM_DELLINK, 0)
        .fixed(&interface(0, 0, 0))
        .string(libc::IFLA_IFNAME, name);
    socket.call_unless(&format!("delete device {name}"), &[Errno::ENODEV], request)
}

/// `struct ifinfomsg`.
pub(super) fn interface(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

pub(super) fn parse_link(reply: &Reply) -> Option<Link> {
    if reply.kind != libc::RTM_NEWLINK {
        return None;
    }
    let rest = reply.body.get(16..)?;
    let name = attribute(rest, libc::IFLA_IFNAME).map(text)?;
    let kind = attribute(rest, libc::IFLA_LINKINFO)
        .and_then(|info| attribute(info, libc::IFLA_INFO_KIND))
        .map(text)
        .unwrap_or_default();
    Some(Link {
        index: u32_at(&reply.body, 4),
        name,
        up: u32_at(&reply.body, 8) & UP != 0,
        operational: attribute(rest, OPERATIONAL_STATE) == Some(&[OPERATIONAL]),
        mtu: attribute(rest, libc::IFLA_MTU).map_or(0, |value| u32_at(value, 0)),
        address: attribute(rest, libc::IFLA_ADDRESS).and_then(|value| value.try_into().ok()),
        master: attribute(rest, libc::IFLA_MASTER).map(|value| u32_at(value, 0)),
        kind,
    })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
