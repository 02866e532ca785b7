//! Pods of several machines: over VXLAN and over plain routes, in both families, while nodes come
//! and go and somebody else meddles.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
};

use serde_json::json;
use skiff_network::Backend;

use crate::{
    machines::{Guest, Machine, Segment, Setup, listen, until},
    world::{Namespace, Node, name, open, peer},
};

const VXLAN: Backend = Backend::Vxlan { id: 1, port: 8472 };
/// More than any window or queue holds.
const BULK: usize = 4 << 20;

/// Sends much to a pod's echo server and counts what comes back.
fn transfer(from: &Guest, to: IpAddr) {
    let to = SocketAddr::new(to, 80);
    from.namespace.run(move || {
        let (mut stream, _) = open(to).expect("connect");
        let mut writer = stream.try_clone().expect("clone");
        let writing = std::thread::spawn(move || {
            writer.write_all(&vec![7; BULK]).expect("write");
        });
        let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
        while received < BULK {
            let length = stream.read(&mut buffer).expect("read");
            assert!(length > 0, "the connection ended after {received} bytes");
            received += length;
        }
        writing.join().expect("writer");
    });
}

/// Everything from everywhere: pods, nodes, and who is neither.
fn reachability(setup: &Setup) {
    let segment = Segment::new();
    let machines: Vec<Machine> = (1..=3).map(|n| Machine::new(&segment, n, setup)).collect();
    let pods: Vec<Guest> = machines.iter().map(|machine| machine.pod(&machine.name)).collect();
    let _servers: Vec<_> = pods.iter().map(|pod| pod.listen(80)).collect();
    let _on_nodes: Vec<_> =
        machines.iter().map(|machine| listen(&machine.namespace, &machine.name, 81)).collect();
    let stranger = Namespace::new();
    segment.plug(&stranger, 9);
    let _outside = listen(&stranger, "stranger", 82);
    for (index, pod) in pods.iter().enumerate() {
        assert_eq!(pod.addresses.len(), setup.clusters.len());
        for other in &pods {
            for (own, address) in pod.addresses.iter().zip(&other.addresses) {
                until("pods reach each other", || pod.ask(*address, 80).is_ok());
                let greeting = pod.ask(*address, 80).expect("pod to pod");
                let own = own.to_string();
                assert_eq!((name(&greeting), peer(&greeting)), (other.name.as_str(), own.as_str()));
                transfer(pod, *address);
            }
        }
        for (at, machine) in machines.iter().enumerate() {
            for address in &machine.addresses {
                let own = pod.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4());
                let Some(own) = own else { continue };
                let greeting = pod.ask(*address, 81).expect("pod to node");
                assert_eq!(peer(&greeting), own.to_string(), "{} to {}", pod.name, machine.name);
            }
            // The node itself is seen as the gateway of its own pods.
            for address in &pod.addresses {
                let to = SocketAddr::new(*address, 80);
                let greeting =
                    machine.namespace.run(move || crate::world::ask(to)).expect("node to pod");
                let gateways = machine.options.gateways();
                let seen: IpAddr = peer(&greeting).parse().expect("address");
                assert!(gateways.contains(&seen), "{} of {at} to {index}: {seen}", machine.name);
            }
        }
        for address in ["192.0.2.9", "2001:db8::9"] {
            let address: IpAddr = address.parse().expect("address");
            if !pod.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4()) {
                continue;
            }
            let greeting = pod.ask(address, 82).expect("pod to outside");
            let seen: IpAddr = peer(&greeting).parse().expect("address");
            assert!(machines[index].addresses.contains(&seen), "masqueraded: {greeting}");
        }
    }
}

pub(crate) fn vxlan(_: &Node) {
    reachability(&Setup::new(VXLAN));
}

pub(crate) fn vxlan_over_ipv6(_: &Node) {
    let clusters = vec!["fd00:10:244::/48"];
    reachability(&Setup { v6_underlay: true, clusters, ..Setup::new(VXLAN) });
}

pub(crate) fn host_gateway(_: &Node) {
    reachability(&Setup::new(Backend::HostGateway));
}

pub(crate) fn host_ports_of_both_families(_: &Node) {
    let segment = Segment::new();
    let machines: Vec<Machine> =
        (1..=2).map(|n| Machine::new(&segment, n, &Setup::new(VXLAN))).collect();
    let port = |host: u16, ip: &str| json!({"hostPort": host, "containerPort": 80, "protocol": "tcp", "hostIP": ip});
    let mappings = json!({"runtimeConfig": {"portMappings": [
        port(8088, ""), port(8089, "2001:db8::1"), port(8090, "192.0.2.1"),
    ]}});
    let pod = machines[0].pod_with("ports", mappings);
    let _server = pod.listen(80);
    let far = machines[1].pod("far");
    let stranger = Namespace::new();
    segment.plug(&stranger, 9);
    let from_outside = |address: IpAddr, port: u16| {
        let to = SocketAddr::new(address, port);
        stranger.run(move || crate::world::ask(to).map_err(|error| error.to_string()))
    };
    for address in &machines[0].addresses {
        let greeting = from_outside(*address, 8088).expect("from outside");
        assert!(["192.0.2.9", "2001:db8::9"].contains(&peer(&greeting)), "{greeting}");
        let only = if address.is_ipv6() { (8089, 8090) } else { (8090, 8089) };
        from_outside(*address, only.0).expect("on this address");
        from_outside(*address, only.1).expect_err("on the other address only");
        until("a pod of another node", || far.ask(*address, 8088).is_ok());
        assert_eq!(name(&pod.ask(*address, 8088).expect("itself")), "ports");
    }
}

/// Whether all of `pod`'s families reach `other`.
fn reaches(pod: &Guest, other: &Guest) -> bool {
    other.addresses.iter().all(|address| pod.reaches(*address, 80))
}

pub(crate) fn what_others_remove_is_repaired(_: &Node) {
    let segment = Segment::new();
    let machines: Vec<Machine> =
        (1..=2).map(|n| Machine::new(&segment, n, &Setup::new(VXLAN))).collect();
    let (one, two) = (machines[0].pod("one"), machines[1].pod("two"));
    let _server = two.listen(80);
    until("pods reach each other", || reaches(&one, &two));
    let [first, _] = machines.as_slice() else { panic!("two machines") };
    let state = || {
        [
            "route show table all",
            "-6 route show table all",
            "neigh show dev skiff.1 nud permanent",
            "-6 neigh show dev skiff.1 nud permanent",
            "rule show",
            "addr show dev skiff.1",
            "addr show dev skiff0",
        ]
        .map(|what| {
            let text = first.output("ip", what);
            let mut lines: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("244") || line.contains("192.0.2.2"))
                .map(str::trim)
                .collect();
            lines.sort_unstable();
            lines.join("\n")
        })
        .join("\n")
            + &first.output("bridge", "fdb show dev skiff.1")
    };
    let whole = state();
    assert!(whole.contains("10.244.2.0/24") && whole.contains("dst 192.0.2.2"), "{whole}");
    for meddling in [
        "route del 10.244.2.0/24",
        "-6 route del fd00:10:244:2::/64",
        "route replace 10.244.2.0/24 via 192.0.2.150 dev eth0",
        "neigh del 10.244.2.1 dev skiff.1",
        "rule del priority 5000",
        "-6 rule del priority 5000",
        "addr del 10.244.1.1/24 dev skiff0",
        "addr flush dev skiff.1",
        "link set skiff.1 down",
        "link set skiff0 down",
        "link del skiff.1",
    ] {
        first.ip(meddling);
        until(meddling, || state() == whole);
        until(meddling, || reaches(&one, &two));
    }
    let forgotten = first.output("bridge", "fdb show dev skiff.1");
    let hardware = forgotten.split_whitespace().next().expect("an entry").to_owned();
    first.output("bridge", &format!("fdb del {hardware} dev skiff.1"));
    until("forwarding entries come back", || state() == whole && reaches(&one, &two));
}

pub(crate) fn nodes_come_and_go(_: &Node) {
    let segment = Segment::new();
    let setup = Setup::new(VXLAN);
    let first = Machine::new(&segment, 1, &setup);
    let second = Machine::new(&segment, 2, &setup);
    let one = first.pod("one");
    {
        let two = second.pod("two");
        let _server = two.listen(80);
        until("pods reach each other", || reaches(&one, &two));
    }
    let (gone, name) = (second.addresses[0], second.name.clone());
    drop(second);
    segment.remove_node(&name);
    let entries = || {
        first.output("ip", "route show table all") + &first.output("bridge", "fdb show dev skiff.1")
    };
    let leads_to = |address: IpAddr| {
        entries().split_whitespace().any(|word| word.trim_end_matches("/32") == address.to_string())
    };
    until("nothing leads to a node that left", || !leads_to(gone));
    assert!(!entries().contains("10.244.2.0"), "{}", entries());

    // Another takes its range, and both are there for a moment.
    let third = Machine::taking(&segment, 3, 2, &setup);
    let three = third.pod("three");
    let _server = three.listen(80);
    assert!(three.addresses[0].to_string().starts_with("10.244.2."));
    until("a new node's pods are reached", || reaches(&one, &three));
    segment.put_node(&name, &[gone], &third.options.pod_networks);
    until("the last to claim a range has it", || entries().contains(&format!("dst {gone}")));
    segment.remove_node(&name);
    segment.put_node(&third.name, &third.addresses[..1], &third.options.pod_networks);
    until("and gives it back", || reaches(&one, &three));

    // What would lead astray is not set.
    let foreign =
        ["0.0.0.0/0", "10.244.1.0/24", "10.9.0.0/24"].map(|net| net.parse().expect("net"));
    for network in foreign {
        segment.put_node("node-bad", &["192.0.2.66".parse().expect("address")], &[network]);
    }
    segment.put_node(
        "node-last",
        &["192.0.2.77".parse().expect("address")],
        &["10.244.77.0/24".parse().expect("net")],
    );
    until("later nodes are set", || entries().contains("192.0.2.77"));
    assert!(!entries().contains("192.0.2.66"), "{}", entries());
}

pub(crate) fn a_start_without_a_server(_: &Node) {
    let segment = Segment::new();
    let setup = Setup::new(VXLAN);
    let mut first = Machine::new(&segment, 1, &setup);
    let second = Machine::new(&segment, 2, &setup);
    let (one, two) = (first.pod("one"), second.pod("two"));
    let _server = two.listen(80);
    until("pods reach each other", || reaches(&one, &two));
    first.stop();
    first.ip("link del skiff.1");
    assert!(!reaches(&one, &two));
    first.start(|| {
        client::in_process(tower::service_fn(|_: http::Request<kube::client::Body>| nobody()), ())
    });
    until("the way is known without a server", || reaches(&one, &two));
}

/// A server that never answers.
async fn nobody() -> Result<http::Response<kube::client::Body>, std::convert::Infallible> {
    std::future::pending().await
}

pub(crate) fn packet_sizes_follow(_: &Node) {
    let segment = Segment::new();
    let first = Machine::new(&segment, 1, &Setup::new(VXLAN));
    let mtu = |namespace: &Namespace, device: &str| {
        let device = device.to_owned();
        namespace.run(move || {
            let output = std::process::Command::new("ip")
                .args(["-o", "link", "show", "dev", &device])
                .output()
                .expect("ip");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut words = text.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
            words.next().expect("mtu").parse::<u32>().expect("number")
        })
    };
    let before = first.pod("before");
    assert_eq!(mtu(&before.namespace, "eth0"), 1450);
    first.ip("link set eth0 mtu 1400");
    until("the underlay's packet size is followed", || {
        mtu(&first.namespace, "skiff.1") == 1350 && mtu(&first.namespace, "skiff0") == 1350
    });
    assert_eq!(mtu(&first.pod("after").namespace, "eth0"), 1350);

    let mut options = first.options.clone();
    options.mtu = Some(1400);
    let error = first.namespace.run(move || skiff_network::setup(&options)).expect_err("too large");
    assert!(error.to_string().contains("eth0 carries 1400"), "{error}");
}

pub(crate) fn nothing_is_left(_: &Node) {
    let segment = Segment::new();
    let mut first = Machine::new(&segment, 1, &Setup::new(VXLAN));
    let _second = Machine::new(&segment, 2, &Setup::new(VXLAN));
    until("a route is set", || first.output("ip", "route").contains("10.244.2.0/24"));
    first.stop();
    let options = first.options.clone();
    first.namespace.run(move || skiff_network::cleanup(&options).expect("cleanup"));
    let left = first.output("ip", "-o link")
        + &first.output("ip", "route show table all")
        + &first.output("ip", "-6 route show table all")
        + &first.output("ip", "rule show")
        + &first.output("ip", "-6 rule show");
    assert!(
        !left.contains("skiff") && !left.contains("10.244") && !left.contains("5000:"),
        "{left}"
    );
}
