//! Putting the server together, giving the cluster its first objects, and keeping what is derived current.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use registry::{Options, Registry};
use serde::de::DeserializeOwned;
use serve::proxy::Proxy;
use store::WatchError;
use tokio_util::sync::CancellationToken;

use crate::{
    admission,
    audit::Audit,
    authn::{Authenticator, FrontProxy, service_account::ServiceAccounts},
    authz::{Authorizer, Mode, policy::Policy},
    bootstrap::{self, Advertised, BootstrapError, Writer},
    egress::Egress,
    endpoints::{discovery::Discovery, openapi::OpenApi},
    flow::{self, Flow},
    metrics::{Admission, Metrics},
    objects::Objects,
    options::{ApiServerOptions, Dependencies},
    peers::{self, Peers},
    routes::Routes,
    server::{ApiServer, Core},
    traces::Traces,
};

/// What the keys of all objects of flow control start with.
const FLOW_KEYS: &str = "/registry/flowcontrol.apiserver.k8s.io.";
/// How often defaults of flow control are looked at, and collections measured.
const UPKEEP: Duration = Duration::from_secs(60);
/// What all RBAC objects' keys start with.
const RBAC_KEYS: &str = "/registry/rbac.authorization.k8s.io.";
/// Changes of RBAC objects that come this close together are compiled once.
const SETTLE: Duration = Duration::from_millis(20);
/// How often the server's own endpoints are looked at; a safety net.
const ENDPOINTS: Duration = Duration::from_secs(10);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// The system objects could not be written.
    #[error("give the cluster its system objects")]
    Bootstrap(#[from] BootstrapError),
    /// RBAC objects can no longer be followed.
    #[error("follow RBAC objects")]
    Watch(#[source] WatchError),
    /// The proxy to pods and services cannot be set up.
    #[error("set up TLS towards pods and services")]
    Tls(#[source] rustls::Error),
    /// Somebody who judges users or permissions cannot be asked.
    #[error("set up who judges users and what they may do")]
    Hook(#[from] crate::hook::HookError),
    /// The admission plugins cannot be set up.
    #[error("set up admission")]
    Admission(#[from] admission::AdmissionError),
    /// The audit log cannot be opened.
    #[error("open the audit log")]
    Audit(#[source] std::io::Error),
}

impl ApiServer {
    /// Puts a server together over a store. It answers at once, with the RBAC objects the store holds;
    /// [`ApiServer::run`] does the rest.
    ///
    /// # Errors
    /// When the audit log cannot be opened or TLS cannot be set up.
    pub async fn new(
        options: ApiServerOptions,
        dependencies: Dependencies,
        shutdown: CancellationToken,
    ) -> Result<Self, ApiServerError> {
        let Dependencies { store, rows, token_keys, kubelet_tls } = dependencies;
        let modes = match options.authorization.clone() {
            Some(configuration) => configuration.open().await?,
            None => Mode::usual(),
        };
        let authorizer = Arc::new(Authorizer::new(bootstrap::policy::node_rules(), modes));
        let plugins = admission::plugins(&authorizer, &options.admission)?;
        let admission = Arc::new(Admission::new(&plugins));
        let engine = Options {
            admission: plugins,
            measure: Some(admission.clone()),
            network: options.network.clone(),
            ..Options::default()
        };
        let registry = Registry::new(store, rows, engine);
        let lookup = Arc::new(Objects::new(&registry));
        authorizer.attach(lookup.clone());
        let service_accounts = Arc::new(ServiceAccounts::new(
            token_keys,
            options.issuer.clone(),
            options.audiences.clone(),
            lookup.clone(),
        ));
        let audit = Audit::open(options.audit.clone()).await.map_err(ApiServerError::Audit)?;
        let unverified = serve::tls::unverified_client_config().map_err(ApiServerError::Tls)?;
        let rows = registry.rows();
        let core = Core {
            routes: Routes::new(rows),
            discovery: Discovery::new(rows.iter(), &options.advertise.to_string()),
            openapi: OpenApi::new(rows.iter(), &options.version),
            authenticator: Authenticator::new(
                &options.authentication,
                service_accounts.clone(),
                lookup.clone(),
            )?,
            flow: Flow::new(options.flow, bootstrap::flow::mandatory()),
            egress: Arc::new(Egress::new(options.local_node.clone())),
            kubelets: Proxy::new(kubelet_tls, shutdown.clone()),
            proxy: Proxy::new(unverified, shutdown.clone()),
            metrics: Arc::new(Metrics::default()),
            admission,
            reloads: Default::default(),
            others: parking_lot::Mutex::default(),
            audit,
            traces: Traces::open(options.tracing.as_ref()),
            registry: registry.clone(),
            lookup,
            peers: Peers::default(),
            service_accounts,
            authorizer,
            options,
            started: Instant::now(),
            bootstrapped: AtomicBool::new(false),
            policy_loaded: tokio::sync::Notify::new(),
            turn: AtomicUsize::new(0),
            transcoded: Default::default(),
            shutdown,
        };
        let server = Self(Arc::new(core));
        server.load_policy();
        server.load_flow();
        Ok(server)
    }

    /// Writes the system objects that are missing; the server is ready afterwards.
    ///
    /// # Errors
    /// When an object cannot be written.
    pub async fn bootstrap(&self) -> Result<(), ApiServerError> {
        let started = Instant::now();
        self.0.registry.repair_allocations().await;
        bootstrap::run(&self.writer(), &self.advertised()).await?;
        self.load_policy();
        self.load_flow();
        self.0.bootstrapped.store(true, Ordering::Release);
        tracing::info!(milliseconds = started.elapsed().as_millis(), "API server is ready");
        Ok(())
    }

    /// Does the work behind the answers until shutdown: writes system objects, runs the engine, follows RBAC
    /// objects, keeps the server's own endpoints.
    ///
    /// # Errors
    /// When system objects cannot be written or the store closes under the server.
    pub async fn run(self) -> Result<(), ApiServerError> {
        let shutdown = self.0.shutdown.clone();
        let engine = self.0.registry.clone();
        tokio::select! {
            () = engine.run(shutdown.clone()) => Ok(()),
            outcome = self.keep() => outcome,
            () = shutdown.cancelled() => Ok(()),
        }
    }

    async fn keep(&self) -> Result<(), ApiServerError> {
        if !self.is_ready() {
            self.bootstrap().await?;
        }
        tokio::select! {
            outcome = self.follow(RBAC_KEYS, || self.load_policy()) => outcome,
            outcome = self.follow(FLOW_KEYS, || self.load_flow()) => outcome,
            () = self.keep_flow() => Ok(()),
            () = crate::reload::keep(&self.0) => Ok(()),
            () = self.keep_aggregates() => Ok(()),
            () = self.keep_endpoints() => Ok(()),
        }
    }

    fn writer(&self) -> Writer {
        Writer::new(self.0.registry.clone())
    }

    fn advertised(&self) -> Advertised {
        let options = &self.0.options;
        let servers = if options.shared_store {
            self.0.peers.live(&self.0.registry, options.advertise)
        } else {
            vec![options.advertise]
        };
        Advertised {
            address: options.advertise,
            servers,
            service_ip: options.service_ip,
            service_cidrs: options.service_cidrs.clone(),
            client_ca: options.client_ca.clone(),
            front: options.authentication.front.iter().flat_map(FrontProxy::published).collect(),
        }
    }

    /// Compiles the RBAC objects as they are stored now.
    fn load_policy(&self) {
        let read = |resource| self.0.lookup.all("rbac.authorization.k8s.io", resource);
        let mut roles = read("clusterroles");
        roles.extend(read("roles"));
        let mut bindings = read("clusterrolebindings");
        bindings.extend(read("rolebindings"));
        self.0.authorizer.set_policy(Policy::compile(typed(roles), typed(bindings)));
        self.0.policy_loaded.notify_one();
    }

    /// Writes into aggregated roles what they grant, whenever RBAC objects have changed.
    async fn keep_aggregates(&self) {
        let writer = self.writer();
        loop {
            self.0.policy_loaded.notified().await;
            let policy = self.0.authorizer.policy();
            if let Err((name, status)) = bootstrap::fill_aggregates(&writer, &policy).await {
                tracing::warn!(name, %status, "the rules of an aggregated role cannot be written");
            }
        }
    }

    /// Puts the objects of flow control into force as they are stored now.
    fn load_flow(&self) {
        let read = |resource| self.0.lookup.all("flowcontrol.apiserver.k8s.io", resource);
        let mut objects = read("prioritylevelconfigurations");
        objects.extend(read("flowschemas"));
        self.0.flow.load(objects);
    }

    /// Moves seats between priority levels, and keeps the default objects and what is said about them.
    async fn keep_flow(&self) {
        let writer = self.writer();
        let mut borrowing = tokio::time::interval(flow::BORROWING);
        let mut upkeep = tokio::time::interval(UPKEEP);
        borrowing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = borrowing.tick() => self.0.flow.borrow(),
                _ = upkeep.tick() => {
                    if let Err((name, status)) = bootstrap::flow::ensure(&writer).await {
                        tracing::warn!(name, %status, "a default object of flow control cannot be kept");
                    }
                    let registry = self.0.registry.clone();
                    if let Ok(sizes) = tokio::task::spawn_blocking(move || registry.sizes()).await {
                        self.0.flow.set_sizes(sizes);
                    }
                }
                () = self.0.flow.changed() => {
                    if let Err(status) = bootstrap::flow::tell_dangling(&writer).await {
                        tracing::warn!(%status, "the state of a FlowSchema cannot be written");
                    }
                }
            }
        }
    }

    /// Calls `load` whenever objects under `keys` change, and once before.
    async fn follow(&self, keys: &str, load: impl Fn()) -> Result<(), ApiServerError> {
        loop {
            let store = self.0.registry.store();
            let revision = store.snapshot().revision();
            let mut changes = store.watch(keys, revision).map_err(ApiServerError::Watch)?;
            load();
            loop {
                match changes.next().await {
                    Ok(_) => {
                        tokio::time::sleep(SETTLE).await;
                        while let Ok(Some(_)) = changes.try_next() {}
                        load();
                    }
                    Err(WatchError::Closed) => {
                        return Err(ApiServerError::Watch(WatchError::Closed));
                    }
                    // Fell behind: start over from now.
                    Err(_) => break,
                }
            }
        }
    }

    async fn keep_endpoints(&self) {
        let writer = self.writer();
        let options = &self.0.options;
        let every = if options.shared_store { peers::RENEW } else { ENDPOINTS };
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if options.shared_store
                && let Err(status) = self.0.peers.renew(&writer, options.advertise).await
            {
                tracing::warn!(%status, "this API server's lease cannot be renewed");
            }
            if let Err(status) = bootstrap::endpoints(&writer, &self.advertised()).await {
                tracing::warn!(%status, "the kubernetes Service cannot be kept");
            }
            if options.shared_store
                && let Err(status) = self.0.peers.sweep(&writer).await
            {
                tracing::debug!(%status, "leases of servers that are gone stay");
            }
        }
    }

    /// Tells the other API servers, and those who look for one, that this one goes. For after
    /// [`ApiServer::run`] has ended and before the store closes.
    pub async fn leave(&self) {
        let options = &self.0.options;
        if !options.shared_store {
            return;
        }
        let writer = self.writer();
        let left = async {
            self.0.peers.leave(&writer, options.advertise).await?;
            let mut advertised = self.advertised();
            advertised.servers.retain(|server| *server != options.advertise);
            bootstrap::endpoints(&writer, &advertised).await
        };
        match tokio::time::timeout(peers::RENEW, left).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => {
                tracing::debug!(%status, "the other API servers find out by themselves")
            }
            Err(_) => tracing::debug!("the other API servers find out by themselves"),
        }
    }
}

/// Objects that cannot be read grant nothing.
fn typed<T: DeserializeOwned>(objects: Vec<serde_json::Value>) -> Vec<T> {
    let read = |object: serde_json::Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        serde_json::from_value(object)
            .inspect_err(|error| tracing::warn!(name, %error, "an RBAC object cannot be read"))
            .ok()
    };
    objects.into_iter().filter_map(read).collect()
}
