//! What is passed on to kubelets and pods: logs, upgraded streams, proxied requests; and in-process clients.

use crate::support::{Cluster, connect};
use http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde_json::json;
use serve::{Body, ClientCertificate, Peer};
use std::{net::SocketAddr, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};

/// Shows what it was asked, echoes what comes after an upgrade.
async fn kubelet(mut request: Request<Body>) -> Response<Body> {
    let certificate = request.extensions().get::<Arc<Peer>>().map(|peer| match &peer.certificate {
        ClientCertificate::Verified(chain) => {
            pki::Subject::parse(&chain[0]).expect("a subject").common_name
        }
        _ => "nobody".to_owned(),
    });
    assert!(!request.headers().contains_key(header::AUTHORIZATION));
    let target = request.uri().to_string();
    if target.starts_with("/containerLogs/default/p/waiting") {
        let mut response = Response::new(Body::from(
            "container \"waiting\" in pod \"p\" is waiting to start".to_owned(),
        ));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    }
    if !target.starts_with("/exec/") {
        return Response::new(Body::from(format!(
            "{target} as {}",
            certificate.unwrap_or_default()
        )));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.expect("upgrades"));
        io.write_all(target.as_bytes()).await.expect("writes");
        let mut buffer = [0; 4];
        io.read_exact(&mut buffer).await.expect("reads");
        io.write_all(&buffer).await.expect("writes");
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("SPDY/3.1"));
    response
}

/// A node whose kubelet is at `address`, and a pod on it.
async fn node_with_pod(cluster: &Cluster, address: SocketAddr) {
    let admin = cluster.admin();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let mut node = admin.post("/api/v1/nodes", &node).await.json();
    node["status"] = json!({
        "addresses": [{"type": "InternalIP", "address": address.ip().to_string()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}
    });
    let told = admin.put("/api/v1/nodes/n1/status", &node).await;
    assert_eq!(told.code, StatusCode::OK, "{}", told.text());
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "serviceAccountName": "robot",
        "containers": [{"name": "main", "image": "i"}, {"name": "waiting", "image": "i"}]}});
    let made = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let cluster = Cluster::start().await;
    let address = cluster.listen(kubelet).await;
    node_with_pod(&cluster, address).await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/pods/p/log";
    let log = admin.get(&format!("{path}?container=main&tailLines=5&follow=true")).await;
    assert_eq!(
        log.text(),
        "/containerLogs/default/p/main?follow=true&tailLines=5 as kube-apiserver-kubelet-client"
    );
    let waiting = admin.get(&format!("{path}?container=waiting")).await;
    assert_eq!(waiting.code, StatusCode::BAD_REQUEST);
    assert_eq!(waiting.message(), "container \"waiting\" in pod \"p\" is waiting to start");
    assert_eq!(
        admin.get(path).await.message(),
        "a container name must be specified for pod p, choose one of: [main waiting]"
    );
    let invalid = admin.get(&format!("{path}?container=main&limitBytes=0")).await;
    assert_eq!(invalid.code, StatusCode::UNPROCESSABLE_ENTITY);
    let proxied = admin.get("/api/v1/nodes/n1/proxy/stats/summary?a=b").await;
    assert_eq!(proxied.text(), "/stats/summary?a=b as kube-apiserver-kubelet-client");
    let moved = admin.get("/api/v1/nodes/n1/proxy").await;
    assert_eq!(moved.headers["location"], "/api/v1/nodes/n1/proxy/");
    let refused = cluster.user("jane", &[]).get(&format!("{path}?container=main")).await;
    let websocket = "/api/v1/namespaces/default/pods/p/exec?container=main";
    let refused_exec = cluster.user("system:kube-scheduler", &[]).get(websocket).await;
    assert_eq!(refused_exec.code, StatusCode::FORBIDDEN);
    assert!(
        refused.message().contains("cannot get resource \"pods/log\""),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn upgraded_streams_are_copied_both_ways() {
    let cluster = Cluster::start().await;
    let address = cluster.listen(kubelet).await;
    node_with_pod(&cluster, address).await;
    let server = cluster.listen(cluster.server.clone()).await;
    let mut stream = connect(server, cluster.client_tls("admin", "system:masters")).await;
    let request = "POST /api/v1/namespaces/default/pods/p/exec?container=main&command=sh&command=-c&stdin=true&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    let expected = "/exec/default/p/main?input=1&output=1&command=sh&command=-c";
    while !String::from_utf8_lossy(&answer).ends_with(expected) {
        assert_ne!(
            stream.read_buf(&mut answer).await.expect("reads"),
            0,
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"ping").await.expect("writes");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.expect("reads");
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn components_in_the_process_use_the_same_api() {
    use futures::{StreamExt, TryStreamExt};
    let cluster = Cluster::start().await;
    let admin = skiff_apiserver::authenticated("admin", ["system:masters"]);
    let client = kube::Client::new(cluster.server.in_process(admin), "default");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let listed = namespaces.list(&ListParams::default()).await.expect("lists");
    assert_eq!(listed.items.len(), 4);
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let current = maps.list(&ListParams::default()).await.expect("lists").metadata.resource_version;
    let mut events = maps
        .watch(&WatchParams::default(), &current.unwrap_or_default())
        .await
        .expect("watches")
        .boxed();
    let mut map = ConfigMap::default();
    map.metadata.name = Some("a".into());
    maps.create(&kube::api::PostParams::default(), &map).await.expect("creates");
    match events.try_next().await.expect("an event") {
        Some(WatchEvent::Added(map)) => assert_eq!(map.metadata.name.as_deref(), Some("a")),
        other => panic!("{other:?}"),
    }
    let nobody = cluster.server.in_process(skiff_apiserver::authenticated("nobody", [""; 0]));
    let maps: Api<ConfigMap> = Api::default_namespaced(kube::Client::new(nobody, "default"));
    match maps.get("a").await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("{other:?}"),
    }
}

/// Opens a WebSocket over TLS as an administrator; the protocol that was agreed on, and messages.
async fn websocket(
    cluster: &Cluster,
    server: SocketAddr,
    path: &str,
    protocol: &str,
) -> Result<(String, impl futures::Stream<Item = Message> + use<>), Error> {
    use futures::StreamExt;
    let stream = connect(server, cluster.client_tls("admin", "system:masters")).await;
    let mut request = format!("wss://{server}{path}").into_client_request().expect("request");
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("header"));
    }
    let (messages, response) = tokio_tungstenite::client_async(request, stream).await?;
    let agreed = response.headers().get("sec-websocket-protocol");
    let agreed = agreed.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default();
    Ok((agreed, messages.map(|message| message.expect("no error"))))
}

#[tokio::test]
async fn logs_come_over_a_websocket_too() {
    use futures::StreamExt;
    let cluster = Cluster::start().await;
    let address = cluster.listen(kubelet).await;
    node_with_pod(&cluster, address).await;
    let server = cluster.listen(cluster.server.clone()).await;
    let path = "/api/v1/namespaces/default/pods/p/log?container=main";
    let log = "/containerLogs/default/p/main as kube-apiserver-kubelet-client";
    for (offered, agreed) in [
        ("", ""),
        ("binary.k8s.io", "binary.k8s.io"),
        ("v9, base64.binary.k8s.io", "base64.binary.k8s.io"),
    ] {
        let opened = websocket(&cluster, server, path, offered).await.expect("opens");
        let (protocol, mut messages) = opened;
        assert_eq!(protocol, agreed);
        let first = messages.next().await.expect("a message");
        assert!(first.is_empty(), "{first:?}");
        let mut heard = Vec::new();
        while let Some(message) = messages.next().await.filter(|message| !message.is_close()) {
            assert_eq!(message.is_text(), agreed.starts_with("base64"), "{message:?}");
            let data = message.into_data();
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD;
            let plain = if agreed.starts_with("base64") {
                text.decode(&data).expect("base64")
            } else {
                data.to_vec()
            };
            heard.extend(plain);
        }
        assert_eq!(String::from_utf8_lossy(&heard), log);
    }
    let refused = |path: &'static str, protocol: &'static str| {
        let (cluster, path) = (&cluster, path.to_owned());
        async move {
            match websocket(cluster, server, &path, protocol).await.map(|_| ()) {
                Err(Error::Http(response)) => response.status().as_u16(),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(refused("/api/v1/namespaces/default/pods/p/log?container=main", "other").await, 403);
    assert_eq!(refused("/api/v1/namespaces/default/pods/p/log?container=waiting", "").await, 400);
    assert_eq!(refused("/api/v1/namespaces/default/pods/none/log", "").await, 404);
}

#[tokio::test]
async fn watches_go_over_a_websocket_too() {
    use futures::StreamExt;
    let cluster = Cluster::start().await;
    let server = cluster.listen(cluster.server.clone()).await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let watch = format!("{path}?watch=1");
    let opened = websocket(&cluster, server, &watch, "base64.binary.k8s.io").await.expect("opens");
    let (protocol, mut messages) = opened;
    assert_eq!(protocol, "base64.binary.k8s.io");
    for name in ["a", "b"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        admin.post(path, &map).await;
        let message = messages.next().await.expect("a message");
        let event: serde_json::Value =
            serde_json::from_str(message.to_text().expect("text")).expect("JSON");
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!(name))
        );
    }
    let timed = format!("{path}?watch=1&timeoutSeconds=1");
    let (_, messages) = websocket(&cluster, server, &timed, "").await.expect("opens");
    let messages: Vec<Message> = messages.collect().await;
    assert_eq!(messages.len(), 3, "two objects, then the end: {messages:?}");
    assert!(messages[2].is_close());
}
