//! A VXLAN device and whom it reaches: forwarding entries (hardware address to machine) and
//! permanent neighbours (address to hardware address).
//!
//! Knows the kernel's structures and nothing of nodes.

use std::net::IpAddr;

use nix::{errno::Errno, libc};

use super::{
    Message, NetlinkError, Reply, Socket, attribute,
    ip::{address, family, octets},
    route::{Mac, UP, interface},
    u32_at,
};

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// Attributes of VXLAN devices (linux/if_link.h).
const ID: u16 = 1;
const LINK: u16 = 3;
const LOCAL: u16 = 4;
const LEARNING: u16 = 7;
const PORT: u16 = 15;
const LOCAL6: u16 = 17;

/// `NTF_SELF`: the device's own forwarding table.
const SELF: u8 = 2;
/// Attributes of neighbours (linux/neighbour.h).
const NEIGHBOUR_ADDRESS: u16 = 1;
const NEIGHBOUR_HARDWARE: u16 = 2;

/// How to make a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vxlan<'a> {
    pub(crate) name: &'a str,
    /// The network's number.
    pub(crate) id: u32,
    /// UDP port of all its machines.
    pub(crate) port: u16,
    /// This machine's address.
    pub(crate) local: IpAddr,
    /// Index of the device that carries the packets.
    pub(crate) underlay: Option<u32>,
    /// The device's hardware address.
    pub(crate) hardware: Mac,
    /// Largest packet inside, in bytes.
    pub(crate) mtu: u32,
}

/// Makes the device, up. It learns nothing from what it receives.
pub(crate) fn add_vxlan(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<(), NetlinkError> {
    let local = if vxlan.local.is_ipv4() { LOCAL } else { LOCAL6 };
    let request = Message::new(libc::RTM_NEWLINK, CREATE)
        .fixed(&interface(0, UP, UP))
        .string(libc::IFLA_IFNAME, vxlan.name)
        .attribute(libc::IFLA_ADDRESS, &vxlan.hardware)
        .number(libc::IFLA_MTU, vxlan.mtu)
        .nested(libc::IFLA_LINKINFO, |info| {
            info.string(libc::IFLA_INFO_KIND, "vxlan").nested(libc::IFLA_INFO_DATA, |data| {
                let data = data
                    .number(ID, vxlan.id)
                    .attribute(PORT, &vxlan.port.to_be_bytes())
                    .attribute(local, &octets(vxlan.local))
                    .attribute(LEARNING, &[0]);
                match vxlan.underlay {
                    Some(index) => data.number(LINK, index),
                    None => data,
                }
            })
        });
    let Vxlan { name, id, port, .. } = vxlan;
    socket.call(&format!("create VXLAN device {name} with id {id} and UDP port {port}"), request)
}

/// Whether the device that exists carries the same network in the same way.
pub(crate) fn is_like(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<bool, NetlinkError> {
    let request = Message::new(libc::RTM_GETLINK, 0)
        .fixed(&interface(0, 0, 0))
        .string(libc::IFLA_IFNAME, vxlan.name);
    let replies = match socket.query("look up the VXLAN device", request) {
        Err(NetlinkError { errno: Errno::ENODEV, .. }) => return Ok(false),
        other => other?,
    };
    Ok(replies.iter().any(|reply| matches(reply, vxlan) == Some(true)))
}

fn matches(reply: &Reply, vxlan: &Vxlan<'_>) -> Option<bool> {
    let rest = reply.body.get(16..)?;
    let info = attribute(rest, libc::IFLA_LINKINFO)?;
    let data = attribute(info, libc::IFLA_INFO_DATA)?;
    let local = attribute(data, LOCAL).or(attribute(data, LOCAL6)).and_then(address);
    Some(
        attribute(info, libc::IFLA_INFO_KIND) == Some(b"vxlan\0")
            && attribute(data, ID).map(|id| u32_at(id, 0)) == Some(vxlan.id)
            && attribute(data, PORT) == Some(&vxlan.port.to_be_bytes())
            && attribute(data, LEARNING) == Some(&[0])
            && attribute(data, LINK).map(|link| u32_at(link, 0)) == vxlan.underlay
            && local == Some(vxlan.local)
            && attribute(rest, libc::IFLA_ADDRESS) == Some(&vxlan.hardware),
    )
}

/// An entry of the neighbour table, or of a device's forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// Who has an address on the device.
    Address(IpAddr, Mac),
    /// Behind which machine a hardware address is.
    Forward(Mac, IpAddr),
}

fn neighbour_message(kind: u16, flags: u16, device: u32, neighbour: Neighbour) -> Message {
    let permanent = libc::NUD_PERMANENT;
    let (family, kind_flags, hardware, to) = match neighbour {
        Neighbour::Address(address, hardware) => (family(address), 0, hardware, address),
        Neighbour::Forward(hardware, to) => (libc::AF_BRIDGE as u8, SELF, hardware, to),
    };
    Message::new(kind, flags)
        .fixed(&[family, 0, 0, 0])
        .fixed(&device.to_ne_bytes())
        .fixed(&permanent.to_ne_bytes().into_iter().chain([kind_flags, 0]).collect::<Vec<u8>>())
        .attribute(NEIGHBOUR_ADDRESS, &octets(to))
        .attribute(NEIGHBOUR_HARDWARE, &hardware)
}

/// Sets an entry for good; one for the same key is replaced.
pub(crate) fn set_neighbour(
    socket: &mut Socket,
    device: u32,
    neighbour: Neighbour,
) -> Result<(), NetlinkError> {
    let request = neighbour_message(libc::RTM_NEWNEIGH, REPLACE, device, neighbour);
    socket.call(&format!("set {neighbour:?} on device {device}"), request)
}

/// Removes an entry; nothing happens if it is not there.
pub(crate) fn remove_neighbour(
    socket: &mut Socket,
    device: u32,
    neighbour: Neighbour,
) -> Result<(), NetlinkError> {
    let request = neighbour_message(libc::RTM_DELNEIGH, 0, device, neighbour);
    let gone = [Errno::ENOENT, Errno::ENODEV, Errno::EINVAL];
    socket.call_unless(&format!("remove {neighbour:?} from device {device}"), &gone, request)
}

/// The permanent entries of a device, of both tables.
pub(crate) fn neighbours(socket: &mut Socket, device: u32) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_BRIDGE] {
        let request = Message::new(libc::RTM_GETNEIGH, 0)
            .fixed(&[family as u8, 0, 0, 0])
            .fixed(&device.to_ne_bytes())
            .fixed(&[0; 4]);
        let replies = match socket.dump("list neighbours", request) {
            Err(NetlinkError { errno: Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, .. }) => continue,
            other => other?,
        };
        let parsed = replies.iter().filter_map(parse_neighbour);
        all.extend(parsed.filter(|(on, _)| *on == device).map(|(_, neighbour)| neighbour));
    }
    Ok(all)
}

/// Which entry is gone, as the kernel tells it with the device: by then a neighbour's hardware
/// address may be gone as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    Address(IpAddr),
    Forward(Mac, IpAddr),
}

/// Reads a notification that an entry was removed.
pub(crate) fn parse_gone(reply: &Reply) -> Option<(u32, Gone)> {
    let body = &reply.body;
    let rest = body.get(12..)?;
    let to = attribute(rest, NEIGHBOUR_ADDRESS).and_then(address)?;
    let gone = match i32::from(*body.first()?) {
        libc::AF_BRIDGE => Gone::Forward(attribute(rest, NEIGHBOUR_HARDWARE)?.try_into().ok()?, to),
        _ => Gone::Address(to),
    };
    Some((u32_at(body, 4), gone))
}

/// Reads an entry of a dump with its device; `None` unless it is permanent.
fn parse_neighbour(reply: &Reply) -> Option<(u32, Neighbour)> {
    let body = &reply.body;
    let state = u16::from_ne_bytes([*body.get(8)?, *body.get(9)?]);
    if state & libc::NUD_PERMANENT == 0 {
        return None;
    }
    let rest = body.get(12..)?;
    let hardware: Mac = attribute(rest, NEIGHBOUR_HARDWARE)?.try_into().ok()?;
    let to = attribute(rest, NEIGHBOUR_ADDRESS).and_then(address)?;
    let neighbour = match i32::from(*body.first()?) {
        libc::AF_BRIDGE => Neighbour::Forward(hardware, to),
        _ => Neighbour::Address(to, hardware),
    };
    Some((u32_at(body, 4), neighbour))
}
