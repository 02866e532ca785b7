//! Ranges of addresses that Services may be given.
//!
//! Pure arithmetic; knows nothing of who has which address.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

/// A range of addresses of one family, its ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a range makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no range of addresses: write a network (192.0.2.0/28), two addresses (192.0.2.10-192.0.2.20) or one"
)]
pub struct RangeError(String);

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError(text.to_owned());
        let text = text.trim();
        if let Ok(network) = text.parse::<IpNet>() {
            // The first and the last address of an IPv4 network are no host's.
            let whole = Self { first: network.network(), last: network.broadcast() };
            return Ok(match network {
                IpNet::V4(network) if network.prefix_len() < 31 => Self {
                    first: step(whole.first, 1).ok_or_else(wrong)?,
                    last: step(whole.last, -1).ok_or_else(wrong)?,
                },
                _ => whole,
            });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let end = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        let range = Self { first: end(first)?, last: end(last)? };
        let fits = range.first.is_ipv4() == range.last.is_ipv4() && range.first <= range.last;
        if fits { Ok(range) } else { Err(wrong()) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl AddressRange {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// The first address that is not `taken`; looks at no more than there are of those.
    pub(super) fn free(&self, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut address = self.first;
        while taken(address) {
            address = step(address, 1).filter(|next| self.contains(*next))?;
        }
        Some(address)
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }
}

fn step(address: IpAddr, by: i128) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let moved = i128::from(u32::from(address)) + by;
            u32::try_from(moved).ok().map(|number| Ipv4Addr::from(number).into())
        }
        IpAddr::V6(address) => {
            let moved = u128::from(address).checked_add_signed(by)?;
            Some(Ipv6Addr::from(moved).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_in_three_ways() {
        let read = |text: &str| text.parse::<AddressRange>().map(|range| range.to_string());
        assert_eq!(read("192.0.2.0/28").as_deref(), Ok("192.0.2.1-192.0.2.14"));
        assert_eq!(read("192.0.2.7/32").as_deref(), Ok("192.0.2.7-192.0.2.7"));
        assert_eq!(read("192.0.2.10 - 192.0.2.12").as_deref(), Ok("192.0.2.10-192.0.2.12"));
        assert_eq!(read("2001:db8::5").as_deref(), Ok("2001:db8::5-2001:db8::5"));
        assert_eq!(read("2001:db8::/126").as_deref(), Ok("2001:db8::-2001:db8::3"));
        for wrong in ["", "x", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_free_address_is_found_or_none() {
        let range: AddressRange = "192.0.2.10-192.0.2.11".parse().expect("range");
        let taken =
            |all: &'static [&str]| move |address: IpAddr| all.contains(&&*address.to_string());
        assert_eq!(
            range.free(taken(&["192.0.2.10"])),
            Some("192.0.2.11".parse().expect("address"))
        );
        assert_eq!(range.free(taken(&["192.0.2.10", "192.0.2.11"])), None);
    }
}
