//! What all pods of a node share: options, runtime, client, caches, recorders. Holds things; decides nothing.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use client::{Cache, Caches, EventRecorder};
use cri::Runtime;
use k8s_openapi::api::core::v1 as api;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    KubeletOptions, OtherMetrics,
    cgroups::Cgroups,
    drain::Drain,
    images::Images,
    monitor::Monitor,
    pod::PodState,
    spec::{dns::Resolver, fields::Facts},
    volumes::Tokens,
};

/// Shared by every pod's actor.
pub(crate) struct Context {
    pub(crate) options: Arc<KubeletOptions>,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// The scheme of container ids, such as `containerd`.
    pub(crate) runtime_name: String,
    pub(crate) client: kube::Client,
    pub(crate) caches: Caches,
    pub(crate) services: Cache<api::Service>,
    pub(crate) recorder: EventRecorder,
    pub(crate) images: Images,
    pub(crate) monitor: Monitor,
    pub(crate) drain: Drain,
    pub(crate) tokens: Tokens,
    pub(crate) cgroups: Cgroups,
    /// The host's resolver configuration.
    pub(crate) resolver: Resolver,
    /// What the downward API may ask for, as far as it is the node's.
    pub(crate) facts: watch::Receiver<Facts>,
    /// The node's memory, bytes.
    pub(crate) memory: i64,
    /// The API has told once which pods this node has: what is unknown from then on is gone.
    pub(crate) listed: AtomicBool,
    /// Cancelled when the machine goes down.
    pub(crate) going_down: CancellationToken,
    pub(crate) others: OtherMetrics,
    /// The states of all pods, for the kubelet's API and for admission.
    pub(crate) pods: Mutex<HashMap<String, Arc<PodState>>>,
}

impl Context {
    /// The node's addresses, primary first.
    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.options.node_ips.iter().map(ToString::to_string).collect()
    }

    /// Records an event about the node. By convention the reference's uid is the node's name.
    pub(crate) fn about_node(&self, warning: bool, reason: &str, message: &str) {
        let name = &self.options.node_name;
        let about = api::ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..Default::default()
        };
        if warning {
            self.recorder.warning(&about, reason, message.to_owned());
        } else {
            self.recorder.normal(&about, reason, message.to_owned());
        }
    }

    /// What the downward API gives a pod with these addresses.
    pub(crate) fn facts_of(&self, pod: &api::Pod, ips: &[String]) -> Facts {
        let mut facts = self.facts.borrow().clone();
        facts.pod_ips = if crate::spec::host_network(pod) { self.host_ips() } else { ips.to_vec() };
        facts
    }
}
