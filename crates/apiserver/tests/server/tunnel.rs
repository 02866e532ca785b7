//! Tunnels over real TLS: a node that cannot be dialled is reached, nobody else opens a tunnel, a dead peer is noticed,
//! a reader that stops stops no other.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode};
use pki::Profile;
use rustls::ClientConfig;
use serde_json::json;
use serve::{
    Body, Handler, Server, ServerOptions,
    tls::{Certificate, ServerTls},
    tunnel::{Agent, AgentOptions, Dial},
};
use skiff_apiserver::TUNNEL_PATH;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Cluster, connect, until};

/// The address of a node that nobody can dial.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// A pod on it, and the Service before the pod.
const POD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 77);
/// Addresses that exist only behind the tunnel, and where they really are.
#[derive(Default)]
struct Places(HashMap<SocketAddr, SocketAddr>);

impl Dial for Places {
    fn dial(&self, address: IpAddr, port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        let place = self.0.get(&SocketAddr::new(address, port)).copied();
        async move {
            match place {
                Some(place) => TcpStream::connect(place).await,
                None => Err(io::Error::new(io::ErrorKind::PermissionDenied, "not here")),
            }
        }
        .boxed()
    }
}

impl Cluster {
    /// A kubelet whose certificate is that of the node's address.
    async fn kubelet(&self, handler: impl Handler) -> SocketAddr {
        let profile = Profile::server("system:node:n1", vec![], vec![NODE.into()]);
        let identity = self.authority.issue(&profile).expect("certificate");
        let certificate = Certificate::new(
            identity.chain().expect("chain"),
            identity.private_key().expect("key"),
        );
        let authority = [self.authority.certificate_der().expect("certificate")];
        let tls = ServerTls::new(certificate.expect("usable"), Some(&authority)).expect("TLS");
        self.serve(handler, Some(tls)).await
    }

    async fn serve(&self, handler: impl Handler, tls: Option<ServerTls>) -> SocketAddr {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::bind(any, tls, ServerOptions::default()).await.expect("listens");
        let address = server.local_address().expect("address");
        tokio::spawn(server.run(handler, self.shutdown.clone()));
        address
    }

    /// Keeps a tunnel of node `name` to `server`; returns what ends it.
    fn tunnel(&self, name: &str, server: SocketAddr, places: Places) -> CancellationToken {
        let stop = self.shutdown.child_token();
        let options = AgentOptions {
            servers: watch::Sender::new(vec![server.to_string()]).subscribe(),
            tls: self.client_tls(&format!("system:node:{name}"), "system:nodes"),
            path: TUNNEL_PATH,
        };
        tokio::spawn(Agent::new(options, Arc::new(places)).run(stop.clone()));
        stop
    }

    async fn log(&self) -> Answer {
        self.admin().get("/api/v1/namespaces/default/pods/p/log").await
    }
}

/// Node `n1`, a pod on it, and a Service before the pod.
async fn objects(cluster: &Cluster) {
    let admin = cluster.admin();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let mut node = admin.post("/api/v1/nodes", &node).await.json();
    node["status"] = json!({
        "addresses": [{"type": "InternalIP", "address": NODE.to_string()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}
    });
    assert_eq!(admin.put("/api/v1/nodes/n1/status", &node).await.code, StatusCode::OK);
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}]}});
    let made = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let mut pod = made.json();
    pod["status"] =
        json!({"phase": "Running", "podIP": POD.to_string(), "podIPs": [{"ip": POD.to_string()}]});
    let told = admin.put("/api/v1/namespaces/default/pods/p/status", &pod).await;
    assert_eq!(told.code, StatusCode::OK, "{}", told.text());
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"clusterIP": SERVICE.to_string(), "ports": [{"name": "web", "port": 80, "targetPort": 8080}]}});
    let made = admin.post("/api/v1/namespaces/default/services", &service).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"name": "web", "port": 8080}],
        "endpoints": [{"addresses": [POD.to_string()], "nodeName": "n1"}]});
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert_eq!(admin.post(path, &slice).await.code, StatusCode::CREATED);
}

/// Says what was asked, and whether a certificate was shown.
async fn echo(request: Request<Body>) -> Response<Body> {
    let shown = request
        .extensions()
        .get::<Arc<serve::Peer>>()
        .is_some_and(|peer| matches!(peer.certificate, serve::ClientCertificate::Verified(_)));
    Response::new(Body::from(format!("{} {shown}", request.uri())))
}

#[tokio::test]
async fn nodes_pods_and_services_that_cannot_be_dialled_are_reached() {
    let cluster = Cluster::start().await;
    let server = cluster.listen(cluster.server.clone()).await;
    objects(&cluster).await;
    let kubelet = cluster.kubelet(echo).await;
    let pod = cluster.serve(echo, None).await;
    // What a pod serves may ask for certificates as a kubelet does.
    let places = Places(HashMap::from([
        ((NODE, 10250).into(), kubelet),
        ((NODE, 8443).into(), kubelet),
        ((POD, 8080).into(), pod),
        ((POD, 8443).into(), kubelet),
    ]));
    let stop = cluster.tunnel("n1", server, places);
    // The request comes before the tunnel, and waits for it.
    let log = cluster.log().await;
    assert_eq!(log.text(), "/containerLogs/default/p/c true");
    let admin = cluster.admin();
    let metrics = admin.get("/api/v1/nodes/n1/proxy/metrics").await;
    assert_eq!(metrics.text(), "/metrics true");
    let proxied = admin.get("/api/v1/namespaces/default/pods/p/proxy/x?y=z").await;
    assert_eq!(proxied.text(), "/x?y=z false");
    let proxied = admin.get("/api/v1/namespaces/default/services/s:web/proxy/a").await;
    assert_eq!(proxied.text(), "/a false");
    for nobody in ["namespaces/default/pods/https:p:8443", "nodes/https:n1:8443"] {
        let proxied = admin.get(&format!("/api/v1/{nobody}/proxy/c")).await;
        assert_eq!(proxied.text(), "/c false", "{nobody} learns who the API server is");
    }
    let refused = admin.get("/api/v1/namespaces/default/pods/p:22/proxy/").await;
    assert_eq!(refused.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refused.message().contains("not here"), "{}", refused.message());

    // Another node reaches the Service while the pod's own has no tunnel.
    stop.cancel();
    let places = Places(HashMap::from([((SERVICE, 80).into(), pod)]));
    cluster.tunnel("n2", server, places);
    until("the Service is reached by way of another node", async || {
        let proxied = admin.get("/api/v1/namespaces/default/services/s/proxy/b").await;
        proxied.code == StatusCode::OK && proxied.text() == "/b false"
    })
    .await;
}

/// What the server answers to a tunnel that `tls` offers, with further headers.
async fn offer(server: SocketAddr, tls: Arc<ClientConfig>, headers: &str) -> String {
    let mut stream = connect(server, tls).await;
    let request =
        format!("GET {TUNNEL_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("reads");
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn nobody_but_a_node_opens_a_tunnel() {
    let cluster = Cluster::start().await;
    let server = cluster.listen(cluster.server.clone()).await;
    let upgrade = "Upgrade: skiff-tunnel/1\r\n";
    let posing = format!(
        "{upgrade}Impersonate-User: system:node:n1\r\nImpersonate-Group: system:nodes\r\n\
         Impersonate-Extra-authentication.kubernetes.io%2Fcredential-id: X509SHA256=0\r\n"
    );
    for (user, group, headers, expected) in [
        ("system:node:n1", "system:nodes", upgrade, "101"),
        ("system:node:n1", "system:nodes", "Upgrade: websocket\r\n", "400"),
        ("system:node:n1", "skiff:network", upgrade, "403"),
        ("system:node:", "system:nodes", upgrade, "403"),
        ("someone", "system:nodes", upgrade, "403"),
        ("skiff:network:n1", "skiff:network", upgrade, "403"),
        ("system:node:n2", "system:nodes", &posing, "403"),
        ("admin", "system:masters", upgrade, "403"),
        ("admin", "system:masters", &posing, "403"),
    ] {
        let tls = cluster.client_tls(user, group);
        assert_eq!(offer(server, tls, headers).await, expected, "{user} {group} {headers}");
    }
    let nobody = serve::tls::unverified_client_config().expect("TLS");
    assert_eq!(offer(server, nobody, upgrade).await, "403");
}

/// Carries connections to `target` until it is told to fall silent: then bytes go nowhere, and nobody is told.
async fn relay(target: SocketAddr, silent: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listens");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut silent = silent.clone();
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(target).await else { return };
                let (mut client, mut server) = (client, server);
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = async { drop(silent.wait_for(|silent| *silent).await) } => {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_dead_peer_is_noticed_and_another_tunnel_opened() {
    let cluster = Cluster::start().await;
    let server = cluster.listen(cluster.server.clone()).await;
    objects(&cluster).await;
    let silent = watch::Sender::new(false);
    let relay = relay(server, silent.subscribe()).await;
    let kubelet = cluster.kubelet(echo).await;
    let places = || Places(HashMap::from([((NODE, 10250).into(), kubelet)]));
    cluster.tunnel("n1", relay, places());
    assert_eq!(cluster.log().await.code, StatusCode::OK);
    let count = |text: &str| text.contains("skiff_egress_tunnels 1");
    assert!(count(&cluster.admin().get("/metrics").await.text()));
    silent.send_replace(true);
    until("the server forgets the tunnel", async || {
        !count(&cluster.admin().get("/metrics").await.text())
    })
    .await;
    silent.send_replace(false);
    until("the node opens another", async || cluster.log().await.code == StatusCode::OK).await;
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_its_writer_and_nobody_else() {
    let cluster = Cluster::start().await;
    let server = cluster.listen(cluster.server.clone()).await;
    objects(&cluster).await;
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    // A log without end.
    let kubelet = move |request: Request<Body>| {
        let counter = counter.clone();
        async move {
            if !request.uri().path().starts_with("/containerLogs") {
                return echo(request).await;
            }
            let chunk = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
            let endless = futures::stream::repeat_with(move || {
                counter.fetch_add(chunk.len(), std::sync::atomic::Ordering::Relaxed);
                Ok::<_, io::Error>(chunk.clone())
            });
            Response::new(Body::stream(endless))
        }
    };
    let kubelet = cluster.kubelet(kubelet).await;
    cluster.tunnel("n1", server, Places(HashMap::from([((NODE, 10250).into(), kubelet)])));
    let admin = cluster.admin();
    let logs = Request::get("/api/v1/namespaces/default/pods/p/log?follow=true");
    let stuck = admin.send(logs.body(Body::empty()).expect("request")).await;
    assert_eq!(stuck.status(), StatusCode::OK);
    // Nobody reads: the writer comes to rest, while others are answered many times.
    let mut last = 0;
    until("the writer is held up", async || {
        for _ in 0..50 {
            admin.get("/api/v1/nodes/n1/proxy/healthz").await;
        }
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    assert!(last < 64 * 1024 * 1024, "{last} bytes are on their way");
    let other = admin.get("/api/v1/nodes/n1/proxy/healthz").await;
    assert_eq!(other.text(), "/healthz true");
    drop(stuck);
}
