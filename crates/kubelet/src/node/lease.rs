//! The node's lease: the heartbeat that costs next to nothing.
//!
//! How often it is renewed is told by an annotation of the Node, since only the control plane
//! knows how large the cluster is; what the node promises stands in the lease itself.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use client::{Cache, ErrorExt};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1 as api,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::fence;
use crate::KubeletOptions;

/// Namespace of the leases.
const NAMESPACE: &str = "kube-node-lease";
/// Seconds after which a lease that is not renewed is over, if the Node has something to say.
const PACE: &str = "skiff.dev/lease-duration-seconds";
/// Pause after a failed renewal.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest pause between renewals (upstream's).
const LONGEST: Duration = Duration::from_secs(10);

/// The last renewal that the server confirmed, and how long it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pulse {
    /// When it was sent; `None` before the first.
    pub(crate) renewed: Option<Instant>,
    /// How long the lease holds.
    pub(crate) duration: Duration,
}

/// Renews the lease.
pub(crate) struct Heartbeat {
    pub(crate) client: kube::Client,
    pub(crate) options: Arc<KubeletOptions>,
    /// The node's own object.
    pub(crate) node: Cache<api::Node>,
    /// Known once the node is registered.
    pub(crate) uid: watch::Receiver<Option<String>>,
    pub(crate) pulse: watch::Sender<Pulse>,
}

impl Heartbeat {
    /// Renews until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.beat()).await;
    }

    async fn beat(mut self) {
        if self.uid.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut failures = 0u32;
        loop {
            let duration = self.pace().await;
            let period = (duration * 3 / 10).min(LONGEST);
            let began = Instant::now();
            // A node that was deleted has another identity now.
            let uid = self.uid.borrow().clone().unwrap_or_default();
            // A request that hangs must not keep the next from being sent.
            let patience = period.max(Duration::from_secs(1));
            let problem = match timeout(patience, self.renew(&uid, duration)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer".to_owned()),
            };
            let Some(problem) = problem else {
                failures = 0;
                self.confirmed(began, duration);
                sleep(period.saturating_sub(began.elapsed())).await;
                continue;
            };
            failures += 1;
            if failures == 4 {
                warn!(problem, "node lease cannot be renewed; trying on");
            } else {
                debug!(problem, "node lease could not be renewed");
            }
            sleep(AGAIN).await;
        }
    }

    /// How long the next renewal is to hold. A node that fences itself first says when it will.
    async fn pace(&self) -> Duration {
        let known = self.pulse.borrow().duration;
        let node = self.node.get(None, &self.options.node_name);
        let wanted = node.as_ref().map_or(known, |node| wanted(node, &self.options));
        if wanted != known && self.options.self_fence {
            let nodes: Api<api::Node> = Api::all(self.client.clone());
            let patch = json!({ "metadata": { "annotations": fence::annotation(true, wanted) } });
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            let told = nodes.patch(&self.options.node_name, &params, &patch);
            // A request that hangs must not keep the next renewal from being sent.
            if !matches!(timeout(Duration::from_secs(1), told).await, Ok(Ok(_))) {
                return known;
            }
        }
        wanted
    }

    fn confirmed(&self, began: Instant, duration: Duration) {
        self.pulse.send_replace(Pulse { renewed: Some(began), duration });
        if self.options.self_fence {
            // The next kubelet must know how long ago this was.
            let _ = fs::write(mark(&self.options), b"");
        }
    }

    async fn renew(&self, uid: &str, duration: Duration) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let node = &self.options.node_name;
        let now = MicroTime(Timestamp::now());
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
        let patch = json!({ "spec": {
            "renewTime": now, "holderIdentity": node, "leaseDurationSeconds": seconds } });
        match api.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(error) if error.is_not_found() => {}
            result => return result.map(|_| ()),
        }
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            uid: uid.to_owned(),
            ..Default::default()
        };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(node.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                owner_references: Some(vec![owner]),
                ..Default::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(node.to_owned()),
                lease_duration_seconds: Some(seconds),
                renew_time: Some(now),
                ..Default::default()
            }),
        };
        api.create(&PostParams::default(), &lease).await.map(|_| ())
    }
}

/// How long a lease is to hold by what the Node says, else by the options.
fn wanted(node: &api::Node, options: &KubeletOptions) -> Duration {
    let told = node.metadata.annotations.as_ref().and_then(|all| all.get(PACE)?.parse().ok());
    told.map_or(options.lease_duration, |seconds: u32| Duration::from_secs(seconds.max(1).into()))
}

/// The file whose time is that of the last confirmed renewal.
pub(crate) fn mark(options: &KubeletOptions) -> PathBuf {
    options.root_dir.join("lease-renewed")
}
