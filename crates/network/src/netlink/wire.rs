//! Devices that join two network namespaces.
//!
//! Knows the kernel's structures and nothing of what is wired together.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use super::{
    Message, NetlinkError, Socket,
    route::{Mac, UP, VETH_INFO_PEER, interface},
};

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// How to join the calling thread's namespace with another.
pub(crate) struct Wire<'a> {
    /// Name of the end that stays here; it comes up at once.
    pub(crate) here: &'a str,
    /// Index of the bridge that end joins.
    pub(crate) bridge: u32,
    /// Name of the other end, which starts down.
    pub(crate) there: &'a str,
    /// Hardware address of the other end.
    pub(crate) address: Mac,
    /// Network namespace of the other end.
    pub(crate) netns: BorrowedFd<'a>,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
}

/// Makes the pair of devices.
pub(crate) fn add_wire(socket: &mut Socket, wire: &Wire<'_>) -> Result<(), NetlinkError> {
    let netns = wire.netns.as_raw_fd().cast_unsigned();
    let request = Message::new(libc::RTM_NEWLINK, CREATE)
        .fixed(&interface(0, UP, UP))
        .string(libc::IFLA_IFNAME, wire.here)
        .number(libc::IFLA_MTU, wire.mtu)
        .number(libc::IFLA_MASTER, wire.bridge)
        .nested(libc::IFLA_LINKINFO, |info| {
            info.string(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.fixed(&interface(0, 0, 0))
                        .string(libc::IFLA_IFNAME, wire.there)
                        .attribute(libc::IFLA_ADDRESS, &wire.address)
                        .number(libc::IFLA_MTU, wire.mtu)
                        .number(libc::IFLA_NET_NS_FD, netns)
                })
            })
        });
    socket.call(&format!("create device pair {} and {}", wire.here, wire.there), request)
}

/// Takes a device down: its peer loses the carrier.
pub(crate) fn set_down(socket: &mut Socket, index: u32) -> Result<(), NetlinkError> {
    let request = Message::new(libc::RTM_NEWLINK, 0).fixed(&interface(index, 0, UP));
    socket.call(&format!("take device {index} down"), request)
}
