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
    authn::{Authenticator, service_account::ServiceAccounts},
    authz::{Authorizer, policy::Policy},
    bootstrap::{self, Advertised, BootstrapError, Writer},
    egress::Egress,
    endpoints::{discovery::Discovery, openapi::OpenApi},
    flow::Flow,
    metrics::Metrics,
    objects::Objects,
    options::{ApiServerOptions, Dependencies},
    peers::{self, Peers},
    routes::Routes,
    server::{ApiServer, Core},
};

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
    /// The audit log cannot be opened.
    #[error("open the audit log {path}")]
    Audit {
        /// The file.
        path: std::path::PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
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
        let authorizer = Arc::new(Authorizer::new(bootstrap::policy::node_rules()));
        let engine = Options {
            admission: admission::plugins(&authorizer, options.tolerations),
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
        let audit = match &options.audit_log {
            None => Audit::default(),
            Some(path) => {
                let fail = |source| ApiServerError::Audit { path: path.clone(), source };
                let (audit, writer) = Audit::open(path).await.map_err(fail)?;
                // Owned by the log's handles: it ends when the last of them is dropped with the server.
                tokio::spawn(writer);
                audit
            }
        };
        let unverified = serve::tls::unverified_client_config().map_err(ApiServerError::Tls)?;
        let rows = registry.rows();
        let core = Core {
            routes: Routes::new(rows),
            discovery: Discovery::new(rows.iter(), &options.advertise.to_string()),
            openapi: OpenApi::new(rows.iter(), &options.version),
            authenticator: Authenticator::new(
                &options.static_tokens,
                service_accounts.clone(),
                lookup.clone(),
                options.anonymous,
            ),
            flow: Flow::new(options.flow),
            egress: Arc::new(Egress::new(options.local_node.clone())),
            kubelets: Proxy::new(kubelet_tls, shutdown.clone()),
            proxy: Proxy::new(unverified, shutdown.clone()),
            metrics: Arc::new(Metrics::default()),
            others: parking_lot::Mutex::default(),
            audit,
            registry: registry.clone(),
            lookup,
            peers: Peers::default(),
            service_accounts,
            authorizer,
            options,
            started: Instant::now(),
            bootstrapped: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            shutdown,
        };
        let server = Self(Arc::new(core));
        server.load_policy();
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
            outcome = self.follow_policy() => outcome,
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
    }

    async fn follow_policy(&self) -> Result<(), ApiServerError> {
        loop {
            let store = self.0.registry.store();
            let revision = store.snapshot().revision();
            let mut changes = store.watch(RBAC_KEYS, revision).map_err(ApiServerError::Watch)?;
            self.load_policy();
            loop {
                match changes.next().await {
                    Ok(_) => {
                        tokio::time::sleep(SETTLE).await;
                        while let Ok(Some(_)) = changes.try_next() {}
                        self.load_policy();
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
