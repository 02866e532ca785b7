//! What every request may need, put together once; and what the server says about itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::FutureExt;
use registry::Registry;
use serve::proxy::Proxy;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Audit,
    authn::{Authenticator, service_account::ServiceAccounts},
    authz::Authorizer,
    egress::Egress,
    endpoints::{discovery::Discovery, health::Check, openapi::OpenApi},
    flow::{Flow, FlowOptions},
    metrics::{self, Metrics},
    objects::Objects,
    options::ApiServerOptions,
    peers::Peers,
    routes::Routes,
    traces::Traces,
};

/// Everything a request may need.
pub(crate) struct Core {
    pub(crate) options: ApiServerOptions,
    pub(crate) registry: Arc<Registry>,
    pub(crate) routes: Routes,
    pub(crate) lookup: Arc<Objects>,
    pub(crate) peers: Peers,
    pub(crate) authenticator: Authenticator,
    pub(crate) service_accounts: Arc<ServiceAccounts>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) metrics: Arc<Metrics>,
    /// Of the configurations of authentication and authorization.
    pub(crate) reloads: [crate::reload::Reloads; 2],
    /// What is counted of admission.
    pub(crate) admission: Arc<metrics::Admission>,
    /// Objects in other encodings than that in which they are stored.
    pub(crate) transcoded: crate::endpoints::encode::Cache,
    /// What other components of the process count.
    pub(crate) others: parking_lot::Mutex<prometheus_client::registry::Registry>,
    pub(crate) flow: Flow,
    pub(crate) audit: Audit,
    pub(crate) traces: Traces,
    /// The way to kubelets, pods and Services.
    pub(crate) egress: Arc<Egress>,
    /// To kubelets, as this API server.
    pub(crate) kubelets: Proxy,
    /// To pods, services and other ports of nodes, as nobody: what answers there may be anything, this API
    /// server included.
    pub(crate) proxy: Proxy,
    pub(crate) started: Instant,
    pub(crate) bootstrapped: AtomicBool,
    /// Told whenever RBAC objects were put into force.
    pub(crate) policy_loaded: tokio::sync::Notify,
    pub(crate) turn: AtomicUsize,
    pub(crate) shutdown: CancellationToken,
}

impl Core {
    /// All metrics as text: the server's own, then those that were exposed.
    pub(crate) fn all_metrics(&self) -> String {
        let mut text = self.metrics.render(self.registry.store().written(), self.started.elapsed());
        metrics::build(&mut text, &self.options.version);
        metrics::sizes(&mut text, &self.flow.sizes());
        self.flow.write(&mut text);
        self.audit.write(&mut text);
        self.admission.write(&mut text);
        self.authenticator.write(&mut text);
        self.authorizer.write(&mut text);
        self.reloads[0].write(&mut text, "authentication");
        self.reloads[1].write(&mut text, "authorization");
        let tunnels = self.egress.tunnels.count();
        metrics::gauge(&mut text, "skiff_egress_tunnels", "Nodes whose tunnel is open.", tunnels);
        let mut others = String::new();
        if prometheus_client::encoding::text::encode(&mut others, &self.others.lock()).is_ok() {
            // OpenMetrics ends with a mark; this is the older text format.
            text.push_str(others.strip_suffix("# EOF\n").unwrap_or(&others));
        }
        text
    }

    /// Whether fewer requests of a kind are worked on than may be, where levels do not share them.
    pub(crate) fn room(&self, read: bool) -> bool {
        let FlowOptions { max_reads, max_writes, .. } = self.options.flow;
        let most = if read { max_reads } else { max_writes };
        most == 0 || self.metrics.running(read) < most
    }

    /// The next of `choices`, in turn.
    pub(crate) fn pick(&self, choices: usize) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % choices.max(1)
    }

    /// The health checks behind an endpoint.
    pub(crate) fn checks(&self, endpoint: &str) -> Vec<Check> {
        let store = self.registry.store();
        let store = match (store.fault(), store.latest().now_or_never()) {
            (Some(fault), _) if endpoint == "/readyz" => Err(fault),
            (_, Some(Err(error))) => Err(error.to_string()),
            _ => Ok(()),
        };
        let bootstrapped = if self.bootstrapped.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err("system objects are still being written".to_owned())
        };
        let mut checks = vec![
            Check { name: "ping", outcome: Ok(()) },
            Check { name: "store", outcome: store },
            Check { name: "poststarthook/bootstrap-system-objects", outcome: bootstrapped },
        ];
        if endpoint == "/readyz" {
            let outcome = if self.shutdown.is_cancelled() {
                Err("the server is shutting down".into())
            } else {
                Ok(())
            };
            checks.push(Check { name: "shutdown", outcome });
        }
        checks
    }
}
