//! Audit of whole requests: a webhook that gets batches, a file by a policy.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use skiff_apiserver::{
    ApiServerOptions,
    audit::{AuditOptions, LogOptions, Policy, WebhookOptions},
    hook::Hook,
};

use super::Other;
use crate::support::{Cluster, until};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:apiserver", "quiet"]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: RequestResponse, omitManagedFields: true}
"#;

#[tokio::test]
async fn events_reach_a_webhook_and_a_file() {
    let sink = Other::start(|_, _, _| json!({})).await;
    let hook = Hook::from_kubeconfig(&sink.kubeconfig("/events"), Duration::from_secs(10)).await;
    let max_wait = Duration::from_millis(50);
    let webhook = WebhookOptions { max_wait, ..WebhookOptions::new(hook.expect("a hook")) };
    let file = sink.directory.path().join("audit.log");
    let audit = AuditOptions {
        policy: Some(Policy::parse(POLICY).expect("a policy")),
        log: Some(LogOptions::new(&file)),
        webhook: Some(webhook),
    };
    let cluster =
        Cluster::start_with(ApiServerOptions { audit, ..ApiServerOptions::default() }).await;
    let admin = cluster.user("admin", &["system:masters"]);
    let object = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": {"a": "Yg=="}});
    let path = "/api/v1/namespaces/default";
    let map = admin.post(&format!("{path}/configmaps"), &object("ConfigMap", "c")).await;
    assert_eq!(map.code, StatusCode::CREATED);
    admin.post(&format!("{path}/secrets"), &object("Secret", "s")).await;
    cluster.user("quiet", &[]).get(&format!("{path}/secrets")).await;
    let refused = cluster.user("jane", &[]).get(&format!("{path}/pods")).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(cluster.token(Some("bad")).get("/api").await.code, StatusCode::UNAUTHORIZED);
    let posted = || -> Vec<Value> {
        let lists = sink.asked().into_iter().map(|(_, list)| list);
        lists.flat_map(|list| list["items"].as_array().cloned().unwrap_or_default()).collect()
    };
    until("four events", async || posted().len() >= 4).await;
    let events = posted();
    let find = |resource: &str| {
        let found = events.iter().find(|event| event["objectRef"]["resource"] == resource);
        found.unwrap_or_else(|| panic!("{resource}: {events:?}"))
    };
    let map_event = find("configmaps");
    assert_eq!(map_event["auditID"], map.headers["audit-id"].to_str().expect("text"));
    assert_eq!(map_event["objectRef"]["name"], "c");
    assert_eq!(map_event["requestObject"]["data"]["a"], "Yg==");
    assert_eq!(map_event["responseObject"]["metadata"]["namespace"], "default");
    assert!(map_event["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!(map_event["annotations"]["authorization.k8s.io/decision"], "allow");
    let secret = find("secrets");
    assert_eq!(
        (&secret["objectRef"]["name"], &secret["requestObject"]),
        (&json!("s"), &Value::Null)
    );
    let pods = find("pods");
    assert_eq!(pods["responseStatus"]["reason"], "Forbidden");
    assert_eq!(pods["annotations"]["authorization.k8s.io/decision"], "forbid");
    let stranger = events.iter().find(|event| event["responseStatus"]["code"] == 401);
    let stranger = stranger.expect("noted");
    assert_eq!(stranger["stage"], "ResponseStarted");
    assert_eq!(stranger["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert!(!events.iter().any(|event| event["user"]["username"] == "quiet"));
    until("the file's lines", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().filter(|line| line.contains("\"kind\":\"Event\"")).count() >= 4
    })
    .await;
}
