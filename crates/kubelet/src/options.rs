//! What a kubelet is told about its node and its cluster. Data only.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use k8s_openapi::api::core::v1::Taint;

/// The priority from which on pods are critical to the system.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// How long pods may take to end when the machine goes down (KEP-2712).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownGrace {
    /// For pods of this priority and more, up to the next entry's.
    pub priority: i32,
    /// Together.
    pub grace: Duration,
}

/// Options of a [`crate::Kubelet`].
#[derive(Debug, Clone)]
pub struct KubeletOptions {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the node, primary first.
    pub node_ips: Vec<IpAddr>,
    /// Addresses by which the world outside reaches the node.
    pub external_ips: Vec<IpAddr>,
    /// Volumes and other files of pods live here.
    pub root_dir: PathBuf,
    /// Container logs live here, as `<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_dir: PathBuf,
    /// Where the kubelet's HTTPS API listens.
    pub listen: SocketAddr,
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The host's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Root of the pods' cgroups, such as `/kubepods`; another one keeps two nodes on a machine apart.
    pub cgroup_root: String,
    /// Most pods on this node.
    pub max_pods: u32,
    /// Most processes in one pod; `None` sets no limit.
    pub pod_pids: Option<u64>,
    /// CPU kept back from pods, thousandths of a core.
    pub reserved_cpu_milli: i64,
    /// Memory kept back from pods, bytes.
    pub reserved_memory: i64,
    /// Labels the Node gets when it is created.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node gets when it is created.
    pub taints: Vec<Taint>,
    /// How long the node's lease holds, unless the Node says otherwise; it is renewed three times meanwhile.
    pub lease_duration: Duration,
    /// Stop pods that others will replace when the lease is over because no server answers.
    pub self_fence: bool,
    /// The order in which pods end when the machine goes down.
    pub shutdown_grace: Vec<ShutdownGrace>,
    /// How often an unchanged node status is written.
    pub status_period: Duration,
    /// A container log is rotated when it exceeds this many bytes.
    pub log_max_bytes: u64,
    /// How many files are kept of one container's log, the current one included.
    pub log_max_files: usize,
    /// The most SIGTERM waits for proxies to withdraw a pod (the drain contract).
    pub drain_limit: Duration,
    /// Most pulls at the same time.
    pub max_pulls: usize,
}

impl KubeletOptions {
    /// Options with Kubernetes' defaults; files below `root`.
    pub fn new(node_name: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        let root: PathBuf = root.into();
        Self {
            node_name: node_name.into(),
            node_ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            external_ips: Vec::new(),
            log_dir: root.join("logs"),
            root_dir: root,
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            cluster_dns: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
            cgroup_root: "/kubepods".to_owned(),
            max_pods: 110,
            pod_pids: None,
            reserved_cpu_milli: 0,
            reserved_memory: 100 << 20,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            lease_duration: Duration::from_secs(10),
            self_fence: false,
            shutdown_grace: Self::shutdown_in_two(Duration::from_secs(30), Duration::from_secs(10)),
            status_period: Duration::from_secs(300),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            drain_limit: Duration::from_secs(3),
            max_pulls: 3,
        }
    }

    /// Ordinary pods first, then critical ones, which have the last `critical` of the `total`.
    pub fn shutdown_in_two(total: Duration, critical: Duration) -> Vec<ShutdownGrace> {
        let critical = critical.min(total);
        vec![
            ShutdownGrace { priority: 0, grace: total - critical },
            ShutdownGrace { priority: SYSTEM_CRITICAL, grace: critical },
        ]
    }

    /// The directory of one pod's files.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// The directory of one pod's logs.
    pub(crate) fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
