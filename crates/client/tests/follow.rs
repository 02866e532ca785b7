//! Caches against a scripted API server in this process: list, watch, resume, list again.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use skiff_client::{Caches, Change, Select, in_process};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
struct User(&'static str);

/// Answers lists with `items` and gives the test the writing end of every watch.
struct Server {
    items: Mutex<(Vec<Value>, u64)>,
    watches: mpsc::UnboundedSender<(String, mpsc::UnboundedSender<Value>)>,
}

impl Server {
    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        assert_eq!(request.extensions().get::<User>().expect("user").0, "me");
        let query = request.uri().query().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            let lines = UnboundedReceiverStream::new(receiver).map(|event: Value| {
                Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(format!("{event}\n"))))
            });
            self.watches.send((query, sender)).expect("test is listening");
            return Response::new(StreamBody::new(lines).boxed_unsync());
        }
        let (items, revision) = self.items.lock().expect("lock").clone();
        let list = json!({
            "kind": "ConfigMapList", "apiVersion": "v1",
            "metadata": { "resourceVersion": revision.to_string() },
            "items": items,
        });
        Response::new(http_body_util::Full::new(Bytes::from(list.to_string())).boxed_unsync())
    }
}

fn object(name: &str, revision: u64) -> Value {
    json!({
        "metadata": {
            "namespace": "default", "name": name, "uid": format!("uid-{name}"),
            "resourceVersion": revision.to_string(),
            "managedFields": [{ "manager": "someone" }],
        },
    })
}

fn event(kind: &str, mut object: Value) -> Value {
    object["kind"] = "ConfigMap".into();
    object["apiVersion"] = "v1".into();
    json!({ "type": kind, "object": object })
}

fn told(change: Option<Change<ConfigMap>>) -> (String, Option<String>, Option<String>) {
    let change = change.expect("subscription is open");
    let version = |object: Option<Arc<ConfigMap>>| {
        object.and_then(|object| object.metadata.resource_version.clone())
    };
    (change.key.to_string(), version(change.before), version(change.after))
}

#[tokio::test]
async fn a_cache_follows_lists_and_watches_through_an_expiry() {
    let (watches, mut opened) = mpsc::unbounded_channel();
    let server =
        Arc::new(Server { items: Mutex::new((vec![object("a", 3), object("b", 4)], 5)), watches });
    let service = {
        let server = server.clone();
        tower::service_fn(move |request| {
            let answer = server.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        })
    };
    let shutdown = CancellationToken::new();
    let caches = Caches::new(in_process(service, User("me")), shutdown.clone());
    let cache = caches.cache::<ConfigMap>();
    let again = caches.cache::<ConfigMap>();
    cache.ready().await;
    again.ready().await;
    assert_eq!(cache.revision().0, 5);
    assert_eq!(cache.list_in("default").len(), 2);
    let a = cache.get(Some("default"), "a").expect("listed");
    assert!(a.metadata.managed_fields.is_none());
    cache.index("uid", |object| object.metadata.uid.clone().into_iter().collect());

    let mut changes = cache.subscribe();
    assert_eq!(told(changes.next().await), ("default/a".into(), None, Some("3".into())));
    assert_eq!(told(changes.next().await), ("default/b".into(), None, Some("4".into())));

    let (query, watch) = opened.recv().await.expect("watch");
    assert!(query.contains("resourceVersion=5"), "{query}");
    watch.send(event("MODIFIED", object("a", 6))).expect("open");
    assert_eq!(
        told(changes.next().await),
        ("default/a".into(), Some("3".into()), Some("6".into()))
    );
    watch.send(event("DELETED", object("a", 7))).expect("open");
    assert_eq!(told(changes.next().await), ("default/a".into(), Some("6".into()), None));
    assert!(cache.indexed("uid", "uid-a").is_empty());
    assert_eq!(cache.indexed("uid", "uid-b").len(), 1);
    watch.send(event("BOOKMARK", json!({ "metadata": { "resourceVersion": "9" } }))).expect("open");
    let mut revisions = cache.revisions();
    revisions.wait_for(|seen| seen.is_some_and(|seen| seen.0 == 9)).await.expect("open");

    // The server closes: the watch resumes from the bookmark, and no second one was opened.
    drop(watch);
    let (query, watch) = opened.recv().await.expect("watch");
    assert!(query.contains("resourceVersion=9"), "{query}");

    // The history is gone: a new list, and only what differs is reported.
    *server.items.lock().expect("lock") = (vec![object("b", 4), object("c", 20)], 21);
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "Expired", "code": 410, "message": "too old" });
    watch.send(json!({ "type": "ERROR", "object": status })).expect("open");
    assert_eq!(told(changes.next().await), ("default/c".into(), None, Some("20".into())));
    assert_eq!(cache.len(), 2);

    // Another selector is another watch, which ends with its last handle.
    let _ = opened.recv().await.expect("watch after relist");
    let narrow = caches.selected::<ConfigMap>(Select::all().labels("app=web"));
    let (query, watch) = opened.recv().await.expect("watch");
    assert!(query.contains("labelSelector=app%3Dweb"), "{query}");
    drop(narrow);
    watch.closed().await;

    shutdown.cancel();
    assert!(changes.next().await.is_none());
}
