//! Bodies that are nearly right: whatever stands in whatever place, the answer is an object or a
//! refusal in the 400s, never a failure of the server.

use serde_json::{Value, json};

use crate::common::Bench;
use crate::minimal::{content, name};

/// Every place in a value, as a path of keys and positions.
fn places(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                let path = format!("{path}/{key}");
                out.push(path.clone());
                places(value, &path, out);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                let path = format!("{path}/{index}");
                out.push(path.clone());
                places(value, &path, out);
            }
        }
        _ => {}
    }
}

fn rubbish() -> Vec<Value> {
    vec![
        Value::Null,
        json!(-1),
        json!(1.5),
        json!("x\u{0}Y_%"),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!([{"name": null}, "a"]),
        json!({"a": {"b": [1]}, "name": 3}),
        json!("9223372036854775808"),
        json!(9_223_372_036_854_775_807_i64),
    ]
}

async fn check(
    bench: &Bench,
    verb: &str,
    path: &str,
    namespace: &str,
    object: &Value,
    place: &str,
) {
    let answer = bench.run(verb, path, namespace, "dryRun=All", &object.to_string()).await;
    if let Err(status) = answer {
        assert!(
            (400..500).contains(&status.code),
            "{verb} {path} with rubbish at {place}: {} {}\n{object}",
            status.code,
            status.message
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_anywhere_is_refused_or_stored() {
    let rows: Vec<_> =
        Bench::new().engine.rows().iter().filter(|r| r.storage.is_some()).cloned().collect();
    for row in rows {
        // Versions of one resource would meet in one store.
        let bench = Bench::new();
        let path =
            format!("{}.{}@{}", row.resource.resource, row.resource.group, row.resource.version);
        let namespace = if row.namespaced() { "default" } else { "" };
        let mut object = content(&row.kind.group, &row.kind.kind);
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.kind.as_str().into();
        object["metadata"] = json!({
            "name": name(&row.kind.kind), "labels": {"a": "b"}, "annotations": {"a": "b"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
            "finalizers": ["example.com/f"],
        });
        let stored = bench.json("create", &path, namespace, "", &object.to_string()).await;
        let named = format!("{path}/{}", name(&row.kind.kind));
        let mut all = Vec::new();
        places(&object, "", &mut all);
        for place in &all {
            for value in rubbish() {
                let mut changed = object.clone();
                *changed.pointer_mut(place).expect("place") = value.clone();
                check(&bench, "create", &path, namespace, &changed, place).await;
                if let Some(spot) = stored.pointer(place) {
                    let mut changed = stored.clone();
                    if *spot != value {
                        *changed.pointer_mut(place).expect("place") = value;
                    }
                    check(&bench, "update", &named, namespace, &changed, place).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_objects_are_refused() {
    let bench = Bench::new();
    for body in [
        "",
        "null",
        "[]",
        "3",
        "\"x\"",
        "{",
        "{}",
        "\u{0}",
        "{\"kind\":\"Pod\"}",
        "{\"metadata\":[]}",
    ] {
        for verb in ["create", "update", "patch:json", "patch:merge", "patch:strategic"] {
            let path = if verb == "create" { "configmaps" } else { "configmaps/a" };
            let status = bench.run(verb, path, "default", "", body).await.expect_err(body);
            assert!((400..500).contains(&status.code), "{verb} {body:?}: {status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_a_thousandfold_is_told_within_bounds() {
    let bench = Bench::new();
    let owner = |at: usize| json!({"apiVersion": "v1", "kind": "Pod", "name": format!("p{at}"), "uid": "u", "controller": true});
    let owners: Vec<Value> = (0..20_000).map(owner).collect();
    let scopes = vec!["BestEffort"; 20_000];
    let hard: serde_json::Map<String, Value> =
        (0..20_000).map(|at| (format!("hugepages-{at}"), "1".into())).collect();
    let topologies = vec![json!({}); 100_000];
    let ports: Vec<Value> = (0..20_000).map(|port| json!({"port": port % 60_000 + 1})).collect();
    let objects = [
        ("configmaps", "d", json!({"metadata": {"name": "a", "ownerReferences": owners}})),
        (
            "resourcequotas",
            "d",
            json!({"metadata": {"name": "a"}, "spec": {"scopes": scopes, "hard": hard}}),
        ),
        (
            "storageclasses.storage.k8s.io",
            "",
            json!({"metadata": {"name": "a"}, "provisioner": "p", "allowedTopologies": topologies}),
        ),
        (
            "services",
            "d",
            json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}}),
        ),
    ];
    for (path, namespace, object) in objects {
        let answer = bench.run("create", path, namespace, "", &object.to_string()).await;
        let status = answer.expect_err(path);
        assert!(matches!(status.code, 422 | 500), "{path}: {}", status.code);
        let length = status.to_json().len();
        assert!(length < 32 << 20, "{path}: {length}");
    }
}
