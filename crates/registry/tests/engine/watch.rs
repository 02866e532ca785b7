//! Watches: what they begin with, how selectors turn changes, bookmarks, ends; and what concurrent
//! writers see.

use std::sync::Arc;
use std::time::Duration;

use crate::common::Bench;
use futures::StreamExt as _;
use serde_json::{Value, json};
use skiff_registry::{Outcome, WatchStream};
use tokio_util::sync::CancellationToken;

fn config_map(name: &str, labels: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
        .to_string()
}

fn pod(name: &str, node: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}}).to_string()
}

async fn watch(bench: &Bench, path: &str, namespace: &str, query: &str) -> WatchStream {
    match bench.run("watch", path, namespace, query, "").await {
        Ok(Outcome::Watch(stream)) => stream,
        other => panic!("no watch: {other:?}"),
    }
}

/// The next event as `TYPE name`.
async fn next(stream: &mut WatchStream) -> String {
    let event =
        tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("in time");
    let Some(event) = event else { return "END".to_owned() };
    let object: Value = serde_json::from_slice(&event.object).expect("JSON");
    let frame: Value = serde_json::from_slice(&event.frame).expect("JSON");
    assert_eq!(frame, json!({"type": event.event_type.as_str(), "object": object}));
    assert!(event.frame.ends_with(b"\n"));
    let what = match object["kind"].as_str() {
        Some("Status") => object["message"].as_str().unwrap_or_default().to_owned(),
        _ => object["metadata"]["name"].as_str().unwrap_or("-").to_owned(),
    };
    format!("{} {what}", event.event_type.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let bench = Bench::new();
    bench.json("create", "configmaps", "d", "", &config_map("a", &json!({"x": "1"}))).await;
    bench.json("create", "configmaps", "d", "", &config_map("b", &json!({}))).await;
    let mut stream = watch(&bench, "configmaps", "d", "labelSelector=x=1").await;
    assert_eq!(next(&mut stream).await, "ADDED a");
    bench
        .json("patch:merge", "configmaps/b", "d", "", r#"{"metadata":{"labels":{"x":"1"}}}"#)
        .await;
    assert_eq!(next(&mut stream).await, "ADDED b");
    bench.json("patch:merge", "configmaps/b", "d", "", r#"{"data":{"k":"v"}}"#).await;
    assert_eq!(next(&mut stream).await, "MODIFIED b");
    bench.json("patch:merge", "configmaps/a", "d", "", r#"{"metadata":{"labels":null}}"#).await;
    assert_eq!(next(&mut stream).await, "DELETED a");
    bench.json("delete", "configmaps/b", "d", "", "").await;
    assert_eq!(next(&mut stream).await, "DELETED b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_where_a_list_ended() {
    let bench = Bench::new();
    bench.json("create", "configmaps", "d", "", &config_map("a", &json!({}))).await;
    let list = bench.json("list", "configmaps", "", "", "").await;
    let revision = list["metadata"]["resourceVersion"].as_str().expect("revision").to_owned();
    bench.json("create", "configmaps", "d", "", &config_map("b", &json!({}))).await;
    bench.json("create", "configmaps", "e", "", &config_map("c", &json!({}))).await;
    let mut stream = watch(&bench, "configmaps", "", &format!("resourceVersion={revision}")).await;
    assert_eq!(next(&mut stream).await, "ADDED b");
    assert_eq!(next(&mut stream).await, "ADDED c");
    let mut one =
        watch(&bench, "configmaps/c", "e", &format!("resourceVersion={revision}&timeoutSeconds=1"))
            .await;
    assert_eq!(next(&mut one).await, "ADDED c");
    assert_eq!(next(&mut one).await, "END");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initial_events_end_with_a_bookmark() {
    let bench = Bench::new();
    bench.json("create", "configmaps", "d", "", &config_map("a", &json!({}))).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut stream = watch(&bench, "configmaps", "d", query).await;
    assert_eq!(next(&mut stream).await, "ADDED a");
    let event = stream.next().await.expect("bookmark");
    let object: Value = serde_json::from_slice(&event.object).expect("JSON");
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(
        object["metadata"]["resourceVersion"],
        bench.store.snapshot().revision().to_string()
    );
    assert_eq!(next(&mut stream).await, "BOOKMARK -");
    assert_eq!(next(&mut stream).await, "END");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_revision_is_an_error_event() {
    let bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.json("create", "configmaps", "d", "", &config_map(name, &json!({}))).await;
    }
    let list = bench.json("list", "configmaps", "d", "limit=1", "").await;
    bench.store.compact(bench.store.snapshot().revision()).await.expect("compaction");
    let mut stream = watch(&bench, "configmaps", "d", "resourceVersion=1").await;
    let error = next(&mut stream).await;
    assert!(error.starts_with("ERROR too old resource version: 1 ("), "{error}");
    assert_eq!(next(&mut stream).await, "END");
    bench.json("create", "configmaps", "d", "", &config_map("d", &json!({}))).await;
    bench.store.compact(bench.store.snapshot().revision()).await.expect("compaction");
    let token = list["metadata"]["continue"].as_str().expect("token");
    let expired = bench
        .run("list", "configmaps", "d", &format!("continue={token}"), "")
        .await
        .expect_err("expired");
    assert_eq!((expired.code, expired.reason.as_ref()), (410, "Expired"));
    assert!(expired.message.contains("or use the continue token in this response"), "{expired}");
    let query = format!("continue={}", expired.continue_token);
    let rest = bench.json("list", "configmaps", "d", &query, "").await;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(3), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_listed_and_watched_by_node() {
    let bench = Bench::new();
    let shutdown = CancellationToken::new();
    bench.json("create", "pods", "d", "", &pod("one", "n1")).await;
    let keeper = tokio::spawn({
        let (engine, shutdown) = (bench.engine.clone(), shutdown.clone());
        async move { engine.run(shutdown).await }
    });
    // With and without the index, the answers are the same.
    for name in ["two", "three"] {
        let node = if name == "two" { "n2" } else { "n1" };
        bench.json("create", "pods", "d", "", &pod(name, node)).await;
        let list = bench.json("list", "pods", "", "fieldSelector=spec.nodeName=n1", "").await;
        let names: Vec<&str> = list["items"]
            .as_array()
            .expect("items")
            .iter()
            .filter_map(|i| i["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, if name == "two" { vec!["one"] } else { vec!["one", "three"] });
    }
    let first = bench.json("get", "pods/one", "d", "", "").await["metadata"]["resourceVersion"]
        .as_str()
        .expect("revision")
        .to_owned();
    let mut now = watch(&bench, "pods", "", "fieldSelector=spec.nodeName=n1").await;
    let mut since = watch(
        &bench,
        "pods",
        "",
        &format!("fieldSelector=spec.nodeName=n1&resourceVersion={first}"),
    )
    .await;
    assert_eq!(next(&mut now).await, "ADDED one");
    assert_eq!(next(&mut now).await, "ADDED three");
    assert_eq!(next(&mut since).await, "ADDED three");
    bench.json("create", "pods", "d", "", &pod("four", "")).await;
    bench.json("create", "pods/four/binding", "d", "", r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"four"},"target":{"name":"n1"}}"#).await;
    bench.json("create", "pods", "d", "", &pod("five", "n2")).await;
    bench.json("delete", "pods/one", "d", "gracePeriodSeconds=0", "").await;
    for stream in [&mut now, &mut since] {
        assert_eq!(next(stream).await, "ADDED four");
        assert_eq!(next(stream).await, "DELETED one");
    }
    shutdown.cancel();
    keeper.await.expect("the keeper ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unconditional_patches_never_lose_one_another() {
    let bench = Arc::new(Bench::new());
    bench.json("create", "configmaps", "d", "", &config_map("a", &json!({}))).await;
    let mut writers = Vec::new();
    for writer in 0..8 {
        let bench = bench.clone();
        writers.push(tokio::spawn(async move {
            for round in 0..10 {
                let patch = json!({"data": {format!("{writer}-{round}"): "x"}}).to_string();
                bench.json("patch:merge", "configmaps/a", "d", "", &patch).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("writer");
    }
    let object = bench.json("get", "configmaps/a", "d", "", "").await;
    assert_eq!(object["data"].as_object().map(serde_json::Map::len), Some(80));
}

/// What a watcher believes to be there.
#[derive(Default)]
struct View(std::collections::BTreeSet<String>);

impl View {
    fn apply(&mut self, event: &str) {
        match event.split_once(' ') {
            Some(("ADDED" | "MODIFIED", name)) => {
                assert!(self.0.insert(name.to_owned()) || event.starts_with('M'), "{event} twice")
            }
            Some(("DELETED", name)) => {
                assert!(self.0.remove(name), "{event} of what was not there")
            }
            _ => panic!("{event}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_node_miss_nothing_and_see_nothing_twice() {
    const PODS: usize = 60;
    let bench = Arc::new(Bench::new());
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn({
        let (engine, shutdown) = (bench.engine.clone(), shutdown.clone());
        async move { engine.run(shutdown).await }
    });
    let writer = tokio::spawn({
        let bench = bench.clone();
        async move {
            for number in 0..PODS {
                let name = format!("pod-{number:03}");
                bench
                    .json("create", "pods", "d", "", &pod(&name, &format!("n{}", number % 3)))
                    .await;
                if number % 4 == 3 {
                    let gone = format!("pods/pod-{:03}", number - 3);
                    bench.json("delete", &gone, "d", "gracePeriodSeconds=0", "").await;
                }
            }
        }
    });
    let query = "fieldSelector=spec.nodeName=n0";
    let mut watchers = Vec::new();
    for _ in 0..12 {
        // Some begin with the state, some where a list left off.
        let mut view = View::default();
        let stream = if watchers.len() % 2 == 0 {
            watch(&bench, "pods", "", query).await
        } else {
            let list = bench.json("list", "pods", "", query, "").await;
            for item in list["items"].as_array().expect("items") {
                view.apply(&format!("ADDED {}", item["metadata"]["name"].as_str().expect("name")));
            }
            let revision = list["metadata"]["resourceVersion"].as_str().expect("revision");
            watch(&bench, "pods", "", &format!("{query}&resourceVersion={revision}")).await
        };
        watchers.push((stream, view));
        tokio::task::yield_now().await;
    }
    writer.await.expect("writer");
    bench.json("create", "pods", "d", "", &pod("the-end", "n0")).await;
    let list = bench.json("list", "pods", "", query, "").await;
    let there: Vec<&str> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    for (mut stream, mut view) in watchers {
        while !view.0.contains("the-end") {
            view.apply(&next(&mut stream).await);
        }
        assert_eq!(view.0.iter().map(String::as_str).collect::<Vec<_>>(), there);
    }
    shutdown.cancel();
    keeper.await.expect("the keeper ends");
}
