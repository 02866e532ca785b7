//! The whole scheduler against a small API server in this process: it binds, reports, and wakes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use client::{Caches, in_process};
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use skiff_scheduler::{Scheduler, SchedulerOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Just enough of an API server: two kinds, lists, watches, bindings, status patches, events.
#[derive(Default)]
struct Server {
    state: Mutex<State>,
    /// What the scheduler did, as lines of text.
    done: Option<mpsc::UnboundedSender<String>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    watches: Vec<(&'static str, mpsc::UnboundedSender<Value>)>,
    /// Pods whose binding is refused once.
    refuse: Vec<String>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("lock")
    }

    fn say(&self, line: String) {
        let _ = self.done.as_ref().expect("set").send(line);
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<Body> {
        let resource = if path.contains("/nodes") { "nodes" } else { "pods" };
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method, segments.as_slice()) {
            (&Method::GET, ["api", "v1", _]) if query.contains("watch=true") => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.state().watches.push((resource, sender));
                let lines = UnboundedReceiverStream::new(receiver).map(|event: Value| {
                    Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(format!("{event}\n"))))
                });
                Response::new(StreamBody::new(lines).boxed_unsync())
            }
            (&Method::GET, ["api", "v1", _]) => {
                let state = self.state();
                let items: Vec<&Value> = state
                    .objects
                    .iter()
                    .filter(|((kind, _), _)| *kind == resource)
                    .map(|(_, object)| object)
                    .collect();
                let revision = state.revision.to_string();
                reply(200, &json!({"metadata": {"resourceVersion": revision}, "items": items}))
            }
            (&Method::POST, ["api", "v1", "namespaces", _, "pods", name, "binding"]) => {
                let binding: Value = serde_json::from_slice(body).expect("a binding");
                assert_eq!(binding["metadata"]["uid"], json!(name));
                let node = binding["target"]["name"].as_str().expect("a node");
                if self.refused(name) {
                    self.say(format!("refused {name}"));
                    return reply(
                        500,
                        &json!({"kind": "Status", "status": "Failure", "code": 500,
                        "reason": "InternalError", "message": "not now"}),
                    );
                }
                self.change("pods", name, |pod| pod["spec"]["nodeName"] = node.into());
                self.say(format!("bound {name} to {node}"));
                reply(201, &json!({"kind": "Status", "status": "Success", "code": 201}))
            }
            (&Method::PATCH, ["api", "v1", "namespaces", _, "pods", name, "status"]) => {
                let patch: Value = serde_json::from_slice(body).expect("a patch");
                let condition = &patch["status"]["conditions"][0];
                let (reason, message) = (&condition["reason"], &condition["message"]);
                let pod = self.change("pods", name, |pod| {
                    pod["status"]["conditions"] = json!([condition]);
                });
                self.say(format!("status {name} {reason} {message}"));
                reply(200, &pod)
            }
            (&Method::POST, ["api", "v1", "namespaces", _, "events"]) => {
                let event: Value = serde_json::from_slice(body).expect("an event");
                let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
                let reason = event["reason"].as_str().unwrap_or_default();
                self.say(format!("event {name} {reason} {}", event["message"]));
                reply(201, &event)
            }
            (&Method::PATCH, ["api", "v1", "namespaces", _, "events", _]) => {
                reply(200, &serde_json::from_slice(body).expect("a patch"))
            }
            _ => panic!("{method} {path}"),
        }
    }

    fn refused(&self, name: &str) -> bool {
        let refuse = &mut self.state().refuse;
        let before = refuse.len();
        refuse.retain(|one| one != name);
        refuse.len() != before
    }

    /// Creates or replaces an object and tells watchers.
    fn put(&self, resource: &'static str, object: Value) {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        self.state().objects.insert((resource, name.clone()), object);
        self.change(resource, &name, |_| {});
    }

    fn change(&self, resource: &'static str, name: &str, edit: impl FnOnce(&mut Value)) -> Value {
        let state = &mut *self.state();
        state.revision += 1;
        let key = (resource, name.to_owned());
        let object = state.objects.get_mut(&key).expect("exists");
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        edit(object);
        let event = json!({"type": "MODIFIED", "object": object});
        state
            .watches
            .retain(|(kind, watch)| *kind != resource || watch.send(event.clone()).is_ok());
        object.clone()
    }

    fn delete(&self, resource: &'static str, name: &str) {
        let state = &mut *self.state();
        state.revision += 1;
        let mut object = state.objects.remove(&(resource, name.to_owned())).expect("exists");
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        let event = json!({"type": "DELETED", "object": object});
        state
            .watches
            .retain(|(kind, watch)| *kind != resource || watch.send(event.clone()).is_ok());
    }
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = code.try_into().expect("a code");
    response
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}},
    })
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": name, "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}},
        ]},
    })
}

struct Cluster {
    server: Arc<Server>,
    done: mpsc::UnboundedReceiver<String>,
    /// What was done and not yet asked for.
    seen: Vec<String>,
    shutdown: CancellationToken,
    scheduler: tokio::task::JoinHandle<()>,
}

impl Cluster {
    fn start(objects: Vec<(&'static str, Value)>, refuse: &[&str]) -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        let server = Arc::new(Server { done: Some(sender), ..Server::default() });
        for (resource, object) in objects {
            server.put(resource, object);
        }
        server.state().refuse = refuse.iter().map(|&name| name.to_owned()).collect();
        let service = {
            let server = Arc::clone(&server);
            tower::service_fn(move |request: Request<kube::client::Body>| {
                let server = Arc::clone(&server);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.expect("a body").to_bytes();
                    let query = head.uri.query().unwrap_or_default();
                    Ok::<_, Infallible>(server.answer(&head.method, head.uri.path(), query, &body))
                }
            })
        };
        let shutdown = CancellationToken::new();
        let caches = Caches::new(in_process(service, ()), shutdown.clone());
        let options = SchedulerOptions {
            initial_backoff: Duration::from_millis(10),
            ..SchedulerOptions::default()
        };
        let scheduler = Scheduler::new(options, caches);
        let token = shutdown.clone();
        let scheduler =
            tokio::spawn(async move { scheduler.run(token).await.expect("runs until told") });
        Self { server, done, seen: Vec::new(), shutdown, scheduler }
    }

    /// Waits until `line` was done.
    async fn until(&mut self, line: &str) {
        loop {
            if let Some(at) = self.seen.iter().position(|seen| seen == line) {
                self.seen.remove(at);
                return;
            }
            let next = tokio::time::timeout(Duration::from_secs(60), self.done.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("no {line:?}, but {:?}", self.seen));
            self.seen.push(next.expect("the server lives"));
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.scheduler.await.expect("ends");
    }
}

#[tokio::test]
async fn binds_what_fits_and_says_why_the_rest_does_not() {
    let objects =
        vec![("nodes", node("a", "2")), ("pods", pod("small", "1")), ("pods", pod("large", "3"))];
    let mut cluster = Cluster::start(objects, &[]);
    cluster.until("bound small to a").await;
    cluster.until("event small Scheduled \"Successfully assigned default/small to a\"").await;
    let message = "\"0/1 nodes are available: 1 Insufficient cpu.\"";
    cluster.until(&format!("status large \"Unschedulable\" {message}")).await;
    cluster.until(&format!("event large FailedScheduling {message}")).await;
    // A node it fits on appears.
    cluster.server.put("nodes", node("b", "4"));
    cluster.until("bound large to b").await;
    cluster.stop().await;
}

#[tokio::test]
async fn wakes_when_room_is_made() {
    let objects = vec![("nodes", node("a", "1")), ("pods", pod("first", "1"))];
    let mut cluster = Cluster::start(objects, &[]);
    cluster.until("bound first to a").await;
    cluster.server.put("pods", pod("second", "1"));
    let message = "\"0/1 nodes are available: 1 Insufficient cpu.\"";
    cluster.until(&format!("status second \"Unschedulable\" {message}")).await;
    cluster.server.delete("pods", "first");
    cluster.until("bound second to a").await;
    // A pod that has ended takes nothing any more.
    cluster.server.put("pods", pod("third", "1"));
    cluster.until(&format!("status third \"Unschedulable\" {message}")).await;
    cluster.server.change("pods", "second", |pod| pod["status"]["phase"] = "Succeeded".into());
    cluster.until("bound third to a").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_refused_binding_is_tried_again_and_holds_nothing() {
    let objects = vec![("nodes", node("a", "1")), ("pods", pod("p", "1"))];
    let mut cluster = Cluster::start(objects, &["p"]);
    cluster.until("refused p").await;
    cluster.until("bound p to a").await;
    cluster.stop().await;
}

#[tokio::test]
async fn no_nodes_then_one() {
    let mut cluster = Cluster::start(vec![("pods", pod("p", "1"))], &[]);
    let message = "\"no nodes available to schedule pods\"";
    cluster.until(&format!("status p \"Unschedulable\" {message}")).await;
    cluster.server.put("nodes", node("a", "1"));
    cluster.until("bound p to a").await;
    cluster.stop().await;
}

#[tokio::test]
async fn pods_of_others_and_pods_on_their_way_out_are_left_alone() {
    let mut foreign = pod("foreign", "1");
    foreign["spec"]["schedulerName"] = "other".into();
    let mut leaving = pod("leaving", "1");
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let mut gated = pod("gated", "100m");
    gated["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    let objects = vec![
        ("nodes", node("a", "1")),
        ("pods", foreign),
        ("pods", leaving),
        ("pods", gated),
        ("pods", pod("own", "100m")),
    ];
    let mut cluster = Cluster::start(objects, &[]);
    cluster.until("bound own to a").await;
    cluster.server.change("pods", "gated", |pod| pod["spec"]["schedulingGates"] = json!([]));
    cluster.until("bound gated to a").await;
    let bound: Vec<&String> = cluster.seen.iter().filter(|l| l.starts_with("bound")).collect();
    assert!(bound.is_empty(), "{bound:?}");
    cluster.stop().await;
}
