//! The drain contract: has every proxy stopped sending new connections to a pod? The verdict is pure; waiting is here
//! too. Knows nothing of how proxies work, only of the revision each publishes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use client::{Cache, Caches, ObjectKey, Select};
use k8s_openapi::api::{coordination::v1::Lease, core::v1 as api, discovery::v1::EndpointSlice};
use meta::Revision;

/// Namespace of the objects on which proxies publish.
const NAMESPACE: &str = "kube-node-lease";
/// Names of those objects begin with this; the node's name follows.
const PREFIX: &str = "skiff-proxy-";
/// The annotation with the highest EndpointSlice revision a proxy has programmed.
const REVISION: &str = "skiff.dev/programmed-revision";
/// Index of slices by the uids of the pods they name.
const BY_POD: &str = "pod-uid";

/// Watches what the contract is about, as the node's network: the kubelet itself may see none of it.
#[derive(Clone)]
pub(crate) struct Drain {
    slices: Cache<EndpointSlice>,
    leases: Cache<Lease>,
    nodes: Cache<api::Node>,
}

impl Drain {
    /// Opens the watches. Must be called within a tokio runtime.
    pub(crate) fn open(caches: &Caches) -> Self {
        let slices: Cache<EndpointSlice> = caches.cache();
        slices.index(BY_POD, pods_of);
        Self {
            slices,
            leases: caches.selected(Select::all().namespace(NAMESPACE)),
            nodes: caches.cache(),
        }
    }

    /// Resolves when every proxy has withdrawn the pod, at the latest after `limit`. Returns whether it was withdrawn.
    pub(crate) async fn withdrawn(&self, uid: &str, limit: Duration) -> bool {
        let mut named: BTreeSet<ObjectKey> = BTreeSet::new();
        let (mut slices, mut leases) = (self.slices.revisions(), self.leases.revisions());
        let wait = async {
            // Knowing nothing is no reason to think that nobody sends traffic.
            futures::join!(self.slices.ready(), self.leases.ready(), self.nodes.ready());
            loop {
                let naming = self.slices.indexed(BY_POD, uid);
                named.extend(naming.iter().map(|slice| ObjectKey::of(&**slice)));
                if named.is_empty() {
                    return;
                }
                let present: Vec<_> =
                    named.iter().filter_map(|key| self.slices.get_key(key)).collect();
                if withdrawn(uid, &present, &self.nodes.list(), |name| {
                    self.leases.get(Some(NAMESPACE), name)
                }) {
                    return;
                }
                let changed = tokio::select! {
                    changed = slices.changed() => changed,
                    changed = leases.changed() => changed,
                };
                if changed.is_err() {
                    // The caches have shut down: nothing more will be learnt.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }
}

/// Uids of the pods a slice names.
fn pods_of(slice: &EndpointSlice) -> Vec<String> {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.filter_map(|e| e.target_ref.as_ref()?.uid.clone()).collect()
}

/// Whether every slice has withdrawn the pod and every proxy has programmed that.
fn withdrawn(
    uid: &str,
    slices: &[Arc<EndpointSlice>],
    nodes: &[Arc<api::Node>],
    lease: impl Fn(&str) -> Option<Arc<Lease>>,
) -> bool {
    let mut needed = Revision(0);
    for slice in slices {
        let mine = slice.endpoints.iter().flatten().filter(|e| {
            e.target_ref.as_ref().is_some_and(|target| target.uid.as_deref() == Some(uid))
        });
        let mut receiving = mine.filter(|e| {
            let conditions = e.conditions.clone().unwrap_or_default();
            conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false)
        });
        if receiving.next().is_some() {
            return false;
        }
        let revision = slice.metadata.resource_version.as_deref().and_then(|v| v.parse().ok());
        needed = needed.max(revision.unwrap_or(Revision(0)));
    }
    nodes.iter().filter(|node| is_ready(node)).all(|node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        // A node without such an object runs a foreign proxy: it is not waited for.
        let Some(lease) = lease(&format!("{PREFIX}{name}")) else { return true };
        let programmed = lease
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(REVISION)?.parse::<Revision>().ok());
        programmed.is_some_and(|programmed| programmed >= needed)
    })
}

fn is_ready(node: &api::Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(revision: &str, ready: bool) -> Arc<EndpointSlice> {
        let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"uid": "u"}});
        let slice = json!({"metadata": {"name": "s", "namespace": "n", "resourceVersion": revision},
            "addressType": "IPv4", "endpoints": [endpoint], "ports": []});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn node(name: &str, ready: &str) -> Arc<api::Node> {
        let node = json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn lease(revision: &str) -> Option<Arc<Lease>> {
        let lease = json!({"metadata": {"name": "x", "annotations": {REVISION: revision}}});
        Some(Arc::new(serde_json::from_value(lease).unwrap()))
    }

    #[test]
    fn waits_for_the_slice_and_for_every_ready_proxy() {
        let nodes = [node("a", "True"), node("dead", "False"), node("foreign", "True")];
        let leases = |revision: &'static str| {
            move |name: &str| match name {
                "skiff-proxy-a" => lease(revision),
                "skiff-proxy-dead" => lease("1"),
                _ => None,
            }
        };
        assert!(
            !withdrawn("u", &[slice("7", true)], &nodes, leases("9")),
            "the slice still sends traffic"
        );
        assert!(
            !withdrawn("u", &[slice("7", false)], &nodes, leases("6")),
            "the proxy has not programmed it"
        );
        assert!(withdrawn("u", &[slice("7", false)], &nodes, leases("7")));
        assert!(withdrawn("other", &[slice("7", true)], &nodes, leases("7")));
    }
}
