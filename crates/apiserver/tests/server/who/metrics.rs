//! What dashboards read: verbs, sizes, admission, terminations.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use serde_json::json;
use serve::Body;
use skiff_apiserver::ApiServerOptions;

use crate::support::Cluster;

#[tokio::test]
async fn requests_are_counted_as_upstream_names_them() {
    let cluster = Cluster::start().await;
    let admin = cluster.user("admin", &["system:masters"]);
    let path = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    admin.post(path, &map).await;
    admin.put(&format!("{path}/c"), &map).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = format!("{path}/c?fieldManager=me&force=true");
    admin.call(Method::PATCH, &applied, &apply, map.to_string()).await;
    let merge = [("content-type", "application/merge-patch+json")];
    admin.call(Method::PATCH, &format!("{path}/c"), &merge, "{}").await;
    admin.get(path).await;
    admin.get(&format!("{path}/c")).await;
    admin.delete(&format!("{path}/c")).await;
    admin.delete(path).await;
    admin.get("/api/v1/namespaces/default/pods/none/log").await;
    admin.get("/api/v1/endpoints").await;
    admin.post("/api/v1/namespaces/none/configmaps", &map).await;
    let text = admin.get("/metrics").await.text();
    let labels = |resource: &str, scope: &str, subresource: &str, verb: &str| {
        format!(
            "component=\"apiserver\",group=\"\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"v1\""
        )
    };
    for (code, scope, verb) in [
        (201, "resource", "POST"),
        (404, "resource", "POST"),
        (200, "resource", "PUT"),
        (200, "resource", "APPLY"),
        (200, "resource", "PATCH"),
        (200, "namespace", "LIST"),
        (200, "resource", "GET"),
        (200, "resource", "DELETE"),
        (200, "namespace", "DELETE"),
    ] {
        let labels = labels("configmaps", scope, "", verb);
        let series = format!("apiserver_request_total{{code=\"{code}\",dry_run=\"\",{labels}}} ");
        assert!(text.contains(&series), "{series}: {text}");
    }
    assert!(text.contains(&labels("pods", "resource", "log", "CONNECT")), "{text}");
    for (name, labels) in [
        ("apiserver_response_sizes_count", labels("configmaps", "namespace", "", "LIST")),
        ("apiserver_response_sizes_count", labels("configmaps", "resource", "", "GET")),
        (
            "apiserver_request_sli_duration_seconds_count",
            labels("configmaps", "resource", "", "PUT"),
        ),
        (
            "apiserver_admission_controller_admission_duration_seconds_count",
            "name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"true\",type=\"admit\""
                .into(),
        ),
        (
            "apiserver_admission_step_admission_duration_seconds_count",
            "operation=\"CREATE\",rejected=\"false\",type=\"admit\"".into(),
        ),
    ] {
        assert!(text.contains(&format!("{name}{{{labels}}} ")), "{name} {labels}: {text}");
    }
    let deprecated = "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n";
    assert!(text.contains(deprecated) && text.contains("kubernetes_build_info{"), "{text}");
    assert!(!text.contains("apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"PUT\""));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let request_timeout = Duration::from_secs(1);
    let cluster =
        Cluster::start_with(ApiServerOptions { request_timeout, ..ApiServerOptions::default() })
            .await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let endless = Body::stream(futures::stream::pending::<std::io::Result<bytes::Bytes>>());
    let request = Request::builder().method(Method::POST).uri(path);
    let request =
        request.header("content-type", "application/json").body(endless).expect("request");
    let answer = admin.send(request).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    let text = admin.get("/metrics").await.text();
    let labels = "code=\"504\",component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"";
    let series = format!("apiserver_request_terminations_total{{{labels}}} 1\n");
    assert!(text.contains(&series), "{text}");
}
