//! A cluster's roles: control plane, node, or both in one process; the order in which their parts
//! start, and how they end together.
//!
//! The parts meet only through an API server; each is started with a client that has its own
//! identity, and none knows which others are in the same process.

mod access;
mod admission;
mod agent;
mod control_plane;
mod datastore;
mod identity;
mod info;
mod lifecycle;
mod node;
mod options;
mod renewal;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use cri::containerd::{Containerd, ContainerdOptions};
use network::NetworkOptions;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check;
use crate::instance::{self, Description, Instance, NodeTraces, Role};
use crate::layout::Layout;
use crate::local::{self, Agents, Told};
use control_plane::ControlPlane;
pub(crate) use info::ClusterInfo;
pub(crate) use lifecycle::{Departure, POWER_FAILURE};
pub(crate) use options::{AgentOptions, Common, NodeFlags, ServerOptions, UpOptions, duration};
use options::{NodePlan, ServerPlan};

/// Stands before every step of the start in the log, so that a waiting parent can show it.
pub(crate) const STEP: &str = "step: ";

/// How long containers may take to end by themselves: the cluster goes, nobody waits for requests.
const GRACE: Duration = Duration::from_secs(2);

/// Runs control plane and node until `shutdown`, or until a part of them fails.
pub(crate) async fn up(options: UpOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    check::require_root()?;
    let UpOptions { common, server, mut node, local } = options;
    let layout = common.target.layout();
    let used = [&server.cluster_cidr[..], &server.service_cidr].concat();
    let local = local::Plan::new(&local, &layout, &node, &used)?;
    if node.node_ip.is_empty() {
        node.node_ip.extend(local.as_ref().and_then(local::Plan::first_address));
    }
    // A machine without a network still has the pods' gateway.
    let fallback = server.cluster_cidr.first().and_then(|range| range.hosts().next());
    let node = NodePlan::new(node, layout.clone(), fallback)?;
    let server = ServerPlan::new(server, layout.clone(), Some(&node))?;
    let ports = vec![server.flags.listen.port(), node.flags.kubelet_port];
    let description = describe(Role::Up, &server.server_url(), Some(&node));
    let (server, node) = (&server, &node);
    let further = local.is_some();
    run(&layout, description, ports, further, shutdown, async |instance, parts, shutdown| {
        // The address of the first node is that of its wire to the others.
        let agents = match local {
            Some(local) => Some(Agents::prepare(local, told(server, node, &common)).await?),
            None => None,
        };
        // The container runtime takes longest to start, so it goes first.
        let runtime = node::Runtime::start(node);
        let led = CancellationToken::new();
        let control = match ControlPlane::start(server, led.clone(), parts, shutdown).await {
            Ok(control) => control,
            Err(error) => {
                // Nothing may still be starting when what was started is removed.
                let _ = runtime.wait().await;
                return Err(error.context("start the control plane"));
            }
        };
        step("the API server answers");
        let departure = match &agents {
            Some(_) => Departure::default(),
            None => Departure::alone(),
        };
        if let Some(agents) = agents {
            let (shutdown, departure) = (shutdown.clone(), departure.clone());
            parts.spawn(async move {
                agents.run(departure, shutdown).await;
                ("the agents of further nodes", Ok(()))
            });
        }
        let access = node::Access::in_process(node, &control, led, departure);
        let started = match access {
            Ok(access) => {
                node::start(node, runtime, access, server.info()?, instance, parts, shutdown).await
            }
            Err(error) => Err(error),
        };
        Ok((Some(control), started))
    })
    .await
}

/// Runs a control plane until `shutdown`, or until a part of it fails.
pub(crate) async fn server(
    options: ServerOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    check::require_root()?;
    let ServerOptions { common, server } = options;
    let layout = common.target.layout();
    let server = ServerPlan::new(server, layout.clone(), None)?;
    let ports = vec![server.flags.listen.port()];
    let description = describe(Role::Server, &server.server_url(), None);
    let (server, layout) = (&server, &layout);
    run(layout, description, ports, false, shutdown, async |_, parts, shutdown| {
        let nothing_led = CancellationToken::new();
        nothing_led.cancel();
        let control = ControlPlane::start(server, nothing_led, parts, shutdown)
            .await
            .context("start the control plane")?;
        step("the API server answers");
        Ok((Some(control), mark_ready(layout)))
    })
    .await
}

/// Runs a node until `shutdown`, or until a part of it fails.
pub(crate) async fn agent(
    options: AgentOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    check::require_root()?;
    let AgentOptions { common, server, token, node } = options;
    let layout = common.target.layout();
    let node = NodePlan::new(node, layout.clone(), None)?;
    let url = server.first().map(|server| server.url()).unwrap_or_default();
    let description = describe(Role::Agent, &url, Some(&node));
    let ports = vec![node.flags.kubelet_port];
    let (node, join) = (&node, agent::Join { servers: server, token });
    run(&layout, description, ports, false, shutdown, async |instance, parts, shutdown| {
        let runtime = node::Runtime::start(node);
        let ended = shutdown.run_until_cancelled(agent::join(node, join, parts, shutdown)).await;
        let (access, info) = match ended {
            Some(Ok(joined)) => joined,
            ended => {
                let _ = runtime.wait().await;
                return ended.map_or(Ok((None, Ok(()))), |refused| refused.map(|_| (None, Ok(()))));
            }
        };
        Ok((None, node::start(node, runtime, access, info, instance, parts, shutdown).await))
    })
    .await
}

/// What agents of further nodes on this machine are told.
fn told(server: &ServerPlan, node: &NodePlan, common: &Common) -> Told {
    Told {
        server: format!("https://{}", server.advertised()),
        cgroup: node.flags.cgroup.clone(),
        log: common.log.clone(),
    }
}

fn describe(role: Role, server: &str, node: Option<&NodePlan>) -> Description {
    Description {
        format: Description::format(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id().cast_signed(),
        role,
        server: server.to_owned(),
        node: node.map(|node| NodeTraces {
            node_name: node.name.clone(),
            bridge: node.flags.bridge.clone(),
            table: node.flags.nft_table.clone(),
            cgroup: node.flags.cgroup.clone(),
            runtime_socket: node.flags.runtime_socket.clone(),
            snapshotter: None,
        }),
    }
}

/// What a role has started: a control plane to close in the end, and whether everything did start.
type Started = (Option<ControlPlane>, anyhow::Result<()>);

/// Takes the data directory, starts a role's parts and waits for their end.
async fn run(
    layout: &Layout,
    description: Description,
    ports: Vec<u16>,
    further_nodes: bool,
    shutdown: CancellationToken,
    start: impl AsyncFnOnce(
        &mut Instance,
        &mut JoinSet<Part>,
        &CancellationToken,
    ) -> anyhow::Result<Started>,
) -> anyhow::Result<()> {
    instance::refuse_second(layout)?;
    let node = description.node.as_ref();
    check::require(&check::Subject {
        layout,
        ports,
        own_runtime: node.is_some_and(|node| node.runtime_socket.is_none()),
        node: node.is_some(),
        further_nodes,
        bridge: node.map_or("", |node| &node.bridge),
    })?;
    let mut instance = Instance::acquire(layout)?;
    // What an earlier process left running, such as pods, is not this start's to remove.
    let nothing_runs = !layout.runtime().exists();
    instance.describe(&description)?;
    std::fs::create_dir_all(layout.runtime())
        .with_context(|| format!("make {}", layout.runtime().display()))?;
    let outcome = async {
        let mut parts = JoinSet::new();
        let (control, started) = start(&mut instance, &mut parts, &shutdown).await?;
        if started.is_err() {
            shutdown.cancel();
        }
        let ended = wait(parts, &shutdown).await;
        if let Some(control) = control {
            control.close().await;
        }
        started.and(ended)
    }
    .await;
    shutdown.cancel();
    if outcome.is_err()
        && nothing_runs
        && !layout.ready_mark(std::process::id()).exists()
        && let Err(error) = remove_traces(layout, &description).await
    {
        tracing::warn!("what the failed start left: {error:#}");
    }
    drop(instance);
    outcome
}

/// The containerd of a cluster.
pub(crate) fn runtime_options(layout: &Layout) -> ContainerdOptions {
    ContainerdOptions::new(layout.containerd(), layout.runtime().join("containerd"))
}

/// Stops pods and container runtime and removes what they left in the kernel. Data stays.
pub(crate) async fn remove_traces(
    layout: &Layout,
    description: &Description,
) -> anyhow::Result<()> {
    let Some(node) = &description.node else {
        let _ = std::fs::remove_dir_all(layout.runtime());
        return Ok(());
    };
    let others = local::remove(layout, node).await;
    if node.runtime_socket.is_none() {
        cri::containerd::stop_all(&runtime_options(layout), GRACE).await;
    }
    let _ = std::fs::remove_dir_all(layout.runtime());
    let network = NetworkOptions {
        bridge: node.bridge.clone(),
        table: node.table.clone(),
        ..NetworkOptions::new(node.node_name.clone(), layout.network())
    };
    network::cleanup(&network).context("remove the pod network")?;
    kubelet::remove_traces(&layout.kubelet(), &node.cgroup);
    others
}

/// Tells a step of the start.
pub(crate) fn step(what: &str) {
    tracing::info!("{STEP}{what}");
}

/// Tells who waits for this process that it does what it was started for.
fn mark_ready(layout: &Layout) -> anyhow::Result<()> {
    let mark = layout.ready_mark(std::process::id());
    std::fs::write(&mark, b"").with_context(|| format!("write {}", mark.display()))
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
