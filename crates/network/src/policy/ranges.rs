//! Addresses that a policy's IP blocks allow, as ranges that do not overlap.
//!
//! Pure arithmetic. Knows nothing of policies; both families are numbers of 128 bits here.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::options::number;

pub(crate) use crate::ruleset::Family;

/// First and last address of a range.
pub(crate) type Range = (u128, u128);

/// The addresses of `network`.
pub(crate) fn of(network: IpNet) -> Range {
    (number(network.network()), number(network.broadcast()))
}

/// `block` without `holes`.
pub(crate) fn without(block: Range, holes: &[Range]) -> Vec<Range> {
    let mut left = vec![block];
    for (first, last) in holes {
        left = left
            .into_iter()
            .flat_map(|(from, to)| {
                let before = (*first > from).then(|| (from, to.min(first.wrapping_sub(1))));
                let after = (*last < to).then(|| (from.max(last.wrapping_add(1)), to));
                before.into_iter().chain(after)
            })
            .collect();
    }
    left
}

/// The same addresses as ranges in order that neither overlap nor touch.
pub(crate) fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// A range as an element of a set.
pub(crate) fn text(family: Family, (first, last): Range) -> String {
    let address = |number: u128| match family {
        Family::V4 => Ipv4Addr::from(number as u32).to_string(),
        Family::V6 => Ipv6Addr::from(number).to_string(),
    };
    if first == last { address(first) } else { format!("{}-{}", address(first), address(last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: &str, except: &[&str]) -> String {
        let network = |text: &str| of(text.parse().expect("network"));
        let holes: Vec<Range> = except.iter().map(|text| network(text)).collect();
        let family = if block.contains(':') { Family::V6 } else { Family::V4 };
        let ranges = merged(without(network(block), &holes));
        ranges.into_iter().map(|range| text(family, range)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn holes_are_cut_out() {
        assert_eq!(check("10.0.0.0/24", &[]), "10.0.0.0-10.0.0.255");
        assert_eq!(check("10.0.0.0/24", &["10.0.0.0/25"]), "10.0.0.128-10.0.0.255");
        assert_eq!(
            check("10.0.0.0/24", &["10.0.0.8/32", "10.0.0.128/25"]),
            "10.0.0.0-10.0.0.7 10.0.0.9-10.0.0.127"
        );
        assert_eq!(check("10.0.0.0/24", &["10.0.0.0/16"]), "");
        assert_eq!(check("10.0.0.0/24", &["10.9.0.0/16"]), "10.0.0.0-10.0.0.255");
        assert_eq!(check("0.0.0.0/0", &["0.0.0.0/1"]), "128.0.0.0-255.255.255.255");
        assert_eq!(check("0.0.0.0/0", &["0.0.0.0/0"]), "");
        assert_eq!(check("192.0.2.1/32", &[]), "192.0.2.1");
        assert_eq!(check("fd00::/126", &["fd00::1/128"]), "fd00:: fd00::2-fd00::3");
        assert_eq!(check("::/0", &["::/1"]), "8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn what_touches_becomes_one() {
        assert_eq!(merged(vec![(5, 9), (0, 4), (11, 12), (8, 9)]), [(0, 9), (11, 12)]);
        assert_eq!(merged(vec![(0, u128::MAX), (3, 4)]), [(0, u128::MAX)]);
    }
}
