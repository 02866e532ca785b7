//! Having an address on this machine's device, for a while: the kernel answers for it, and drops
//! it by itself when nobody extends the loan.
//!
//! Knows devices and frames; who has an address when is decided elsewhere.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use ipnet::IpNet;
use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::frames::{Mac, announcement};
use crate::netlink::{NetlinkError, Socket, ip, route};

/// How long the kernel keeps an address whose loan is not extended. Longer than a lease: a node
/// whose server is away goes on.
pub(super) const LOAN_SECONDS: u32 = 6;

/// A device for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    index: u32,
    mac: Mac,
}

/// Where `address` belongs: on the device whose network it is in, or else on that of one of the
/// `node`'s own addresses.
pub(super) fn find(address: IpAddr, node: &[IpAddr]) -> Result<Option<Device>, NetlinkError> {
    let mut socket = Socket::route()?;
    let addresses = ip::addresses(&mut socket)?;
    let links = route::links(&mut socket)?;
    let device = |index: u32| {
        let link = links.iter().find(|link| link.index == index && link.up)?;
        Some(Device { index, mac: link.address? })
    };
    let whole = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
    let near =
        addresses.iter().filter(|(_, network)| !whole(network) && network.contains(&address));
    let own = addresses.iter().filter(|(_, network)| {
        node.contains(&network.addr()) && network.addr().is_ipv4() == address.is_ipv4()
    });
    Ok(near.chain(own).find_map(|(index, _)| device(*index)))
}

/// Puts the address on the device, or extends the loan.
pub(super) fn lend(device: Device, address: IpAddr) -> Result<(), NetlinkError> {
    ip::lend_address(&mut Socket::route()?, device.index, address.into(), LOAN_SECONDS)
}

/// Takes the address from the device.
pub(super) fn withdraw(device: Device, address: IpAddr) -> Result<(), NetlinkError> {
    ip::remove_address(&mut Socket::route()?, device.index, address.into())
}

/// Tells the segment that the address is here.
#[expect(unsafe_code, reason = "nix can not make the address of a packet socket")]
pub(super) fn announce(device: Device, address: IpAddr) -> Result<(), Errno> {
    let frame = announcement(address, device.mac);
    let socket: OwnedFd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    // All bytes zero is a valid value of this plain structure.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = device.index.cast_signed();
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&frame[..6]);
    // The pointers are to values that live through the call, with their sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(sent).map(drop)
}
