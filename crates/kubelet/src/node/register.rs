//! The Node object: made if it is missing, its status kept current.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{Cache, ErrorExt};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use meta::Revision;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    capacity::{Capacity, architecture, disk, memory_field, node_info},
    conditions::{Figures, conditions, runtime_problem},
    fence,
};
use crate::context::Context;

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How often, while the node is not ready.
const LOOK_NOT_READY: Duration = Duration::from_millis(100);
/// Pause after a failed write.
const AGAIN: Duration = Duration::from_millis(200);
/// How often the list of images is read.
const IMAGES: Duration = Duration::from_secs(60);
/// Most images in the status (upstream's).
const MOST_IMAGES: usize = 50;

/// Keeps the Node object.
pub(crate) struct Registrar {
    pub(crate) context: Arc<Context>,
    pub(crate) capacity: Capacity,
    /// Name and version of the runtime: `containerd://1.6.20`.
    pub(crate) runtime_version: String,
    /// The port that the kubelet's API really listens on.
    pub(crate) port: u16,
    /// The node's own object.
    pub(crate) own: Cache<api::Node>,
    /// Set once the node is registered.
    pub(crate) uid: watch::Sender<Option<String>>,
}

impl Registrar {
    /// Registers and keeps the status current until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&self) {
        let nodes: Api<api::Node> = Api::all(self.context.client.clone());
        let mut node = self.register(&nodes).await;
        self.uid.send_replace(node.metadata.uid.clone());
        info!(node = self.context.options.node_name, "node registered");
        self.context.about_node(false, "Starting", "Starting kubelet.");
        let mut was_ready = is_ready(&node.status.clone().unwrap_or_default());
        let mut images = (Vec::new(), None::<Instant>);
        let mut written: Option<(Value, Instant)> = None;
        let mut changes = self.own.revisions();
        loop {
            node = match self.known(&node) {
                Some(node) => node,
                None => self.register_again(&nodes).await,
            };
            if images.1.is_none_or(|at| at.elapsed() > IMAGES) {
                images = (self.images().await, Some(Instant::now()));
            }
            let status = self.status(&node, &images.0).await;
            let ready = is_ready(&status);
            let shape = shape(&status);
            // Others judge a node that is silent: it contradicts them.
            let doubted = verdicts(&node.status.clone().unwrap_or_default()) != verdicts(&status);
            let due = doubted
                || written.as_ref().is_none_or(|(last, at)| {
                    *last != shape || at.elapsed() >= self.context.options.status_period
                });
            if due {
                let patch = json!({ "status": status });
                match nodes
                    .patch_status(
                        &self.context.options.node_name,
                        &PatchParams::default(),
                        &Patch::Merge(&patch),
                    )
                    .await
                {
                    Ok(fresh) => {
                        node = fresh;
                        if ready != was_ready {
                            let reason = if ready { "NodeReady" } else { "NodeNotReady" };
                            let name = &self.context.options.node_name;
                            let message = format!("Node {name} status is now: {reason}");
                            self.context.about_node(false, reason, &message);
                            was_ready = ready;
                        }
                        written = Some((shape, Instant::now()));
                    }
                    Err(error) if error.is_not_found() => {
                        node = self.register_again(&nodes).await;
                        continue;
                    }
                    Err(error) => {
                        debug!(%error, "node status could not be written");
                        sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            let going_down = self.context.going_down.is_cancelled();
            tokio::select! {
                () = sleep(if ready || going_down { LOOK } else { LOOK_NOT_READY }) => {}
                () = self.doubted(&mut changes, &status) => {}
                () = self.context.going_down.cancelled(), if !going_down => {}
            }
        }
    }

    /// Somebody deleted the node.
    async fn register_again(&self, nodes: &Api<api::Node>) -> api::Node {
        let node = self.register(nodes).await;
        self.uid.send_replace(node.metadata.uid.clone());
        node
    }

    /// The newest that is known of the node, whether from the watch or from an answer; `None` if it was deleted.
    fn known(&self, answered: &api::Node) -> Option<api::Node> {
        let answered_at = revision(answered);
        match self.own.get(None, &self.context.options.node_name) {
            Some(watched) if revision(&watched) >= answered_at => Some((*watched).clone()),
            None if self.own.revision() > answered_at => None,
            _ => Some(answered.clone()),
        }
    }

    /// Resolves when the API says something else of the node's conditions than we do.
    async fn doubted(
        &self,
        changes: &mut watch::Receiver<Option<Revision>>,
        said: &api::NodeStatus,
    ) {
        let name = &self.context.options.node_name;
        loop {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let known = self.own.get(None, name).and_then(|node| node.status.clone());
            if known.is_some_and(|known| verdicts(&known) != verdicts(said)) {
                return;
            }
        }
    }

    /// Makes the node, or brings the labels of an existing one up to date.
    async fn register(&self, nodes: &Api<api::Node>) -> api::Node {
        let mut failures = 0u32;
        loop {
            match self.register_once(nodes).await {
                Ok(node) => return node,
                Err(error) => {
                    failures += 1;
                    if failures == 20 {
                        warn!(%error, "node cannot be registered; trying on");
                    }
                    debug!(%error, "node could not be registered");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn register_once(&self, nodes: &Api<api::Node>) -> Result<api::Node, kube::Error> {
        let name = &self.context.options.node_name;
        let labels = self.labels();
        let options = &self.context.options;
        let annotations = fence::annotation(options.self_fence, options.lease_duration);
        if nodes.get_opt(name).await?.is_some() {
            let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
            return nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        }
        let node = api::Node {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: serde_json::from_value(annotations).ok(),
                ..Default::default()
            },
            spec: Some(api::NodeSpec {
                taints: (!self.context.options.taints.is_empty())
                    .then(|| self.context.options.taints.clone()),
                ..Default::default()
            }),
            status: Some(self.status(&api::Node::default(), &[]).await),
        };
        match nodes.create(&PostParams::default(), &node).await {
            Err(error) if error.code() == Some(409) => nodes.get(name).await,
            result => result,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = architecture();
        let own = [
            ("kubernetes.io/hostname", self.context.options.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        own.chain(self.context.options.labels.clone()).collect()
    }

    async fn status(&self, node: &api::Node, images: &[api::ContainerImage]) -> api::NodeStatus {
        let before = node.status.clone().unwrap_or_default();
        let (capacity, allocatable) = self.capacity.lists();
        let problem = match self.context.runtime.status().await {
            _ if self.context.going_down.is_cancelled() => Some("node is shutting down".to_owned()),
            Ok(status) => runtime_problem(&status),
            Err(error) => Some(format!("container runtime is down: {error}")),
        };
        let (disk_size, disk_free) = disk(&self.context.options.root_dir);
        let (pids, pids_max) = processes();
        let figures = Figures {
            memory_available: memory_field("MemAvailable:"),
            disk_size,
            disk_free,
            pids,
            pids_max,
            runtime_problem: problem,
        };
        let addresses =
            self.context.options.node_ips.iter().map(|ip| ("InternalIP", ip.to_string()));
        let external =
            self.context.options.external_ips.iter().map(|ip| ("ExternalIP", ip.to_string()));
        let addresses = addresses.chain(external);
        let addresses = addresses.chain([("Hostname", self.context.options.node_name.clone())]);
        api::NodeStatus {
            addresses: Some(
                addresses
                    .map(|(kind, address)| api::NodeAddress { type_: kind.to_owned(), address })
                    .collect(),
            ),
            allocatable: Some(allocatable),
            capacity: Some(capacity),
            conditions: Some(conditions(
                &figures,
                before.conditions.as_deref().unwrap_or_default(),
                Timestamp::now(),
            )),
            daemon_endpoints: Some(api::NodeDaemonEndpoints {
                kubelet_endpoint: Some(api::DaemonEndpoint { port: i32::from(self.port) }),
            }),
            images: Some(images.to_vec()),
            node_info: Some(node_info(&self.runtime_version)),
            ..Default::default()
        }
    }

    /// The largest images of the node, with at most five names each.
    async fn images(&self) -> Vec<api::ContainerImage> {
        let mut all = self.context.runtime.list_images().await.unwrap_or_default();
        all.sort_by_key(|image| std::cmp::Reverse(image.size));
        all.into_iter()
            .take(MOST_IMAGES)
            .map(|image| api::ContainerImage {
                names: Some(
                    image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect(),
                ),
                size_bytes: i64::try_from(image.size).ok(),
            })
            .collect()
    }
}

/// Processes and threads on the machine, and the kernel's limit.
fn processes() -> (i64, i64) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running =
        load.split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse().ok()).unwrap_or(0);
    let limit = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    (running, limit.trim().parse().unwrap_or(0))
}

fn revision(node: &api::Node) -> Revision {
    node.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(Revision(0))
}

/// What a status says of the conditions that are the kubelet's.
fn verdicts(status: &api::NodeStatus) -> Vec<(String, String)> {
    let own = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let mut verdicts: Vec<_> = status
        .conditions
        .iter()
        .flatten()
        .filter(|one| own.contains(&&*one.type_))
        .map(|one| (one.type_.clone(), one.status.clone()))
        .collect();
    verdicts.sort();
    verdicts
}

fn is_ready(status: &api::NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The status without its heartbeats: what has to be written when it changes.
fn shape(status: &api::NodeStatus) -> Value {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    serde_json::to_value(status).unwrap_or_default()
}
