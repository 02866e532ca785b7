//! One cluster range cut into ranges of nodes: which are free, and which comes next.
//!
//! Pure. Knows addresses and nothing of Nodes.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

/// The most bits that a node's prefix may be longer than the cluster's, as upstream.
const LARGEST_DIFFERENCE: u8 = 16;

/// Addresses of pods on all nodes of one family, and how much of them a node gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClusterRange {
    network: IpNet,
    mask_size: u8,
}

impl ClusterRange {
    /// A range whose nodes get prefixes of `mask_size` bits; says why that cannot be.
    pub(crate) fn new(network: IpNet, mask_size: u8) -> Result<Self, String> {
        let network = network.trunc();
        let (length, bits) = (network.prefix_len(), network.max_prefix_len());
        if mask_size < length {
            return Err(format!(
                "the cluster's pod network {network} is smaller than the /{mask_size} that a node is to get"
            ));
        }
        if mask_size - length > LARGEST_DIFFERENCE {
            return Err(format!(
                "a node's mask size of {mask_size} bits is more than {LARGEST_DIFFERENCE} longer than that of the cluster's pod network {network}"
            ));
        }
        // Network, gateway, one pod, broadcast.
        if bits - mask_size < 2 {
            return Err(format!("a /{mask_size} has no room for pods"));
        }
        Ok(Self { network, mask_size })
    }

    /// How many nodes have room.
    pub(crate) fn nodes(&self) -> u32 {
        1 << (self.mask_size - self.network.prefix_len())
    }

    /// The range of the node with this index.
    pub(crate) fn at(&self, index: u32) -> IpNet {
        let host_bits = self.network.max_prefix_len() - self.mask_size;
        let first = first(self.network) | u128::from(index) << host_bits;
        let address = match self.network {
            IpNet::V4(_) => IpAddr::V4(u32::try_from(first).unwrap_or(u32::MAX).into()),
            IpNet::V6(_) => IpAddr::V6(first.into()),
        };
        // The mask size was checked against the family's.
        IpNet::new(address, self.mask_size).unwrap_or(self.network)
    }

    /// The index of a node's range; `None` if it is not one of these.
    pub(crate) fn index_of(&self, network: IpNet) -> Option<u32> {
        let index = self.covered(network).start;
        (self.at(index) == network).then_some(index)
    }

    /// The indexes that `taken` covers, wholly or in part.
    fn covered(&self, taken: IpNet) -> std::ops::Range<u32> {
        let same_family = matches!(
            (self.network, taken),
            (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
        );
        if !same_family || !overlap(self.network, taken) {
            return 0..0;
        }
        let host_bits = self.network.max_prefix_len() - self.mask_size;
        let index = |address: u128| {
            let within = address.saturating_sub(first(self.network)) >> host_bits;
            u32::try_from(within).unwrap_or(u32::MAX).min(self.nodes() - 1)
        };
        index(first(taken.trunc()))..index(number(taken.broadcast())) + 1
    }

    /// The first free index from `next` on, going round; `None` when `taken` leaves none.
    pub(crate) fn free(&self, next: u32, taken: &[IpNet]) -> Option<u32> {
        let used: HashSet<u32> = taken.iter().flat_map(|taken| self.covered(*taken)).collect();
        let next = next % self.nodes();
        (next..self.nodes()).chain(0..next).find(|index| !used.contains(index))
    }
}

/// Whether two ranges share an address.
pub(crate) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn first(network: IpNet) -> u128 {
    number(network.network())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("network")
    }

    fn range(network: &str, mask_size: u8) -> ClusterRange {
        ClusterRange::new(net(network), mask_size).expect("range")
    }

    #[test]
    fn ranges_are_given_in_turn_and_run_out() {
        let range = range("10.244.0.0/22", 24);
        let mut taken = vec![net("10.9.0.0/24"), net("fd00::/64")];
        for expected in ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"] {
            let index = range.free(0, &taken).expect("free");
            assert_eq!(range.at(index), net(expected));
            taken.push(range.at(index));
        }
        assert_eq!(range.free(0, &taken), None);
        taken.retain(|taken| *taken != net("10.244.1.0/24"));
        assert_eq!(range.free(3, &taken), Some(1), "going round");
    }

    #[test]
    fn ranges_of_other_sizes_take_all_they_touch() {
        let range = range("10.244.0.0/21", 24);
        let taken = [net("10.244.2.0/23"), net("10.244.0.128/25"), net("10.244.7.1/32")];
        let free: Vec<u32> =
            (0..8).filter(|next| range.free(*next, &taken) == Some(*next)).collect();
        assert_eq!(free, [1, 4, 5, 6]);
        assert_eq!(range.free(0, &[net("10.0.0.0/8")]), None);
    }

    #[test]
    fn the_other_family() {
        let range = range("fd00:10:244::/48", 64);
        assert_eq!(range.nodes(), 65_536);
        assert_eq!(range.at(0), net("fd00:10:244::/64"));
        assert_eq!(range.at(65_535), net("fd00:10:244:ffff::/64"));
        assert_eq!(range.free(0, &[net("fd00:10:244::/63")]), Some(2));
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let error = |network, size| ClusterRange::new(net(network), size).expect_err("refused");
        assert!(error("10.244.0.0/25", 24).contains("is smaller than the /24"));
        assert!(error("fd00::/32", 64).contains("more than 16 longer"));
        assert!(error("10.244.0.0/24", 31).contains("no room for pods"));
        assert!(ClusterRange::new(net("10.244.0.0/24"), 24).is_ok());
    }
}
