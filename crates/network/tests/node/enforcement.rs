//! Network policies at work on connections and pods: what is cut, what never speaks, what always passes.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    machines::{Guest, until},
    policies::{Cluster, Enforcer, PATIENCE, WINDOW},
    world::{self, Node, SILENCE, ask_within, open},
};

/// Sends on an open connection and says whether the echo comes back, which it is given time for
/// where it should.
fn echoes(stream: &mut std::net::TcpStream, should: bool) -> bool {
    let patience = if should { world::PATIENCE } else { WINDOW };
    stream.set_read_timeout(Some(patience)).expect("timeout");
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok()
}

pub(crate) fn connections_are_cut(_: &Node) {
    let cluster = Cluster::new(2);
    cluster.namespace("x", &json!({}));
    let server = cluster.pod("x", "server", 0, &json!({"role": "server"}));
    let guests = [
        cluster.pod("x", "near", 0, &json!({"role": "client"})),
        cluster.pod("x", "far", 1, &json!({"role": "client"})),
        cluster.pod("x", "friend", 1, &json!({"role": "friend"})),
    ];
    let _echo = server.listen(7);
    let mut streams: Vec<_> = Vec::new();
    for guest in &guests {
        for address in server.addresses.clone() {
            until("the server answers", || guest.ask(address, 7).is_ok());
            let to = SocketAddr::new(address, 7);
            streams.push((guest, guest.namespace.run(move || open(to).expect("open").0)));
        }
    }
    for (guest, stream) in &mut streams {
        assert!(echoes(stream, true), "{} before", guest.name);
    }
    let rule = |role: &str| {
        json!({"podSelector": {"matchLabels": {"role": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": role}}}]}]})
    };
    cluster.policy("x", "p", &rule("friend"));
    for (guest, stream) in &mut streams {
        if guest.name == "friend" {
            assert!(echoes(stream, true), "{} is let through", guest.name);
        } else {
            until("the connection is cut", || !echoes(stream, false));
        }
    }
    // Those that are cut learn it, and may not come back by the server's speaking first.
    for (guest, stream) in &mut streams {
        if guest.name != "friend" {
            assert!(!echoes(stream, false), "{} stays cut", guest.name);
            assert!(!guest.reaches(server.addresses[0], 7), "no new connection");
        }
    }
    // A policy part that starts anew, and rules that somebody removed, change nothing of it.
    let mut cluster = cluster;
    cluster.enforcers.clear();
    for machine in &cluster.machines {
        cluster.enforcers.push(Enforcer::start(machine, &cluster.segment.api));
    }
    cluster.machines[0].output("nft", "flush ruleset");
    until("the rules are back", || {
        cluster.machines[0].output("nft", "list ruleset").contains("hook forward priority")
    });
    for (guest, stream) in &mut streams {
        let friend = guest.name == "friend";
        assert_eq!(echoes(stream, friend), friend, "{}", guest.name);
    }
    // Replies are part of what is allowed: a server that may open nothing answers.
    cluster.policy(
        "x",
        "q",
        &json!({"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"role": "server"}}}]}]}),
    );
    until("the friend still comes in", || guests[2].ask(server.addresses[0], 7).is_ok());
}

/// A pod that speaks from before it has a network, under a policy that forbids it.
pub(crate) fn never_unpoliced(_: &Node) {
    const ATTEMPTS: usize = 12;
    let cluster = Cluster::new(1);
    cluster.namespace("x", &json!({}));
    cluster.namespace("y", &json!({}));
    let ear = cluster.pod("y", "ear", 0, &json!({}));
    let heard = Arc::new(AtomicUsize::new(0));
    // How often nothing was there to be heard.
    let silence = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let listening = {
        let (heard, silence, stop) = (heard.clone(), silence.clone(), stop.clone());
        let socket = ear.namespace.run(|| UdpSocket::bind(("::", 9)).expect("bind"));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let count = if socket.recv_from(&mut [0; 8]).is_ok() { &heard } else { &silence };
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let to = SocketAddr::new(ear.addresses[0], 9);
    let speak = |name: &str| {
        let before = heard.load(Ordering::Relaxed);
        cluster.put_pod("x", name, 0, &json!({}), &[]);
        let began = Instant::now();
        let (guest, sent) = cluster.machines[0].pod_that("x", name, move |sent, stop| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            while !stop.load(Ordering::Relaxed) {
                sent.fetch_add(socket.send_to(b"hello", to).is_ok().into(), Ordering::Relaxed);
            }
        });
        println!("  {name}: attached in {:.1?}, {sent} datagrams", began.elapsed());
        let quiet = silence.load(Ordering::Relaxed);
        until("all that was said is heard", || silence.load(Ordering::Relaxed) > quiet);
        (guest, heard.load(Ordering::Relaxed) - before)
    };
    let _free = speak("free");
    until("what may be heard is heard", || heard.load(Ordering::Relaxed) > 0);
    cluster.policy("x", "deny", &json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    until("the policy is known", || {
        cluster.machines[0].output("nft", "list ruleset").contains("vmap @egress4")
    });
    for n in 0..ATTEMPTS {
        let (_guest, count) = speak(&format!("mute-{n}"));
        assert_eq!(count, 0, "mute-{n} was heard");
    }
    stop.store(true, Ordering::Relaxed);
    listening.join().expect("listener");
    // Without a policy part no pod starts.
    let mut cluster = cluster;
    cluster.enforcers.clear();
    let error = cluster.machines[0].attach_error("x", "late");
    assert_eq!(error["code"], 11, "{error}");
}

pub(crate) fn the_node_passes(_: &Node) {
    let cluster = Cluster::new(2);
    cluster.namespace("x", &json!({}));
    let pod = cluster.pod("x", "pod", 0, &json!({}));
    let _server = pod.listen(80);
    let _on_nodes: Vec<_> = cluster
        .machines
        .iter()
        .map(|machine| crate::machines::listen(&machine.namespace, &machine.name, 81))
        .collect();
    let probe = |at: usize, to: IpAddr| {
        let to = SocketAddr::new(to, 80);
        cluster.machines[at].namespace.run(move || ask_within(to, SILENCE).is_ok())
    };
    for address in pod.addresses.clone() {
        until("both nodes reach the pod", || probe(0, address) && probe(1, address));
    }
    cluster.policy("x", "deny", &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    for (family, address) in pod.addresses.clone().into_iter().enumerate() {
        until("the other node is kept out", || !probe(1, address));
        until("the kubelet's probes pass", || probe(0, address));
        let nodes: Vec<IpAddr> =
            cluster.machines.iter().map(|machine| machine.addresses[family]).collect();
        pod.ask(nodes[0], 81).expect("its own node");
        assert!(!pod.reaches(nodes[1], 81), "another node");
    }
    // Through a translated address, policy sees the pod and the true source.
    let other = cluster.pod("x", "other", 1, &json!({"may": "come"}));
    let target = pod.addresses[0];
    for machine in &cluster.machines {
        machine.output("nft", "add table ip service");
        machine
            .output("nft", "add chain ip service pre { type nat hook prerouting priority -100; }");
        machine
            .output("nft", &format!("add rule ip service pre ip daddr 10.96.0.9 dnat to {target}"));
        machine
            .output("nft", "add chain ip service post { type nat hook postrouting priority 100; }");
        let own =
            format!("add rule ip service post ip saddr {target} ip daddr {target} masquerade");
        machine.output("nft", &own);
    }
    let service: IpAddr = "10.96.0.9".parse().expect("address");
    assert!(!other.reaches(service, 80), "denied through the service too");
    // Nobody can be kept from himself.
    until("itself through the service", || pod.ask(service, 80).is_ok());
    let allow = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"may": "come"}}}], "ports": [{"port": 80}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": format!("{target}/32")}}]}]});
    cluster.policy("x", "allow", &allow);
    until("allowed through the service", || other.ask(service, 80).is_ok());
}

/// Frames that pods make up to get around the node, on a kernel that does not filter bridged
/// traffic, and addresses that are not theirs.
pub(crate) fn no_way_around(_: &Node) {
    let cluster = Cluster::new(1);
    let machine = &cluster.machines[0];
    machine.namespace.run(|| {
        for family in ["iptables", "ip6tables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
            // A kernel without bridge filtering has no such setting.
            let _ = std::fs::write(path, "0");
        }
    });
    cluster.namespace("x", &json!({}));
    let guarded = cluster.pod("x", "guarded", 0, &json!({"role": "guarded"}));
    let friend = cluster.pod("x", "friend", 0, &json!({"role": "friend"}));
    let intruder = cluster.pod("x", "intruder", 0, &json!({}));
    let to = guarded.addresses[0];
    let ear = guarded.namespace.run(|| UdpSocket::bind("0.0.0.0:9").expect("bind"));
    ear.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    // One datagram one way: a frame past the node gets no answer past it.
    let heard = |from: &Guest| {
        let name = from.name.clone().into_bytes();
        let sent = name.clone();
        from.namespace.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            let _ = socket.send_to(&sent, (to, 9));
        });
        let mut buffer = [0; 64];
        ear.recv(&mut buffer).is_ok_and(|length| buffer[..length] == name)
    };
    // The neighbour's hardware address is no secret.
    let shown = guarded.namespace.run(|| {
        let show = ["-o", "link", "show", "eth0"];
        std::process::Command::new("ip").args(show).output().expect("run ip").stdout
    });
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    let mac = words.nth(1).expect("a hardware address").to_owned();
    intruder.namespace.run(move || {
        world::ip(&format!("route add {to}/32 dev eth0 scope link"));
        world::ip(&format!("neigh replace {to} lladdr {mac} dev eth0 nud permanent"));
    });
    until("frames go straight to the neighbour", || heard(&intruder));
    let allow = json!({"podSelector": {"matchLabels": {"role": "guarded"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]});
    cluster.policy("x", "p", &allow);
    let began = Instant::now();
    while heard(&intruder) || heard(&intruder) {
        let rules = machine.output("nft", "list ruleset");
        assert!(began.elapsed() < PATIENCE, "frames still go past the node: {rules}");
    }
    until("the friend is heard", || heard(&friend));
    intruder.namespace.run(move || world::ip(&format!("route del {to}/32 dev eth0")));
    let stolen = friend.addresses[0];
    intruder.namespace.run(move || {
        world::ip(&format!("addr add {stolen}/32 dev lo"));
        world::ip(&format!("route replace default via 10.244.1.1 dev eth0 src {stolen}"));
    });
    for _ in 0..3 {
        assert!(!heard(&intruder), "a stolen address opens nothing");
    }
    until("the friend is still heard", || heard(&friend));
}
