//! Telling the node's kubelets which revision of EndpointSlices the table has (the drain
//! contract): an annotation on one Lease a node.
//!
//! At once when endpoints are withdrawn, since a SIGTERM waits for it; seldom otherwise. Knows nothing of the
//! table.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use meta::Revision;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use client::ErrorExt;

/// Namespace of the Lease.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Annotation that holds the newest revision of EndpointSlices in the table, in decimal.
pub const REVISION_ANNOTATION: &str = "skiff.dev/programmed-revision";

/// How long a revision that nobody waits for may stay unpublished.
const LAZY: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Name of a node's Lease.
pub fn lease_name(node: &str) -> String {
    format!("skiff-proxy-{node}")
}

/// What the table has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Programmed {
    /// `None` until the table was made once.
    pub(crate) revision: Option<Revision>,
    /// The newest revision that somebody may be waiting for.
    pub(crate) awaited: Revision,
}

/// Publishes what `programmed` says until shutdown. Never gives up: it retries with back-off.
pub(crate) async fn publish(
    leases: Api<Lease>,
    node: String,
    mut programmed: watch::Receiver<Programmed>,
    shutdown: CancellationToken,
) {
    let mut published: Option<Revision> = None;
    let mut last = Instant::now();
    let mut retry = FIRST_RETRY;
    loop {
        let now = *programmed.borrow_and_update();
        let due = match (now.revision, published) {
            (None, _) => None,
            (Some(_), None) => Some(Instant::now()),
            (Some(_), Some(before)) if now.awaited > before => Some(Instant::now()),
            (Some(revision), Some(before)) if revision > before => Some(last + LAZY),
            (Some(_), Some(_)) => None,
        };
        match (due, now.revision) {
            (Some(at), Some(revision)) if at <= Instant::now() => {
                match write(&leases, &node, revision).await {
                    Ok(()) => {
                        published = Some(revision);
                        last = Instant::now();
                        retry = FIRST_RETRY;
                        continue;
                    }
                    Err(error) => {
                        match retry == LAST_RETRY {
                            true => {
                                tracing::warn!(%error, %revision, "cannot publish the programmed revision")
                            }
                            false => {
                                tracing::debug!(%error, %revision, "cannot publish the revision yet")
                            }
                        }
                        let wait = tokio::time::sleep(retry);
                        retry = (retry * 2).min(LAST_RETRY);
                        tokio::select! {
                            () = wait => continue,
                            () = shutdown.cancelled() => return,
                        }
                    }
                }
            }
            _ => {}
        }
        let wait = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            changed = programmed.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

async fn write(leases: &Api<Lease>, node: &str, revision: Revision) -> Result<(), kube::Error> {
    let name = lease_name(node);
    let body = body(node, revision, Timestamp::now());
    match leases.patch(&name, &PatchParams::default(), &Patch::Merge(&body)).await {
        Err(error) if error.is_not_found() => {
            let mut whole = body;
            whole["metadata"]["name"] = name.into();
            match serde_json::from_value(whole) {
                Ok(lease) => leases.create(&PostParams::default(), &lease).await.map(drop),
                Err(error) => Err(kube::Error::SerdeError(error)),
            }
        }
        outcome => outcome.map(drop),
    }
}

fn body(node: &str, revision: Revision, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "annotations": { REVISION_ANNOTATION: revision.to_string() } },
        "spec": { "holderIdentity": node, "renewTime": meta::time::micros(now) },
    })
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};

    use super::*;

    /// The revisions that arrive, and when, in whole seconds since the start.
    type Arrived = Arc<Mutex<Vec<(String, u64)>>>;

    fn api() -> (Api<Lease>, Arrived) {
        let (arrived, began) = (Arrived::default(), Instant::now());
        let seen = arrived.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let seen = seen.clone();
            async move {
                let bytes = request.into_body().collect().await.expect("body").to_bytes();
                let lease: Value = serde_json::from_slice(&bytes).expect("JSON");
                let revision = lease["metadata"]["annotations"][REVISION_ANNOTATION].as_str();
                let after = began.elapsed().as_secs();
                seen.lock().expect("lock").push((revision.expect("revision").to_owned(), after));
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(lease.to_string()))))
            }
        });
        (Api::namespaced(client::in_process(service, ()), LEASE_NAMESPACE), arrived)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_awaited_goes_at_once_and_the_rest_seldom() {
        let (leases, arrived) = api();
        let (programmed, receiver) = watch::channel(Programmed::default());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(publish(leases, "a".to_owned(), receiver, shutdown.clone()));
        let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let set = |revision, awaited| {
            let (revision, awaited) = (Some(Revision(revision)), Revision(awaited));
            programmed.send_replace(Programmed { revision, awaited });
        };
        wait(3).await;
        set(5, 0);
        wait(1).await;
        // Within ten seconds of the first, nobody waits.
        set(6, 0);
        wait(1).await;
        set(7, 0);
        wait(2).await;
        // Somebody does.
        set(8, 8);
        wait(1).await;
        set(9, 8);
        wait(60).await;
        set(9, 8);
        wait(60).await;
        let got = arrived.lock().expect("lock").clone();
        let expected = [("5", 3), ("8", 7), ("9", 17)];
        assert_eq!(got, expected.map(|(revision, after)| (revision.to_owned(), after)));
        shutdown.cancel();
        task.await.expect("ends");
    }
}
