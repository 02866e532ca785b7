//! What the node IPAM controller is told, and what of it cannot be.
//!
//! Knows flags and ranges; nothing of Nodes.

use ipnet::IpNet;

use super::ranges::{ClusterRange, overlap};

/// Which ranges nodes get their pod networks from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIpamOptions {
    /// Addresses of pods on all nodes, at most one range a family; the first is primary. Without
    /// any, no ranges are given.
    pub cluster_cidrs: Vec<IpNet>,
    /// Addresses of Services, at most one range a family: they must be others.
    pub service_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 range.
    pub mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 range.
    pub mask_size_ipv6: u8,
}

impl Default for NodeIpamOptions {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            mask_size_ipv4: 24,
            mask_size_ipv6: 64,
        }
    }
}

/// Why ranges cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeIpamError {
    /// More than one range of a family, or more than two.
    #[error("{what} takes one range, or one IPv4 and one IPv6 range; got {got}")]
    Families {
        /// The flag.
        what: &'static str,
        /// Its value.
        got: String,
    },
    /// Ranges share addresses.
    #[error(
        "pods ({pods}) and Services ({services}) would share addresses: change --cluster-cidr or --service-cidr"
    )]
    Overlap {
        /// Range of pods.
        pods: IpNet,
        /// Range of Services.
        services: IpNet,
    },
    /// The mask size does not suit the range.
    #[error("{0}: change --cluster-cidr or --node-cidr-mask-size-ipv4/-ipv6")]
    Size(String),
}

impl NodeIpamOptions {
    /// Whether ranges can be given so.
    pub fn check(&self) -> Result<(), NodeIpamError> {
        one_a_family("--cluster-cidr", &self.cluster_cidrs)?;
        one_a_family("--service-cidr", &self.service_cidrs)?;
        for pods in &self.cluster_cidrs {
            for services in &self.service_cidrs {
                if overlap(*pods, *services) {
                    return Err(NodeIpamError::Overlap { pods: *pods, services: *services });
                }
            }
        }
        self.ranges().map(drop)
    }

    pub(super) fn ranges(&self) -> Result<Vec<ClusterRange>, NodeIpamError> {
        let range = |network: &IpNet| {
            let size = match network {
                IpNet::V4(_) => self.mask_size_ipv4,
                IpNet::V6(_) => self.mask_size_ipv6,
            };
            ClusterRange::new(*network, size).map_err(NodeIpamError::Size)
        };
        self.cluster_cidrs.iter().map(range).collect()
    }
}

fn one_a_family(what: &'static str, ranges: &[IpNet]) -> Result<(), NodeIpamError> {
    let v6 = ranges.iter().filter(|range| matches!(range, IpNet::V6(_))).count();
    if v6 <= 1 && ranges.len() - v6 <= 1 {
        return Ok(());
    }
    let got = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Err(NodeIpamError::Families { what, got })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pods: &str, services: &str) -> String {
        let nets = |text: &str| text.split(',').map(|net| net.parse().expect("network")).collect();
        let options = NodeIpamOptions {
            cluster_cidrs: nets(pods),
            service_cidrs: nets(services),
            ..NodeIpamOptions::default()
        };
        options.check().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert_eq!(check("10.244.0.0/16", "10.96.0.0/12"), "");
        assert_eq!(check("fd00:10:244::/56,10.244.0.0/16", "10.96.0.0/12,fd00:10:96::/112"), "");
        assert!(check("10.100.0.0/16", "10.96.0.0/12").contains("would share addresses"));
        assert!(check("10.0.0.0/8", "10.96.0.0/12").contains("pods (10.0.0.0/8) and Services"));
        assert!(check("10.1.0.0/16,10.2.0.0/16", "10.96.0.0/12").contains("--cluster-cidr takes"));
        assert!(check("10.1.0.0/16", "10.96.0.0/12,10.3.0.0/24").contains("--service-cidr takes"));
        assert!(check("10.244.0.0/28", "10.96.0.0/12").contains("is smaller than the /24"));
        assert!(check("fd00::/32", "10.96.0.0/12").contains("more than 16 longer"));
    }
}
