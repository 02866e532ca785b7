//! What cluster DNS is told.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net};

/// Cluster DNS on one node.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// The cluster's domain, without a trailing dot.
    pub domain: String,
    /// Name of the node; its endpoint is one of the Service's.
    pub node_name: String,
    /// Where to listen, UDP and TCP: the first is what the Service leads to on this node. An
    /// address need not exist yet.
    pub listen: Vec<SocketAddr>,
    /// Cluster IPs of the Service `kube-system/kube-dns`, one a family, the primary family first.
    pub service_ips: Vec<IpAddr>,
    /// Who may ask, besides this machine itself. Others get no answer at all.
    pub allow: Vec<IpNet>,
    /// Networks whose addresses are the cluster's: their reverse names are not asked for outside.
    pub own_networks: Vec<IpNet>,
    /// File that names the resolvers for everything outside the cluster.
    pub resolv_conf: PathBuf,
}

impl DnsOptions {
    /// Options with the usual domain and addresses, listening on `gateway`, the node's address on
    /// its pod network.
    pub fn new(node_name: impl Into<String>, gateway: impl Into<IpAddr>) -> Self {
        let net = |a, b, length| {
            let net = Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length);
            IpNet::V4(net.expect("prefix lengths are below 33"))
        };
        let (pods, services) = (net(10, 244, 16), net(10, 96, 12));
        Self {
            domain: "cluster.local".to_owned(),
            node_name: node_name.into(),
            listen: vec![SocketAddr::new(gateway.into(), 53)],
            service_ips: vec![Ipv4Addr::new(10, 96, 0, 10).into()],
            allow: vec![pods],
            own_networks: vec![pods, services],
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}
