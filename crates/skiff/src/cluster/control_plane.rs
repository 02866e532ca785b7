//! The control plane: certificates, store, API server, controllers, scheduler.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use apiserver::{ApiServer, ApiServerOptions, Dependencies};
use controllers::{Controllers, ControllersOptions};
use pki::{Authority, Profile, TokenKeys};
use registry::{Header, Rows};
use scheduler::{Scheduler, SchedulerOptions};
use serve::tls::{Certificate, ServerTls, client_config};
use serve::{Server, ServerOptions};
use store::Embedded;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Part, Plan, identity};

/// Keys under this prefix are sealed at rest.
const SEALED: &str = "/registry/secrets/";

/// A control plane that serves.
pub(crate) struct ControlPlane {
    pub(crate) api: ApiServer,
    pub(crate) authority: Authority,
    store: Embedded<Header>,
}

impl ControlPlane {
    /// Starts everything; the API server is ready when this returns.
    pub(crate) async fn start(
        plan: &Plan,
        parts: &mut JoinSet<Part>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let keys = Keys::load(plan)?;
        let server =
            Server::bind(plan.options.listen, Some(keys.server_tls), ServerOptions::default())
                .await?;
        let rows = Arc::new(Rows::builtin());
        let store = open_store(plan, &rows).await?;
        let dependencies = Dependencies {
            store: Arc::new(store.clone()),
            rows,
            token_keys: keys.tokens,
            kubelet_tls: keys.kubelet_tls,
        };
        let api =
            ApiServer::new(api_options(plan, &keys.authority)?, dependencies, shutdown.clone())
                .await?;
        parts.spawn(listen(server, api.clone(), shutdown.clone()));
        api.bootstrap().await?;
        let running = api.clone();
        parts.spawn(async move { ("the API server", running.run().await.map_err(Into::into)) });
        start_controllers(&api, keys.authority.certificate(), parts, shutdown);
        start_scheduler(&api, parts, shutdown);
        Ok(Self { api, authority: keys.authority, store })
    }

    /// Writes everything down and closes the store; the last thing that happens.
    pub(crate) async fn close(self) {
        drop(self.api);
        self.store.close().await;
    }
}

/// Everything that is read from, or first written to, the key directory.
struct Keys {
    authority: Authority,
    server_tls: ServerTls,
    tokens: TokenKeys,
    kubelet_tls: Arc<rustls::ClientConfig>,
}

impl Keys {
    fn load(plan: &Plan) -> anyhow::Result<Self> {
        let directory = plan.layout.pki();
        let authority = Authority::load_or_create(&directory, "ca")?;
        let ca = authority.certificate_der()?;
        let server = authority.identity(&directory, "apiserver", &server_profile(plan)?)?;
        let certificate = Certificate::new(server.chain()?, server.private_key()?)?;
        let server_tls = ServerTls::new(certificate, Some(std::slice::from_ref(&ca)))?;
        let profile = Profile::client("kube-apiserver-kubelet-client", Some("system:masters"));
        let kubelet_client =
            authority.identity(&directory, "apiserver-kubelet-client", &profile)?;
        let kubelet_tls =
            client_config(&[ca], Some((kubelet_client.chain()?, kubelet_client.private_key()?)))?;
        let tokens = TokenKeys::load_or_create(&directory.join("service-accounts.key"))?;
        let admin = Profile::client("kubernetes-admin", Some("system:masters"));
        let admin = authority.identity(&directory, "admin", &admin)?;
        let kubeconfig = pki::kubeconfig(
            "skiff",
            &format!("https://{}", plan.server()),
            authority.certificate(),
            &admin,
        );
        pki::write_private(&plan.layout.kubeconfig(), kubeconfig.as_bytes())?;
        Ok(Self { authority, server_tls, tokens, kubelet_tls })
    }
}

fn server_profile(plan: &Plan) -> anyhow::Result<Profile> {
    let domain = &plan.options.cluster_domain;
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(str::to_owned)
            .into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(plan.node_name.clone());
    let mut addresses = vec![
        IpAddr::from([127, 0, 0, 1]),
        plan.service_address(1)?,
        plan.node_address,
        plan.server().ip(),
    ];
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Profile::server("kube-apiserver", names, addresses))
}

/// Reading the log is blocking work.
async fn open_store(plan: &Plan, rows: &Arc<Rows>) -> anyhow::Result<Embedded<Header>> {
    let options =
        store::Options::new(plan.layout.database()).seal(plan.layout.storage_key(), [SEALED]);
    let header = registry::header_reader(rows.clone());
    let open = move || Embedded::open(options, header);
    Ok(tokio::task::spawn_blocking(open).await.context("open the store")??)
}

fn api_options(plan: &Plan, authority: &Authority) -> anyhow::Result<ApiServerOptions> {
    let issuer = format!("https://kubernetes.default.svc.{}", plan.options.cluster_domain);
    let mut options = ApiServerOptions {
        advertise: (plan.node_address, plan.options.listen.port()).into(),
        service_ip: plan.service_address(1)?,
        service_cidrs: vec![plan.options.service_cidr.to_string()],
        audiences: vec![issuer.clone()],
        issuer,
        client_ca: authority.certificate().to_owned(),
        ..ApiServerOptions::default()
    };
    options.network.services = plan.options.service_cidr;
    Ok(options)
}

async fn listen(server: Server, api: ApiServer, shutdown: CancellationToken) -> Part {
    server.run(api, shutdown).await;
    ("the API server's listener", Ok(()))
}

/// The controllers act as one user; every controller's own role is a part of what it may do.
fn start_controllers(
    api: &ApiServer,
    root_ca: &str,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) {
    let caches = identity::caches(api, "system:kube-controller-manager", &[], shutdown);
    let options =
        ControllersOptions { root_ca: Some(root_ca.to_owned()), ..ControllersOptions::default() };
    let controllers = Controllers::new(options, caches.clone(), caches.client());
    api.expose(|registry| controllers.metrics().register(registry));
    let shutdown = shutdown.clone();
    parts.spawn(
        async move { ("the controllers", controllers.run(shutdown).await.map_err(Into::into)) },
    );
}

fn start_scheduler(api: &ApiServer, parts: &mut JoinSet<Part>, shutdown: &CancellationToken) {
    let caches = identity::caches(api, "system:kube-scheduler", &[], shutdown);
    let scheduler = Scheduler::new(SchedulerOptions::default(), caches);
    let shutdown = shutdown.clone();
    parts
        .spawn(async move { ("the scheduler", scheduler.run(shutdown).await.map_err(Into::into)) });
}
