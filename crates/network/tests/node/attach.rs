//! Attaching pods and letting them go.

use std::{
    io::{Read, Write},
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use serde_json::json;

use crate::world::{Namespace, Node, Pod, ask, ask_udp, name, peer};

pub(crate) fn add_check_del(node: &Node) {
    let pod = Pod::start(node, "add-check-del");
    assert_eq!(pod.result["cniVersion"], "1.0.0");
    assert_eq!(pod.result["ips"][0]["gateway"], "10.244.0.1");
    assert_eq!(pod.result["ips"][0]["interface"], 2);
    assert_eq!(pod.result["interfaces"][2]["name"], "eth0");
    assert_eq!(pod.result["interfaces"][2]["sandbox"], pod.namespace.path.as_str());
    let previous = json!({"prevResult": pod.result});
    node.cni("CHECK", &pod.name, &pod.namespace.path, previous.clone()).expect("CHECK");

    let versions = node.cni("VERSION", "", "", json!({})).expect("VERSION");
    let supported = versions["supportedVersions"].as_array().expect("versions");
    assert!(supported.contains(&json!("0.4.0")) && supported.contains(&json!("1.0.0")));
    node.cni("STATUS", "", "", json!({"cniVersion": "1.1.0"})).expect("STATUS");

    let old = Pod::start_with(node, "old", json!({"cniVersion": "0.4.0"}));
    assert_eq!(old.result["ips"][0]["version"], "4");
    assert_ne!(old.address, pod.address);

    pod.namespace.run(|| crate::world::ip("addr flush dev eth0"));
    let error = node.cni("CHECK", &pod.name, &pod.namespace.path, previous).expect_err("CHECK");
    assert_eq!(error["code"], 101, "{error}");

    let before = node.leases();
    let again = (pod.name.clone(), pod.namespace.path.clone());
    pod.stop(node);
    assert_eq!(node.leases(), before - 1);
    node.cni("DEL", &again.0, &again.1, json!({})).expect("DEL again");
    node.cni("DEL", "never-seen", "", json!({})).expect("DEL of nothing");

    let garbage = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
    node.cni("GC", "", "", garbage).expect("GC");
    assert_eq!(node.leases(), 0);
    drop(old);
}

pub(crate) fn errors_are_reported(node: &Node) {
    let namespace = Namespace::new();
    let code = |command: &str, netns: &str, more| {
        node.cni(command, "bad", netns, more).expect_err("an error")["code"].clone()
    };
    assert_eq!(code("ADD", &namespace.path, json!({"cniVersion": "9.9.9"})), 1);
    assert_eq!(code("ADD", "/nonexistent", json!({})), 4);
    assert_eq!(code("FLY", &namespace.path, json!({})), 4);
    assert_eq!(code("ADD", &namespace.path, json!({"podNetworks": 7})), 6);
    assert_eq!(code("ADD", &namespace.path, json!({"podNetworks": []})), 7);
    assert_eq!(code("ADD", &namespace.path, json!({"bridge": "nobridge0"})), 11);
    assert_eq!(node.leases(), 0, "a failed ADD keeps no address");
}

pub(crate) fn pods_talk_through_the_node(node: &Node) {
    let (one, two) = (Pod::start(node, "one"), Pod::start(node, "two"));
    let _server = two.listen(8080);
    let greeting = one.ask(&format!("{}:8080", two.address)).expect("pod to pod");
    assert_eq!((name(&greeting), peer(&greeting)), ("two", one.address.to_string().as_str()));
    let itself = two.ask("127.0.0.1:8080").expect("loopback is up");
    assert_eq!(peer(&itself), "127.0.0.1");

    let from_node = ask(SocketAddr::new(two.address.into(), 8080)).expect("node to pod");
    assert_eq!(peer(&from_node), "10.244.0.1");

    // What leaves the cluster leaves under the node's address.
    let outside = node.outside.run(|| UdpSocket::bind("192.0.2.9:9000").expect("bind"));
    let sender = one.namespace.run(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
    sender.send_to(b"hello", "192.0.2.9:9000").expect("send");
    let mut buffer = [0; 16];
    outside.set_read_timeout(Some(crate::world::PATIENCE)).expect("timeout");
    let (_, from) = outside.recv_from(&mut buffer).expect("arrives");
    assert_eq!(from.ip().to_string(), "192.0.2.1");

    one.stop(node);
    two.stop(node);
}

pub(crate) fn many_at_once(node: &Node) {
    const PODS: usize = 30;
    let namespaces: Vec<Namespace> = (0..PODS).map(|_| Namespace::new()).collect();
    let began = Instant::now();
    let addresses: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = namespaces
            .iter()
            .enumerate()
            .map(|(index, namespace)| {
                scope.spawn(move || {
                    let name = format!("many-{index}");
                    let result = node.cni("ADD", &name, &namespace.path, json!({})).expect("ADD");
                    result["ips"][0]["address"].as_str().expect("address").to_owned()
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("thread")).collect()
    });
    println!("  {PODS} attached in {:.1?}", began.elapsed());
    assert_eq!(addresses.len(), PODS, "no address twice");
    let began = Instant::now();
    for (index, namespace) in namespaces.iter().enumerate() {
        node.cni("DEL", &format!("many-{index}"), &namespace.path, json!({})).expect("DEL");
    }
    println!("  detached in {:.1?} each", began.elapsed() / PODS as u32);
    assert_eq!(node.leases(), 0);
    let began = Instant::now();
    let pod = Pod::start(node, "alone");
    println!("  one attached in {:.1?}", began.elapsed());
    pod.stop(node);
}

pub(crate) fn host_ports(node: &Node) {
    let mappings = json!({"runtimeConfig": {"portMappings": [
        {"hostPort": 8088, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
        {"hostPort": 8089, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
    ]}});
    let pod = Pod::start_with(node, "host-ports", mappings);
    let other = Pod::start(node, "host-ports-client");
    let _server = pod.listen(80);
    let stop = pod.listen_udp(53);
    for address in ["192.0.2.1:8088", "127.0.0.1:8088", "127.0.0.1:8089"] {
        let greeting = ask(address.parse().expect("address")).expect(address);
        assert_eq!(name(&greeting), "host-ports");
    }
    let from_outside =
        node.outside.run(|| ask("192.0.2.1:8088".parse().expect("address"))).expect("outside");
    assert_eq!(peer(&from_outside), "192.0.2.9", "host ports keep the client's address");
    node.outside
        .run(|| ask("192.0.2.1:8089".parse().expect("address")))
        .expect_err("only on 127.0.0.1");
    assert_eq!(name(&other.ask("192.0.2.1:8088").expect("pod")), "host-ports");
    assert_eq!(name(&pod.ask("192.0.2.1:8088").expect("itself")), "host-ports");
    let socket = node.outside.run(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
    assert_eq!(ask_udp(&socket, "192.0.2.1:8053").expect("UDP"), "host-ports");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    pod.stop(node);
    other.stop(node);
    assert!(!node.nft().contains("8088"), "host ports are closed");
    ask("192.0.2.1:8088".parse().expect("address")).expect_err("closed");
}

pub(crate) fn bandwidth(node: &Node) {
    let rates = json!({"runtimeConfig": {"bandwidth": {
        "ingressRate": 8_000_000, "ingressBurst": 4_294_967_295_u64,
        "egressRate": 16_000_000, "egressBurst": 4_294_967_295_u64,
    }}});
    let pod = Pod::start_with(node, "slow", rates);
    let queue = |device: String| {
        let output =
            std::process::Command::new("tc").args(["qdisc", "show", "dev", &device]).output();
        String::from_utf8_lossy(&output.expect("run tc").stdout).into_owned()
    };
    let host = pod.result["interfaces"][1]["name"].as_str().expect("device").to_owned();
    let (to, from) = (queue(host), pod.namespace.run(move || queue("eth0".to_owned())));
    assert!(to.contains("tbf") && to.contains("rate 8Mbit"), "{to}");
    assert!(from.contains("tbf") && from.contains("rate 16Mbit"), "{from}");
    let _server = pod.listen(80);
    let to = SocketAddr::new(pod.address.into(), 80);
    // Three times what is let through at once takes its time, and arrives.
    let began = Instant::now();
    let (mut stream, _) = crate::world::open(to).expect("connect");
    let mut left = 3 * 65_536;
    while left > 0 {
        stream.write_all(&[7; 4096]).expect("write");
        let mut buffer = [0; 4096];
        stream.read_exact(&mut buffer).expect("read");
        left -= buffer.len();
    }
    println!("  192 kB each way in {:.1?}", began.elapsed());
    pod.stop(node);
}

pub(crate) fn lost_namespaces(node: &Node) {
    let pod = Pod::start(node, "lost");
    drop(pod);
    assert_eq!(node.leases(), 1);
    skiff_network::setup(&node.options).expect("setup");
    assert_eq!(node.leases(), 0, "taken back at the next start");
}

pub(crate) fn cleanup_leaves_nothing(node: &Node) {
    let pod = Pod::start(node, "left");
    skiff_network::cleanup(&node.options).expect("cleanup");
    skiff_network::cleanup(&node.options).expect("cleanup again");
    assert!(!node.nft().contains("table inet skiff"));
    let links = std::process::Command::new("ip").args(["-o", "link"]).output().expect("run ip");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(
        !links.contains("skiff0") && !links.contains("sk0") && !links.contains("veth"),
        "{links}"
    );
    assert!(!node.options.data_dir.exists());
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read");
    assert_eq!(forward.trim(), "0", "as it was before");
    drop(pod);
}
