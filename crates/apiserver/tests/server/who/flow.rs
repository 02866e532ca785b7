//! Priority and fairness: the objects, what answers say about them, and who is refused.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use serve::Body;
use skiff_apiserver::{
    ApiServerOptions, FlowOptions,
    authn::{AuthenticationOptions, static_tokens},
};

use crate::support::{Cluster, until};

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn cluster(flow: FlowOptions) -> Cluster {
    let static_tokens = static_tokens("j,jane,1\na,admin,2,system:masters").expect("tokens");
    let authentication =
        AuthenticationOptions { static_tokens, ..AuthenticationOptions::default() };
    Cluster::start_with(ApiServerOptions { flow, authentication, ..ApiServerOptions::default() })
        .await
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or("no uid")
}

#[tokio::test]
async fn default_objects_are_there_and_answers_name_them() {
    let cluster = cluster(FlowOptions::default()).await;
    let admin = cluster.admin();
    let schemas = admin.get(&format!("{FLOW}/flowschemas")).await.json();
    let names: Vec<&str> = schemas["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|schema| schema["metadata"]["name"].as_str().unwrap_or_default())
        .collect();
    for name in [
        "catch-all",
        "exempt",
        "global-default",
        "kube-scheduler",
        "probes",
        "service-accounts",
        "system-nodes",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let level =
        admin.get(&format!("{FLOW}/prioritylevelconfigurations/global-default")).await.json();
    assert_eq!(level["spec"]["limited"]["limitResponse"]["queuing"]["queues"], 128);
    let schema = admin.get(&format!("{FLOW}/flowschemas/global-default")).await.json();
    until("the answers' naming", async || {
        let answer = cluster.token(Some("j")).get("/api/v1/namespaces/default/pods").await;
        assert_eq!(answer.code, StatusCode::FORBIDDEN);
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        header("x-kubernetes-pf-flowschema-uid") == Some(uid(&schema))
            && header("x-kubernetes-pf-prioritylevel-uid") == Some(uid(&level))
    })
    .await;
    until("the schemas' conditions", async || {
        let schema = admin.get(&format!("{FLOW}/flowschemas/probes")).await.json();
        schema["status"]["conditions"][0]["reason"] == "Found"
    })
    .await;
}

#[tokio::test]
async fn defaults_stay_as_they_are_over_a_second_start() {
    let cluster = cluster(FlowOptions::default()).await;
    let admin = cluster.admin();
    let versions = async || -> Vec<(Value, Value)> {
        let mut versions = Vec::new();
        for resource in ["flowschemas", "prioritylevelconfigurations"] {
            let list = admin.get(&format!("{FLOW}/{resource}")).await.json();
            let items = list["items"].as_array().expect("a list").clone();
            versions.extend(items.into_iter().map(|object| {
                (object["metadata"]["name"].clone(), object["metadata"]["generation"].clone())
            }));
        }
        versions
    };
    let before = versions().await;
    cluster.server.bootstrap().await.expect("again");
    assert_eq!(versions().await, before);
}

#[tokio::test]
async fn one_too_many_is_told_to_come_back() {
    let cluster =
        cluster(FlowOptions { max_reads: 6, max_writes: 4, ..FlowOptions::default() }).await;
    let admin = cluster.admin();
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "tiny"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}
        }}
    });
    let made = admin.post(&format!("{FLOW}/prioritylevelconfigurations"), &level).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "jane"},
        "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "tiny"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]
        }]}
    });
    let made = admin.post(&format!("{FLOW}/flowschemas"), &schema).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let schema = made.json();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "jane"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    });
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let jane = cluster.token(Some("j"));
    let path = "/api/v1/namespaces/default/configmaps";
    until("the schema's force", async || {
        let answer = jane.get(path).await;
        answer.code == StatusCode::OK
            && answer.headers["x-kubernetes-pf-flowschema-uid"].to_str().ok() == Some(uid(&schema))
    })
    .await;
    // A body that does not end holds the only seat.
    let endless = Body::stream(futures::stream::pending::<std::io::Result<bytes::Bytes>>());
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("authorization", "Bearer j")
        .header("content-type", "application/json");
    let server = cluster.server.clone();
    let held =
        tokio::spawn(async move { server.handle(request.body(endless).expect("request")).await });
    let taken = "apiserver_flowcontrol_current_executing_requests{flow_schema=\"jane\",priority_level=\"tiny\"} 1\n";
    until("the seat's loss", async || admin.get("/metrics").await.text().contains(taken)).await;
    let refused = jane.get(path).await;
    assert_eq!(refused.code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.text(), "Too many requests, please try again later.\n");
    assert!(
        refused.headers["retry-after"].to_str().expect("text").parse::<u32>().expect("seconds")
            >= 1
    );
    assert_eq!(refused.headers["x-kubernetes-pf-flowschema-uid"].to_str().ok(), Some(uid(&schema)));
    assert_eq!(cluster.token(Some("a")).get(path).await.code, StatusCode::OK, "masters are exempt");
    let metrics = admin.get("/metrics").await.text();
    let series = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"jane\",priority_level=\"tiny\",reason=\"concurrency-limit\"}";
    assert!(metrics.contains(series), "{metrics}");
    for series in [
        taken,
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"tiny\"} 1\n",
        "apiserver_storage_objects{resource=\"flowschemas.flowcontrol.apiserver.k8s.io\"}",
        "authentication_attempts{result=\"success\"}",
        "apiserver_authorization_decisions_total{decision=\"allowed\",name=\"rbac\",type=\"RBAC\"}",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    let dump = |what: &str| format!("/debug/api_priority_and_fairness/{what}");
    let levels = admin.get(&dump("dump_priority_levels")).await.text();
    let tiny = levels.lines().find(|line| line.starts_with("tiny,")).expect("the level");
    assert!(tiny.replace(' ', "").starts_with("tiny,0,false,false,0,1,"), "{levels}");
    let queues = admin.get(&dump("dump_queues")).await.text();
    assert!(queues.contains("\nglobal-default,") && !queues.contains("\ntiny,"), "{queues}");
    assert_eq!(admin.get(&dump("dump_all")).await.code, StatusCode::NOT_FOUND);
    assert_eq!(jane.get(&dump("dump_requests")).await.code, StatusCode::OK);
    // Who goes away leaves the seat.
    held.abort();
    until("the seat's return", async || jane.get(path).await.code == StatusCode::OK).await;
    // Watches hold seats only while they begin.
    let watch = format!("{path}?watch=1");
    let request = || Request::get(&watch).body(Body::empty()).expect("request");
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut request = request();
        request.headers_mut().insert("authorization", "Bearer j".parse().expect("header"));
        let response = cluster.server.handle(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        open.push(response);
    }
}

#[tokio::test]
async fn without_levels_each_kind_has_its_own_bound() {
    let cluster = cluster(FlowOptions { max_reads: 5, max_writes: 1, fair: false }).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let endless = Body::stream(futures::stream::pending::<std::io::Result<bytes::Bytes>>());
    let request =
        Request::builder().method(Method::POST).uri(path).header("authorization", "Bearer a");
    let request = request.header("content-type", "application/json").body(endless);
    let server = cluster.server.clone();
    let held = tokio::spawn(async move { server.handle(request.expect("request")).await });
    let (jane, map) = (cluster.token(Some("j")), json!({}));
    until("a refusal", async || jane.post(path, &map).await.code == StatusCode::TOO_MANY_REQUESTS)
        .await;
    let refused = jane.post(path, &map).await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.headers.get("x-kubernetes-pf-flowschema-uid").is_none());
    assert_eq!(jane.get(path).await.code, StatusCode::FORBIDDEN, "reads have room");
    let master = cluster.token(Some("a")).post(path, &map).await;
    assert_ne!(master.code, StatusCode::TOO_MANY_REQUESTS, "masters are let in");
    held.abort();
    until("the room", async || jane.post(path, &map).await.code == StatusCode::FORBIDDEN).await;
}
