//! Services reached from outside three machines: load balancer addresses that move when their
//! machine dies, node ports, traffic policies, health checks, hints. Endpoints are the machines
//! themselves.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use client::Caches;
use serde_json::{Value, json};
use skiff_network::{Announcer, NetworkOptions, Proxy};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Fake,
    machines::{Segment, until},
    world::{Namespace, Node as World, PATIENCE, Server, ask, ip, name, peer},
};

/// One machine with a proxy and an announcer at work.
struct Machine {
    number: usize,
    namespace: Namespace,
    _directory: tempfile::TempDir,
    _servers: Vec<Server>,
    running: Option<(tokio::runtime::Runtime, CancellationToken, tokio::task::JoinHandle<()>)>,
}

fn addresses(number: usize) -> [IpAddr; 2] {
    [format!("192.0.2.{number}"), format!("2001:db8::{number}")]
        .map(|text| text.parse().expect("address"))
}

impl Machine {
    fn new(segment: &Segment, number: usize) -> Self {
        let namespace = Namespace::new();
        segment.plug(&namespace, number);
        segment.api.put(
            "nodes",
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": format!("node-{number}"), "uid": format!("node-{number}"),
                    "labels": {"topology.kubernetes.io/zone": format!("zone-{}", number % 2)}},
                "spec": {},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": addresses(number).map(|address| {
                        json!({"type": "InternalIP", "address": address})
                    }),
                },
            }),
        );
        let directory = tempfile::tempdir().expect("directory");
        let mut options =
            NetworkOptions::new(format!("node-{number}"), directory.path().join("network"));
        let net = |text: &str| text.parse().expect("network");
        options.pod_networks =
            vec![net(&format!("10.244.{number}.0/24")), net(&format!("fd00:10:244:{number}::/64"))];
        options.cluster_networks = vec![net("10.244.0.0/16"), net("fd00:10:244::/48")];
        options.service_networks = vec![net("10.96.0.0/12"), net("fd00:10:96::/112")];
        options.node_addresses = addresses(number).into();
        let servers = addresses(number).map(|address| {
            let listener = namespace.run(move || TcpListener::bind((address, 8080)).expect("bind"));
            Server::start(listener, format!("node-{number}"))
        });
        let api = segment.api.clone();
        let running = namespace.run(move || {
            skiff_network::setup(&options).expect("setup");
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("runtime");
            let stop = CancellationToken::new();
            let guard = runtime.enter();
            let caches = Caches::new(api.client(), stop.clone());
            let announcer = Announcer::new(options.node_name.clone(), caches.clone());
            let proxy = Proxy::new(options, caches);
            let stopped = stop.clone();
            let task = runtime.spawn(async move {
                let (end, ()) =
                    tokio::join!(proxy.run(stopped.clone()), announcer.run(stopped.clone()));
                end.expect("proxy");
            });
            drop(guard);
            (runtime, stop, task)
        });
        let (_directory, _servers) = (directory, servers.into());
        Self { number, namespace, _directory, _servers, running: Some(running) }
    }

    /// Ends what runs here in good order.
    fn stop(&mut self) {
        if let Some((runtime, stop, task)) = self.running.take() {
            stop.cancel();
            runtime.block_on(task).expect("ends");
        }
    }

    /// Ends it at once, with its link.
    fn die(&mut self) {
        self.namespace.run(|| ip("link set eth0 down"));
        if let Some((runtime, ..)) = self.running.take() {
            runtime.shutdown_background();
        }
    }

    fn has(&self, address: &str) -> bool {
        let listed = self.namespace.run(|| {
            let output = std::process::Command::new("ip").args(["addr", "show", "eth0"]).output();
            String::from_utf8_lossy(&output.expect("run ip").stdout).into_owned()
        });
        listed.contains(&format!(" {address}/"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

struct World3 {
    segment: Segment,
    machines: Vec<Machine>,
    outside: Namespace,
}

impl World3 {
    fn new() -> Self {
        let segment = Segment::new();
        let outside = Namespace::new();
        segment.plug(&outside, 150);
        let machines = (1..=3).map(|number| Machine::new(&segment, number)).collect();
        Self { segment, machines, outside }
    }

    fn api(&self) -> &Arc<Fake> {
        &self.segment.api
    }

    fn ask(&self, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().expect("address");
        self.outside.run(move || ask(to))
    }

    /// Waits until an answer from outside is as `condition` wants it.
    fn until(&self, to: &str, condition: impl Fn(&io::Result<String>) -> bool) {
        let address: SocketAddr = to.parse().expect("address");
        until(to, || condition(&self.outside.run(move || ask_soon(address))));
    }
}

/// Like `ask`, for those that may get no answer.
fn ask_soon(to: SocketAddr) -> io::Result<String> {
    let quick = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    drop(quick);
    ask(to)
}

/// A Service of all three ways in, and both families.
fn put_service(api: &Fake, more: Value) {
    let mut spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.20",
        "clusterIPs": ["10.96.0.20", "fd00:10:96::20"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080}],
    });
    spec.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    api.put(
        "services",
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web", "uid": "web",
                "annotations": {"skiff.dev/announce-addresses": "true"}},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.200", "ipMode": "VIP"}, {"ip": "2001:db8::200", "ipMode": "VIP"},
            ]}},
        }),
    );
}

/// Endpoints on the machines with these numbers, hinted for their zones if asked for.
fn put_slices(api: &Fake, numbers: &[usize], hinted: bool) {
    for (family, kind) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let endpoints: Vec<Value> = numbers
            .iter()
            .map(|number| {
                let zone = format!("zone-{}", number % 2);
                json!({
                    "addresses": [addresses(*number)[family]], "nodeName": format!("node-{number}"),
                    "conditions": {"ready": true}, "zone": zone,
                    "hints": if hinted { json!({"forZones": [{"name": zone}]}) } else { json!(null) },
                })
            })
            .collect();
        api.put(
            "endpointslices",
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"namespace": "shop", "name": format!("web-{kind}"), "uid": kind,
                    "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": kind, "endpoints": endpoints,
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            }),
        );
    }
}

const BALANCED: [&str; 2] = ["192.0.2.200:80", "[2001:db8::200]:80"];

/// Every way in from outside, over both families; sources are kept where they can be.
pub(crate) fn ways_in_from_outside(_: &World) {
    let world = World3::new();
    put_service(world.api(), json!({}));
    put_slices(world.api(), &[1], false);
    for to in BALANCED {
        world.until(to, Result::is_ok);
    }
    for number in 1..=3 {
        for (to, own, seen_from_one) in [
            (format!("192.0.2.{number}:30080"), format!("192.0.2.{number}"), "192.0.2.150"),
            (format!("[2001:db8::{number}]:30080"), format!("2001:db8::{number}"), "2001:db8::150"),
        ] {
            world.until(&to, Result::is_ok);
            let greeting = world.ask(&to).expect("answer");
            assert_eq!(name(&greeting), "node-1");
            // Only what goes on to another machine is masqueraded.
            let expected = if number == 1 { seen_from_one } else { own.as_str() };
            assert_eq!(peer(&greeting), expected, "{to}");
        }
    }
    // Nodes themselves reach it every way.
    for to in ["192.0.2.200:80", "[2001:db8::200]:80", "10.96.0.20:80", "[fd00:10:96::20]:80"] {
        let address: SocketAddr = to.parse().expect("address");
        for machine in &world.machines {
            let answer = machine.namespace.run(move || ask(address));
            assert!(answer.is_ok(), "node-{} to {to}: {answer:?}", machine.number);
        }
    }
    // Sources that are not listed are kept out of the balanced address alone.
    put_service(world.api(), json!({"loadBalancerSourceRanges": ["203.0.113.0/24"]}));
    world.until(BALANCED[0], Result::is_err);
    assert!(world.ask("192.0.2.1:30080").is_ok());
    put_service(
        world.api(),
        json!({"loadBalancerSourceRanges": ["203.0.113.0/24", "192.0.2.150/32"]}),
    );
    world.until(BALANCED[0], Result::is_ok);
}

/// With policy Local only machines with endpoints answer, and say so to those who ask.
pub(crate) fn local_policy(_: &World) {
    let world = World3::new();
    put_service(
        world.api(),
        json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30999}),
    );
    put_slices(world.api(), &[2], false);
    world.until("192.0.2.2:30080", Result::is_ok);
    world.until("192.0.2.1:30080", Result::is_err);
    for to in ["192.0.2.2:30080", "[2001:db8::2]:30080"].into_iter().chain(BALANCED) {
        world.until(to, Result::is_ok);
        let greeting = world.ask(to).expect("answer");
        assert_eq!(name(&greeting), "node-2");
        assert!(["192.0.2.150", "2001:db8::150"].contains(&peer(&greeting)), "{greeting}");
    }
    assert!(world.machines[1].has("192.0.2.200"), "only there are endpoints");
    let status = |number: usize, port: u16| {
        let to = SocketAddr::new(addresses(number)[0], port);
        world.outside.run(move || get(to, "/healthz"))
    };
    until("healthy", || status(2, 30999).is_ok_and(|text| text.starts_with("HTTP/1.1 200")));
    let answer = status(2, 30999).expect("answer");
    assert!(answer.contains("\"localEndpoints\": 1"), "{answer}");
    until("not healthy", || {
        status(1, 30999).is_ok_and(|answer| {
            answer.starts_with("HTTP/1.1 503") && answer.contains("\"localEndpoints\": 0")
        })
    });
    assert!(status(1, 10256).is_err(), "nobody asks about the node");
    put_slices(world.api(), &[1], false);
    world.until("192.0.2.1:30080", Result::is_ok);
    until("the address moves", || world.machines[0].has("192.0.2.200"));
    for to in BALANCED {
        world.until(to, |answer| answer.as_ref().is_ok_and(|text| name(text) == "node-1"));
    }
    // Without policy Local one port answers for the node.
    put_service(world.api(), json!({}));
    until("the node's", || status(1, 10256).is_ok_and(|text| text.starts_with("HTTP/1.1 200")));
    until("closed", || status(1, 30999).is_err());
}

fn get(to: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Traffic keeps to the zone that endpoints are hinted for.
pub(crate) fn hints(_: &World) {
    let world = World3::new();
    put_service(world.api(), json!({}));
    put_slices(world.api(), &[1, 2], true);
    let asked = |number: usize| {
        let to: SocketAddr = "10.96.0.20:80".parse().expect("address");
        world.machines[number - 1].namespace.run(move || ask(to))
    };
    let names = |number: usize| -> std::collections::BTreeSet<String> {
        (0..20).filter_map(|_| Some(name(&asked(number).ok()?).to_owned())).collect()
    };
    until("node-3 keeps to node-1", || names(3) == ["node-1".to_owned()].into());
    until("node-2 keeps to itself", || names(2) == ["node-2".to_owned()].into());
    put_slices(world.api(), &[1, 2], false);
    until("without hints all are asked", || names(3).len() == 2);
}

/// A balanced address is on one machine; when that dies, another has it.
pub(crate) fn failover(_: &World) {
    let mut world = World3::new();
    put_service(world.api(), json!({}));
    put_slices(world.api(), &[1, 2, 3], false);
    for to in BALANCED {
        world.until(to, Result::is_ok);
    }
    let holders = |world: &World3| -> Vec<usize> {
        let has = |machine: &&Machine| machine.running.is_some() && machine.has("192.0.2.200");
        world.machines.iter().filter(has).map(|machine| machine.number).collect()
    };
    let first = holders(&world);
    assert_eq!(first.len(), 1, "one machine has the address: {first:?}");
    // The endpoints stay on machines that live.
    let living: Vec<usize> = (1..=3).filter(|number| *number != first[0]).collect();
    put_slices(world.api(), &living, false);
    world.until(BALANCED[0], |answer| {
        answer.as_ref().is_ok_and(|text| name(text) != format!("node-{}", first[0]))
    });

    world.machines[first[0] - 1].die();
    let began = Instant::now();
    world.until(BALANCED[0], Result::is_ok);
    println!("  a dead machine's address answers after {:.1?}", began.elapsed());
    let second = holders(&world);
    assert!(second.len() == 1 && second != first, "{second:?}");

    // In good order, nobody waits.
    let last = living.iter().copied().find(|number| *number != second[0]).expect("one is left");
    put_slices(world.api(), &[last], false);
    world.until(BALANCED[0], |answer| {
        answer.as_ref().is_ok_and(|text| name(text) == format!("node-{last}"))
    });
    world.machines[second[0] - 1].stop();
    assert!(!world.machines[second[0] - 1].has("192.0.2.200"), "withdrawn");
    let began = Instant::now();
    until("the last has it", || holders(&world) == [last]);
    println!("  one handed over is there after {:.1?}", began.elapsed());
    world.until(BALANCED[0], Result::is_ok);
}
