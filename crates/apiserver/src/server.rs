//! The server itself: the stages every request passes, in upstream's order.
//!
//! Parse → authenticate → impersonate → flow control → authorize → dispatch, with metrics and audit around
//! them. Each stage is one function elsewhere; this file owns only their order.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, header, request::Parts};
use meta::{Status, fields::FieldTerm};
use registry::{Registry, Row, UserInfo};
use serve::{Body, Peer, proxy::Proxy};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, Audit},
    authn::{Authenticator, service_account::ServiceAccounts},
    authz::{Attributes, Authorizer},
    egress::Egress,
    endpoints::{self, Context, discovery::Discovery, health::Check, openapi::OpenApi, respond},
    flow::{Flow, Place},
    identity::Identity,
    impersonate::impersonate,
    metrics::{self, Metrics, Observed, Running},
    objects::Objects,
    options::ApiServerOptions,
    peers::Peers,
    request::{Query, RequestInfo, field_terms},
    routes::Routes,
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
    /// What other components of the process count.
    pub(crate) others: parking_lot::Mutex<prometheus_client::registry::Registry>,
    pub(crate) flow: Flow,
    pub(crate) audit: Audit,
    /// The way to kubelets, pods and Services.
    pub(crate) egress: Arc<Egress>,
    /// To kubelets, as this API server.
    pub(crate) kubelets: Proxy,
    /// To pods, services and other ports of nodes, as nobody: what answers there may be anything, this API
    /// server included.
    pub(crate) proxy: Proxy,
    pub(crate) started: Instant,
    pub(crate) bootstrapped: AtomicBool,
    pub(crate) turn: AtomicUsize,
    pub(crate) shutdown: CancellationToken,
}

impl Core {
    /// All metrics as text: the server's own, then those that were exposed.
    pub(crate) fn all_metrics(&self) -> String {
        let mut text = self.metrics.render(self.registry.store().written(), self.started.elapsed());
        let tunnels = self.egress.tunnels.count();
        metrics::gauge(&mut text, "skiff_egress_tunnels", "Nodes whose tunnel is open.", tunnels);
        let mut others = String::new();
        if prometheus_client::encoding::text::encode(&mut others, &self.others.lock()).is_ok() {
            // OpenMetrics ends with a mark; this is the older text format.
            text.push_str(others.strip_suffix("# EOF\n").unwrap_or(&others));
        }
        text
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

/// A request from within the process: its user is known.
#[derive(Clone)]
pub(crate) struct InProcess(pub(crate) Arc<UserInfo>);

/// A handle on the server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Core>);

impl serve::Handler for ApiServer {
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        self.handle(request).await
    }
}

/// A request taken apart.
struct Arrived {
    parts: Parts,
    body: Body,
    query: Query,
    info: RequestInfo,
    row: Option<Arc<Row>>,
}

/// What the stages found out, for audit.
#[derive(Default)]
struct Found {
    user: Option<Arc<UserInfo>>,
    impersonated: Option<Arc<UserInfo>>,
}

impl ApiServer {
    /// Answers one request. Whatever goes wrong is an answer too.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = match RequestInfo::parse(&parts.method, parts.uri.path(), &query) {
            Ok(info) => info,
            Err(status) => return respond::failure(&status),
        };
        let row = info.is_resource().then(|| self.0.routes.find(&info)).flatten().cloned();
        let noted = self.0.audit.is_on().then(|| Noted::of(&parts));
        let mut found = Found::default();
        let (long, verb, scope) = (info.long_running(), info.verb(), scope(&info));
        let (subresource, audited) =
            (info.subresource().to_owned(), noted.is_some().then(|| info.path().to_owned()));
        let arrived = Arrived { parts, body, query, info, row: row.clone() };
        let outcome = AssertUnwindSafe(self.stages(arrived, &mut found)).catch_unwind().await;
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::failure(&status),
            Err(_) => {
                tracing::error!(verb, "a request handler panicked");
                respond::failure(&Status::internal("the server met a condition it did not expect"))
            }
        };
        let code = response.status().as_u16();
        let observed = Observed { row: row.as_ref(), subresource: &subresource, verb, scope };
        self.0.metrics.record(&observed, code, started, !long);
        if let Some(noted) = noted {
            noted.finish(
                &self.0.audit,
                &found,
                audited.as_deref().unwrap_or_default(),
                &mut response,
            );
        }
        response
    }

    /// The stages up to dispatch.
    async fn stages(&self, arrived: Arrived, found: &mut Found) -> Result<Response<Body>, Status> {
        let core = &*self.0;
        let (user, internal) = match arrived.parts.extensions.get::<InProcess>() {
            Some(InProcess(user)) => (user.clone(), true),
            None => (core.authenticator.authenticate(&arrived.parts)?, false),
        };
        found.user = Some(user.clone());
        let user = match impersonate(&arrived.parts.headers, &user, &core.authorizer)? {
            Some(other) => {
                found.impersonated = Some(other.clone());
                other
            }
            None => user,
        };
        let long = arrived.info.long_running();
        let _running = self.enter(&arrived.info, long || internal || user.is_master())?;
        authorize(core, &user, &arrived)?;
        if long {
            return dispatch(core, user, arrived).await;
        }
        let limit = core.options.request_timeout;
        // Pinned where it is made: it is large, and to move it costs as much as some requests do.
        let answer = std::pin::pin!(dispatch(core, user, arrived));
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Status::timeout("request did not complete within the allotted timeout", 0))
        })
    }

    fn enter(
        &self,
        info: &RequestInfo,
        exempt: bool,
    ) -> Result<(Running<'_>, Option<Place>), Status> {
        let core = &*self.0;
        let read = matches!(info.verb(), "get" | "list" | "watch" | "head" | "options");
        let place = if exempt {
            None
        } else {
            Some(core.flow.enter(read).inspect_err(|_| core.metrics.reject())?)
        };
        Ok((core.metrics.begin(read), place))
    }

    /// The server as a service for clients in the same process: every request comes from `user`.
    pub fn in_process(&self, user: Arc<UserInfo>) -> InProcessService {
        InProcessService { server: self.clone(), user }
    }

    /// Lets a component of the same process add its metrics to what `/metrics` answers.
    pub fn expose(&self, register: impl FnOnce(&mut prometheus_client::registry::Registry)) {
        register(&mut self.0.others.lock());
    }

    /// The engine behind the server.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    /// Whether the system objects are written, which is what `/readyz` waits for.
    pub fn is_ready(&self) -> bool {
        self.0.bootstrapped.load(Ordering::Acquire)
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match () {
        () if !info.is_resource() => "",
        () if !info.name().is_empty() => "resource",
        () if !info.namespace().is_empty() => "namespace",
        () => "cluster",
    }
}

fn authorize(core: &Core, user: &UserInfo, arrived: &Arrived) -> Result<(), Status> {
    if user.is_master() {
        return Ok(());
    }
    let info = &arrived.info;
    let fields: Vec<FieldTerm> = match info.verb() {
        "list" | "watch" | "deletecollection" => {
            field_terms(arrived.query.get("fieldSelector").unwrap_or_default())
        }
        _ => Vec::new(),
    };
    let asked = Attributes {
        verb: info.verb(),
        resource_request: info.is_resource(),
        group: info.group(),
        version: info.version(),
        resource: info.resource(),
        subresource: info.subresource(),
        namespace: info.namespace(),
        name: info.authorized_name(),
        path: info.path(),
        fields: &fields,
    };
    core.authorizer.check(user, &asked)?;
    // A WebSocket is opened by GET, but what it does is what POST does: it takes both permissions.
    match (info.verb(), info.subresource()) {
        ("get", "exec" | "attach" | "portforward") => {
            core.authorizer.check(user, &Attributes { verb: "create", ..asked })
        }
        _ => Ok(()),
    }
}

async fn dispatch(
    core: &Core,
    user: Arc<UserInfo>,
    arrived: Arrived,
) -> Result<Response<Body>, Status> {
    let Arrived { parts, body, query, info, row } = arrived;
    if !info.is_resource() {
        if info.path() == endpoints::tunnel::PATH {
            return endpoints::tunnel::answer(core, &user, Request::from_parts(parts, body));
        }
        return endpoints::nonresource(core, &parts, &query, info.path());
    }
    let row = row.ok_or_else(Status::no_such_path)?;
    if !endpoints::supports(&row, info.namespace(), info.resource()) {
        return Err(Status::no_such_path());
    }
    if endpoints::is_proxied(&row, &info) {
        let headers = parts.headers.clone();
        let context = Context { user, info: &info, query: &query, row, headers: &headers };
        let request = Request::from_parts(parts, body);
        return Box::pin(endpoints::proxied(core, &context, request)).await;
    }
    let context = Context { user, info: &info, query: &query, row, headers: &parts.headers };
    endpoints::resource(core, &context, body).await
}

/// What audit keeps of a request while it is being answered.
struct Noted {
    id: String,
    method: http::Method,
    uri: String,
    address: Option<std::net::SocketAddr>,
    agent: String,
    received: jiff::Timestamp,
}

impl Noted {
    fn of(parts: &Parts) -> Self {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let given = header(header::HeaderName::from_static("audit-id")).filter(|id| id.len() <= 64);
        Self {
            id: given.map_or_else(meta::names::uid, str::to_owned),
            method: parts.method.clone(),
            uri: parts.uri.to_string(),
            address: parts.extensions.get::<Arc<Peer>>().and_then(|peer| peer.address),
            agent: header(header::USER_AGENT).unwrap_or_default().to_owned(),
            received: jiff::Timestamp::now(),
        }
    }

    fn finish(self, audit: &Audit, found: &Found, path: &str, response: &mut Response<Body>) {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert("audit-id", id);
        }
        let query = Query::parse(self.uri.split_once('?').map_or("", |(_, query)| query));
        let Ok(info) = RequestInfo::parse(&self.method, path, &query) else { return };
        let nobody = UserInfo::default();
        audit.note(&audit::Entry {
            id: &self.id,
            uri: &self.uri,
            info: &info,
            user: found.user.as_deref().unwrap_or(&nobody),
            impersonated: found.impersonated.as_deref(),
            address: self.address,
            agent: &self.agent,
            code: response.status().as_u16(),
            received: self.received,
        });
    }
}

/// The server for one user in the same process: the same stages, without TCP.
#[derive(Clone)]
pub struct InProcessService {
    server: ApiServer,
    user: Arc<UserInfo>,
}

impl<B> tower::Service<Request<B>> for InProcessService
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<serve::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.server.clone();
        let mut request = request.map(Body::boxed);
        request.extensions_mut().insert(InProcess(self.user.clone()));
        async move { Ok(server.handle(request).await) }.boxed()
    }
}
