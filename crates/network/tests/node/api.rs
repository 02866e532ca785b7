//! The least API server that a proxy can follow: lists and watches of Services and
//! EndpointSlices, and Leases that are merged into.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use serde_json::{Value, json};
use tokio::sync::watch;

type Body = Either<Full<Bytes>, http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct Contents {
    revision: u64,
    objects: BTreeMap<String, Value>,
    log: Vec<(u64, String, Value)>,
}

/// Objects by path `plural/namespace/name`.
pub(crate) struct Fake {
    contents: Mutex<Contents>,
    revision: watch::Sender<u64>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let contents = Contents { revision: 1, ..Contents::default() };
        Arc::new(Self { contents: Mutex::new(contents), revision: watch::Sender::new(1) })
    }

    pub(crate) fn client(self: &Arc<Self>) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.serve(request).await) }
        });
        client::in_process(service, ())
    }

    /// Creates or replaces an object; returns its revision.
    pub(crate) fn put(&self, plural: &str, mut object: Value) -> u64 {
        let key = path(plural, &object);
        let mut contents = self.contents.lock().expect("lock");
        contents.revision += 1;
        let revision = contents.revision;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let kind = if contents.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        contents.objects.insert(key.clone(), object.clone());
        contents.log.push((revision, key, json!({"type": kind, "object": object})));
        drop(contents);
        self.revision.send_replace(revision);
        revision
    }

    /// Like `put`; returns the object with its revision.
    fn put_back(&self, plural: &str, mut object: Value) -> Value {
        let revision = self.put(plural, object.clone());
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        object
    }

    pub(crate) fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let key = format!("{plural}/{namespace}/{name}");
        let mut contents = self.contents.lock().expect("lock");
        if let Some(mut object) = contents.objects.remove(&key) {
            contents.revision += 1;
            let revision = contents.revision;
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            contents.log.push((revision, key, json!({"type": "DELETED", "object": object})));
            drop(contents);
            self.revision.send_replace(revision);
        }
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let contents = self.contents.lock().expect("lock");
        contents.objects.get(&format!("{plural}/{namespace}/{name}")).cloned()
    }

    /// Waits until an object is as `condition` wants it.
    pub(crate) async fn wait(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) {
        let mut revision = self.revision.subscribe();
        let met = async {
            while !self.get(plural, namespace, name).is_some_and(|object| condition(&object)) {
                revision.changed().await.expect("the sender is ours");
            }
        };
        let limit = std::time::Duration::from_secs(120);
        tokio::time::timeout(limit, met).await.expect("the object becomes as it should be");
    }

    async fn serve(self: Arc<Self>, request: Request<kube::client::Body>) -> Response<Body> {
        let uri = request.uri().clone();
        let segments: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let query = uri.query().unwrap_or_default().to_owned();
        match (request.method().as_str(), segments.as_slice()) {
            ("GET", [.., plural]) if query.contains("watch=") => {
                self.watch(plural.to_string(), &query)
            }
            ("GET", [.., "namespaces", namespace, plural, name]) => {
                match self.get(plural, namespace, name) {
                    Some(object) => whole(StatusCode::OK, &object),
                    None => missing(),
                }
            }
            ("GET", [.., plural]) => self.list(plural),
            ("PATCH", [.., "namespaces", namespace, plural, name]) => {
                let found = self.get(plural, namespace, name);
                let (plural, body) = (plural.to_string(), read(request).await);
                match found {
                    Some(mut object) => {
                        merge(&mut object, &body);
                        self.put(&plural, object.clone());
                        whole(StatusCode::OK, &object)
                    }
                    None => missing(),
                }
            }
            ("PUT", [.., "namespaces", namespace, plural, name]) => {
                let (plural, namespace, name) =
                    (plural.to_string(), namespace.to_string(), name.to_string());
                let object = read(request).await;
                let present = self.get(&plural, &namespace, &name);
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                match present {
                    Some(present) if version(&present) == version(&object) => {
                        whole(StatusCode::OK, &self.put_back(&plural, object))
                    }
                    _ => taken(),
                }
            }
            ("POST", [.., "namespaces", namespace, plural]) => {
                let (plural, namespace) = (plural.to_string(), namespace.to_string());
                let mut object = read(request).await;
                object["metadata"]["namespace"] = namespace.clone().into();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                match self.get(&plural, &namespace, &name) {
                    Some(_) => taken(),
                    None => whole(StatusCode::CREATED, &self.put_back(&plural, object)),
                }
            }
            _ => whole(StatusCode::NOT_IMPLEMENTED, &json!({})),
        }
    }

    fn list(&self, plural: &str) -> Response<Body> {
        let contents = self.contents.lock().expect("lock");
        let prefix = format!("{plural}/");
        let items: Vec<&Value> = contents
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object)
            .collect();
        let list = json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": contents.revision.to_string()}, "items": items,
        });
        whole(StatusCode::OK, &list)
    }

    fn watch(self: Arc<Self>, plural: String, query: &str) -> Response<Body> {
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok())
            .unwrap_or(0);
        let lines = self.events(plural, from);
        let body = StreamBody::new(
            lines.map(|line| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(line)))),
        );
        Response::new(Either::Right(BodyExt::boxed_unsync(body)))
    }

    fn events(self: Arc<Self>, plural: String, from: u64) -> impl Stream<Item = String> {
        let receiver = self.revision.subscribe();
        let prefix = format!("{plural}/");
        stream::unfold((self, receiver, from), move |(fake, mut receiver, from)| {
            let prefix = prefix.clone();
            async move {
                loop {
                    receiver.borrow_and_update();
                    let next = {
                        let contents = fake.contents.lock().expect("lock");
                        let mut later = contents.log.iter().filter(|(at, ..)| *at > from);
                        later.find(|(_, key, _)| key.starts_with(&prefix)).cloned()
                    };
                    match next {
                        Some((at, _, event)) => {
                            return Some((format!("{event}\n"), (fake, receiver, at)));
                        }
                        None => receiver.changed().await.ok()?,
                    }
                }
            }
        })
    }
}

fn path(plural: &str, object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{plural}/{}/{}", text("namespace"), text("name"))
}

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    response
}

fn missing() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "NotFound", "code": 404, "message": "not found"});
    whole(StatusCode::NOT_FOUND, &status)
}

/// Somebody else was quicker.
fn taken() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "Conflict", "code": 409, "message": "the object has been modified"});
    whole(StatusCode::CONFLICT, &status)
}

async fn read(request: Request<kube::client::Body>) -> Value {
    let bytes = request.into_body().collect().await.expect("body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                merge(&mut target[name], value);
            }
        }
        other => *target = other.clone(),
    }
}
