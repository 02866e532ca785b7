//! Walks every row: create, get, list, watch, patch, update, delete of a minimal object, and the
//! declared subresources that the engine carries out.

use std::time::Duration;

use crate::common::{Bench, json_of};
use crate::minimal::{content, name};
use futures::StreamExt as _;
use serde_json::{Value, json};
use skiff_registry::{EventType, Outcome, Row};

async fn check(bench: &Bench, row: &Row) {
    let place = format!("{} {}", row.api_version(), row.kind.kind);
    let path = format!("{}.{}@{}", row.resource.resource, row.resource.group, row.resource.version);
    let namespace = if row.namespaced() { "default" } else { "" };
    let named = format!("{path}/{}", name(&row.kind.kind));
    let mut object = content(&row.kind.group, &row.kind.kind);
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.kind.as_str().into();
    object["metadata"] = json!({"name": name(&row.kind.kind)});
    let body = object.to_string();

    let Ok(Outcome::Watch(mut watch)) =
        bench.run("watch", &path, namespace, "timeoutSeconds=30", "").await
    else {
        panic!("{place}: no watch")
    };
    let created = match bench.run("create", &path, namespace, "fieldValidation=Strict", &body).await
    {
        Ok(outcome) => json_of(outcome),
        Err(status) => panic!("{place}: {status}"),
    };
    assert_eq!(created.0, 201, "{place}");
    let got = bench.json("get", &named, namespace, "", "").await;
    assert_eq!(got, created.1, "{place}: get after create");
    let list = bench.json("list", &path, namespace, "", "").await;
    assert_eq!(list["kind"], format!("{}List", row.kind.kind), "{place}");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{place}");
    assert!(list["items"][0].get("kind").is_none(), "{place}: items carry no kind");

    let patched = bench
        .json("patch:merge", &named, namespace, "", r#"{"metadata":{"labels":{"x":"y"}}}"#)
        .await;
    assert_eq!(patched["metadata"]["labels"]["x"], "y", "{place}");
    let updated = match bench.run("update", &named, namespace, "", &patched.to_string()).await {
        Ok(outcome) => json_of(outcome).1,
        Err(status) => panic!("{place}: update with itself: {status}"),
    };
    assert_eq!(updated, patched, "{place}: an update with what is there changes nothing");
    for subresource in &row.subresources {
        if ["status", "scale"].contains(&subresource.name.as_str()) {
            let path = format!("{named}/{}", subresource.name);
            let part = bench.json("get", &path, namespace, "", "").await;
            assert_eq!(part["kind"], subresource.kind.kind, "{place}");
            bench.json("update", &path, namespace, "", &part.to_string()).await;
        }
    }
    bench.json("delete", &named, namespace, "", "").await;
    if row.kind.kind == "Namespace" {
        bench.json("update", &format!("{named}/finalize"), "", "", &body).await;
    }
    let gone = bench.run("get", &named, namespace, "", "").await.expect_err("gone");
    assert_eq!(gone.code, 404, "{place}");

    let mut seen = Vec::new();
    while seen.last() != Some(&EventType::Deleted) {
        let event = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        let event = event
            .expect("in time")
            .unwrap_or_else(|| panic!("{place}: the watch ended after {seen:?}"));
        let object: Value = serde_json::from_slice(&event.object).expect("JSON");
        assert_eq!(object["kind"], row.kind.kind.as_str(), "{place}: {object}");
        assert_eq!(object["apiVersion"], row.api_version(), "{place}");
        seen.push(event.event_type);
    }
    assert_eq!(seen[..2], [EventType::Added, EventType::Modified], "{place}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stored_kind_lives_its_life() {
    let bench = Bench::new();
    let rows: Vec<_> =
        bench.engine.rows().iter().filter(|r| r.storage.is_some()).cloned().collect();
    assert!(rows.len() > 55, "{}", rows.len());
    for row in rows {
        check(&bench, &row).await;
    }
}
