//! A whole cluster in one process: options, the order in which parts start, how they end together.
//!
//! The parts meet only through the API server; each is started with a client that has its own
//! identity, and none knows that the others are in the same process.

mod control_plane;
mod identity;
mod node;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use cri::containerd::{Containerd, ContainerdOptions};
use network::NetworkOptions;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check;
use crate::cli::Target;
use crate::instance::{self, Description, Instance};
use crate::layout::Layout;
use crate::machine;
use control_plane::ControlPlane;

/// Stands before every step of the start in the log, so that a waiting parent can show it.
pub(crate) const STEP: &str = "step: ";

/// How long containers may take to end by themselves: the cluster goes, nobody waits for requests.
const GRACE: Duration = Duration::from_secs(2);

/// What `skiff up` can be told.
#[derive(Args, Debug, Clone)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Start in the background, and come back when the node is Ready
    #[arg(long)]
    pub(crate) detach: bool,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Address by which pods and other machines reach this one [default: that of the default route]
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
    /// Address and port that the API server listens on
    #[arg(long, default_value = "0.0.0.0:6443", value_name = "ADDR")]
    listen: SocketAddr,
    /// Port of the kubelet's API
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    kubelet_port: u16,
    /// Addresses of pods; the node takes its first /24
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    cluster_cidr: ipnet::Ipv4Net,
    /// Addresses of Services
    #[arg(long, default_value = "10.96.0.0/12", value_name = "CIDR")]
    service_cidr: ipnet::Ipv4Net,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// Name of the pods' bridge
    #[arg(long, default_value = "skiff0", value_name = "NAME")]
    bridge: String,
    /// Name of the nftables table
    #[arg(long, default_value = "skiff", value_name = "NAME")]
    nft_table: String,
    /// Name of the pods' cgroup
    #[arg(long, default_value = "kubepods", value_name = "NAME")]
    cgroup: String,
    /// Socket of a container runtime that runs already, instead of a containerd of skiff's own
    #[arg(long, value_name = "SOCKET")]
    runtime_socket: Option<PathBuf>,
    /// Log filter: error, warn, info, debug, or as in `kubelet=debug,info`
    #[arg(long, env = "SKIFF_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

/// What is known about the cluster before anything starts.
pub(crate) struct Plan {
    pub(crate) options: UpOptions,
    pub(crate) layout: Layout,
    pub(crate) node_name: String,
    pub(crate) node_address: IpAddr,
    /// Addresses of pods on this node.
    pub(crate) pod_network: ipnet::Ipv4Net,
}

impl Plan {
    fn new(options: UpOptions) -> anyhow::Result<Self> {
        let layout = options.target.layout();
        let node_name = options.node_name.clone().map_or_else(machine::node_name, Ok)?;
        if let Some(problem) = meta::names::is_dns1123_subdomain(&node_name).into_iter().next() {
            bail!(
                "{node_name:?} cannot be a node's name: {problem}; give another with --node-name"
            );
        }
        let Some(pod_network) =
            options.cluster_cidr.subnets(24).ok().and_then(|mut networks| networks.next())
        else {
            bail!(
                "--cluster-cidr {} has no room for a node: give at least a /24",
                options.cluster_cidr
            );
        };
        let gateway = pod_network.hosts().next().context("a /24 has hosts")?;
        let node_address = options
            .node_ip
            .or_else(|| machine::node_address(&options.bridge))
            .unwrap_or(IpAddr::V4(gateway));
        Ok(Self { options, layout, node_name, node_address, pod_network })
    }

    /// The API server's address as seen from this machine.
    pub(crate) fn server(&self) -> SocketAddr {
        let listen = self.options.listen;
        let address =
            if listen.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { listen.ip() };
        SocketAddr::new(address, listen.port())
    }

    /// The n-th address of the Services' range: 1 is the API server's, 10 the DNS's.
    pub(crate) fn service_address(&self, index: usize) -> anyhow::Result<IpAddr> {
        let address = self.options.service_cidr.hosts().nth(index - 1);
        address
            .map(IpAddr::V4)
            .with_context(|| format!("--service-cidr {} is too small", self.options.service_cidr))
    }

    fn description(&self) -> Description {
        Description {
            format: Description::format(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id().cast_signed(),
            node_name: self.node_name.clone(),
            server: format!("https://{}", self.server()),
            bridge: self.options.bridge.clone(),
            table: self.options.nft_table.clone(),
            cgroup: self.options.cgroup.clone(),
            runtime_socket: self.options.runtime_socket.clone(),
            snapshotter: None,
            pod_network: self.pod_network.to_string(),
            cluster_network: self.options.cluster_cidr.to_string(),
            service_network: self.options.service_cidr.to_string(),
        }
    }
}

/// The containerd of a cluster.
pub(crate) fn runtime_options(layout: &Layout) -> ContainerdOptions {
    ContainerdOptions::new(layout.containerd(), layout.runtime().join("containerd"))
}

/// The network of a node, from what was written about it.
pub(crate) fn network_options(
    layout: &Layout,
    description: &Description,
) -> anyhow::Result<NetworkOptions> {
    let parse = |text: &str| {
        text.parse().with_context(|| format!("{text:?} in instance.json is no network"))
    };
    Ok(NetworkOptions {
        bridge: description.bridge.clone(),
        table: description.table.clone(),
        pod_network: parse(&description.pod_network)?,
        cluster_network: parse(&description.cluster_network)?,
        service_network: parse(&description.service_network)?,
        ..NetworkOptions::new(description.node_name.clone(), layout.network())
    })
}

/// Runs a cluster until `shutdown`, or until a part of it fails.
pub(crate) async fn up(options: UpOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    check::require_root()?;
    let plan = Plan::new(options)?;
    instance::refuse_second(&plan.layout)?;
    check::require(&check::Subject {
        layout: &plan.layout,
        ports: vec![plan.options.listen.port(), plan.options.kubelet_port],
        own_runtime: plan.options.runtime_socket.is_none(),
    })?;
    let mut instance = Instance::acquire(&plan.layout)?;
    // What an earlier process left running, such as pods, is not this start's to remove.
    let nothing_runs = !plan.layout.runtime().exists();
    let outcome = serve(&plan, &mut instance, shutdown).await;
    if outcome.is_err()
        && nothing_runs
        && !plan.layout.ready_mark(std::process::id()).exists()
        && let Err(error) = remove_traces(&plan.layout, &plan.description()).await
    {
        tracing::warn!("what the failed start left: {error:#}");
    }
    drop(instance);
    outcome
}

/// Starts every part and waits for their end.
async fn serve(
    plan: &Plan,
    instance: &mut Instance,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut description = plan.description();
    instance.describe(&description)?;
    let network = network_options(&plan.layout, &description)?;

    // The container runtime takes longest to start, so it goes first.
    let runtime = tokio::spawn(node::prepare(
        runtime_options(&plan.layout),
        plan.options.runtime_socket.clone(),
        network.clone(),
    ));
    let mut parts = JoinSet::new();
    let control = match ControlPlane::start(plan, &mut parts, &shutdown).await {
        Ok(control) => control,
        Err(error) => {
            // Nothing may still be starting when what was started is removed.
            let _ = runtime.await;
            return Err(error.context("start the control plane"));
        }
    };
    step("the API server answers");
    let started = async {
        let runtime = runtime.await.context("start the node")?.context("start the node")?;
        description.snapshotter = runtime.snapshotter();
        instance.describe(&description)?;
        step("the container runtime answers");
        node::start(plan, network, runtime, &control, &mut parts, &shutdown)
    }
    .await;
    if started.is_err() {
        shutdown.cancel();
    }
    let ended = wait(parts, &shutdown).await;
    control.close().await;
    started.and(ended)
}

/// Stops pods and container runtime and removes what they left in the kernel. Data stays.
pub(crate) async fn remove_traces(
    layout: &Layout,
    description: &Description,
) -> anyhow::Result<()> {
    if description.runtime_socket.is_none() {
        cri::containerd::stop_all(&runtime_options(layout), GRACE).await;
    }
    let _ = std::fs::remove_dir_all(layout.runtime());
    network::cleanup(&network_options(layout, description)?).context("remove the pod network")?;
    kubelet::remove_traces(&layout.kubelet(), &description.cgroup);
    Ok(())
}

/// Tells a step of the start.
pub(crate) fn step(what: &str) {
    tracing::info!("{STEP}{what}");
}

/// A part of the cluster that runs until it is told to stop, with its name.
pub(crate) type Part = (&'static str, anyhow::Result<()>);

/// Waits for the end. A part that ends before it is told to takes the others with it.
async fn wait(mut parts: JoinSet<Part>, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut failure = None;
    while let Some(ended) = parts.join_next().await {
        let (name, outcome) = ended
            .context("a part of the cluster panicked")
            .unwrap_or_else(|error| ("?", Err(error)));
        let problem = match outcome {
            Err(error) => Some(error.context(format!("{name} failed"))),
            Ok(()) if !shutdown.is_cancelled() => {
                Some(anyhow::anyhow!("{name} ended unexpectedly"))
            }
            Ok(()) => None,
        };
        if let Some(problem) = problem {
            tracing::error!("{problem:#}");
            failure.get_or_insert(problem);
            shutdown.cancel();
        }
    }
    failure.map_or(Ok(()), Err)
}

/// The runtime's containerd or a socket that somebody else serves.
pub(crate) enum ContainerRuntime {
    /// Started or adopted here.
    Own(Containerd),
    /// Somebody else's.
    Foreign(PathBuf),
}

impl ContainerRuntime {
    fn snapshotter(&self) -> Option<String> {
        match self {
            Self::Own(containerd) => Some(containerd.snapshotter().name().to_owned()),
            Self::Foreign(_) => None,
        }
    }
}
