//! The agents of further nodes: started or adopted, started again with back-off, stopped with the
//! cluster's process unless that is killed.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use network::lab::Machine;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::flags::for_agents;
use super::{Node, Plan};
use crate::cluster::{Departure, POWER_FAILURE};
use crate::command::token;
use crate::instance;
use crate::layout::Layout;

/// How often an agent that is not our child is looked at.
const ADOPTED_CHECK: Duration = Duration::from_millis(500);
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
const BACK_OFF_MOST: Duration = Duration::from_secs(10);
/// How long a node may take to join.
const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// How long an agent may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same when its pods end first, in their own time.
const PODS_PATIENCE: Duration = Duration::from_secs(600);

/// What agents are told beside their own names and addresses.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// URL of the server.
    pub(crate) server: String,
    /// Name of the first node's cgroup of pods, from which theirs are derived.
    pub(crate) cgroup: String,
    /// Log filter.
    pub(crate) log: String,
}

/// Agents on their machines.
pub(crate) struct Agents {
    agents: Vec<Agent>,
}

/// One agent and what it is started with.
struct Agent {
    node: Node,
    machine: Machine,
    told: Told,
    /// The cluster that it is to be a node of.
    cluster: Layout,
}

impl Agents {
    /// Makes the machines; no agent is started yet. Nodes of earlier starts that are not wanted any more
    /// are taken down.
    pub(crate) async fn prepare(plan: Plan, told: Told) -> anyhow::Result<Self> {
        super::end::remove_beyond(&plan).await?;
        if plan.nodes.is_empty() {
            return Ok(Self { agents: Vec::new() });
        }
        let cluster = plan.layout.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let machines = plan.connect()?;
            anyhow::Ok((plan.nodes, machines))
        });
        let (nodes, machines) = prepared.await.context("make machines for the nodes")??;
        let agents = nodes.into_iter().zip(machines).map(|(node, machine)| Agent {
            node,
            machine,
            told: told.clone(),
            cluster: cluster.clone(),
        });
        Ok(Self { agents: agents.collect() })
    }

    /// Keeps every agent running until `shutdown`, then stops them. Their pods go on, unless the
    /// machine goes down.
    pub(crate) async fn run(self, departure: Departure, shutdown: CancellationToken) {
        let mut all = JoinSet::new();
        for agent in self.agents {
            all.spawn(agent.keep(departure.begun.clone(), shutdown.clone()));
        }
        while let Some(ended) = all.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "what keeps an agent running has ended badly");
            }
        }
        departure.others_ended.cancel();
        // Where there are no others, this is still a part that ends when all do.
        shutdown.cancelled().await;
    }
}

/// Whether so many nodes beside the first have become Ready since their agents were started.
pub(crate) fn all_ready(cluster: &Layout, count: usize) -> bool {
    let ready = super::running(cluster)
        .iter()
        .filter(|(node, found)| node.ready_mark(found.pid.unsigned_abs()).exists())
        .count();
    ready >= count
}

impl Agent {
    async fn keep(self, going_down: CancellationToken, shutdown: CancellationToken) {
        let name = &self.node.name;
        let mut back_off = BACK_OFF_FIRST;
        while !shutdown.is_cancelled() {
            let since = Instant::now();
            let running = async {
                match self.running() {
                    Some(pid) => {
                        tracing::info!(node = name, pid = pid.as_raw(), "adopting the agent");
                        self.follow(pid, &shutdown).await;
                    }
                    None => match self.start().await {
                        Ok(child) => follow_child(child, &shutdown).await,
                        Err(error) => tracing::warn!(node = name, "start the agent: {error:#}"),
                    },
                }
            };
            if going_down.run_until_cancelled(running).await.is_none() {
                return self.go_down(&shutdown).await;
            }
            if shutdown.is_cancelled() {
                return;
            }
            if since.elapsed() > BACK_OFF_MOST * 6 {
                back_off = BACK_OFF_FIRST;
            }
            let log = self.node.layout.log();
            tracing::warn!(
                node = name, retry_in = ?back_off, log = %log.display(),
                "the agent ended; its pods keep running"
            );
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = going_down.cancelled() => return,
                () = sleep(back_off) => {}
            }
            back_off = (back_off * 2).min(BACK_OFF_MOST);
        }
    }

    /// Tells the agent that its machine goes down, and waits until its pods have ended.
    async fn go_down(&self, shutdown: &CancellationToken) {
        let deadline = Instant::now() + PODS_PATIENCE;
        let told = self.running().map(|pid| kill(pid, POWER_FAILURE));
        tracing::info!(node = self.node.name, ?told, "the node goes down");
        while self.running().is_some() && Instant::now() < deadline && !shutdown.is_cancelled() {
            sleep(ADOPTED_CHECK / 5).await;
        }
    }

    /// The agent's process, if one serves the node's data directory.
    fn running(&self) -> Option<Pid> {
        match instance::find(&self.node.layout) {
            Ok(Some((description, true))) => Some(Pid::from_raw(description.pid)),
            _ => None,
        }
    }

    /// Returns when an adopted agent has ended, or has been stopped.
    async fn follow(&self, pid: Pid, shutdown: &CancellationToken) {
        while self.running() == Some(pid) {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep(ADOPTED_CHECK) => {}
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while shutdown.is_cancelled() && self.running() == Some(pid) && Instant::now() < deadline {
            let _ = kill(pid, Signal::SIGTERM);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the agent in a process group of its own: signals meant for the cluster's process are not
    /// meant for it.
    async fn start(&self) -> anyhow::Result<Child> {
        let node = &self.node;
        let path = node.layout.log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let executable = std::env::current_exe().context("find this executable")?;
        let mut command = self.machine.command(executable);
        let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        command
            .arg("agent")
            .args(["--server", &self.told.server, "--node-name", &node.name])
            .args(["--node-ip", &node.address.to_string()])
            .args(["--cgroup", &format!("{}-{}", self.told.cgroup, node.machine)])
            .arg("--data-dir")
            .arg(node.layout.root())
            .args(["--log", &self.told.log])
            .args(for_agents(words))
            .envs(self.token().await?.map(|token| ("SKIFF_TOKEN", token)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .process_group(0);
        Command::from(command).spawn().context("start nsenter (package util-linux)")
    }

    /// A token for a node that has not joined yet.
    async fn token(&self) -> anyhow::Result<Option<String>> {
        if self.node.layout.pki().join("kubelet-client.pem").exists() {
            return Ok(None);
        }
        let client = client::from_kubeconfig(&self.cluster.kubeconfig())
            .await
            .context("connect to the API server")?;
        let purpose = format!("node {} on this machine", self.node.name);
        let token = token::create(&self.cluster, client, TOKEN_LIFE, Some(purpose)).await?;
        Ok(Some(token.to_string()))
    }
}

/// Returns when a child has ended, or has been stopped.
async fn follow_child(mut child: Child, shutdown: &CancellationToken) {
    tokio::select! {
        _ = child.wait() => return,
        () = shutdown.cancelled() => {}
    }
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if timeout(PATIENCE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
