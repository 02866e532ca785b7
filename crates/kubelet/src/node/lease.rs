//! The node's lease: the heartbeat that costs next to nothing.

use std::{sync::Arc, time::Duration};

use client::ErrorExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::KubeletOptions;

/// Namespace of the leases.
const NAMESPACE: &str = "kube-node-lease";
/// After this many seconds without renewal a node counts as lost (upstream's default).
const DURATION: i32 = 40;

/// Renews the lease until `shutdown`. `node_uid` is known once the node is registered.
pub(crate) async fn renew_forever(
    client: kube::Client,
    options: Arc<KubeletOptions>,
    mut node_uid: watch::Receiver<Option<String>>,
    shutdown: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let work = async {
        let Ok(uid) =
            node_uid.wait_for(Option::is_some).await.map(|uid| uid.clone().unwrap_or_default())
        else {
            return;
        };
        let mut failures = 0u32;
        loop {
            match renew(&api, &options.node_name, &uid).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures > 3 {
                        warn!(%error, "node lease could not be renewed");
                    } else {
                        debug!(%error, "node lease could not be renewed");
                    }
                }
            }
            let pause =
                if failures == 0 { options.lease_period } else { Duration::from_millis(500) };
            tokio::time::sleep(pause).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

async fn renew(api: &Api<Lease>, node: &str, uid: &str) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": now, "holderIdentity": node, "leaseDurationSeconds": DURATION}});
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
            lease_duration_seconds: Some(DURATION),
            renew_time: Some(now),
            ..Default::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(|_| ())
}
