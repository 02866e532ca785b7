//! kube-rs over TLS; clients of other languages are looked at with a whole cluster.

use crate::support::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v1::Scale, core::v1::ConfigMap};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use pki::{Profile, kubeconfig};
use serde_json::json;

/// A kubeconfig of an administrator for a listener with TLS.
async fn administrator(cluster: &Cluster) -> String {
    let address = cluster.listen(cluster.server.clone()).await;
    let profile = Profile::client("admin", Some("system:masters"));
    let identity = cluster.authority.issue(&profile).expect("certificate");
    kubeconfig("test", &format!("https://{address}"), cluster.authority.certificate(), &identity)
}

async fn connect(cluster: &Cluster) -> kube::Client {
    let config = Kubeconfig::from_yaml(&administrator(cluster).await).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config =
        kube::Config::from_custom_kubeconfig(config, &options).await.expect("a configuration");
    kube::Client::try_from(config).expect("a client")
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"by": "kube"}}, "data": {"k": "v"}}),
    )
    .expect("a map")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_makes_reads_changes_and_deletes() {
    let cluster = Cluster::start().await;
    let client = connect(&cluster).await;
    assert!(client.apiserver_version().await.expect("a version").git_version.starts_with("v1.36"));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &map(name)).await.expect("created");
    }
    let taken = maps.create(&PostParams::default(), &map("a")).await.expect_err("taken");
    assert!(matches!(taken, kube::Error::Api(status) if status.reason == "AlreadyExists"));
    let page = maps.list(&ListParams::default().labels("by=kube").limit(2)).await.expect("a page");
    let token = page.metadata.continue_.expect("a token");
    let rest = ListParams::default().labels("by=kube").limit(2).continue_token(&token);
    assert_eq!((page.items.len(), maps.list(&rest).await.expect("the rest").items.len()), (2, 1));
    let patch = json!({"data": {"l": "w"}});
    let patched =
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    assert_eq!(patched.data.expect("data").len(), 2);
    let mut stale = maps.get("a").await.expect("a");
    maps.patch("a", &PatchParams::default(), &Patch::Strategic(&json!({"data": {"k": null}})))
        .await
        .expect("patched");
    stale.data = None;
    let conflict = maps.replace("a", &PostParams::default(), &stale).await.expect_err("stale");
    assert!(matches!(conflict, kube::Error::Api(status) if status.code == 409));
    let metadata =
        maps.list_metadata(&ListParams::default().labels("by=kube")).await.expect("metadata");
    assert_eq!(metadata.items.len(), 3);
    let gone = maps
        .delete_collection(&DeleteParams::default(), &ListParams::default().labels("by=kube"))
        .await;
    assert_eq!(gone.expect("deleted").left().expect("the objects").items.len(), 3);

    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    }))
    .expect("a deployment");
    deployments.create(&PostParams::default(), &deployment).await.expect("created");
    let scale: Scale = deployments
        .patch_scale(
            "web",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 4}})),
        )
        .await
        .expect("scaled");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(4));
    let status = Patch::Merge(json!({"status": {"replicas": 1}}));
    let status =
        deployments.patch_status("web", &PatchParams::default(), &status).await.expect("patched");
    assert_eq!(status.status.and_then(|status| status.replicas), Some(1));
    deployments.delete("web", &DeleteParams::foreground()).await.expect("deleted");
    assert!(deployments.get("web").await.expect("held").metadata.deletion_timestamp.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_watches_by_lists_and_by_streams() {
    let cluster = Cluster::start().await;
    let client = connect(&cluster).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    maps.create(&PostParams::default(), &map("a")).await.expect("created");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = watcher(maps.clone(), config.labels("by=kube")).boxed();
        let mut seen = Vec::new();
        while let Some(event) = events.try_next().await.expect("no error") {
            match event {
                watcher::Event::Init => seen.push("init".to_owned()),
                watcher::Event::InitApply(map) => {
                    seen.push(format!("there {}", map.metadata.name.unwrap_or_default()))
                }
                watcher::Event::InitDone => {
                    seen.push("done".to_owned());
                    maps.create(&PostParams::default(), &map("b")).await.expect("created");
                }
                watcher::Event::Apply(_) => {
                    seen.push("apply".to_owned());
                    maps.delete("b", &DeleteParams::default()).await.expect("deleted");
                }
                watcher::Event::Delete(_) => break,
            }
        }
        assert_eq!(seen, ["init", "there a", "done", "apply"]);
    }
    let mut events = maps
        .watch(&WatchParams::default().labels("by=kube").timeout(20), "0")
        .await
        .expect("a watch")
        .boxed();
    let first = events.try_next().await.expect("no error").expect("an event");
    assert!(matches!(first, WatchEvent::Added(_)), "{first:?}");
}

/// Both versions of HTTP on one port; over the newer one, watches and requests share a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_http_are_spoken() {
    use http_body_util::BodyExt;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    let profile = Profile::client("admin", Some("system:masters"));
    let identity = cluster.authority.issue(&profile).expect("certificate");
    let authority = cluster.authority.certificate_der().expect("certificate");
    let keys = (identity.chain().expect("chain"), identity.private_key().expect("key"));
    for version in ["h2", "http/1.1"] {
        let keys = Some((keys.0.clone(), keys.1.clone_key()));
        let config =
            serve::tls::client_config(std::slice::from_ref(&authority), keys).expect("TLS");
        let mut config = std::sync::Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![version.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let socket = tokio::net::TcpStream::connect(address).await.expect("connects");
        let stream = connector.connect(address.ip().into(), socket).await.expect("handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(version.as_bytes()));
        let request = |path: &str| {
            let uri = format!("https://{address}{path}");
            http::Request::get(uri)
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .expect("request")
        };
        if version == "h2" {
            let connection =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = connection.await.expect("handshake");
            tokio::spawn(connection);
            let path = "/api/v1/namespaces?watch=true&resourceVersion=0";
            let mut watch = sender.send_request(request(path)).await.expect("a watch").into_body();
            assert!(watch.frame().await.expect("an event").is_ok());
            let answer = sender.send_request(request("/livez")).await.expect("an answer");
            assert_eq!(
                (answer.status(), answer.version()),
                (http::StatusCode::OK, http::Version::HTTP_2)
            );
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .expect("handshake");
            tokio::spawn(connection);
            let answer = sender.send_request(request("/livez")).await.expect("an answer");
            assert_eq!(
                (answer.status(), answer.version()),
                (http::StatusCode::OK, http::Version::HTTP_11)
            );
        }
    }
}
