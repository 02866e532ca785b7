//! The server itself: the stages every request passes, in upstream's order.
//!
//! Parse → authenticate → impersonate → flow control → authorize → dispatch, with metrics and audit around
//! them. Each stage is one function elsewhere; this file owns only their order.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, request::Parts};
use meta::Status;
use registry::{Registry, Row, UserInfo};
use serve::Body;

use crate::{
    audit::{self, Record},
    authz::{Attributes, Decision, Selected},
    endpoints::{self, Context, respond},
    flow::{Place, Schema},
    identity::Identity,
    impersonate::impersonate,
    metrics::{self, Observed, Went},
    request::{Query, RequestInfo, field_terms, label_requirements, query},
    traces::{Trace, Traces},
};

pub(crate) use crate::state::Core;

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

/// What the stages found out, for what is around them.
struct Found {
    audit_id: HeaderValue,
    record: Option<Record>,
    trace: Option<Trace>,
    schema: Option<Arc<Schema>>,
    /// How long authentication, authorization and the wait for seats took.
    layers: [Duration; 3],
    /// Whether the server gave it up to protect itself.
    terminated: bool,
    /// Whether the request was let through to what answers it.
    admitted: bool,
}

impl Found {
    fn new(parts: &Parts, traces: &Traces) -> Self {
        let (audit_id, trace) = (audit::id::of(&parts.headers), traces.begin(parts));
        Self {
            audit_id,
            record: None,
            trace,
            schema: None,
            layers: [Duration::ZERO; 3],
            terminated: false,
            admitted: false,
        }
    }

    fn audit_id(&self) -> &str {
        self.audit_id.to_str().unwrap_or_default()
    }

    /// Adds what every answer carries, and notes it.
    async fn finish(
        self,
        mut response: Response<Body>,
        failure: Option<&Status>,
        took: Duration,
    ) -> Response<Body> {
        let code = response.status().as_u16();
        let headers = response.headers_mut();
        if let Some(trace) = self.trace {
            trace.end(self.audit_id.to_str().unwrap_or_default(), code);
        }
        headers.insert("audit-id", self.audit_id);
        if let Some(schema) = self.schema {
            let [schema, level] = schema.uids.clone();
            headers.insert("x-kubernetes-pf-flowschema-uid", schema);
            headers.insert("x-kubernetes-pf-prioritylevel-uid", level);
        }
        match self.record {
            None => response,
            // Boxed: it is rare, and would make every request larger.
            Some(mut record) => {
                let names = ["authentication", "authorization", "apf-queue-wait"];
                let layers: Vec<_> = names.into_iter().zip(self.layers).collect();
                record.latencies(took, &layers);
                Box::pin(record.answer(response, failure)).await
            }
        }
    }
}

impl ApiServer {
    /// Answers one request. Whatever goes wrong is an answer too.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let teller = respond::Teller::of(&parts.headers, &query);
        let info = match RequestInfo::parse(&parts.method, parts.uri.path(), &query) {
            Ok(info) => info,
            Err(status) => return teller.failure(&status),
        };
        let row = info.is_resource().then(|| self.0.routes.find(&info)).flatten().cloned();
        let mut found = Found::new(&parts, &self.0.traces);
        let (long, scope) = (info.long_running(), metrics::scope(&info));
        let verb = metrics::verb(&info, &parts.method, &parts.headers);
        let dry_run = query.get("dryRun").is_some();
        let subresource = info.subresource().to_owned();
        let arrived = Arrived { parts, body, query, info, row: row.clone() };
        let outcome = AssertUnwindSafe(self.stages(arrived, &mut found)).catch_unwind().await;
        let (mut response, failure) = match outcome {
            Ok(Ok(response)) => (response, None),
            Ok(Err(status)) => (teller.failure(&status), Some(status)),
            Err(_) => {
                tracing::error!(verb, "a request handler panicked");
                found.record.take().into_iter().for_each(Record::panicked);
                let status = Status::internal("the server met a condition it did not expect");
                (teller.failure(&status), None)
            }
        };
        let deprecated = row.as_ref().and_then(|row| row.deprecated.as_ref());
        if let Some(warning) = deprecated.filter(|_| found.admitted) {
            respond::warn(&mut response, std::slice::from_ref(warning));
            found.record.iter_mut().for_each(|record| record.annotate("k8s.io/deprecated", "true"));
        }
        let ([.., waited], terminated) = (found.layers, found.terminated);
        let response = found.finish(response, failure.as_ref(), started.elapsed()).await;
        let observed =
            Observed { row: row.as_ref(), subresource: &subresource, verb, scope, dry_run };
        let went = Went { took: started.elapsed(), waited, timed: !long, terminated };
        self.0.metrics.answered(&observed, &went, response)
    }

    /// The stages up to dispatch.
    async fn stages(
        &self,
        mut arrived: Arrived,
        found: &mut Found,
    ) -> Result<Response<Body>, Status> {
        let core = &*self.0;
        let selected = arrived.selected();
        let long = arrived.info.long_running();
        let mut began = Instant::now();
        let (user, internal) = match arrived.parts.extensions.get::<InProcess>() {
            Some(InProcess(user)) => (user.clone(), true),
            None => (self.authenticated(&mut arrived, &selected, found).await?, false),
        };
        found.layers[0] = began.elapsed();
        found.record = core.audit.begin(
            (found.audit_id(), long),
            &arrived.parts,
            &user,
            &arrived.asked(&selected),
        );
        if let Some(record) = &found.record {
            Box::pin(record.received()).await?;
        }
        if user.is_master() {
            found.trace.iter_mut().for_each(Trace::trust);
        }
        let user = match impersonate(&arrived.parts.headers, &user, &core.authorizer).await? {
            Some(other) => {
                found.record.iter_mut().for_each(|record| record.impersonated(&other));
                other
            }
            None => user,
        };
        let asked = arrived.asked(&selected);
        let about = (&arrived.query, arrived.row.as_ref());
        // A watch that has begun sits on no seat; other streams never do.
        let _place = if internal || (long && asked.verb != "watch") {
            None
        } else {
            match self.enter(&user, &asked, about, found).await {
                Ok(place) => place,
                Err(refused) => return Ok(refused),
            }
        };
        let _running = core.metrics.begin(is_read(asked.verb));
        began = Instant::now();
        authorize(core, &user, &asked, found.record.as_mut()).await?;
        found.layers[1] = began.elapsed();
        found.admitted = true;
        if long {
            return dispatch(core, user, arrived).await;
        }
        let limit = time_limit(&arrived.query, core.options.request_timeout)?;
        // Pinned where it is made: it is large, and to move it costs as much as some requests do.
        let answer = std::pin::pin!(async {
            if let Some(record) = &mut found.record
                && record.wants_body(&arrived.parts.method)
            {
                let body = std::mem::take(&mut arrived.body);
                let body = Box::pin(endpoints::read(body)).await?;
                record.sent(&arrived.parts.headers, &body);
                arrived.body = Body::full(body);
            }
            let Some(record) = &mut found.record else {
                return dispatch(core, user, arrived).await;
            };
            let (answer, said) = Box::pin(registry::annotated(dispatch(core, user, arrived))).await;
            said.iter().for_each(|(key, value)| record.annotate(key, value));
            answer
        });
        let in_time = tokio::time::timeout(limit, answer).await;
        found.terminated = in_time.is_err();
        in_time.unwrap_or_else(|_| {
            let why =
                "request did not complete within requested timeout - context deadline exceeded";
            Err(Status::timeout(why, 0))
        })
    }

    /// The user of a request that came over a connection. That there is none is noted too.
    async fn authenticated(
        &self,
        arrived: &mut Arrived,
        selected: &Selected,
        found: &Found,
    ) -> Result<Arc<UserInfo>, Status> {
        let Arrived { parts, info, .. } = arrived;
        let found_out = self.0.authenticator.authenticate(parts, info.path()).await;
        if let Err(status) = &found_out {
            let (nobody, asked) = (UserInfo::default(), arrived.asked(selected));
            let about = (found.audit_id(), arrived.info.long_running());
            if let Some(record) = self.0.audit.begin(about, &arrived.parts, &nobody, &asked) {
                Box::pin(record.unauthenticated(&arrived.parts, status)).await;
            }
        }
        found_out
    }

    /// Seats for the request, or the answer that refuses them.
    async fn enter(
        &self,
        user: &UserInfo,
        asked: &Attributes<'_>,
        about: (&Query, Option<&Arc<Row>>),
        found: &mut Found,
    ) -> Result<Option<Place>, Response<Body>> {
        let core = &*self.0;
        if !core.options.flow.fair {
            if user.is_master() || asked.verb == "watch" || core.room(is_read(asked.verb)) {
                return Ok(None);
            }
            found.terminated = true;
            core.metrics.reject();
            return Err(respond::too_many(1));
        }
        let Some(schema) = core.flow.classify(user, asked) else { return Ok(None) };
        let schema = found.schema.insert(schema);
        let began = Instant::now();
        let entered = core.flow.enter(schema, user, asked, about, core.options.request_timeout);
        let entered = entered.await;
        found.layers[2] = began.elapsed();
        entered.map(Some).map_err(|seconds| {
            found.terminated = true;
            core.metrics.reject();
            respond::too_many(seconds)
        })
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

impl Arrived {
    /// What selectors say, where authorizers look at them.
    fn selected(&self) -> Selected {
        let text = |name: &str| self.query.get(name).unwrap_or_default();
        match self.info.verb() {
            "list" | "watch" | "deletecollection" => Selected {
                fields: field_terms(text("fieldSelector")),
                labels: label_requirements(text("labelSelector")),
            },
            _ => Selected::default(),
        }
    }

    /// What is asked for, as flow control and authorizers see it.
    fn asked<'a>(&'a self, selected: &'a Selected) -> Attributes<'a> {
        let info = &self.info;
        Attributes {
            verb: info.verb(),
            resource_request: info.is_resource(),
            group: info.group(),
            version: info.version(),
            resource: info.resource(),
            subresource: info.subresource(),
            namespace: info.namespace(),
            name: info.authorized_name(),
            path: info.path(),
            fields: &selected.fields,
            labels: &selected.labels,
        }
    }
}

/// How long a request may take: what it says itself, up to what is usual.
fn time_limit(query: &Query, usual: Duration) -> Result<Duration, Status> {
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(usual) };
    let asked = query::duration(text).ok_or_else(|| {
        let invalid = meta::quote(text);
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {invalid}"
        ))
    })?;
    Ok(if asked.is_zero() { usual } else { asked.min(usual) })
}

fn is_read(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "watch" | "head" | "options")
}

async fn authorize(
    core: &Core,
    user: &UserInfo,
    asked: &Attributes<'_>,
    record: Option<&mut Record>,
) -> Result<(), Status> {
    if let Some(record) = record {
        let (decision, reason) = Box::pin(core.authorizer.explain(user, asked)).await;
        let decision = if decision == Decision::Allow { "allow" } else { "forbid" };
        record.annotate("authorization.k8s.io/decision", decision);
        record.annotate("authorization.k8s.io/reason", &reason);
    }
    core.authorizer.check(user, asked).await?;
    // A WebSocket is opened by GET, but what it does is what POST does: it takes both permissions.
    match (asked.verb, asked.subresource) {
        ("get", "exec" | "attach" | "portforward") => {
            core.authorizer.check(user, &Attributes { verb: "create", ..*asked }).await
        }
        _ => Ok(()),
    }
}

async fn dispatch(
    core: &Core,
    user: Arc<UserInfo>,
    arrived: Arrived,
) -> Result<Response<Body>, Status> {
    let Arrived { mut parts, body, query, info, row } = arrived;
    if !info.is_resource() {
        if info.path() == endpoints::tunnel::PATH {
            return endpoints::tunnel::answer(core, &user, Request::from_parts(parts, body));
        }
        return endpoints::nonresource(core, &parts, &query, info.path());
    }
    if !core.routes.serves(&info) {
        return Ok(respond::no_such_page());
    }
    let row = row.ok_or_else(Status::no_such_path)?;
    if !endpoints::supports(&row, info.namespace(), info.resource()) {
        return Err(Status::no_such_path());
    }
    let socket = endpoints::socket::take(&mut parts, &info)?;
    let answer = if endpoints::is_proxied(&row, &info) {
        let headers = parts.headers.clone();
        let context = Context { user, info: &info, query: &query, row, headers: &headers };
        let request = Request::from_parts(parts, body);
        Box::pin(endpoints::proxied(core, &context, request)).await?
    } else {
        let context = Context { user, info: &info, query: &query, row, headers: &parts.headers };
        endpoints::resource(core, &context, body).await?
    };
    Ok(match socket {
        Some(socket) => socket.carry(core, answer),
        None => answer,
    })
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
