//! Services on a real kernel, from objects in the API to bytes on a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skiff_network::{LEASE_NAMESPACE, Proxy, REVISION_ANNOTATION, lease_name};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Fake,
    machines::until,
    world::{
        Node, PATIENCE, Pod, Server, answer_udp, ask, ask_udp, ask_udp_once, name, open, peer,
    },
};

/// A proxy at work on a Fake API.
pub(crate) struct Cluster {
    runtime: tokio::runtime::Runtime,
    api: Arc<Fake>,
    shutdown: CancellationToken,
    proxy: Option<tokio::task::JoinHandle<()>>,
    node: String,
}

impl Cluster {
    pub(crate) fn start(node: &Node, api: Arc<Fake>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let shutdown = CancellationToken::new();
        let guard = runtime.enter();
        let caches = client::Caches::new(api.client(), shutdown.clone());
        let proxy = Proxy::new(node.options.clone(), caches);
        let stop = shutdown.clone();
        let proxy = runtime.spawn(async move { proxy.run(stop).await.expect("proxy") });
        drop(guard);
        let node = node.options.node_name.clone();
        Self { runtime, api, shutdown, proxy: Some(proxy), node }
    }

    /// Waits until the proxy says that it has programmed `revision`.
    fn programmed(&self, revision: u64) {
        self.runtime.block_on(self.api.wait(
            "leases",
            LEASE_NAMESPACE,
            &lease_name(&self.node),
            |lease| {
                let annotation = &lease["metadata"]["annotations"][REVISION_ANNOTATION];
                annotation
                    .as_str()
                    .is_some_and(|text| text.parse::<u64>().expect("number") >= revision)
            },
        ));
    }

    pub(crate) fn stop(mut self) {
        self.shutdown.cancel();
        let proxy = self.proxy.take().expect("running");
        self.runtime.block_on(proxy).expect("proxy");
    }
}

pub(crate) fn put_service(api: &Fake, name: &str, spec: Value) {
    api.put(
        "services",
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": spec,
        }),
    );
}

/// Endpoints as (address, state), state one of ready, draining, unready.
fn put_slice(
    api: &Fake,
    name: &str,
    protocol: &str,
    port: u16,
    endpoints: &[(String, &str)],
) -> u64 {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, state)| {
            json!({
                "addresses": [address], "nodeName": "node-1",
                "conditions": {
                    "ready": *state == "ready",
                    "serving": *state != "unready",
                    "terminating": *state == "draining",
                },
            })
        })
        .collect();
    api.put(
        "endpointslices",
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop", "name": format!("{name}-1"), "uid": format!("{name}-1"),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "", "port": port, "protocol": protocol}],
        }),
    )
}

/// A slice with one more endpoint that drains, which makes the proxy publish at once.
pub(crate) fn put_and_wait(
    cluster: &Cluster,
    name: &str,
    protocol: &str,
    port: u16,
    endpoints: &[(String, &str)],
) {
    let revision = put_slice(&cluster.api, name, protocol, port, endpoints);
    cluster.api.put("endpointslices", json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "other", "name": "hurry", "uid": "hurry",
            "labels": {"kubernetes.io/service-name": "hurry"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.9.9"], "conditions": {"ready": false, "terminating": true}}],
        "ports": [],
    }));
    cluster.programmed(revision);
}

pub(crate) fn ready(pods: &[&Pod]) -> Vec<(String, &'static str)> {
    pods.iter().map(|pod| (pod.address.to_string(), "ready")).collect()
}

fn web(extra: Value) -> Value {
    let mut spec = json!({
        "type": "NodePort", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080}],
    });
    spec.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
    spec
}

pub(crate) fn ways_in(node: &Node) {
    let api = Fake::new();
    put_service(&api, "web", web(json!({"externalIPs": ["198.51.100.7"]})));
    let pods = [Pod::start(node, "in-a"), Pod::start(node, "in-b")];
    let client = Pod::start(node, "in-client");
    let _servers: Vec<Server> = pods.iter().map(|pod| pod.listen(8080)).collect();
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&[&pods[0], &pods[1]]));

    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(name(&client.ask("10.96.0.20:80").expect("cluster IP")).to_owned());
    }
    assert_eq!(seen.len(), 2, "spread over both");
    let greeting = client.ask("10.96.0.20:80").expect("cluster IP");
    assert_eq!(peer(&greeting), client.address.to_string(), "pods keep their address");
    // Both ways in from the node itself.
    for to in ["10.96.0.20:80", "127.0.0.1:30080", "192.0.2.1:30080", "10.244.0.1:30080"] {
        ask(to.parse().expect("address")).unwrap_or_else(|error| panic!("node to {to}: {error}"));
    }
    for to in ["192.0.2.1:30080", "198.51.100.7:80", "10.96.0.20:80"] {
        let to: SocketAddr = to.parse().expect("address");
        node.outside
            .run(move || ask(to))
            .unwrap_or_else(|error| panic!("outside to {to}: {error}"));
    }
    // A pod may reach itself through its Service.
    for _ in 0..20 {
        for pod in &pods {
            pod.ask("10.96.0.20:80").expect("hairpin");
            pod.ask("192.0.2.1:30080").expect("hairpin through the node port");
        }
    }
    // Nobody outside reaches the node's loopback addresses.
    node.outside.run(|| {
        crate::world::ip("route replace 127.0.0.2/32 via 192.0.2.1");
        std::fs::write("/proc/sys/net/ipv4/conf/far0/route_localnet", "1").expect("sysctl");
    });
    node.outside
        .run(|| {
            let socket = UdpSocket::bind("192.0.2.9:0").expect("bind");
            ask_udp_once(&socket, "127.0.0.2:30080")
        })
        .expect_err("martian");

    // A connection outlives its endpoint's withdrawal and a replacement of the whole table.
    let to: SocketAddr = "10.96.0.20:80".parse().expect("address");
    let (mut stream, greeting) = client.namespace.run(move || open(to)).expect("open");
    let (first, second) = if name(&greeting) == "in-a" { (0, 1) } else { (1, 0) };
    let drained = [
        (pods[first].address.to_string(), "draining"),
        (pods[second].address.to_string(), "ready"),
    ];
    put_and_wait(&cluster, "web", "TCP", 8080, &drained);
    for _ in 0..20 {
        assert_eq!(name(&client.ask("10.96.0.20:80").expect("cluster IP")), pods[second].name);
    }
    let api = cluster.api.clone();
    cluster.stop();
    assert!(ask(to).is_ok(), "Services answer while the proxy is away");
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &drained);
    stream.write_all(b"still there?").expect("write");
    let mut buffer = [0; 12];
    stream.read_exact(&mut buffer).expect("echo");

    // Without any ready endpoint, the draining one serves.
    put_and_wait(
        &cluster,
        "web",
        "TCP",
        8080,
        &[
            (pods[first].address.to_string(), "draining"),
            (pods[second].address.to_string(), "unready"),
        ],
    );
    assert_eq!(name(&client.ask("10.96.0.20:80").expect("fallback")), pods[first].name);

    // When the pod has exited, whoever still talks to it learns at once.
    let [a, b] = pods;
    let (gone, kept) = if first == 0 { (a, b) } else { (b, a) };
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&[&kept]));
    gone.stop(node);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let _ = stream.write_all(b"gone?");
    let error = stream.read_exact(&mut buffer).expect_err("the pod is gone");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    cluster.stop();
    kept.stop(node);
    client.stop(node);
}

/// The same on a kernel that leaves bridged traffic alone.
pub(crate) fn ways_in_unfiltered(node: &Node) {
    let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let Ok(before) = std::fs::read_to_string(setting) else { return };
    std::fs::write(setting, "0").expect("sysctl");
    ways_in(node);
    std::fs::write(setting, before).expect("sysctl");
}

/// Endpoints that are the node itself, as the API server's and the DNS server's are.
pub(crate) fn endpoints_on_the_node(node: &Node) {
    let api = Fake::new();
    put_service(
        &api,
        "api",
        json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ports": [{"port": 443, "protocol": "TCP"}],
        }),
    );
    put_service(
        &api,
        "dns",
        json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "internalTrafficPolicy": "Local",
            "ports": [{"port": 53, "protocol": "UDP"}],
        }),
    );
    let listener = std::net::TcpListener::bind("192.0.2.1:6443").expect("bind");
    let _server = Server::start(listener, "api".to_owned());
    let socket = UdpSocket::bind("10.244.0.1:53").expect("bind");
    let stop = answer_udp(socket, "dns".to_owned());
    let client = Pod::start(node, "node-client");
    let cluster = Cluster::start(node, api);
    put_slice(&cluster.api, "dns", "UDP", 53, &[("10.244.0.1".to_owned(), "ready")]);
    put_and_wait(&cluster, "api", "TCP", 6443, &[("192.0.2.1".to_owned(), "ready")]);
    // On a machine without any network of its own, too.
    for default_route in [true, false] {
        if !default_route {
            crate::world::ip("route del default");
        }
        let greeting = client.ask("10.96.0.1:443").expect("pod");
        assert_eq!(peer(&greeting), client.address.to_string());
        ask("10.96.0.1:443".parse().expect("address")).expect("node");
        let socket = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
        assert_eq!(ask_udp(&socket, "10.96.0.10:53").expect("pod"), "dns");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        assert_eq!(ask_udp(&socket, "10.96.0.10:53").expect("node"), "dns");
    }
    crate::world::ip("route add default via 192.0.2.9");
    stop.store(true, Ordering::Relaxed);
    cluster.stop();
    client.stop(node);
}

pub(crate) fn affinity(node: &Node) {
    let api = Fake::new();
    put_service(
        &api,
        "web",
        web(json!({
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100}},
        })),
    );
    let pods: Vec<Pod> = (0..3).map(|n| Pod::start(node, &format!("aff-{n}"))).collect();
    let clients: Vec<Pod> = (0..6).map(|n| Pod::start(node, &format!("aff-client-{n}"))).collect();
    let _servers: Vec<Server> = pods.iter().map(|pod| pod.listen(8080)).collect();
    let cluster = Cluster::start(node, api);
    let all: Vec<&Pod> = pods.iter().collect();
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&all));
    let mut homes = BTreeMap::new();
    for client in &clients {
        let homed: BTreeSet<String> = (0..20)
            .map(|_| name(&client.ask("10.96.0.20:80").expect("cluster IP")).to_owned())
            .collect();
        assert_eq!(homed.len(), 1, "{} stays with one of {homed:?}", client.name);
        homes.insert(client.name.clone(), homed);
    }
    // Others keep their endpoint when one goes; its clients get another and keep that.
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&all[1..]));
    for client in &clients {
        let homed: BTreeSet<String> = (0..20)
            .map(|_| name(&client.ask("10.96.0.20:80").expect("cluster IP")).to_owned())
            .collect();
        assert_eq!(homed.len(), 1);
        let before = &homes[&client.name];
        assert!(before == &homed || before.contains("aff-0"), "{before:?} {homed:?}");
    }
    // And through a restart of the proxy.
    let mut homes = BTreeMap::new();
    for client in &clients {
        homes.insert(
            client.name.clone(),
            name(&client.ask("10.96.0.20:80").expect("cluster IP")).to_owned(),
        );
    }
    let api = cluster.api.clone();
    cluster.stop();
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&all[1..]));
    for client in &clients {
        for _ in 0..5 {
            let home = client.ask("10.96.0.20:80").expect("cluster IP");
            assert_eq!(name(&home), homes[&client.name], "{}", client.name);
        }
    }
    cluster.stop();
    for pod in pods.into_iter().chain(clients) {
        pod.stop(node);
    }
}

/// A client that was silent for as long as the Service says is free to be led elsewhere.
pub(crate) fn affinity_ends(node: &Node) {
    let api = Fake::new();
    put_service(
        &api,
        "web",
        web(json!({
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 3}},
        })),
    );
    let pods: Vec<Pod> = (0..2).map(|n| Pod::start(node, &format!("end-{n}"))).collect();
    let client = Pod::start(node, "end-client");
    let _servers: Vec<Server> = pods.iter().map(|pod| pod.listen(8080)).collect();
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&[&pods[0], &pods[1]]));
    let ask = || name(&client.ask("10.96.0.20:80").expect("cluster IP")).to_owned();
    let remembered = || {
        let words = ["timeout", "expires"].map(|word| format!("{} {word}", client.address));
        let table = node.nft();
        words.iter().any(|words| table.contains(words))
    };
    let mut homes = BTreeSet::new();
    let begun = Instant::now();
    while homes.len() < 2 {
        let (since, home, again) = (Instant::now(), ask(), ask());
        if since.elapsed() < Duration::from_secs(3) {
            assert_eq!(again, home, "it stays while it speaks");
        }
        homes.insert(home);
        until("the client is forgotten", || !remembered());
        // Each time it is one of two by chance.
        assert!(begun.elapsed() < Duration::from_secs(240), "it always comes back to {homes:?}");
    }
    cluster.stop();
    for pod in pods.into_iter().chain([client]) {
        pod.stop(node);
    }
}

pub(crate) fn nobody_serves(node: &Node) {
    let api = Fake::new();
    put_service(&api, "web", web(json!({"externalIPs": ["198.51.100.7"]})));
    put_service(
        &api,
        "dns",
        json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.30", "clusterIPs": ["10.96.0.30"],
            "ports": [{"port": 53, "protocol": "UDP"}],
        }),
    );
    let client = Pod::start(node, "nobody-client");
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &[]);
    for to in ["10.96.0.20:80", "10.96.0.20:81", "192.0.2.1:30080", "198.51.100.7:80"] {
        // At once: not for want of an answer.
        let error = client.ask(to).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "pod to {to}: {error}");
        let address: SocketAddr = to.parse().expect("address");
        let error = ask(address).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "node to {to}: {error}");
        let error = node.outside.run(move || ask(address)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "outside to {to}: {error}");
    }
    let error = client
        .namespace
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket.connect("10.96.0.30:53").expect("connect");
            socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
            socket.send(b"?").expect("send");
            socket.recv(&mut [0; 8]).map(drop)
        })
        .expect_err("port unreachable");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    // And once somebody does, it answers.
    let pod = Pod::start(node, "somebody");
    let _server = pod.listen(8080);
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&[&pod]));
    assert_eq!(name(&client.ask("192.0.2.1:30080").expect("served")), "somebody");
    cluster.api.remove("services", "shop", "web");
    until("nothing is left of a deleted Service", || !node.nft().contains("shop/web"));
    cluster.stop();
    pod.stop(node);
    client.stop(node);
}

pub(crate) fn datagrams_follow_endpoints(node: &Node) {
    let api = Fake::new();
    put_service(
        &api,
        "dns",
        json!({
            "type": "NodePort", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}],
        }),
    );
    let pods = [Pod::start(node, "udp-a"), Pod::start(node, "udp-b")];
    let stops = pods.each_ref().map(|pod| pod.listen_udp(5353));
    let client = Pod::start(node, "udp-client");
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "dns", "UDP", 5353, &ready(&[&pods[0]]));
    let socket = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
    let outside = node.outside.run(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
    assert_eq!(ask_udp(&socket, "10.96.0.10:53").expect("answer"), "udp-a");
    assert_eq!(ask_udp(&outside, "192.0.2.1:30053").expect("answer"), "udp-a");
    put_and_wait(&cluster, "dns", "UDP", 5353, &ready(&[&pods[1]]));
    // The same sockets: a tracked flow would keep going to the first.
    for (socket, to) in [(&socket, "10.96.0.10:53"), (&outside, "192.0.2.1:30053")] {
        until("the new endpoint answers", || ask_udp(socket, to).expect("answer") == "udp-b");
    }
    cluster.stop();
    for stop in stops {
        stop.store(true, Ordering::Relaxed);
    }
    for pod in pods.into_iter().chain([client]) {
        pod.stop(node);
    }
}

/// A pod that left its Service keeps its connections, until it is gone from the API as well.
pub(crate) fn connections_end_with_their_pods(node: &Node) {
    let api = Fake::new();
    put_service(&api, "web", web(json!({})));
    let (server, client) = (Pod::start(node, "gone"), Pod::start(node, "gone-client"));
    let _server = server.listen(8080);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"},
        "metadata": {"namespace": "shop", "name": "gone", "uid": "gone"}});
    api.put("pods", pod);
    let cluster = Cluster::start(node, api);
    let target = json!({"kind": "Pod", "namespace": "shop", "name": "gone", "uid": "gone"});
    let slice = |endpoints: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "web-1",
                "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        })
    };
    let one = json!([{"addresses": [server.address], "conditions": {"ready": true}, "targetRef": target}]);
    cluster.api.put("endpointslices", slice(one));
    let to: SocketAddr = "10.96.0.20:80".parse().expect("address");
    until("the Service answers", || client.namespace.run(move || ask(to).is_ok()));
    let (mut stream, _) = client.namespace.run(move || open(to).expect("open"));
    let mut echoes = move || {
        let mut buffer = [0; 4];
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok()
    };
    assert!(echoes());
    cluster.api.put("endpointslices", slice(json!([])));
    until("the Service leads nowhere", || client.namespace.run(move || ask(to).is_err()));
    assert!(echoes(), "the pod still runs");
    cluster.api.remove("pods", "shop", "gone");
    until("the connection ends", || !echoes());
    cluster.stop();
    server.stop(node);
    client.stop(node);
}

/// Set when it goes, however that comes.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pods are replaced one after the other, as a rollout does, while clients of four kinds open
/// connections as fast as they can. Every one must be answered, by a pod that is ready.
pub(crate) fn rollout_under_load(node: &Node) {
    const ROUNDS: usize = 15;
    /// Connections between two replacements.
    const AMONG: usize = 60;
    let api = Fake::new();
    put_service(&api, "web", web(json!({})));
    let mut pods: Vec<(Pod, Server)> = Vec::new();
    let start = |n: usize| {
        let pod = Pod::start(node, &format!("roll-{n}"));
        let server = pod.listen(8080);
        (pod, server)
    };
    for n in 0..3 {
        pods.push(start(n));
    }
    let mut cluster = Cluster::start(node, api);
    let list = |pods: &[(Pod, Server)]| -> Vec<(String, &'static str)> {
        pods.iter().map(|(pod, _)| (pod.address.to_string(), "ready")).collect()
    };
    put_and_wait(&cluster, "web", "TCP", 8080, &list(&pods));
    cluster.api.remove("endpointslices", "other", "hurry");

    let client = Pod::start(node, "roll-client");
    let done = AtomicBool::new(false);
    let (asked, reaction) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = std::sync::Mutex::new(Vec::new());
    let load = |to: &'static str, pod: Option<&Pod>| {
        let to_address: SocketAddr = to.parse().expect("address");
        while !done.load(Ordering::Relaxed) {
            let answer = match pod {
                Some(pod) => pod.ask(to),
                None => ask(to_address),
            };
            asked.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = answer {
                failures.lock().expect("lock").push(format!("{to}: {error}"));
            }
        }
    };
    let cluster = std::thread::scope(|scope| {
        scope.spawn(|| load("10.96.0.20:80", Some(&client)));
        scope.spawn(|| load("10.96.0.20:80", None));
        scope.spawn(|| load("127.0.0.1:30080", None));
        scope.spawn(|| load("192.0.2.1:30080", None));
        let outside = &node.outside;
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let to = "192.0.2.1:30080".parse().expect("address");
                let answer = outside.run(move || ask(to));
                asked.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = answer {
                    failures.lock().expect("lock").push(format!("outside: {error}"));
                }
            }
        });
        let _done = Done(&done);
        for round in 0..ROUNDS {
            if round == ROUNDS / 2 {
                // A new proxy replaces the whole table, under load.
                let api = cluster.api.clone();
                cluster.stop();
                cluster = Cluster::start(node, api);
                put_and_wait(&cluster, "web", "TCP", 8080, &list(&pods));
                cluster.api.remove("endpointslices", "other", "hurry");
            }
            pods.push(start(3 + round));
            put_slice(&cluster.api, "web", "TCP", 8080, &list(&pods));
            let (old, server) = pods.remove(0);
            let mut endpoints = list(&pods);
            endpoints.push((old.address.to_string(), "draining"));
            let began = Instant::now();
            let revision = put_slice(&cluster.api, "web", "TCP", 8080, &endpoints);
            // The drain contract: only now may the pod stop accepting.
            cluster.programmed(revision);
            reaction.fetch_add(began.elapsed().as_micros() as usize, Ordering::Relaxed);
            server.end();
            put_slice(&cluster.api, "web", "TCP", 8080, &list(&pods));
            old.stop(node);
            let before = asked.load(Ordering::Relaxed);
            until("the load goes on", || asked.load(Ordering::Relaxed) >= before + AMONG);
        }
        cluster
    });
    let asked = asked.into_inner();
    let failures = failures.into_inner().expect("lock");
    println!(
        "  {asked} connections over {ROUNDS} replacements, published after {} µs on average",
        reaction.into_inner() / ROUNDS
    );
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for failure in &failures {
        *kinds.entry(failure).or_default() += 1;
    }
    assert!(failures.is_empty(), "{} of {asked} failed: {kinds:?}", failures.len());
    cluster.stop();
    for (pod, _server) in pods {
        pod.stop(node);
    }
    client.stop(node);
}

pub(crate) fn table_is_restored(node: &Node) {
    let api = Fake::new();
    put_service(&api, "web", web(json!({})));
    let mappings = json!({"runtimeConfig": {"portMappings": [
        {"hostPort": 8088, "containerPort": 8080, "protocol": "tcp"},
    ]}});
    let pod = Pod::start_with(node, "restored", mappings);
    let _server = pod.listen(8080);
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &ready(&[&pod]));
    let flushed = std::process::Command::new("nft").args(["flush", "ruleset"]).status();
    assert!(flushed.expect("run nft").success());
    put_service(
        &cluster.api,
        "other",
        json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.40", "clusterIPs": ["10.96.0.40"],
            "ports": [{"port": 80, "protocol": "TCP"}],
        }),
    );
    put_and_wait(&cluster, "other", "TCP", 8080, &ready(&[&pod]));
    // The Service itself may come a moment after its endpoints.
    until("the table is back", || node.nft().contains("10.96.0.40"));
    for to in ["10.96.0.40:80", "10.96.0.20:80", "127.0.0.1:30080", "127.0.0.1:8088"] {
        assert_eq!(name(&ask(to.parse().expect("address")).expect(to)), "restored");
    }
    cluster.stop();
    pod.stop(node);
}

/// A change among very many Services is as quick as among few.
pub(crate) fn many_services(node: &Node) {
    let count: u32 = std::env::var("SERVICES").map_or(2000, |text| text.parse().expect("number"));
    let api = Fake::new();
    for n in 0..count {
        let ip = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(10, 100, 0, 0)) + n);
        let name = format!("s{n}");
        put_service(
            &api,
            &name,
            json!({
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                "ports": [{"port": 80, "protocol": "TCP"}],
            }),
        );
        let ends: Vec<_> = (2..12).map(|n| (format!("10.244.7.{n}"), "ready")).collect();
        put_slice(&api, &name, "TCP", 8080, &ends);
    }
    let began = Instant::now();
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "web", "TCP", 8080, &[]);
    println!("  {count} Services of 10 programmed in {:.1?}", began.elapsed());
    let began = Instant::now();
    const CHANGES: u32 = 20;
    for n in 0..CHANGES {
        let ends = [("10.244.7.2".to_owned(), "ready"), (format!("10.244.8.{n}"), "ready")];
        let revision = put_slice(&cluster.api, &format!("s{n}"), "TCP", 8080, &ends);
        cluster.programmed(revision);
    }
    println!("  one change published after {:.1?}", began.elapsed() / CHANGES);
    assert!(node.nft().contains("10.244.8.19 . 8080"));
    cluster.stop();
    // Leave the table as the next test wants it.
    let empty = Cluster::start(node, Fake::new());
    put_and_wait(&empty, "web", "TCP", 8080, &[]);
    empty.stop();
}
