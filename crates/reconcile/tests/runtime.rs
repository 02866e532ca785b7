//! The runtime around a small controller, against a ConfigMap server in this process whose
//! watches lag behind its writes.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use client::{Cache, Caches, ObjectKey, in_process};
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use serde_json::{Value, json};
use skiff_reconcile::{Action, Context, Controller, Deps, Metrics, Plan, Runtime, itself};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
struct Server {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
    creates: Arc<AtomicUsize>,
    refuse: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    events: Vec<Value>,
}

impl Server {
    fn new() -> Self {
        Self {
            state: Arc::default(),
            revision: watch::Sender::new(1),
            creates: Arc::default(),
            refuse: Arc::default(),
        }
    }

    fn put(&self, mut object: Value) -> Value {
        let mut state = self.state.lock().expect("lock");
        let revision = *self.revision.borrow() + 1;
        object["apiVersion"] = "v1".into();
        object["kind"] = "ConfigMap".into();
        object["metadata"]["namespace"] = "default".into();
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let name = object["metadata"]["name"].as_str().map_or_else(
            || {
                format!(
                    "{}{revision}",
                    object["metadata"]["generateName"].as_str().expect("a name")
                )
            },
            str::to_owned,
        );
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = json!(name);
        let kind = if state.objects.contains_key(&name) { "MODIFIED" } else { "ADDED" };
        state.events.push(json!({ "type": kind, "object": object }));
        state.objects.insert(name, object.clone());
        self.revision.send_replace(revision);
        object
    }

    async fn answer(self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::POST {
            self.creates.fetch_add(1, Ordering::SeqCst);
            let body = body.collect().await.expect("body").to_bytes();
            let refused = self
                .refuse
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if refused.is_ok() {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": 403, "reason": "Forbidden", "message": "not now" });
                return text(StatusCode::FORBIDDEN, &status);
            }
            return text(
                StatusCode::CREATED,
                &self.put(serde_json::from_slice(&body).expect("JSON")),
            );
        }
        if parts.uri.query().unwrap_or_default().contains("watch=true") {
            return Response::new(self.watch());
        }
        let items: Vec<_> = self.state.lock().expect("lock").objects.values().cloned().collect();
        let revision = self.revision.borrow().to_string();
        let list = json!({ "kind": "ConfigMapList", "apiVersion": "v1",
            "metadata": { "resourceVersion": revision }, "items": items });
        text(StatusCode::OK, &list)
    }

    /// Every event there ever was, each a while after it happened: a lagging watch.
    fn watch(&self) -> Body {
        let (state, revisions) = (self.state.clone(), self.revision.subscribe());
        let events = stream::unfold((0, revisions), move |(sent, mut revisions)| {
            let state = state.clone();
            async move {
                loop {
                    let event = state.lock().expect("lock").events.get(sent).cloned();
                    if let Some(event) = event {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        return Some((event, (sent + 1, revisions)));
                    }
                    revisions.changed().await.ok()?;
                }
            }
        });
        let lines = events.map(|event| {
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(format!("{event}\n"))))
        });
        StreamBody::new(lines).boxed_unsync()
    }
}

fn text(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response
}

/// Wants as many children as the parent's `data.want` says; panics once if told to.
struct Parents {
    maps: Cache<ConfigMap>,
    panics: AtomicUsize,
    failures_seen: Arc<AtomicUsize>,
}

impl Controller for Parents {
    type Snapshot = (usize, usize);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        let parent = self.maps.get_key(key)?;
        let want = parent.data.as_ref()?.get("want")?.parse().ok()?;
        let children = self.maps.list_in("default").iter().filter(|map| map.data.is_none()).count();
        Some((want, children))
    }

    fn plan(&self, (want, have): &Self::Snapshot, context: &Context) -> Plan {
        let left = self
            .panics
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "told to");
        if context.failure.is_some() {
            self.failures_seen.fetch_add(1, Ordering::SeqCst);
        }
        let mut plan = Plan::nothing();
        for _ in *have..*want {
            plan.act(Action::create(&ConfigMap {
                metadata: ObjectMeta {
                    generate_name: Some("child-".into()),
                    namespace: Some("default".into()),
                    ..ObjectMeta::default()
                },
                ..ConfigMap::default()
            }));
        }
        plan
    }
}

async fn check(server: Server, panics: usize) -> usize {
    let shutdown = CancellationToken::new();
    let service = {
        let server = server.clone();
        tower::service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        })
    };
    let client = in_process(service, ());
    let caches = Caches::new(client.clone(), shutdown.clone());
    let maps = caches.cache::<ConfigMap>();
    let deps =
        Deps { client, events: client::EventRecorder::silent(), metrics: Metrics::default() };
    let failures_seen = Arc::new(AtomicUsize::new(0));
    let controller = Parents {
        maps: maps.clone(),
        panics: AtomicUsize::new(panics),
        failures_seen: failures_seen.clone(),
    };
    let running = tokio::spawn(
        Runtime::new("test", deps).watch(&maps, itself).run(controller, shutdown.clone()),
    );
    server.put(json!({ "metadata": { "name": "parent" }, "data": { "want": "20" } }));
    let mut revisions = maps.revisions();
    while maps.len() < 21 {
        revisions.changed().await.expect("open");
    }
    // Whatever a run on stale contents would create, it would have created by now: each child
    // seen triggered one.
    server.put(json!({ "metadata": { "name": "parent" }, "data": { "want": "21" } }));
    while maps.len() < 22 {
        revisions.changed().await.expect("open");
    }
    shutdown.cancel();
    running.await.expect("runtime");
    assert_eq!(server.state.lock().expect("lock").objects.len(), 22, "never one too many");
    failures_seen.load(Ordering::SeqCst)
}

#[tokio::test]
async fn nothing_is_created_twice_however_late_the_watch() {
    let server = Server::new();
    assert_eq!(check(server.clone(), 0).await, 0);
    assert_eq!(server.creates.load(Ordering::SeqCst), 21);
}

#[tokio::test]
async fn failures_and_panics_are_tried_again_and_told_to_the_next_plan() {
    let server = Server::new();
    server.refuse.store(3, Ordering::SeqCst);
    let told = check(server.clone(), 1).await;
    assert!(told >= 4, "three refusals and a panic: {told}");
    // Slow start: each refused attempt cost one request, not twenty.
    assert_eq!(server.creates.load(Ordering::SeqCst), 24);
}
