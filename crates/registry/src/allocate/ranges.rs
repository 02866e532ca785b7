//! Ranges of numbers and addresses, and the search for a free one. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rand::Rng as _;
use serde_json::Value;
use store::Snapshot;

use crate::header::Header;
use crate::object::parse;

/// Where ServiceCIDRs are kept.
pub(super) const SERVICE_CIDRS: &str = "/registry/networking.k8s.io.servicecidrs/";

/// The ranges of the ServiceCIDRs that may be allocated from; `configured` while there is none.
pub(super) fn usable(snapshot: &Snapshot<Header>, configured: &[IpNet]) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = Vec::new();
    let mut none = true;
    for (_, record) in snapshot.range(SERVICE_CIDRS) {
        none = false;
        let object = parse(&record.value);
        if record.note.deleting() || !is_ready(&object) {
            continue;
        }
        let texts = object["spec"]["cidrs"].as_array().into_iter().flatten();
        ranges.extend(texts.filter_map(|text| text.as_str()?.parse::<IpNet>().ok()));
    }
    if none { configured.to_vec() } else { ranges }
}

/// A range about which nobody has said anything yet is ready.
fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.next().is_none_or(|condition| condition["status"] == "True")
}

/// The first and last address that may be given out: not the network's own, nor the broadcast
/// address of IPv4.
fn bounds(range: &IpNet) -> (u128, u128) {
    match range {
        IpNet::V4(range) => {
            let (network, broadcast) = (range.network(), range.broadcast());
            (u128::from(u32::from(network)) + 1, u128::from(u32::from(broadcast).saturating_sub(1)))
        }
        IpNet::V6(range) => {
            (u128::from(range.network()).saturating_add(1), u128::from(range.broadcast()))
        }
    }
}

/// Whether the address is one of the range that may be given out.
pub(super) fn holds(range: &IpNet, address: IpAddr) -> bool {
    let number = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let (first, last) = bounds(range);
    range.contains(&address) && (first..=last).contains(&number)
}

/// A free address of the range, from its upper part while there is one: the lower part is for
/// those who ask by name (KEP-3070).
pub(super) fn free(range: &IpNet, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let (first, last) = bounds(range);
    let address = |number: u128| match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(0))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    };
    let size = last.saturating_sub(first).saturating_add(1);
    let reserved = if size < 32 { 0 } else { (size / 16).clamp(16, 256) };
    free_number(first, last, reserved, |number| is_free(address(number))).map(address)
}

/// A free number in `first..=last`: at random above the first `reserved`, then anywhere.
pub(super) fn free_number(
    first: u128,
    last: u128,
    reserved: u128,
    is_free: impl Fn(u128) -> bool,
) -> Option<u128> {
    let search =
        |from: u128, to: u128, start: u128| (start..=to).chain(from..start).find(|n| is_free(*n));
    let low = first.saturating_add(reserved);
    if low <= last {
        let start = rand::rng().random_range(low..=last);
        if let Some(found) = search(low, last, start) {
            return Some(found);
        }
    }
    if first > last {
        return None;
    }
    search(first, last.min(low), first)
}
