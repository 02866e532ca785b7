//! Warnings about addresses that are written in another way than today's.

use std::net::IpAddr;

use super::{Warnings, say};
use crate::rules::at::{At, lenient_cidr, lenient_ip, masked};

/// An address, as IPv4 if it is mapped into IPv6.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Warns of an address; what is none is not this function's business.
pub(super) fn ip(at: &At<'_>, said: &mut Warnings) {
    let text = at.str();
    let Some(ip) = lenient_ip(text) else { return };
    let shown = meta::quote(text);
    if plain(ip) != ip || text.parse::<IpAddr>().is_err() {
        let text = format!("non-standard IP address {shown} is invalid: use \"{}\"", plain(ip));
        say(&at.path, &text, said);
    } else if ip.is_ipv6() && ip.to_string() != text {
        let text =
            format!("IPv6 address {shown} should be in RFC 5952 canonical format (\"{ip}\")");
        say(&at.path, &text, said);
    }
}

/// Warns of a range of addresses.
pub(super) fn range(at: &At<'_>, said: &mut Warnings) {
    let text = at.str();
    let Some((ip, bits)) = lenient_cidr(text) else { return };
    let (shown, before) = (meta::quote(text), said.len());
    let mapped = plain(ip) != ip;
    let first = masked(ip, bits);
    let of = |ip: IpAddr, bits: u32| match plain(ip) {
        short if short != ip && bits >= 96 => format!("{short}/{}", bits - 96),
        _ => format!("{ip}/{bits}"),
    };
    if first != ip {
        let one = format!("{}/{}", plain(ip), if ip.is_ipv4() { 32 } else { 128 });
        let text = format!(
            "CIDR value {shown} is ambiguous in this context (should be \"{}\" or \"{one}\"?)",
            of(first, bits)
        );
        say(&at.path, &text, said);
    }
    let (address, length) = text.split_once('/').unwrap_or_default();
    let zeros = address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'));
    if zeros || mapped {
        let text =
            format!("non-standard CIDR value {shown} is invalid: use \"{}\"", of(first, bits));
        say(&at.path, &text, said);
    }
    if said.len() == before && ip.is_ipv6() && format!("{ip}/{bits}") != text {
        let text = format!(
            "IPv6 CIDR value {shown} should be in RFC 5952 canonical format (\"{ip}/{bits}\")"
        );
        say(&at.path, &text, said);
    }
}
