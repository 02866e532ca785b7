//! The way from pods here to pods on other nodes.
//!
//! `peer` reads Nodes, `plan` says which entries lead to one, `device` and `kernel` make it so, and
//! this file follows both sides: what nodes change, and what somebody else changes in the kernel.
//! One node's change costs that node's entries. Knows nothing of Services or policies.

mod device;
mod kernel;
mod peer;
mod plan;
mod saved;
mod state;

use std::{sync::Arc, time::Duration};

use client::{Cache, Caches, Change, Subscription};
use futures::FutureExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::{
    device::{Underlay, keep_addresses},
    state::node_addresses,
};
use self::{
    peer::{Peer, pod_networks},
    state::State,
};
use crate::{
    bandwidth,
    netlink::{NetlinkError, Socket, monitor::Monitor},
    options::NetworkOptions,
    setup::SetupError,
};

pub use saved::saved_pod_networks;

/// The shortest time between two repairs: whoever keeps removing entries shall not keep us busy.
const BETWEEN_REPAIRS: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How often everything is compared, should the kernel have told nothing.
const WATCH_OVER: Duration = Duration::from_secs(60);

/// Why the pod network ended.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// The kernel cannot be listened to.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The blocking thread panicked.
    #[error("the task that sets routes panicked")]
    Task,
    /// The node's new pod networks could not be remembered.
    #[error("write this node's pod networks to {}", .0.display())]
    Remember(std::path::PathBuf, #[source] std::io::Error),
    /// The node registered anew and was given others. They are remembered: setting up again with
    /// [`saved_pod_networks`] follows.
    #[error("this node's pod networks are now {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))]
    Moved(Vec<IpNet>),
}

/// Waits until the Node `name` has its pod networks, and remembers them in `options`' directory.
pub async fn await_pod_networks(caches: &Caches, options: &NetworkOptions) -> Vec<IpNet> {
    let nodes: Cache<Node> = caches.cache();
    let mut changes = nodes.subscribe();
    loop {
        let networks =
            nodes.get(None, &options.node_name).map(|node| pod_networks(&node)).unwrap_or_default();
        if !networks.is_empty() {
            if let Err(error) = saved::save_pod_networks(&options.data_dir, &networks) {
                tracing::warn!(%error, "cannot remember this node's pod networks");
            }
            return networks;
        }
        if changes.next().await.is_none() {
            // The caches shut down, and so does whoever waits.
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps the kernel leading packets to other nodes' pods.
pub struct PodNetwork {
    options: Arc<NetworkOptions>,
    caches: Caches,
}

impl PodNetwork {
    /// A pod network that follows the Nodes in `caches`. [`crate::setup()`] must have been called
    /// with the same options.
    pub fn new(options: NetworkOptions, caches: Caches) -> Self {
        Self { options: Arc::new(options), caches }
    }

    /// Follows Nodes and kernel until shutdown. Before the first Node is known, the way leads to
    /// those last seen; what is set stays when this ends.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), PodNetworkError> {
        let mut monitor = Monitor::new()?;
        let state = Arc::new(Mutex::new(State::new(self.options.clone())?));
        let nodes = self.caches.cache::<Node>();
        let mut changes = nodes.subscribe();
        let mut listed = std::pin::pin!(nodes.ready().fuse());
        let mut known = false;
        let mut repair_at = Some(Instant::now());
        let mut repaired = Instant::now();
        let bridge = self.options.bridge.clone();
        let can_limit = tokio::task::spawn_blocking(move || bandwidth::can_limit(&bridge)).await;
        let _telling = (!can_limit.unwrap_or(true)).then(|| {
            let node = self.options.node_name.clone();
            let tell = bandwidth::tell(self.caches.clone(), node, shutdown.child_token());
            AbortOnDropHandle::new(tokio::spawn(tell))
        });
        let mut retry = BETWEEN_REPAIRS;
        loop {
            let repair = async {
                let at = repair_at.unwrap_or_else(|| Instant::now() + WATCH_OVER);
                tokio::time::sleep_until(at).await;
            };
            let outcome = tokio::select! {
                change = changes.next() => {
                    let Some(change) = change else { break };
                    let batch = batch(change, &mut changes);
                    self.stays(&nodes)?;
                    blocking(&state, move |state| state.take(batch)).await?
                }
                () = &mut listed, if !known => {
                    known = true;
                    let names = nodes.list().iter().filter_map(|n| n.metadata.name.clone()).collect();
                    blocking(&state, move |state| state.keep_only(&names)).await?
                }
                events = monitor.next() => {
                    if events?.iter().any(|event| state.lock().concerns(event)) {
                        let soon = Instant::now().max(repaired + BETWEEN_REPAIRS);
                        repair_at = Some(repair_at.map_or(soon, |at| at.min(soon)));
                    }
                    continue;
                }
                () = repair => {
                    repair_at = None;
                    let outcome = blocking(&state, State::repair).await?;
                    repaired = Instant::now();
                    outcome
                }
                () = shutdown.cancelled() => break,
            };
            match outcome {
                Ok(()) => retry = BETWEEN_REPAIRS,
                Err(error) => {
                    let wait = retry.as_secs_f64();
                    tracing::error!(%error, retry_seconds = wait, "cannot set the way to other nodes");
                    repair_at = Some(Instant::now() + retry);
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
        Ok(())
    }
}

impl PodNetwork {
    /// Fails when this node has other pod networks than those it was set up with.
    fn stays(&self, nodes: &Cache<Node>) -> Result<(), PodNetworkError> {
        let node = nodes.get(None, &self.options.node_name);
        let networks = node.map(|node| pod_networks(&node)).unwrap_or_default();
        if networks.is_empty() || networks == self.options.pod_networks {
            return Ok(());
        }
        let directory = &self.options.data_dir;
        saved::save_pod_networks(directory, &networks)
            .map_err(|error| PodNetworkError::Remember(directory.clone(), error))?;
        Err(PodNetworkError::Moved(networks))
    }
}

/// A node by name as it is now; `None` when it is gone.
type Changed = (String, Option<Peer>);

/// Everything that has changed so far.
fn batch(first: Change<Node>, changes: &mut Subscription<Node>) -> Vec<Changed> {
    let read = |change: Change<Node>| (change.key.name, change.after.as_deref().and_then(Peer::of));
    let mut all = vec![read(first)];
    while let Some(Some(change)) = changes.next().now_or_never() {
        all.push(read(change));
    }
    all
}

async fn blocking(
    state: &Arc<Mutex<State>>,
    work: impl FnOnce(&mut State) -> Result<(), SetupError> + Send + 'static,
) -> Result<Result<(), SetupError>, PodNetworkError> {
    let state = state.clone();
    let run = move || work(&mut state.lock());
    tokio::task::spawn_blocking(run).await.map_err(|_| PodNetworkError::Task)
}

/// Removes everything that leads to other nodes.
pub(crate) fn remove(socket: &mut Socket, options: &NetworkOptions) -> Result<(), NetlinkError> {
    // What is known about the cluster may be no more than its nodes' ranges.
    let mut options = options.clone();
    let peers = saved::peers(&options.data_dir);
    options.cluster_networks.extend(peers.into_values().flat_map(|peer| peer.networks));
    let options = &options;
    let routes = kernel::remove_routes(socket, options);
    routes.and(device::remove_all(socket, options))
}
