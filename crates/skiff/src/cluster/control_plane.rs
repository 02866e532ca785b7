//! The control plane: certificates, store, API server, controllers, scheduler.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::{ApiServer, ApiServerOptions, Dependencies};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Election;
use controllers::{Controllers, ControllersOptions, NodeIpamOptions, Signer};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use pki::{Authority, Profile, TokenKeys};
use registry::Rows;
use scheduler::{Scheduler, SchedulerOptions};
use serde_json::json;
use serve::tls::{Certificate, ServerTls, rotating_client_config};
use serve::{Server, ServerOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::datastore::{Datastore, share_keys};
use super::info::publish;
use super::options::ServerPlan;
use super::renewal::Identities;
use super::{Part, identity};

/// Streams on one connection: a kubelet watches each object that its pods refer to.
const STREAMS: u32 = 4096;

/// How long controllers wait for this machine's Services after a restart. A pod that is withdrawn
/// before its own machine's proxy works again would get requests when it is gone.
const LEAD: Duration = Duration::from_secs(10);

/// A control plane that serves.
pub(crate) struct ControlPlane {
    pub(crate) api: ApiServer,
    pub(crate) authority: Arc<Authority>,
    identities: Arc<Identities>,
    store: Datastore,
}

impl ControlPlane {
    /// Starts everything; the API server is ready when this returns. Controllers, which withdraw pods, begin when
    /// `led` says that Services of this machine lead where they should.
    pub(crate) async fn start(
        plan: &ServerPlan,
        led: CancellationToken,
        parts: &mut JoinSet<Part>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        ipam_options(plan).check()?;
        share_keys(plan).await?;
        let keys = Keys::load(plan)?;
        let options = ServerOptions { max_streams: STREAMS, ..ServerOptions::default() };
        let server = Server::bind(plan.flags.listen, Some(keys.server_tls), options).await?;
        let rows = Arc::new(Rows::builtin());
        let store = Datastore::open(plan, &rows).await?;
        let dependencies = Dependencies {
            store: store.store(),
            rows,
            token_keys: keys.tokens.clone(),
            kubelet_tls: keys.kubelet_tls,
        };
        let api = ApiServer::new(
            api_options(plan, &keys.authority).await?,
            dependencies,
            shutdown.clone(),
        )
        .await?;
        parts.spawn(listen(server, api.clone(), shutdown.clone()));
        api.bootstrap().await?;
        let running = api.clone();
        parts.spawn(async move { ("the API server", running.run().await.map_err(Into::into)) });
        parts.spawn(keys.identities.clone().run(shutdown.clone()));
        tell_nodes(plan, &api, &keys.authority).await?;
        start_controllers(plan, &api, (&keys.authority, keys.tokens), led, parts, shutdown);
        start_scheduler(plan, &api, parts, shutdown);
        Ok(Self { api, authority: keys.authority, identities: keys.identities, store })
    }

    /// Issues a certificate for a part of this process, and renews it as long as this one lives.
    pub(crate) fn keep_identity(
        &self,
        name: &'static str,
        profile: Profile,
    ) -> anyhow::Result<Arc<Certificate>> {
        self.identities.certificate(name, profile)
    }

    /// Writes everything down and closes the store; the last thing that happens.
    pub(crate) async fn close(self) {
        self.api.leave().await;
        drop(self.api);
        self.store.close().await;
    }
}

/// Everything that is read from, or first written to, the key directory.
struct Keys {
    authority: Arc<Authority>,
    identities: Arc<Identities>,
    server_tls: ServerTls,
    tokens: TokenKeys,
    kubelet_tls: Arc<rustls::ClientConfig>,
}

impl Keys {
    fn load(plan: &ServerPlan) -> anyhow::Result<Self> {
        let directory = plan.layout.pki();
        let authority = Arc::new(Authority::load_or_create(&directory, "ca")?);
        let lifetime = plan.flags.cluster_signing_duration;
        let identities = Identities::new(authority.clone(), directory.clone(), lifetime);
        let ca = authority.certificate_der()?;
        let server = identities.certificate("apiserver", server_profile(plan)?)?;
        let front = plan.flags.access.front_authorities()?;
        let server_tls =
            ServerTls::with_front(server, Some(std::slice::from_ref(&ca)), front.as_deref())?;
        let profile = Profile::client("kube-apiserver-kubelet-client", None);
        let kubelet_client = identities.certificate("apiserver-kubelet-client", profile)?;
        let kubelet_tls = rotating_client_config(&[ca], kubelet_client)?;
        let tokens = plan.flags.access.token_keys(&directory.join("service-accounts.key"))?;
        let (path, url) = (plan.layout.kubeconfig(), plan.server_url());
        let certificate = authority.certificate().to_owned();
        identities.keep(
            "admin",
            Profile::client("kubernetes-admin", Some("system:masters")),
            move |admin| {
                let text = pki::kubeconfig("skiff", &url, &certificate, admin);
                Ok(pki::write_private(&path, text.as_bytes())?)
            },
        )?;
        Ok(Self { authority, identities: Arc::new(identities), server_tls, tokens, kubelet_tls })
    }
}

fn server_profile(plan: &ServerPlan) -> anyhow::Result<Profile> {
    let domain = &plan.flags.cluster_domain;
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(str::to_owned)
            .into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.extend(plan.local_node.clone());
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), plan.address, plan.server().ip()];
    addresses.extend(plan.service_addresses(1)?);
    for name in &plan.flags.tls_san {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    names.sort_unstable();
    names.dedup();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Profile::server("kube-apiserver", names, addresses))
}

async fn api_options(plan: &ServerPlan, authority: &Authority) -> anyhow::Result<ApiServerOptions> {
    let issuer = format!("https://kubernetes.default.svc.{}", plan.flags.cluster_domain);
    let service_ip = plan.service_addresses(1)?;
    let mut options = ApiServerOptions {
        advertise: plan.advertised(),
        service_ip: *service_ip.first().context("--service-cidr is empty")?,
        service_cidrs: plan.flags.service_cidr.iter().map(ToString::to_string).collect(),
        audiences: vec![issuer.clone()],
        issuer,
        client_ca: authority.certificate().to_owned(),
        local_node: plan.local_node.clone(),
        admission: plan.flags.admission.options(plan.flags.judge.tolerations())?,
        shared_store: plan.flags.datastore.is_shared(),
        ..ApiServerOptions::default()
    };
    options.network.services = plan.flags.service_cidr.clone();
    plan.flags.access.apply(&mut options).await?;
    Ok(options)
}

/// Writes what nodes must know: what they agree on, where the DNS is, and for those that have not
/// joined yet the authority.
async fn tell_nodes(
    plan: &ServerPlan,
    api: &ApiServer,
    authority: &Authority,
) -> anyhow::Result<()> {
    let info = plan.info()?;
    let client = identity::client(api, "system:apiserver", &["system:masters"]);
    let server = &info.servers[0];
    let cluster = json!({"server": server, "certificate-authority-data": STANDARD.encode(authority.certificate())});
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]});
    let data = [("kubeconfig".to_owned(), format!("{kubeconfig:#}\n"))].into();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let authority = publish(&maps, "cluster-info", data);
    let dns = dns::register_service(client.clone(), &info.dns_addresses);
    // All at once: the store writes down together what comes together.
    tokio::try_join!(
        info.publish(client),
        async { authority.await.context("write kube-public/cluster-info") },
        async { dns.await.context("make the Service of the cluster's DNS") },
    )?;
    Ok(())
}

async fn listen(server: Server, api: ApiServer, shutdown: CancellationToken) -> Part {
    server.run(api, shutdown).await;
    ("the API server's listener", Ok(()))
}

pub(super) fn ipam_options(plan: &ServerPlan) -> NodeIpamOptions {
    NodeIpamOptions {
        cluster_cidrs: plan.flags.cluster_cidr.clone(),
        service_cidrs: plan.flags.service_cidr.clone(),
        mask_size_ipv4: plan.flags.node_cidr_mask_size_ipv4,
        mask_size_ipv6: plan.flags.node_cidr_mask_size_ipv6,
    }
}

/// The controllers act as one user; every controller's own role is a part of what it may do.
fn start_controllers(
    plan: &ServerPlan,
    api: &ApiServer,
    (authority, tokens): (&Arc<Authority>, TokenKeys),
    led: CancellationToken,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) {
    let caches = identity::caches(api, "system:kube-controller-manager", &[], shutdown);
    let options = ControllersOptions {
        root_ca: Some(authority.certificate().to_owned()),
        token_keys: Some(tokens),
        signer: Some(Signer {
            authority: authority.clone(),
            lifetime: plan.flags.cluster_signing_duration,
        }),
        node_ipam: ipam_options(plan),
        load_balancer_pool: plan.flags.load_balancer_pool.clone(),
        node_grace: plan.flags.judge.node_monitor_grace_period,
        election: identity::candidate(plan)
            .map(|identity| Election::new("kube-system", "kube-controller-manager", identity)),
        ..ControllersOptions::default()
    };
    let controllers = Controllers::new(options, caches.clone(), caches.client());
    api.expose(|registry| controllers.metrics().register(registry));
    let shutdown = shutdown.clone();
    parts.spawn(async move {
        tokio::select! {
            () = led.cancelled() => {}
            () = tokio::time::sleep(LEAD) => {
                tracing::warn!("this node's Services are not led yet; controllers begin");
            }
            () = shutdown.cancelled() => {}
        }
        ("the controllers", controllers.run(shutdown).await.map_err(Into::into))
    });
}

fn start_scheduler(
    plan: &ServerPlan,
    api: &ApiServer,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) {
    let caches = identity::caches(api, "system:kube-scheduler", &[], shutdown);
    let options = SchedulerOptions {
        leader_identity: identity::candidate(plan),
        ..SchedulerOptions::default()
    };
    let scheduler = Scheduler::new(options, caches);
    let shutdown = shutdown.clone();
    parts
        .spawn(async move { ("the scheduler", scheduler.run(shutdown).await.map_err(Into::into)) });
}
