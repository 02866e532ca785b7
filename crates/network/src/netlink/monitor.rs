//! What happens to links, addresses, routes, rules and neighbours, as the kernel tells it.
//!
//! Knows which notifications there are and nothing of which matter.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    NetlinkError, Reply, ip, message,
    route::{self, Link},
    u32_at, vxlan,
};

/// Groups of notifications as bits: number n is bit n - 1.
const GROUPS: u32 = group(libc::RTNLGRP_LINK)
    | group(libc::RTNLGRP_NEIGH)
    | group(libc::RTNLGRP_IPV4_IFADDR)
    | group(libc::RTNLGRP_IPV6_IFADDR)
    | group(libc::RTNLGRP_IPV4_ROUTE)
    | group(libc::RTNLGRP_IPV6_ROUTE)
    | group(libc::RTNLGRP_IPV4_RULE)
    | group(libc::RTNLGRP_IPV6_RULE);

const RECEIVE_BYTES: usize = 64 * 1024;

const fn group(number: libc::c_uint) -> u32 {
    1 << (number - 1)
}

/// Something that happened. Additions of what nobody asks for are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A device appeared or changed.
    Link(Link),
    /// The device with this index is gone.
    NoLink(u32),
    /// The device with this index lost an address.
    NoAddress(u32),
    /// A route was set.
    Route(ip::Route),
    /// A route was removed.
    NoRoute(ip::Route),
    /// A routing rule was removed.
    NoRule,
    /// A neighbour or forwarding entry of a device was removed.
    NoNeighbour(u32, vxlan::Gone),
    /// Notifications were lost: anything may have happened.
    Lost,
}

/// Listens to the kernel.
#[derive(Debug)]
pub(crate) struct Monitor {
    fd: AsyncFd<OwnedFd>,
}

impl Monitor {
    /// Listens from now on, in the calling thread's network namespace.
    pub(crate) fn new() -> Result<Self, NetlinkError> {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let route = SockProtocol::NetlinkRoute;
            let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
            register(fd)
        };
        let failed = |errno| NetlinkError::new("listen to changes of the network", errno);
        Ok(Self { fd: open().map_err(failed)? })
    }

    /// Waits for the next events.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, NetlinkError> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let failed = |errno| NetlinkError::new("listen to changes of the network", errno);
        loop {
            let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
            let mut ready = self.fd.readable().await.map_err(errno).map_err(failed)?;
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let replies = message::split(&buffer[..length]);
                    let events: Vec<Event> = replies.iter().filter_map(event).collect();
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(vec![Event::Lost]),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

#[expect(unsafe_code, reason = "the runtime polls a descriptor of the kernel")]
fn register(fd: OwnedFd) -> nix::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the result, and neither replaced nor closed before it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(|error| {
        let (_, error) = error.into_parts();
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
    })
}

fn event(reply: &Reply) -> Option<Event> {
    let index = || u32_at(&reply.body, 4);
    // Ports of a bridge come and go in a family of their own, beside the device's own message.
    let of_bridge = reply.body.first() == Some(&(libc::AF_BRIDGE as u8));
    match reply.kind {
        libc::RTM_NEWLINK if !of_bridge => route::parse_link(reply).map(Event::Link),
        libc::RTM_DELLINK if !of_bridge => Some(Event::NoLink(index())),
        libc::RTM_DELADDR => Some(Event::NoAddress(index())),
        libc::RTM_NEWROUTE => ip::Route::parse(reply).map(Event::Route),
        libc::RTM_DELROUTE => ip::Route::parse(reply).map(Event::NoRoute),
        libc::RTM_DELRULE => Some(Event::NoRule),
        libc::RTM_DELNEIGH => {
            vxlan::parse_gone(reply).map(|(device, gone)| Event::NoNeighbour(device, gone))
        }
        _ => None,
    }
}
