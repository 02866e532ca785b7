//! All controllers as one component: options, start, leader election, shutdown.
//!
//! Knows what each controller needs, and nothing of what it does.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use client::{Caches, Election, EventRecorder, LeaderElection};
use pki::TokenKeys;
use reconcile::{Deps, Metrics};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};

use crate::{
    bootstrap,
    csr::{self, Signer},
    deployment, disruption, endpoints, gc,
    load_balancer::{self, AddressRange},
    namespace,
    node_ipam::{self, NodeIpamOptions},
    nodelifecycle, pod_gc, protection, quota, replicaset, root_ca, service_account,
    service_account_token, service_cidr, statefulset,
};

/// How the controllers behave.
#[derive(Clone, Debug)]
pub struct ControllersOptions {
    /// The cluster CA's certificate (PEM), published to every namespace; not published if
    /// `None`.
    pub root_ca: Option<String>,
    /// Names (see [`Controllers::names`]) of controllers not to run.
    pub disabled: BTreeSet<String>,
    /// Runs only while leading; always if `None`, as for the only server of a cluster.
    pub election: Option<Election>,
    /// How long any node may be silent before it is taken for lost; `None`: as long as its lease
    /// says, which is short in small clusters.
    pub node_grace: Option<Duration>,
    /// What tokens in Secrets are signed with; none are, if `None`.
    pub token_keys: Option<TokenKeys>,
    /// What certificate requests are signed with; none are, if `None`.
    pub signer: Option<Signer>,
    /// Where nodes' pod networks come from; no ranges, no pod networks.
    pub node_ipam: NodeIpamOptions,
    /// Addresses for Services of type LoadBalancer; the nodes' own if there are none.
    pub load_balancer_pool: Vec<AddressRange>,
    /// Finished pods kept.
    pub finished_pods: usize,
    /// Pause before the garbage collector begins: a starting cluster has better things to do.
    pub garbage_delay: Duration,
}

impl Default for ControllersOptions {
    fn default() -> Self {
        Self {
            root_ca: None,
            disabled: BTreeSet::new(),
            election: None,
            node_grace: None,
            token_keys: None,
            signer: None,
            node_ipam: NodeIpamOptions::default(),
            load_balancer_pool: Vec::new(),
            finished_pods: 12_500,
            garbage_delay: Duration::from_secs(2),
        }
    }
}

/// Why the controllers could not run.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// A name in the options is no controller's.
    #[error("there is no controller named {0:?}; there are: {1}")]
    NoSuchController(String, String),
    /// A controller ended although it should run.
    #[error("controller {0} ended unexpectedly")]
    Ended(&'static str),
}

/// All controllers.
pub struct Controllers {
    options: ControllersOptions,
    caches: Caches,
    client: kube::Client,
    metrics: Metrics,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Controllers {
    /// Controllers that read `caches` and write through `client`.
    pub fn new(options: ControllersOptions, caches: Caches, client: kube::Client) -> Self {
        Self { options, caches, client, metrics: Metrics::default() }
    }

    /// The names by which controllers can be disabled.
    pub fn names() -> &'static [&'static str] {
        &[
            namespace::NAME,
            service_account::NAME,
            service_account_token::NAME,
            root_ca::NAME,
            deployment::NAME,
            replicaset::NAME,
            statefulset::NAME,
            disruption::NAME,
            endpoints::slices::NAME,
            endpoints::legacy::NAME,
            endpoints::mirror::NAME,
            load_balancer::NAME,
            node_ipam::NAME,
            nodelifecycle::NAME,
            nodelifecycle::eviction::NAME,
            csr::approve::NAME,
            csr::sign::NAME,
            csr::clean::NAME,
            bootstrap::sign::NAME,
            bootstrap::clean::NAME,
            pod_gc::NAME,
            protection::CLAIMS,
            protection::VOLUMES,
            protection::CLASSES,
            quota::NAME,
            service_cidr::NAME,
            gc::NAME,
        ]
    }

    /// Counts of what the controllers do; register them where metrics are served.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Runs all enabled controllers until `shutdown`.
    ///
    /// # Errors
    /// When a disabled name is unknown, or a controller ends by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ControllersError> {
        if let Some(unknown) =
            self.options.disabled.iter().find(|name| !Self::names().contains(&name.as_str()))
        {
            let known = Self::names().join(", ");
            return Err(ControllersError::NoSuchController(unknown.clone(), known));
        }
        match self.options.election.clone() {
            None => self.lead(shutdown).await,
            Some(election) => {
                let this = std::sync::Arc::new(self);
                LeaderElection::new(this.client.clone(), election)
                    .run(shutdown, |term| {
                        let this = this.clone();
                        async move { this.lead(term).await }
                    })
                    .await
                    .unwrap_or(Ok(()))
            }
        }
    }

    /// Runs the enabled controllers until `term` ends.
    async fn lead(&self, term: CancellationToken) -> Result<(), ControllersError> {
        let mut tasks = JoinSet::new();
        for name in Self::names() {
            if self.options.disabled.contains(*name) {
                continue;
            }
            let Some(running) = self.start(name, &term) else { continue };
            let span = info_span!("controller", name);
            tasks.spawn(
                async move {
                    running.await;
                    *name
                }
                .instrument(span),
            );
        }
        info!(controllers = tasks.len(), "controllers started");
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            if !term.is_cancelled() {
                let name = ended.unwrap_or("that panicked");
                result = Err(ControllersError::Ended(name));
                term.cancel();
            }
        }
        result
    }

    fn start(&self, name: &'static str, term: &CancellationToken) -> Option<Running> {
        let caches = self.caches.clone();
        let term = term.clone();
        let events = EventRecorder::new(self.client.clone(), name, None, term.clone());
        let deps = Deps { client: self.client.clone(), events, metrics: self.metrics.clone() };
        let options = &self.options;
        Some(match name {
            namespace::NAME => Box::pin(namespace::run(caches, deps, term)),
            service_account::NAME => Box::pin(service_account::run(caches, deps, term)),
            service_account_token::NAME => {
                let signing = (options.token_keys.clone()?, options.root_ca.clone());
                Box::pin(service_account_token::run(caches, deps, signing, term))
            }
            root_ca::NAME => Box::pin(root_ca::run(caches, deps, options.root_ca.clone()?, term)),
            deployment::NAME => Box::pin(deployment::run(caches, deps, term)),
            replicaset::NAME => Box::pin(replicaset::run(caches, deps, term)),
            statefulset::NAME => Box::pin(statefulset::run(caches, deps, term)),
            disruption::NAME => Box::pin(disruption::run(caches, deps, term)),
            endpoints::slices::NAME => Box::pin(endpoints::slices::run(caches, deps, term)),
            endpoints::legacy::NAME => Box::pin(endpoints::legacy::run(caches, deps, term)),
            endpoints::mirror::NAME => Box::pin(endpoints::mirror::run(caches, deps, term)),
            load_balancer::NAME => {
                let ranges = options.load_balancer_pool.clone();
                Box::pin(load_balancer::run(ranges, caches, deps, term))
            }
            node_ipam::NAME if options.node_ipam.cluster_cidrs.is_empty() => return None,
            node_ipam::NAME => {
                Box::pin(node_ipam::run(caches, deps, options.node_ipam.clone(), term))
            }
            nodelifecycle::NAME => {
                Box::pin(nodelifecycle::run(caches, deps, options.node_grace, term))
            }
            nodelifecycle::eviction::NAME => {
                Box::pin(nodelifecycle::eviction::run(caches, deps, options.node_grace, term))
            }
            csr::approve::NAME => Box::pin(csr::approve::run(caches, deps, term)),
            csr::sign::NAME => {
                Box::pin(csr::sign::run(caches, deps, options.signer.clone()?, term))
            }
            csr::clean::NAME => Box::pin(csr::clean::run(caches, deps, term)),
            bootstrap::sign::NAME => Box::pin(bootstrap::sign::run(caches, deps, term)),
            bootstrap::clean::NAME => Box::pin(bootstrap::clean::run(caches, deps, term)),
            pod_gc::NAME => Box::pin(pod_gc::run(caches, deps, options.finished_pods, term)),
            protection::CLAIMS => Box::pin(protection::run_claims(caches, deps, term)),
            protection::VOLUMES => Box::pin(protection::run_volumes(caches, deps, term)),
            protection::CLASSES => Box::pin(protection::run_classes(caches, deps, term)),
            quota::NAME => Box::pin(quota::run(caches, deps, term)),
            service_cidr::NAME => Box::pin(service_cidr::run(caches, deps, term)),
            gc::NAME => Box::pin(gc::run(deps, options.garbage_delay, term)),
            _ => return None,
        })
    }
}
