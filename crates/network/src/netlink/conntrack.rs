//! The kernel's table of tracked connections: listing by filter, and forgetting entries.
//!
//! Knows ctnetlink (linux/netfilter/nfnetlink_conntrack.h). Which entries ought to go is decided
//! elsewhere.

use std::net::IpAddr;

use nix::{errno::Errno, libc};

use super::{Message, NetlinkError, Reply, Socket, attribute, attributes};

const GET: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8 | 1;
const DELETE: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8 | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC` and `CTA_FILTER_F_CTA_PROTO_NUM` of the kernel's filter flags.
const MATCH_SOURCE: u32 = 1;
const MATCH_PROTOCOL: u32 = 1 << 3;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

/// One tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) original: Tuple,
    pub(crate) reply: Tuple,
    /// The original tuple as the kernel wrote it, to name the entry by.
    raw: Vec<u8>,
    id: Option<Vec<u8>>,
}

impl Entry {
    /// An entry that exists nowhere, for tests of decisions.
    #[cfg(test)]
    pub(crate) fn imagined(original: Tuple, reply: Tuple) -> Self {
        Self { original, reply, raw: Vec::new(), id: None }
    }
}

/// Which entries to list; the kernel filters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Filter {
    /// The connection was opened from this address.
    OpenedFrom(IpAddr),
    /// The connection is answered from this address.
    AnsweredBy(IpAddr),
    /// Of this IP protocol, over IPv6 or not.
    Protocol(u8, bool),
}

impl Filter {
    fn is_ipv6(self) -> bool {
        match self {
            Self::OpenedFrom(address) | Self::AnsweredBy(address) => address.is_ipv6(),
            Self::Protocol(_, ipv6) => ipv6,
        }
    }
}

/// The connections that `filter` selects.
pub(crate) fn list(socket: &mut Socket, filter: Filter) -> Result<Vec<Entry>, NetlinkError> {
    let request = request(GET, filter.is_ipv6());
    let request = match filter {
        Filter::OpenedFrom(address) => {
            flags(request, MATCH_SOURCE, 0).nested(TUPLE_ORIG, |tuple| source(tuple, address))
        }
        Filter::AnsweredBy(address) => {
            flags(request, 0, MATCH_SOURCE).nested(TUPLE_REPLY, |tuple| source(tuple, address))
        }
        Filter::Protocol(number, _) => flags(request, MATCH_PROTOCOL, 0)
            .nested(TUPLE_ORIG, |tuple| {
                tuple.nested(TUPLE_PROTO, |proto| proto.attribute(PROTO_NUMBER, &[number]))
            }),
    };
    let replies = socket.dump("list tracked connections", request)?;
    Ok(replies.iter().filter_map(parse).collect())
}

/// Forgets one connection; nothing happens if it is already gone.
pub(crate) fn delete(socket: &mut Socket, entry: &Entry) -> Result<(), NetlinkError> {
    let mut request = request(DELETE, entry.original.source.is_ipv6())
        .nested(TUPLE_ORIG, |tuple| tuple.fixed(&entry.raw));
    if let Some(id) = &entry.id {
        request = request.attribute(ID, id);
    }
    socket.call_unless("forget a tracked connection", &[Errno::ENOENT], request)
}

/// Forgets every connection that `address` opened or answers; returns how many.
pub(crate) fn forget_address(address: impl Into<IpAddr>) -> Result<usize, NetlinkError> {
    let address = address.into();
    let mut socket = Socket::netfilter()?;
    let mut forgotten = 0;
    for filter in [Filter::OpenedFrom(address), Filter::AnsweredBy(address)] {
        for entry in list(&mut socket, filter)? {
            // An old kernel may ignore the filter.
            if entry.original.source == address || entry.reply.source == address {
                delete(&mut socket, &entry)?;
                forgotten += 1;
            }
        }
    }
    Ok(forgotten)
}

/// A request with its `struct nfgenmsg`.
fn request(kind: u16, ipv6: bool) -> Message {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    Message::new(kind, 0).fixed(&[family as u8, 0, 0, 0])
}

fn flags(message: Message, original: u32, reply: u32) -> Message {
    message.nested(FILTER, |filter| {
        filter.number(FILTER_ORIG_FLAGS, original).number(FILTER_REPLY_FLAGS, reply)
    })
}

fn source(tuple: Message, address: IpAddr) -> Message {
    tuple.nested(TUPLE_IP, |ip| match address {
        IpAddr::V4(address) => ip.attribute(IP_V4_SOURCE, &address.octets()),
        IpAddr::V6(address) => ip.attribute(IP_V6_SOURCE, &address.octets()),
    })
}

fn parse(reply: &Reply) -> Option<Entry> {
    let rest = reply.body.get(4..)?;
    let raw = attribute(rest, TUPLE_ORIG)?;
    Some(Entry {
        original: parse_tuple(raw)?,
        reply: parse_tuple(attribute(rest, TUPLE_REPLY)?)?,
        raw: raw.to_vec(),
        id: attribute(rest, ID).map(<[u8]>::to_vec),
    })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let ip = attribute(bytes, TUPLE_IP)?;
    let proto = attribute(bytes, TUPLE_PROTO)?;
    let address = |v4, v6| -> Option<IpAddr> {
        if let Some(octets) = attribute(ip, v4) {
            return Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
        }
        Some(IpAddr::from(<[u8; 16]>::try_from(attribute(ip, v6)?).ok()?))
    };
    let mut tuple = Tuple {
        source: address(IP_V4_SOURCE, IP_V6_SOURCE)?,
        destination: address(IP_V4_DESTINATION, IP_V6_DESTINATION)?,
        protocol: 0,
        source_port: 0,
        destination_port: 0,
    };
    for (kind, value) in attributes(proto) {
        match (kind, value) {
            (PROTO_NUMBER, [number, ..]) => tuple.protocol = *number,
            (PROTO_SOURCE_PORT, [high, low, ..]) => {
                tuple.source_port = u16::from_be_bytes([*high, *low]);
            }
            (PROTO_DESTINATION_PORT, [high, low, ..]) => {
                tuple.destination_port = u16::from_be_bytes([*high, *low]);
            }
            _ => {}
        }
    }
    Some(tuple)
}
