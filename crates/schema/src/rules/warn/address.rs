//! Warnings about addresses and ranges that are not written as they should be.

use std::net::IpAddr;

use crate::rules::at::At;

/// An address that is read, but not as it should be written.
pub(super) fn address(ip: &At<'_>, out: &mut Vec<String>) {
    let text = ip.str();
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => out.push(format!(
                "{}: non-standard IP address {text:?} is invalid: use \"{v4}\"",
                ip.path
            )),
            None if v6.to_string() != text => out.push(format!(
                "{}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{v6}\")",
                ip.path
            )),
            None => {}
        },
        Ok(IpAddr::V4(_)) => {}
        Err(_) => {
            if let Some(plain) = without_zeros(text) {
                out.push(format!(
                    "{}: non-standard IP address {text:?} is invalid: use \"{plain}\"",
                    ip.path
                ));
            }
        }
    }
}

/// An IPv4 address whose numbers begin with zeros.
fn without_zeros(text: &str) -> Option<IpAddr> {
    let parts = text.split('.').map(|part| part.parse::<u8>().ok());
    let parts: Vec<u8> = parts.collect::<Option<_>>()?;
    <[u8; 4]>::try_from(parts).ok().map(IpAddr::from)
}

/// A range whose address is not the first one of it.
pub(super) fn cidr(range: &At<'_>, out: &mut Vec<String>) {
    let text = range.str();
    let Some((ip, bits)) = text.split_once('/') else { return };
    let (Ok(ip), Ok(bits)) = (ip.parse::<IpAddr>(), bits.parse::<u32>()) else { return };
    if bits > if ip.is_ipv4() { 32 } else { 128 } {
        return;
    }
    let first: IpAddr = match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            std::net::Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    };
    if first != ip {
        out.push(format!("{}: CIDR value {text:?} is ambiguous in this context (should be \"{first}/{bits}\" or \"{ip}/{}\"?)", range.path, if ip.is_ipv4() { 32 } else { 128 }));
    } else if format!("{first}/{bits}") != text {
        out.push(format!("{}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{first}/{bits}\")", range.path));
    }
}
