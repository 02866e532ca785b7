//! What an API server is told, and what it is given.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pki::TokenKeys;
use registry::{Header, Network, Rows};
use rustls::ClientConfig;
use store::Store;

use crate::{
    admission::AdmissionOptions, audit::AuditOptions, authn::AuthenticationOptions,
    authz::AuthorizationConfiguration, flow::FlowOptions, reload::ReloadOptions,
    traces::TracingConfiguration,
};

/// Settings.
#[derive(Clone)]
pub struct ApiServerOptions {
    /// Where clients and pods reach this server; written into the `kubernetes` Service's endpoints unless it is
    /// a loopback address.
    pub advertise: SocketAddr,
    /// The cluster IP of the `kubernetes` Service.
    pub service_ip: IpAddr,
    /// The ranges cluster IPs come from, for the `kubernetes` ServiceCIDR.
    pub service_cidrs: Vec<String>,
    /// Where the engine takes cluster IPs and node ports from; must agree with `service_cidrs`.
    pub network: Network,
    /// What `/version` answers as `gitVersion`: semver, `v1.36.2+skiff.0.1.0`.
    pub version: String,
    /// Who signs service-account tokens; an https URL.
    pub issuer: String,
    /// The audiences this server accepts tokens for; the first ones are put into tokens that ask for none.
    pub audiences: Vec<String>,
    /// How users are known beside certificates and the cluster's own tokens.
    pub authentication: AuthenticationOptions,
    /// Who is asked what users may do; without a word, nodes' own authorizer and RBAC.
    pub authorization: Option<AuthorizationConfiguration>,
    /// The files of both that are read again when they change.
    pub reload: ReloadOptions,
    /// The authority of client certificates as PEM, published in `kube-system`; empty publishes nothing.
    pub client_ca: String,
    /// The node on the server's own machine, if there is one: it is dialled, and pods are reached without its help.
    pub local_node: Option<String>,
    /// Which admission plugins are asked, and what they are told.
    pub admission: AdmissionOptions,
    /// Bounds on concurrent requests.
    pub flow: FlowOptions,
    /// Whether other API servers may work on the same store.
    pub shared_store: bool,
    /// How long a request that is no stream may take.
    pub request_timeout: Duration,
    /// Where spans of requests are sent, if anywhere.
    pub tracing: Option<TracingConfiguration>,
    /// Which requests are noted, and where.
    pub audit: AuditOptions,
}

impl Default for ApiServerOptions {
    fn default() -> Self {
        let issuer = "https://kubernetes.default.svc.cluster.local";
        Self {
            advertise: (Ipv4Addr::LOCALHOST, 6443).into(),
            service_ip: Ipv4Addr::new(10, 96, 0, 1).into(),
            service_cidrs: vec!["10.96.0.0/12".into()],
            network: Network::default(),
            version: format!("v1.36.2+skiff.{}", env!("CARGO_PKG_VERSION")),
            issuer: issuer.into(),
            audiences: vec![issuer.into()],
            authentication: AuthenticationOptions::default(),
            authorization: None,
            reload: ReloadOptions::default(),
            client_ca: String::new(),
            local_node: None,
            admission: AdmissionOptions::default(),
            flow: FlowOptions::default(),
            shared_store: false,
            request_timeout: Duration::from_secs(60),
            tracing: None,
            audit: AuditOptions::default(),
        }
    }
}

/// What the server works with.
pub struct Dependencies {
    /// Where objects are kept; its headers come from [`registry::header_reader`] of the same `rows`.
    pub store: Arc<dyn Store<Header>>,
    /// The resources that are served.
    pub rows: Arc<Rows>,
    /// The keys that sign and verify service-account tokens.
    pub token_keys: TokenKeys,
    /// How kubelets are reached: trusts the cluster's authority, presents `kube-apiserver-kubelet-client`.
    pub kubelet_tls: Arc<ClientConfig>,
}
