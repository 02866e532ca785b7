//! What happens to links, addresses, routes, rules and neighbours, as the kernel tells it.
//!
//! Knows which notifications there are and nothing of which matter.

use nix::{libc, sys::socket::SockProtocol};

use super::{
    NetlinkError, Reply, ip,
    listener::{Listener, Told},
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
pub(crate) struct Monitor(Listener);

impl Monitor {
    /// Listens from now on, in the calling thread's network namespace.
    pub(crate) fn new() -> Result<Self, NetlinkError> {
        Listener::open(SockProtocol::NetlinkRoute, GROUPS).map(Self).map_err(failed)
    }

    /// Waits for the next events.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, NetlinkError> {
        let mut events = Vec::new();
        while events.is_empty() {
            let take = |told: Told<'_>| {
                events.extend(match told {
                    Told::Message(reply) => event(reply),
                    Told::Lost => Some(Event::Lost),
                });
            };
            self.0.next(take).await.map_err(failed)?;
        }
        Ok(events)
    }
}

fn failed(errno: nix::errno::Errno) -> NetlinkError {
    NetlinkError::new("listen to changes of the network", errno)
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
