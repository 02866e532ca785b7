//! What servers and nodes can be told on the command line, and what follows from it before anything
//! starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use client::ServerAddress;
use controllers::AddressRange;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use pki::JoinToken;

use super::access::AccessFlags;
use super::admission::AdmissionFlags;
use super::datastore::DatastoreFlags;
use super::info::{Backend, ClusterInfo};
use super::lifecycle::{EndFlags, JudgeFlags};
use crate::cli::Target;
use crate::layout::Layout;
use crate::local::LocalFlags;
use crate::machine;

/// What every role can be told.
#[derive(Args, Debug, Clone)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Start in the background, and come back when everything is ready
    #[arg(long)]
    pub(crate) detach: bool,
    /// Log filter: error, warn, info, debug, or as in `kubelet=debug,info`
    #[arg(long, env = "SKIFF_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

/// `skiff up`: control plane and node.
#[derive(Args, Debug, Clone)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    #[command(flatten)]
    pub(crate) local: LocalFlags,
}

/// `skiff server`: the control plane.
#[derive(Args, Debug, Clone)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// `skiff agent`: a node.
#[derive(Args, Debug, Clone)]
pub(crate) struct AgentOptions {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Where the cluster's servers are; several with commas between. The agent learns of others
    #[arg(long, env = "SKIFF_SERVER", value_name = "URL", value_delimiter = ',')]
    pub(crate) server: Vec<ServerAddress>,
    /// Join token, as `skiff token create` prints it; needed until the node has joined
    #[arg(long, env = "SKIFF_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<JoinToken>,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

/// What a server can be told.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct ServerFlags {
    /// Address and port that the API server listens on
    #[arg(long, default_value = "0.0.0.0:6443", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Address by which nodes and pods reach this server [default: the node's, or that of the default route]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Further names and addresses by which clients reach this server, for its certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) tls_san: Vec<String>,
    /// Addresses of pods; one range, or an IPv4 and an IPv6 range with a comma between
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) cluster_cidr: Vec<IpNet>,
    /// Prefix length of one node's IPv4 addresses of pods
    #[arg(long, default_value_t = 24, value_name = "BITS")]
    pub(crate) node_cidr_mask_size_ipv4: u8,
    /// Prefix length of one node's IPv6 addresses of pods
    #[arg(long, default_value_t = 64, value_name = "BITS")]
    pub(crate) node_cidr_mask_size_ipv6: u8,
    /// Addresses of Services; one range, or one of each family
    #[arg(long, default_value = "10.96.0.0/12", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) service_cidr: Vec<IpNet>,
    /// How packets get from node to node: vxlan works everywhere, host-gw where nodes share a segment
    #[arg(long, default_value = "vxlan", value_name = "BACKEND")]
    pub(crate) network_backend: Backend,
    /// Number of the network of vxlan; another cluster on the same machines needs another
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    pub(crate) vxlan_id: u32,
    /// UDP port of vxlan
    #[arg(long, default_value_t = 8472, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) vxlan_port: u16,
    /// Addresses for Services of type LoadBalancer, announced by the nodes: networks, ranges as in 192.0.2.10-192.0.2.20, of either family [default: the nodes' own addresses]
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub(crate) load_balancer_pool: Vec<AddressRange>,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub(crate) cluster_domain: String,
    /// How long signed certificates of nodes and clients are valid, as in 8760h, 10m, 30s
    #[arg(long, default_value = "8760h", value_name = "TIME", value_parser = duration)]
    pub(crate) cluster_signing_duration: Duration,
    #[command(flatten)]
    pub(crate) datastore: DatastoreFlags,
    #[command(flatten)]
    pub(crate) judge: JudgeFlags,
    #[command(flatten)]
    pub(crate) access: AccessFlags,
    #[command(flatten)]
    pub(crate) admission: AdmissionFlags,
}

/// What a node can be told.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Node")]
pub(crate) struct NodeFlags {
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Addresses by which pods and other machines reach this one, at most one a family [default: that of the default route]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Addresses by which the world outside reaches this node, at most one a family
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) node_external_ip: Vec<IpAddr>,
    /// Label of the node, set when it registers; may be repeated
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub(crate) node_labels: Vec<(String, String)>,
    /// Taint of the node, set when it first registers; may be repeated
    #[arg(long = "node-taint", value_name = "KEY=VALUE:EFFECT", value_delimiter = ',', value_parser = taint)]
    pub(crate) node_taints: Vec<Taint>,
    /// Port of the kubelet's API
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    pub(crate) kubelet_port: u16,
    /// Ranges of the node's addresses that offer node ports [default: all addresses]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) nodeport_addresses: Vec<IpNet>,
    /// Name of the pods' bridge
    #[arg(long, default_value = "skiff0", value_name = "NAME")]
    pub(crate) bridge: String,
    /// Name of the nftables table
    #[arg(long, default_value = "skiff", value_name = "NAME")]
    pub(crate) nft_table: String,
    /// Whose network pods have: skiff's own; none, where another is installed in /etc/cni/net.d and
    /// /opt/cni/bin; or that configured in a directory. skiff's network policies go with its own; its DNS
    /// answers pods with addresses of --cluster-cidr, whoever gave them
    #[arg(long, default_value = "skiff", value_name = "skiff|none|DIRECTORY")]
    pub(crate) cni: Cni,
    /// Leave Services to another proxy
    #[arg(long)]
    pub(crate) no_service_proxy: bool,
    /// Name of the pods' cgroup
    #[arg(long, default_value = "kubepods", value_name = "NAME")]
    pub(crate) cgroup: String,
    /// Socket of a container runtime that runs already, instead of a containerd of skiff's own
    #[arg(long, value_name = "SOCKET")]
    pub(crate) runtime_socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) end: EndFlags,
}

/// Whose network pods have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cni {
    /// skiff's own.
    Skiff,
    /// Another that installs itself in the usual places.
    Usual,
    /// Another, configured in this directory.
    Directory(PathBuf),
}

impl std::str::FromStr for Cni {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "skiff" => Ok(Self::Skiff),
            "none" => Ok(Self::Usual),
            path if path.starts_with('/') => Ok(Self::Directory(path.into())),
            _ => Err("give skiff, none, or the absolute path of a directory".to_owned()),
        }
    }
}

/// What is known about a control plane before anything starts.
pub(crate) struct ServerPlan {
    pub(crate) flags: ServerFlags,
    pub(crate) layout: Layout,
    /// Address by which others reach this server.
    pub(crate) address: IpAddr,
    /// The node in the same process.
    pub(crate) local_node: Option<String>,
}

impl ServerPlan {
    pub(crate) fn new(
        flags: ServerFlags,
        layout: Layout,
        node: Option<&NodePlan>,
    ) -> anyhow::Result<Self> {
        let address = flags
            .advertise_address
            .or_else(|| node.and_then(|node| node.addresses.first().copied()))
            .or_else(|| machine::node_address(""));
        let address = address.context(
            "this machine has no address: connect it to a network, or give --advertise-address",
        )?;
        let local_node = node.map(|node| node.name.clone());
        let mut flags = flags;
        if address.is_ipv6() && flags.listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            // All addresses: others come by this one.
            flags.listen.set_ip(Ipv6Addr::UNSPECIFIED.into());
        }
        let plan = Self { flags, layout, address, local_node };
        plan.service_addresses(1)?;
        plan.info()?;
        super::control_plane::ipam_options(&plan).check()?;
        Ok(plan)
    }

    /// The API server's address as seen from this machine.
    pub(crate) fn server(&self) -> SocketAddr {
        let listen = self.flags.listen;
        let address =
            if listen.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { listen.ip() };
        SocketAddr::new(address, listen.port())
    }

    /// The API server's URL as seen from this machine.
    pub(crate) fn server_url(&self) -> String {
        format!("https://{}", self.server())
    }

    /// The API server's address as seen from others.
    pub(crate) fn advertised(&self) -> SocketAddr {
        (self.address, self.flags.listen.port()).into()
    }

    /// The n-th address of each range of Services: 1 is the API server's, 10 the DNS's.
    pub(crate) fn service_addresses(&self, index: usize) -> anyhow::Result<Vec<IpAddr>> {
        let address = |range: &IpNet| {
            range
                .hosts()
                // The first address of an IPv6 range counts as a host.
                .filter(|address| *address != range.network())
                .nth(index - 1)
                .with_context(|| format!("--service-cidr {range} is too small"))
        };
        self.flags.service_cidr.iter().map(address).collect()
    }

    /// What nodes are told.
    pub(crate) fn info(&self) -> anyhow::Result<ClusterInfo> {
        Ok(ClusterInfo {
            cluster_cidrs: self.flags.cluster_cidr.clone(),
            service_cidrs: self.flags.service_cidr.clone(),
            mask_sizes: (self.flags.node_cidr_mask_size_ipv4, self.flags.node_cidr_mask_size_ipv6),
            dns_domain: self.flags.cluster_domain.clone(),
            dns_addresses: self.service_addresses(10)?,
            backend: self.flags.network_backend,
            vxlan: (self.flags.vxlan_id, self.flags.vxlan_port),
            servers: vec![format!("https://{}", self.advertised())],
        })
    }
}

/// What is known about a node before anything starts.
#[derive(Clone)]
pub(crate) struct NodePlan {
    pub(crate) flags: NodeFlags,
    pub(crate) layout: Layout,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

impl NodePlan {
    /// `fallback` is the address of a machine without a network.
    pub(crate) fn new(
        flags: NodeFlags,
        layout: Layout,
        fallback: Option<IpAddr>,
    ) -> anyhow::Result<Self> {
        let name = flags.node_name.clone().map_or_else(machine::node_name, Ok)?;
        if let Some(problem) = meta::names::is_dns1123_subdomain(&name).into_iter().next() {
            bail!("{name:?} cannot be a node's name: {problem}; give another with --node-name");
        }
        let mut addresses = flags.node_ip.clone();
        if addresses.is_empty() {
            addresses.extend(machine::node_address(&flags.bridge).or(fallback));
        }
        if addresses.is_empty() {
            bail!("this machine has no address: connect it to a network, or give --node-ip");
        }
        for (flag, list) in
            [("--node-ip", &addresses), ("--node-external-ip", &flags.node_external_ip)]
        {
            let v6 = list.iter().filter(|address| address.is_ipv6()).count();
            if v6 > 1 || list.len() - v6 > 1 {
                bail!("{flag} takes one address, or one IPv4 and one IPv6 address");
            }
        }
        for (key, _) in &flags.node_labels {
            allowed_label(key)?;
        }
        Ok(Self { flags, layout, name, addresses })
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.flags.node_labels.iter().cloned().collect()
    }
}

/// Refuses labels that a node may not give itself (NodeRestriction would, less clearly).
fn allowed_label(key: &str) -> anyhow::Result<()> {
    const KNOWN: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let below = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let own = below("kubelet.kubernetes.io") || below("node.kubernetes.io");
    if KNOWN.contains(&key) || own || !(below("kubernetes.io") || below("k8s.io")) {
        return Ok(());
    }
    bail!(
        "a node may not give itself the label {key}: of kubernetes.io and k8s.io it may set only \
         well-known labels and those below kubelet.kubernetes.io and node.kubernetes.io; set it with \
         `kubectl label node` instead"
    )
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label looks like key=value")?;
    let problem = meta::names::is_qualified_name(key)
        .into_iter()
        .chain(meta::names::is_label_value(value))
        .next();
    match problem {
        Some(problem) => Err(format!("{text:?} is no label: {problem}")),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

/// `key=value:Effect` or `key:Effect`.
fn taint(text: &str) -> Result<Taint, String> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let bad = || {
        format!(
            "a taint looks like key=value:Effect, where Effect is one of {}",
            EFFECTS.join(", ")
        )
    };
    let (pair, effect) = text.rsplit_once(':').ok_or_else(bad)?;
    if !EFFECTS.contains(&effect) {
        return Err(bad());
    }
    let (key, value) =
        label(&if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })?;
    Ok(Taint {
        key,
        value: (!value.is_empty()).then_some(value),
        effect: effect.to_owned(),
        ..Taint::default()
    })
}

/// A time as Kubernetes' flags take it: `8760h`, `1h30m`, `45s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: it looks like 24h, 1h30m or 45s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u32 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let (unit, length) = match rest.as_bytes() {
            [b'm', b's', ..] => (Duration::from_millis(1), 2),
            [b'h', ..] => (Duration::from_secs(3600), 1),
            [b'm', ..] => (Duration::from_secs(60), 1),
            [b's', ..] => (Duration::from_secs(1), 1),
            _ => return Err(bad()),
        };
        total =
            unit.checked_mul(number).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = &rest[length..];
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_labels_and_taints_are_read_or_refused() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "0s", "5", "h", "5d", "99999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(label("zone=a").is_ok() && label("zone").is_err() && label("zo ne=a").is_err());
        let read = taint("gpu=yes:NoSchedule").expect("a taint");
        assert_eq!((read.key.as_str(), read.value.as_deref()), ("gpu", Some("yes")));
        assert_eq!(taint("gpu:NoExecute").expect("a taint").value, None);
        assert!(taint("gpu=yes").is_err() && taint("gpu=yes:Never").is_err());
        assert!(allowed_label("topology.kubernetes.io/zone").is_ok());
        assert!(allowed_label("example.com/x").is_ok() && allowed_label("x").is_ok());
        assert!(allowed_label("node.kubernetes.io/x").is_ok());
        assert!(allowed_label("node-role.kubernetes.io/master").is_err());
        assert!(allowed_label("node-restriction.kubernetes.io/x").is_err());
    }
}
