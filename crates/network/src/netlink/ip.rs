//! Addresses, routes and routing rules of both IP families, as rtnetlink(7) has them.
//!
//! Knows the kernel's structures and nothing of pods or nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::{errno::Errno, libc};

use super::{Message, NetlinkError, Reply, Socket, attribute, u32_at};

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// `RTNH_F_ONLINK`: the next hop is on the link, whatever addresses the device has.
const ONLINK: u32 = 4;
/// Attributes and the action of linux/fib_rules.h.
const RULE_INPUT: u16 = 3;
const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;
const RULE_TO_TABLE: u8 = 1;

/// The main routing table.
pub(crate) const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
/// Who made a route: an administrator, as far as the kernel cares.
pub(crate) const STATIC: u8 = libc::RTPROT_STATIC;

/// The kernel's number for a family.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// An address as the kernel writes it.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address as the kernel writes it; `None` unless it is 4 or 16 bytes long.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn address_message(kind: u16, flags: u16, index: u32, address: IpNet) -> Message {
    let octets = octets(address.addr());
    // Nobody else can have it: asking would only delay its use.
    let no_detection = libc::IFA_F_NODAD as u8;
    Message::new(kind, flags)
        .fixed(&[family(address.addr()), address.prefix_len(), no_detection, 0])
        .fixed(&index.to_ne_bytes())
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets)
}

/// Gives a device an address, usable at once; the prefix's network becomes reachable through it
/// unless the prefix is the whole address.
pub(crate) fn add_address(
    socket: &mut Socket,
    index: u32,
    address: IpNet,
) -> Result<(), NetlinkError> {
    let request = address_message(libc::RTM_NEWADDR, REPLACE, index, address);
    let what = format!("add address {address} to device {index}");
    socket.call_unless(&what, &[Errno::EEXIST], request)
}

/// Gives a device an address for some seconds, or extends the time. Nothing is sent from it unless
/// asked for.
pub(crate) fn lend_address(
    socket: &mut Socket,
    index: u32,
    address: IpNet,
    seconds: u32,
) -> Result<(), NetlinkError> {
    // `struct ifa_cacheinfo`: preferred and valid for so long, and two stamps that the kernel sets.
    let mut times = [0; 16];
    times[4..8].copy_from_slice(&seconds.to_ne_bytes());
    let request = address_message(libc::RTM_NEWADDR, REPLACE, index, address)
        .attribute(libc::IFA_CACHEINFO, &times);
    socket.call(&format!("lend address {address} to device {index}"), request)
}

/// Takes an address from a device; nothing happens if it has it not.
pub(crate) fn remove_address(
    socket: &mut Socket,
    index: u32,
    address: IpNet,
) -> Result<(), NetlinkError> {
    let request = address_message(libc::RTM_DELADDR, 0, index, address);
    let what = format!("remove address {address} from device {index}");
    socket.call_unless(&what, &[Errno::EADDRNOTAVAIL, Errno::ENODEV], request)
}

/// Every address of either family with the index of its device; link-local ones are left out.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    let request =
        Message::new(libc::RTM_GETADDR, 0).fixed(&[0, 0, 0, 0]).fixed(&0u32.to_ne_bytes());
    let parse = |reply: &Reply| {
        let body = &reply.body;
        let (length, scope) = (*body.get(1)?, *body.get(3)?);
        let rest = body.get(8..)?;
        // Only IPv4 and point-to-point links have a local address beside the other.
        let octets = attribute(rest, libc::IFA_LOCAL).or(attribute(rest, libc::IFA_ADDRESS))?;
        let found = IpNet::new(address(octets)?, length).ok()?;
        (scope != libc::RT_SCOPE_LINK).then(|| (u32_at(body, 4), found))
    };
    Ok(socket.dump("list addresses", request)?.iter().filter_map(parse).collect())
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// The routing table.
    pub(crate) table: u32,
    pub(crate) destination: IpNet,
    /// Index of the device.
    pub(crate) device: u32,
    /// Next hop, which is taken to be on the link; `None` when the destination itself is.
    pub(crate) gateway: Option<IpAddr>,
    /// Source address of packets that start here.
    pub(crate) source: Option<IpAddr>,
    /// Who made it.
    pub(crate) protocol: u8,
}

impl Route {
    /// A route in the main table.
    pub(crate) fn new(
        destination: IpNet,
        device: u32,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> Self {
        Self { table: MAIN, destination, device, gateway, source, protocol: STATIC }
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let (scope, next) = match self.gateway {
            Some(_) => (libc::RT_SCOPE_UNIVERSE, ONLINK),
            None => (libc::RT_SCOPE_LINK, 0),
        };
        let network = self.destination.network();
        let length = self.destination.prefix_len();
        let kind_of = libc::RTN_UNICAST;
        let mut message = Message::new(kind, flags)
            .fixed(&[family(network), length, 0, 0, 0, self.protocol, scope, kind_of])
            .fixed(&next.to_ne_bytes())
            .number(libc::RTA_TABLE, self.table)
            .number(libc::RTA_OIF, self.device);
        if length > 0 {
            message = message.attribute(libc::RTA_DST, &octets(network));
        }
        if let Some(gateway) = self.gateway {
            message = message.attribute(libc::RTA_GATEWAY, &octets(gateway));
        }
        if let Some(source) = self.source {
            message = message.attribute(libc::RTA_PREFSRC, &octets(source));
        }
        message
    }

    /// Reads an entry of a dump or a notification; `None` for other than plain routes.
    pub(crate) fn parse(reply: &Reply) -> Option<Self> {
        let body = &reply.body;
        let rest = body.get(12..)?;
        let (length, protocol, kind) = (*body.get(1)?, *body.get(5)?, *body.get(7)?);
        if kind != libc::RTN_UNICAST {
            return None;
        }
        let network = match attribute(rest, libc::RTA_DST) {
            Some(octets) => address(octets)?,
            None if i32::from(*body.first()?) == libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            None => Ipv4Addr::UNSPECIFIED.into(),
        };
        let inner = |kind| attribute(rest, kind).and_then(address);
        Some(Self {
            table: attribute(rest, libc::RTA_TABLE).map(|table| u32_at(table, 0))?,
            destination: IpNet::new(network, length).ok()?,
            device: attribute(rest, libc::RTA_OIF).map(|device| u32_at(device, 0))?,
            gateway: inner(libc::RTA_GATEWAY),
            source: inner(libc::RTA_PREFSRC),
            protocol,
        })
    }
}

/// Sets a route; one to an equal destination in its table is replaced.
pub(crate) fn set_route(socket: &mut Socket, route: &Route) -> Result<(), NetlinkError> {
    let what = format!("set route to {}", route.destination);
    socket.call(&what, route.message(libc::RTM_NEWROUTE, REPLACE))
}

/// Removes exactly this route; nothing happens if it is not there.
pub(crate) fn remove_route(socket: &mut Socket, route: &Route) -> Result<(), NetlinkError> {
    let what = format!("remove route to {}", route.destination);
    let gone = [Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
    socket.call_unless(&what, &gone, route.message(libc::RTM_DELROUTE, 0))
}

/// Every plain route of both families.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = Message::new(libc::RTM_GETROUTE, 0)
            .fixed(&[family as u8, 0, 0, 0, 0, 0, 0, 0])
            .fixed(&0u32.to_ne_bytes());
        let replies = match socket.dump("list routes", request) {
            // A kernel without that family.
            Err(NetlinkError { errno: Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, .. }) => continue,
            other => other?,
        };
        all.extend(replies.iter().filter_map(Route::parse));
    }
    Ok(all)
}

/// The device of a default route, IPv4's before IPv6's, if there is one.
pub(crate) fn default_device(socket: &mut Socket) -> Result<Option<u32>, NetlinkError> {
    let routes = routes(socket)?;
    let default = |route: &&Route| route.table == MAIN && route.destination.prefix_len() == 0;
    Ok(routes.iter().find(default).map(|route| route.device))
}

/// A routing rule: what comes in by a device looks into a table first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule<'a> {
    /// Of IPv6 packets, instead of IPv4.
    pub(crate) v6: bool,
    /// Name of the device.
    pub(crate) input: &'a str,
    pub(crate) table: u32,
    /// Smaller ones are looked at first.
    pub(crate) priority: u32,
}

impl Rule<'_> {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let family = if self.v6 { libc::AF_INET6 } else { libc::AF_INET };
        let message = Message::new(kind, flags)
            .fixed(&[family as u8, 0, 0, 0, 0, 0, 0, RULE_TO_TABLE, 0, 0, 0, 0])
            .string(RULE_INPUT, self.input)
            .number(RULE_PRIORITY, self.priority);
        if self.table == 0 { message } else { message.number(RULE_TABLE, self.table) }
    }
}

/// Sets a rule; one that is there stays.
pub(crate) fn add_rule(socket: &mut Socket, rule: &Rule<'_>) -> Result<(), NetlinkError> {
    let request = rule.message(libc::RTM_NEWRULE, CREATE);
    socket.call_unless("add a routing rule", &[Errno::EEXIST], request)
}

/// Removes a rule, to whatever table it leads; nothing happens if it is not there.
pub(crate) fn remove_rule(socket: &mut Socket, rule: &Rule<'_>) -> Result<(), NetlinkError> {
    let request = Rule { table: 0, ..rule.clone() }.message(libc::RTM_DELRULE, 0);
    let gone = [Errno::ENOENT, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
    socket.call_unless("remove a routing rule", &gone, request)
}
