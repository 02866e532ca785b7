//! The API over HTTP semantics, without TCP: what clients see of resources, discovery and errors.

use crate::support::{Cluster, until};
use http::{Method, StatusCode};
use serde_json::json;
use skiff_apiserver::{
    ApiServerOptions,
    audit::{AuditOptions, LogOptions},
};

#[tokio::test]
async fn objects_are_made_read_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let made = admin.post(path, &map).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    assert_eq!(admin.post(path, &map).await.code, StatusCode::CONFLICT);
    let read = admin.get(&format!("{path}/a")).await;
    assert_eq!(read.headers["content-type"], "application/json");
    assert_eq!(read.json()["data"]["k"], "v");
    let patch = admin
        .call(
            Method::PATCH,
            &format!("{path}/a"),
            &[("content-type", "application/merge-patch+json")],
            r#"{"data":{"k":"w"}}"#,
        )
        .await;
    assert_eq!(patch.json()["data"]["k"], "w", "{}", patch.text());
    let listed = admin.get(&format!("{path}?labelSelector=none%3Dsuch")).await.json();
    assert_eq!(
        (&listed["kind"], listed["items"].as_array().map(Vec::len)),
        (&json!("ConfigMapList"), Some(0))
    );
    assert_eq!(admin.delete(&format!("{path}/a")).await.json()["status"], "Success");
    let gone = admin.get(&format!("{path}/a")).await;
    assert_eq!(
        (gone.code, gone.message().as_str()),
        (StatusCode::NOT_FOUND, "configmaps \"a\" not found")
    );
}

#[tokio::test]
async fn yaml_goes_in_and_comes_out() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let made =
        admin.call(Method::POST, "/api/v1/namespaces/default/configmaps", &headers, yaml).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    assert_eq!(made.headers["content-type"], "application/yaml");
    assert!(made.text().contains("kind: ConfigMap"), "{}", made.text());
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let json_body = [("content-type", "application/json")];
    let huge = admin.call(Method::POST, path, &json_body, vec![b' '; 3 * 1024 * 1024 + 1]).await;
    assert_eq!(huge.code, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(huge.json()["reason"], "RequestEntityTooLarge");
    let broken = admin.call(Method::POST, path, &json_body, "{").await;
    assert_eq!(
        (broken.code, broken.json()["kind"].as_str()),
        (StatusCode::BAD_REQUEST, Some("Status"))
    );
    let media = admin.call(Method::POST, path, &[("content-type", "text/html")], "{}").await;
    assert_eq!(media.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let apply = [("content-type", "application/apply-patch+yaml")];
    let apply = admin.call(Method::PATCH, &format!("{path}/a?fieldManager=x"), &apply, "{}").await;
    assert_eq!(apply.message(), "invalid object type: /, Kind=");
    let accept = admin.call(Method::GET, path, &[("accept", "image/png")], "").await;
    assert_eq!(accept.code, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(admin.get("/api/v1/namespaces/default/widgets").await.code, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/apis/none/v1/widgets").await.code, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/api/v1/namespaces/default/nodes").await.code, StatusCode::NOT_FOUND);
    assert_eq!(
        admin.post("/api/v1/configmaps", &json!({})).await.code,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(admin.get("/nothing").await.code, StatusCode::NOT_FOUND);
    let missing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let missing = admin.post("/api/v1/namespaces/nowhere/configmaps", &missing).await;
    assert_eq!(
        (missing.code, missing.message().as_str()),
        (StatusCode::NOT_FOUND, "namespaces \"nowhere\" not found")
    );
}

#[tokio::test]
async fn field_validation_warns_or_refuses() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dta": {}});
    let warned = admin.post(&format!("{path}?fieldValidation=Warn&dryRun=All"), &map).await;
    assert_eq!(warned.code, StatusCode::CREATED, "{}", warned.text());
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dta\\\"\"");
    let refused = admin.post(&format!("{path}?fieldValidation=Strict"), &map).await;
    assert_eq!(refused.code, StatusCode::BAD_REQUEST);
    assert!(refused.message().contains("unknown field \"dta\""), "{}", refused.message());
    assert_eq!(admin.get(&format!("{path}/a")).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn tables_and_metadata_are_made_on_demand() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = admin.call(Method::GET, "/api/v1/namespaces", &table, "").await.json();
    assert_eq!(
        (&table["kind"], &table["columnDefinitions"][0]["name"]),
        (&json!("Table"), &json!("Name"))
    );
    let names: Vec<_> =
        table["rows"].as_array().expect("rows").iter().map(|row| row["cells"][0].clone()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let partial = admin.call(Method::GET, "/api/v1/namespaces", &partial, "").await.json();
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial["items"][0]["spec"].is_null());
}

#[tokio::test]
async fn watches_stream_until_the_server_stops() {
    use http_body_util::BodyExt;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let revision = admin.get(path).await.json()["metadata"]["resourceVersion"].clone();
    let uri =
        format!("{path}?watch=true&resourceVersion={}", revision.as_str().expect("a revision"));
    let request = http::Request::get(uri).body(serve::Body::empty()).expect("request");
    let mut body = admin.send(request).await.into_body();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}});
    admin.post(path, &map).await;
    let frame = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
    let event: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("seen"))
    );
    cluster.shutdown.cancel();
    while let Some(frame) = body.frame().await {
        frame.expect("ends cleanly");
    }
}

#[tokio::test]
async fn the_cluster_is_born_with_its_objects() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let service = admin.get("/api/v1/namespaces/default/services/kubernetes").await.json();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = admin.get(slice).await.json();
    assert_eq!(slice["endpoints"][0]["addresses"][0], "192.0.2.1");
    assert_eq!(slice["ports"][0]["port"], 6443);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin";
    let role = admin.get(role).await.json();
    assert!(role["rules"].as_array().is_some_and(|rules| rules.len() > 10));
    assert_eq!(role["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    let class = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
    assert_eq!(admin.get(class).await.json()["value"], 2_000_001_000);
    assert_eq!(admin.delete("/api/v1/namespaces/kube-system").await.code, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn health_version_metrics_and_discovery_answer() {
    let cluster = Cluster::start().await;
    let nobody = cluster.token(None);
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(nobody.get(path).await.text(), "ok", "{path}");
    }
    assert!(nobody.get("/readyz?verbose").await.text().ends_with("readyz check passed\n"));
    assert_eq!(nobody.get("/version").await.json()["minor"], "36");
    assert_eq!(nobody.get("/metrics").await.code, StatusCode::FORBIDDEN);
    assert_eq!(
        nobody.get("/apis").await.message(),
        r#"forbidden: User "system:anonymous" cannot get path "/apis""#
    );
    let admin = cluster.admin();
    assert_eq!(admin.get("/readyz/ping").await.text(), "ok");
    assert!(admin.get("/metrics").await.text().contains("apiserver_request_total{code=\"403\""));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let found = admin.call(Method::GET, "/apis", &[("accept", aggregated)], "").await;
    assert_eq!(found.headers["content-type"], aggregated);
    let tag = found.headers["etag"].to_str().expect("text").to_owned();
    let again = admin
        .call(Method::GET, "/apis", &[("accept", aggregated), ("if-none-match", &tag)], "")
        .await;
    assert_eq!(again.code, StatusCode::NOT_MODIFIED);
    assert_eq!(admin.get("/openapi/v3").await.code, StatusCode::OK);
    assert!(admin.get("/openid/v1/jwks").await.json()["keys"].is_array());
}

#[tokio::test]
async fn starting_again_writes_nothing() {
    let cluster = Cluster::start().await;
    let revision = |list: serde_json::Value| list["metadata"]["resourceVersion"].clone();
    until("what follows from the first start", async || {
        let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
        let schemas = cluster.admin().get(path).await.json();
        let items = schemas["items"].as_array().cloned().unwrap_or_default();
        items.iter().all(|schema| schema["status"]["conditions"][0]["type"] == "Dangling")
    })
    .await;
    let now = async || revision(cluster.admin().get("/api/v1/nodes").await.json());
    // Others may still write something: once they have not, nobody has.
    until("a start without a write", async || {
        let before = now().await;
        cluster.server.bootstrap().await.expect("bootstrap");
        now().await == before
    })
    .await;
}

#[tokio::test]
async fn long_lists_are_compressed_for_those_who_like_it() {
    use std::io::Read as _;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    for number in 0..3 {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}")},
            "data": {"k": "v".repeat(100_000)}});
        assert_eq!(admin.post(path, &map).await.code, StatusCode::CREATED);
    }
    let plain = admin.get(path).await;
    let packed = admin.call(Method::GET, path, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len() / 10);
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).expect("gzip");
    assert!(text == plain.body);
    let paged = admin.get(&format!("{path}?limit=2")).await.json();
    assert_eq!(paged["items"].as_array().map(Vec::len), Some(2));
    let next = paged["metadata"]["continue"].as_str().expect("a token");
    let rest = admin.get(&format!("{path}?limit=2&continue={next}")).await.json();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(1), "{rest}");
}

#[tokio::test]
async fn the_old_watch_paths_still_work() {
    use http_body_util::BodyExt;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for path in [
        "/api/v1/watch/namespaces/default",
        "/api/v1/watch/namespaces?fieldSelector=metadata.name%3Ddefault",
    ] {
        let request = http::Request::get(path).body(serve::Body::empty()).expect("request");
        let mut body = admin.send(request).await.into_body();
        let frame =
            body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        let event: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!("default"))
        );
    }
}

#[tokio::test]
async fn answered_requests_are_noted() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("audit.log");
    let log = Some(LogOptions::new(&path));
    let audit = AuditOptions { log, ..AuditOptions::default() };
    let options = ApiServerOptions { audit, ..ApiServerOptions::default() };
    let cluster = Cluster::start_with(options).await;
    let seen = cluster.user("jane", &[]).get("/api/v1/namespaces/default/pods").await;
    let id = seen.headers["audit-id"].to_str().expect("text").to_owned();
    let noted = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // The last line may be half written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.into_iter().find(|line| line.contains(&id)).map(str::to_owned)
    };
    until("the note", async || noted().is_some()).await;
    let event: serde_json::Value = serde_json::from_str(&noted().expect("noted")).expect("JSON");
    assert_eq!(
        (&event["user"]["username"], &event["responseStatus"]["code"]),
        (&json!("jane"), &json!(403))
    );
}
