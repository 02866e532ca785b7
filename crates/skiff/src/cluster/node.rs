//! The node: container runtime, kubelet, pod network, service proxy, DNS. The same in every role:
//! only how it reaches the API server and by which identities differs ([`Access`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use client::Caches;
use cri::archive::{Architecture, PAUSE_IMAGE, pause_image};
use cri::containerd::{Containerd, ContainerdOptions, Snapshotter};
use cri::{GrpcRuntime, Runtime as _};
use dns::{Dns, DnsOptions};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use kubelet::{Kubelet, KubeletDependencies, KubeletOptions, ServerIdentity};
use network::cni::InstallOptions;
use network::{Announcer, NetworkOptions, PodNetwork, PodNetworkError, Policy, Proxy};
use pki::Profile;
use rustls::pki_types::CertificateDer;
use serve::tls::Certificate;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::control_plane::ControlPlane;
use super::info::ClusterInfo;
use super::lifecycle::Departure;
use super::options::{Cni, NodePlan};
use super::{ContainerRuntime, Part, identity};
use crate::instance::Instance;

/// How a node reaches its cluster, and what it shows.
pub(super) struct Access {
    /// As the kubelet, `system:node:<name>`.
    pub(super) kubelet: kube::Client,
    /// As the node's network, `skiff:network:<name>`.
    pub(super) network: kube::Client,
    /// What the kubelet's API presents; may have to be obtained yet.
    pub(super) serving: Arc<Certificate>,
    /// The cluster's authority.
    pub(super) authority: CertificateDer<'static>,
    /// Where the node opens tunnels to.
    pub(super) tunnel: Option<serve::tunnel::AgentOptions>,
    /// To be cancelled when the node's Services lead where they should.
    pub(super) led: CancellationToken,
    /// How the node ends with its machine.
    pub(super) departure: Departure,
}

impl Access {
    /// For a node in the process of the API server: the authority is at hand.
    pub(super) fn in_process(
        node: &NodePlan,
        control: &ControlPlane,
        led: CancellationToken,
        departure: Departure,
    ) -> anyhow::Result<Self> {
        let user = format!("system:node:{}", node.name);
        let profile = serving_profile(node);
        let serving = control.keep_identity("kubelet", profile)?;
        Ok(Self {
            kubelet: identity::client(&control.api, &user, &["system:nodes"]),
            network: identity::client(
                &control.api,
                &format!("skiff:network:{}", node.name),
                &["skiff:network"],
            ),
            serving,
            authority: control.authority.certificate_der()?,
            tunnel: None,
            led,
            departure,
        })
    }
}

/// What the kubelet's API has to present.
pub(super) fn serving_profile(node: &NodePlan) -> Profile {
    let mut addresses = node.addresses.clone();
    addresses.extend(&node.flags.node_external_ip);
    addresses.sort_unstable();
    addresses.dedup();
    Profile {
        organization: Some("system:nodes".to_owned()),
        ..Profile::server(format!("system:node:{}", node.name), vec![node.name.clone()], addresses)
    }
}

/// A container runtime that is being started.
pub(super) struct Runtime(JoinHandle<anyhow::Result<ContainerRuntime>>);

impl Runtime {
    /// Begins to start one, beside everything else.
    pub(super) fn start(node: &NodePlan) -> Self {
        let options = runtime_options(node);
        Self(tokio::spawn(prepare(options, node.flags.runtime_socket.clone())))
    }

    /// Waits until it answers and has the pause image.
    pub(super) async fn wait(self) -> anyhow::Result<ContainerRuntime> {
        self.0.await.context("start the container runtime")?.context("start the container runtime")
    }
}

async fn prepare(
    options: ContainerdOptions,
    foreign: Option<PathBuf>,
) -> anyhow::Result<ContainerRuntime> {
    match foreign {
        Some(socket) => Ok(ContainerRuntime::Foreign(socket)),
        None => {
            let containerd = Containerd::start(options).await?;
            import_pause_image(&containerd).await.context("import the pause image")?;
            Ok(ContainerRuntime::Own(containerd))
        }
    }
}

async fn import_pause_image(containerd: &Containerd) -> anyhow::Result<()> {
    if containerd.runtime().image_status(PAUSE_IMAGE.to_owned()).await?.is_some() {
        return Ok(());
    }
    let architecture =
        Architecture::host().context("there is no pause program for this processor")?;
    let options = containerd.options();
    let path = options.run_dir.join("pause.tar");
    let file =
        std::fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    cri::archive::write(file, &[pause_image(architecture)]).context("write the archive")?;
    import(&options.socket(), containerd.snapshotter(), &path).await?;
    std::fs::remove_file(&path).context("remove the archive")
}

async fn import(socket: &Path, snapshotter: Snapshotter, archive: &Path) -> anyhow::Result<()> {
    cri::containerd::import(socket, snapshotter, archive).await.map(drop).map_err(Into::into)
}

/// Starts the node's parts once the runtime answers.
pub(super) async fn start(
    node: &NodePlan,
    runtime: Runtime,
    access: Access,
    info: ClusterInfo,
    instance: &mut Instance,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let network = Network {
        options: network_options(node, &info),
        places: install_options(node)?,
        dns: dns_options(node, &info),
        caches: Caches::new(access.network.clone(), shutdown.clone()),
        node: node.clone(),
        counted: dns::Metrics::default(),
        led: access.led.clone(),
    };
    if !has_led(node) {
        access.led.cancel();
    }
    let runtime = runtime.wait().await?;
    instance.update(|description| {
        if let Some(node) = &mut description.node {
            node.snapshotter = runtime.snapshotter();
        }
    })?;
    super::step("the container runtime answers");
    let runtime_client = match &runtime {
        ContainerRuntime::Own(containerd) => containerd.runtime(),
        ContainerRuntime::Foreign(socket) => GrpcRuntime::new(socket),
    };
    if let ContainerRuntime::Own(containerd) = runtime {
        let shutdown = shutdown.clone();
        parts.spawn(async move {
            containerd.run(shutdown).await;
            ("the container runtime", Ok(()))
        });
    }
    let nodes = Api::all(access.kubelet.clone());
    start_kubelet(node, &info, runtime_client, access, &network, parts, shutdown);
    parts.spawn(network.run(shutdown.clone()));
    parts.spawn(welcome(nodes, node.clone(), shutdown.clone()));
    Ok(())
}

/// Whether this node has led to Services before, and does so until told otherwise.
fn has_led(node: &NodePlan) -> bool {
    !node.flags.no_service_proxy && !network::saved_pod_networks(&node.layout.network()).is_empty()
}

fn start_kubelet(
    node: &NodePlan,
    info: &ClusterInfo,
    runtime: GrpcRuntime,
    access: Access,
    network: &Network,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) {
    let Departure { begun: going_down, others_ended } = access.departure;
    parts.spawn(super::lifecycle::watch_power(going_down.clone(), shutdown.clone()));
    let dependencies = KubeletDependencies {
        // The kubelet waits for what the proxy publishes: both see it through the same caches.
        network: network.caches.clone(),
        caches: Caches::new(access.kubelet, shutdown.clone()),
        runtime: Arc::new(runtime),
        identity: ServerIdentity {
            certificate: access.serving,
            client_authorities: vec![access.authority],
        },
        tunnel: access.tunnel,
        going_down: going_down.clone(),
        others: text_of(&network.counted),
    };
    let options = KubeletOptions {
        node_ips: node.addresses.clone(),
        external_ips: node.flags.node_external_ip.clone(),
        labels: node.labels(),
        taints: node.flags.node_taints.clone(),
        log_dir: node.layout.pod_logs(),
        listen: (any(&node.addresses), node.flags.kubelet_port).into(),
        cluster_dns: info.dns_addresses.clone(),
        cluster_domain: info.dns_domain.clone(),
        cgroup_root: format!("/{}", node.flags.cgroup),
        self_fence: node.flags.end.self_fence,
        shutdown_grace: node.flags.end.shutdown_grace(),
        ..KubeletOptions::new(node.name.clone(), node.layout.kubelet())
    };
    let kubelet = Kubelet::new(options, dependencies);
    let shutdown = shutdown.clone();
    parts.spawn(async move {
        let outcome = kubelet.run(shutdown.clone()).await;
        if going_down.is_cancelled() {
            // Statuses of their last pods go to the server in this process.
            shutdown.run_until_cancelled(others_ended.cancelled()).await;
            shutdown.cancel();
        }
        ("the kubelet", outcome.map_err(Into::into))
    });
}

/// The unspecified address on which all of these are listened to.
fn any(addresses: &[IpAddr]) -> IpAddr {
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// What the cluster's DNS counts, as the kubelet tells it.
fn text_of(counted: &dns::Metrics) -> kubelet::OtherMetrics {
    let mut registry = prometheus_client::registry::Registry::default();
    counted.register(&mut registry);
    Arc::new(move || {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            // OpenMetrics ends with a mark; the kubelet's is the older text format.
            Ok(()) => text.trim_end_matches("# EOF\n").to_owned(),
            Err(_) => String::new(),
        }
    })
}

fn network_options(node: &NodePlan, info: &ClusterInfo) -> NetworkOptions {
    NetworkOptions {
        pod_networks: Vec::new(),
        cluster_networks: info.cluster_cidrs.clone(),
        service_networks: info.service_cidrs.clone(),
        node_addresses: node.addresses.clone(),
        backend: info.backend.network(info.vxlan),
        bridge: node.flags.bridge.clone(),
        table: node.flags.nft_table.clone(),
        policy: node.flags.cni == Cni::Skiff,
        node_port_addresses: node.flags.nodeport_addresses.clone(),
        ..NetworkOptions::new(node.name.clone(), node.layout.network())
    }
}

/// The container runtime, which looks for network plugins where they are.
fn runtime_options(node: &NodePlan) -> ContainerdOptions {
    let options = super::runtime_options(&node.layout);
    let conf_dir = match &node.flags.cni {
        Cni::Skiff => return options,
        Cni::Usual => "/etc/cni/net.d".into(),
        Cni::Directory(directory) => directory.clone(),
    };
    ContainerdOptions { cni_bin_dir: "/opt/cni/bin".into(), cni_conf_dir: conf_dir, ..options }
}

fn install_options(node: &NodePlan) -> anyhow::Result<InstallOptions> {
    let runtime = runtime_options(node);
    Ok(InstallOptions {
        bin_dir: runtime.cni_bin_dir,
        conf_dir: runtime.cni_conf_dir,
        executable: std::env::current_exe().context("find this executable")?,
    })
}

fn dns_options(node: &NodePlan, info: &ClusterInfo) -> DnsOptions {
    DnsOptions {
        domain: info.dns_domain.clone(),
        service_ips: info.dns_addresses.clone(),
        allow: info.cluster_cidrs.clone(),
        own_networks: info.cluster_cidrs.iter().chain(&info.service_cidrs).copied().collect(),
        ..DnsOptions::new(node.name.clone(), IpAddr::from([0, 0, 0, 0]))
    }
}

/// Everything that carries pods' traffic: it sees the same objects through the same caches.
#[derive(Clone)]
struct Network {
    node: NodePlan,
    options: NetworkOptions,
    places: InstallOptions,
    dns: DnsOptions,
    caches: Caches,
    counted: dns::Metrics,
    led: CancellationToken,
}

impl Network {
    /// Starts when the node has its pod networks, and again when it is given others. A node that has
    /// had them starts at once, whether or not a server is there.
    async fn run(self, shutdown: CancellationToken) -> Part {
        const NAME: &str = "the pod network";
        loop {
            let network = match shutdown.run_until_cancelled(self.clone().prepare()).await {
                None => return (NAME, Ok(())),
                Some(Err(error)) => return (NAME, Err(error)),
                Some(Ok(network)) => network,
            };
            let round = shutdown.child_token();
            let mut parts = JoinSet::new();
            network.start(&mut parts, &round);
            let outcome = super::wait(parts, &round).await;
            if outcome.is_err() || shutdown.is_cancelled() {
                return (NAME, outcome);
            }
        }
    }

    async fn prepare(mut self) -> anyhow::Result<Self> {
        if self.node.flags.cni != Cni::Skiff {
            return self.prepare_for_another().await;
        }
        self.options.pod_networks = network::saved_pod_networks(&self.options.data_dir);
        if self.options.pod_networks.is_empty() {
            self.options.pod_networks =
                network::await_pod_networks(&self.caches, &self.options).await;
        }
        let gateways = self.options.gateways();
        self.dns.listen = gateways.iter().map(|gateway| (*gateway, 53).into()).collect();
        let setup = tokio::task::spawn_blocking(move || {
            network::setup(&self.options).context("set up the pod network")?;
            network::cni::install(&self.places, &self.options)
                .context("install the network plugin")?;
            anyhow::Ok(self)
        });
        setup.await.context("set up the pod network")?
    }

    /// Somebody else's network carries pods: Services and names are what is left.
    async fn prepare_for_another(mut self) -> anyhow::Result<Self> {
        self.dns.listen = self.node.addresses.iter().map(|address| (*address, 53).into()).collect();
        let setup = tokio::task::spawn_blocking(move || {
            if !self.node.flags.no_service_proxy {
                network::setup_services(&self.options).context("get ready for Services")?;
            }
            network::cni::install_loopback(&self.places).context("install the loopback plugin")?;
            anyhow::Ok(self)
        });
        setup.await.context("get ready for another network")?
    }

    fn start(self, parts: &mut JoinSet<Part>, round: &CancellationToken) {
        let Self { node, options, dns, caches, counted, led, .. } = self;
        if !node.flags.no_service_proxy {
            let proxy = Proxy::new(options.clone(), caches.clone());
            let (stop, programmed) = (round.clone(), proxy.programmed());
            tokio::spawn(round.clone().run_until_cancelled_owned(async move {
                programmed.cancelled().await;
                led.cancel();
            }));
            parts.spawn(
                async move { ("the service proxy", proxy.run(stop).await.map_err(Into::into)) },
            );
            let announcer = Announcer::new(node.name.clone(), caches.clone());
            let stop = round.clone();
            parts.spawn(async move {
                announcer.run(stop).await;
                ("the announcer of addresses", Ok(()))
            });
        }
        if node.flags.cni == Cni::Skiff {
            let policy = Policy::new(options.clone(), caches.clone());
            let stop = round.clone();
            parts.spawn(
                async move { ("network policy", policy.run(stop).await.map_err(Into::into)) },
            );
            parts.spawn(lead(PodNetwork::new(options, caches.clone()), round.clone()));
        }
        let dns = Dns::new(dns, caches, counted);
        let stop = round.clone();
        parts.spawn(async move { ("cluster DNS", dns.run(stop).await.map_err(Into::into)) });
    }
}

/// Runs the way to other nodes; ends the round when this node is given other pod networks.
async fn lead(nodes: PodNetwork, round: CancellationToken) -> Part {
    const NAME: &str = "the way to other nodes";
    match nodes.run(round.clone()).await {
        Err(moved @ PodNetworkError::Moved(_)) => {
            tracing::warn!("{moved}: starting this node's network again");
            round.cancel();
            (NAME, Ok(()))
        }
        outcome => (NAME, outcome.map_err(Into::into)),
    }
}

/// Tells when the node is Ready.
async fn welcome(nodes: Api<Node>, node: NodePlan, shutdown: CancellationToken) -> Part {
    const NAME: &str = "the registration of the node";
    let work = async {
        // A server that is away now will be back.
        while let Err(error) = await_condition(nodes.clone(), &node.name, is_ready).await {
            tracing::debug!(%error, "the node cannot be watched");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        super::step("the node is Ready");
        super::mark_ready(&node.layout)
    };
    match shutdown.run_until_cancelled(work).await {
        Some(Ok(())) => shutdown.cancelled().await,
        Some(Err(error)) => return (NAME, Err(error)),
        None => {}
    }
    (NAME, Ok(()))
}

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    })
}
