//! Elements of the table's maps and sets as the proxy thinks of them, and as the kernel keeps
//! them.
//!
//! Knows how nftables lays out concatenations: each part in whole 32-bit words. Knows nothing of
//! where elements come from.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::endpoints::Target;
use crate::{
    netlink::nftables::{DROP, Data, Element, GOTO, JUMP},
    ruleset::{Container, Family, Protocol},
};

/// Where connections to a Service arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entry {
    /// At a port of one address.
    Address(IpAddr, Protocol, u16),
    /// At a port of the node's own addresses of one family.
    Node(Family, Protocol, u16),
}

impl Entry {
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Address(address, ..) => Family::of(address),
            Self::Node(family, ..) => family,
        }
    }

    fn words(self, key: &mut Vec<u8>) {
        let (protocol, port) = match self {
            Self::Address(address, protocol, port) => {
                address_words(address, key);
                (protocol, port)
            }
            Self::Node(_, protocol, port) => (protocol, port),
        };
        key.extend([protocol.number(), 0, 0, 0]);
        port_words(port, key);
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, protocol, port) => {
                write!(f, "{address} . {} . {port}", protocol.name())
            }
            Self::Node(_, protocol, port) => write!(f, "{} . {port}", protocol.name()),
        }
    }
}

/// What an element is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// An address.
    Address(IpAddr),
    /// An address twice: whoever talks to itself.
    Itself(IpAddr),
    /// An entry.
    Entry(Entry),
    /// An entry's slot.
    Slot(Entry, u32),
    /// An entry and who may use it.
    Source(Entry, IpNet),
}

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Nothing,
    Drop,
    Jump(&'static str),
    Goto(Arc<str>),
    Target(Target),
}

/// A map or set and a key in it.
pub(crate) type Place = (Container, Key);

impl Key {
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Address(address) | Self::Itself(address) => Family::of(*address),
            Self::Entry(entry) | Self::Slot(entry, _) | Self::Source(entry, _) => entry.family(),
        }
    }
}

fn address_words(address: IpAddr, key: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => key.extend(address.octets()),
        IpAddr::V6(address) => key.extend(address.octets()),
    }
}

fn port_words(port: u16, key: &mut Vec<u8>) {
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
}

/// The element as the kernel keeps it.
pub(crate) fn encode(key: &Key, value: &Value) -> Element {
    let mut bytes = Vec::with_capacity(40);
    let mut end = None;
    match key {
        Key::Address(address) => address_words(*address, &mut bytes),
        Key::Itself(address) => {
            address_words(*address, &mut bytes);
            address_words(*address, &mut bytes);
        }
        Key::Entry(entry) => entry.words(&mut bytes),
        Key::Slot(entry, slot) => {
            entry.words(&mut bytes);
            bytes.extend(slot.to_ne_bytes());
        }
        Key::Source(entry, range) => {
            entry.words(&mut bytes);
            let mut last = bytes.clone();
            address_words(range.network(), &mut bytes);
            address_words(range.broadcast(), &mut last);
            end = Some(last);
        }
    }
    let data = match value {
        Value::Nothing => Data::Nothing,
        Value::Drop => Data::Verdict { code: DROP, chain: String::new() },
        Value::Jump(chain) => Data::Verdict { code: JUMP, chain: (*chain).to_owned() },
        Value::Goto(chain) => Data::Verdict { code: GOTO, chain: chain.to_string() },
        Value::Target((address, port)) => {
            let mut bytes = Vec::with_capacity(20);
            address_words(*address, &mut bytes);
            port_words(*port, &mut bytes);
            Data::Value(bytes)
        }
    };
    Element { key: bytes, end, data }
}

/// The element as nft writes it.
#[cfg(test)]
pub(crate) fn text(key: &Key, value: &Value) -> String {
    let key = match key {
        Key::Address(address) => address.to_string(),
        Key::Itself(address) => format!("{address} . {address}"),
        Key::Entry(entry) => entry.to_string(),
        Key::Slot(entry, slot) => format!("{entry} . {slot}"),
        Key::Source(entry, range) => format!("{entry} . {range}"),
    };
    match value {
        Value::Nothing => key,
        Value::Drop => format!("{key} : drop"),
        Value::Jump(chain) => format!("{key} : jump {chain}"),
        Value::Goto(chain) => format!("{key} : goto {chain}"),
        Value::Target((address, port)) => format!("{key} : {address} . {port}"),
    }
}
