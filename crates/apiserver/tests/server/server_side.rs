//! Server-side apply and managed fields over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Cluster;

const APPLY: (&str, &str) = ("content-type", "application/apply-patch+yaml");

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice);
    entries.unwrap_or_default().iter().filter_map(|entry| entry["manager"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_comes_to_manage() {
    let cluster = Cluster::start().await;
    let client = cluster.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  k: v\n";
    let path = format!("{maps}/x?fieldManager=a");
    let created = client.call(Method::PATCH, &path, &[APPLY], yaml).await;
    assert_eq!(created.code, StatusCode::CREATED, "{}", created.text());
    assert_eq!(managers(&created.json()), ["a"]);
    let agent = ("user-agent", "robot/1.0 (linux)");
    let merge = ("content-type", "application/merge-patch+json");
    let body = json!({"data": {"m": "n"}}).to_string();
    let patched = client.call(Method::PATCH, &format!("{maps}/x"), &[agent, merge], body).await;
    assert_eq!(managers(&patched.json()), ["a", "robot"]);
    // Tables and partial objects carry it too.
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = client.call(Method::GET, maps, &[table], "").await.json();
    let row = table["rows"].as_array().expect("rows").iter();
    let row = row.map(|row| &row["object"]).find(|object| object["metadata"]["name"] == "x");
    assert_eq!(managers(row.expect("a row")), ["a", "robot"]);
    let partial = ("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let partial = client.call(Method::GET, &format!("{maps}/x"), &[partial], "").await.json();
    assert_eq!(managers(&partial), ["a", "robot"]);
    let broken = client.call(Method::PATCH, &path, &[APPLY], "a: b: c").await;
    assert_eq!(broken.code, StatusCode::BAD_REQUEST);
    assert!(broken.message().starts_with("error decoding YAML: error converting YAML to JSON"));
    let media = ("content-type", "application/strange");
    let refused = client.call(Method::PATCH, &path, &[media], "{}").await;
    assert!(refused.message().contains("application/apply-patch+yaml"), "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_what_is_not_there_takes_leave_to_create() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (path, object) in [
        (
            "clusterroles",
            json!({"metadata": {"name": "patcher"}, "rules": [{"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["patch", "update"]}]}),
        ),
        (
            "clusterrolebindings",
            json!({"metadata": {"name": "patcher"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "patcher"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]}),
        ),
    ] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{path}");
        let made = admin.post(&path, &object).await;
        assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    }
    let jane = cluster.user("jane", &[]);
    let path = "/api/v1/namespaces/default/configmaps/x?fieldManager=a";
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let refusal = "configmaps \"x\" is forbidden: User \"jane\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    // The role counts from the moment when authorization has seen it.
    let refused = loop {
        let answer = jane.call(Method::PATCH, path, &[APPLY], object.to_string()).await;
        if !answer.message().contains("cannot patch") {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((refused.code, refused.message().as_str()), (StatusCode::FORBIDDEN, refusal));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}});
    let refused = jane.put("/api/v1/namespaces/default/services/x", &service).await;
    assert!(
        refused.message().contains("cannot create resource \"services\""),
        "{}",
        refused.text()
    );
    let made = admin.call(Method::PATCH, path, &[APPLY], object.to_string()).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let again = jane.call(Method::PATCH, path, &[APPLY], object.to_string()).await;
    assert_eq!(again.code, StatusCode::OK, "{}", again.text());
}
