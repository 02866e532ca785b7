//! Network policies on three machines, in the model of upstream's own tests: three namespaces with
//! three pods each, spread over the machines, every pod asking every other on two ports by two
//! protocols in both families.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use client::Caches;
use serde_json::{Value, json};
use skiff_network::{Backend, Policy};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Fake,
    machines::{Guest, Machine, Segment, Setup},
    world::Node,
};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const PORTS: [u16; 2] = [80, 81];
/// How long an answer is waited for; what comes later counts as forbidden in this round, and is
/// given more time in the next.
pub(crate) const WINDOW: Duration = Duration::from_millis(700);
const LONGEST_WINDOW: Duration = Duration::from_secs(6);
/// Policies need no longer until they are in force.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The policy part at work on one machine.
pub(crate) struct Enforcer {
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Enforcer {
    pub(crate) fn start(machine: &Machine, api: &Arc<Fake>) -> Self {
        let shutdown = CancellationToken::new();
        let (stop, options, api) = (shutdown.clone(), machine.options.clone(), api.clone());
        let thread = machine.namespace.run(move || {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().expect("runtime");
                runtime.block_on(async {
                    let caches = Caches::new(api.client(), stop.clone());
                    Policy::new(options, caches).run(stop).await.expect("policy");
                });
            })
        });
        Self { shutdown, thread: Some(thread) }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Machines, and whatever their pods are.
pub(crate) struct Cluster {
    // Dropped in this order: first those who use the others.
    pub(crate) enforcers: Vec<Enforcer>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) segment: Segment,
}

impl Cluster {
    pub(crate) fn new(machines: usize) -> Self {
        let segment = Segment::new();
        let setup = Setup::new(Backend::Vxlan { id: 1, port: 8472 });
        let machines: Vec<Machine> =
            (1..=machines).map(|n| Machine::policed(&segment, n, &setup)).collect();
        let api = &segment.api;
        let enforcers = machines.iter().map(|machine| Enforcer::start(machine, api)).collect();
        Self { enforcers, machines, segment }
    }

    pub(crate) fn api(&self) -> &Arc<Fake> {
        &self.segment.api
    }

    pub(crate) fn namespace(&self, name: &str, labels: &Value) {
        self.api().put(
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "uid": name, "labels": labels}}),
        );
    }

    /// Creates a pod, attaches it, and tells the API of its addresses.
    pub(crate) fn pod(&self, namespace: &str, name: &str, at: usize, labels: &Value) -> Guest {
        let machine = &self.machines[at];
        self.put_pod(namespace, name, at, labels, &[]);
        let guest = machine.pod_of(namespace, name);
        self.put_pod(namespace, name, at, labels, &guest.addresses);
        guest
    }

    pub(crate) fn put_pod(
        &self,
        namespace: &str,
        name: &str,
        at: usize,
        labels: &Value,
        addresses: &[IpAddr],
    ) {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let port = |number: u16, protocol: &str| {
            let name = format!("serve-{number}-{}", protocol.to_lowercase());
            json!({"name": name, "containerPort": number, "protocol": protocol})
        };
        let ports: Vec<Value> =
            PORTS.iter().flat_map(|n| [port(*n, "TCP"), port(*n, "UDP")]).collect();
        self.api().put(
            "pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": name, "labels": labels,
                    "uid": format!("{namespace}-{name}")},
                "spec": {"nodeName": self.machines[at].name,
                    "containers": [{"name": "c", "ports": ports}]},
                "status": {"phase": if ips.is_empty() { "Pending" } else { "Running" },
                    "podIP": addresses.first(), "podIPs": ips},
            }),
        );
    }

    pub(crate) fn policy(&self, namespace: &str, name: &str, spec: &Value) {
        self.api().put(
            "networkpolicies",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}")},
                "spec": spec}),
        );
    }

    pub(crate) fn no_policy(&self, namespace: &str, name: &str) {
        self.api().remove("networkpolicies", namespace, name);
    }
}

/// Answers on every port by both protocols, in a pod.
struct Servers {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    fn start(guest: &Guest) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (ready, told) = std::sync::mpsc::channel();
        let thread = guest.namespace.run(move || {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().expect("runtime");
                runtime.block_on(async {
                    for port in PORTS {
                        let tcp = tokio::net::TcpListener::bind(("::", port)).await.expect("bind");
                        let udp = tokio::net::UdpSocket::bind(("::", port)).await.expect("bind");
                        tokio::spawn(async move { while tcp.accept().await.is_ok() {} });
                        tokio::spawn(async move {
                            let mut buffer = [0; 8];
                            while let Ok((_, from)) = udp.recv_from(&mut buffer).await {
                                let _ = udp.send_to(b"!", from).await;
                            }
                        });
                    }
                    ready.send(()).expect("somebody waits");
                    stopped.cancelled().await;
                });
            })
        });
        told.recv().expect("servers");
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One question: may `from` ask `to`?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    /// Namespace and pod.
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
    port: u16,
    udp: bool,
    v6: bool,
}

async fn answers(to: SocketAddr, udp: bool, window: Duration) -> bool {
    let ask = async {
        if !udp {
            return tokio::net::TcpStream::connect(to).await.map(drop);
        }
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
        socket.connect(to).await?;
        socket.send(b"?").await?;
        socket.recv(&mut [0; 8]).await.map(drop)
    };
    tokio::time::timeout(window, ask).await.is_ok_and(|outcome| outcome.is_ok())
}

/// The nine pods.
struct Pods {
    cluster: Cluster,
    guests: BTreeMap<(&'static str, &'static str), Guest>,
    _servers: Vec<Servers>,
}

impl Pods {
    fn new() -> Self {
        let cluster = Cluster::new(3);
        let mut guests = BTreeMap::new();
        for (row, namespace) in NAMESPACES.into_iter().enumerate() {
            cluster.namespace(namespace, &json!({"ns": namespace}));
            for (column, pod) in PODS.into_iter().enumerate() {
                // Every namespace and every name on every machine, and x/a, x/b together.
                let at = if (row, column) == (0, 1) { 0 } else { (row + column) % 3 };
                let guest = cluster.pod(namespace, pod, at, &json!({"pod": pod}));
                guests.insert((namespace, pod), guest);
            }
        }
        let servers = guests.values().map(Servers::start).collect();
        Self { cluster, guests, _servers: servers }
    }

    fn address(&self, of: (&str, &str), v6: bool) -> IpAddr {
        let guest = &self.guests.iter().find(|(key, _)| **key == of).expect("a pod").1;
        *guest.addresses.iter().find(|address| address.is_ipv6() == v6).expect("address")
    }

    /// Asks everything once.
    fn table(&self, window: Duration) -> BTreeMap<Way, bool> {
        std::thread::scope(|scope| {
            let asking: Vec<_> = self
                .guests
                .iter()
                .map(|(from, guest)| {
                    let mut questions = Vec::new();
                    for (to, other) in &self.guests {
                        for address in &other.addresses {
                            for port in PORTS {
                                for udp in [false, true] {
                                    let v6 = address.is_ipv6();
                                    let way = Way { from: *from, to: *to, port, udp, v6 };
                                    questions.push((way, SocketAddr::new(*address, port)));
                                }
                            }
                        }
                    }
                    scope.spawn(move || guest.namespace.run(move || round(questions, window)))
                })
                .collect();
            asking.into_iter().flat_map(|one| one.join().expect("round")).collect()
        })
    }

    /// Waits until exactly what `expected` says is reachable.
    fn check(&self, what: &str, expected: &dyn Fn(&Way) -> bool) {
        let (began, mut window) = (Instant::now(), WINDOW);
        loop {
            let table = self.table(window);
            window = (window * 2).min(LONGEST_WINDOW);
            let allowed = |way: &Way| way.from == way.to || expected(way);
            let wrong: Vec<_> = table.iter().filter(|(way, yes)| allowed(way) != **yes).collect();
            if wrong.is_empty() {
                let yes = table.values().filter(|yes| **yes).count();
                println!("  {what}: {yes} of {} after {:.1?}", table.len(), began.elapsed());
                return;
            }
            if began.elapsed() > PATIENCE {
                let (some, count) = (&wrong[..wrong.len().min(10)], wrong.len());
                let rules = self.cluster.machines[0].output("nft", "list ruleset");
                panic!("{what}: {count} wrong answers, among them {some:#?}\n{rules}");
            }
        }
    }

    /// Applies policies `(namespace, spec)`, checks, and removes them.
    fn case(&self, what: &str, policies: &[(&str, Value)], expected: &dyn Fn(&Way) -> bool) {
        for (index, (namespace, spec)) in policies.iter().enumerate() {
            self.cluster.policy(namespace, &format!("p{index}"), spec);
        }
        self.check(what, expected);
        for (index, (namespace, _)) in policies.iter().enumerate() {
            self.cluster.no_policy(namespace, &format!("p{index}"));
        }
    }
}

/// All questions of one pod at the same time.
fn round(questions: Vec<(Way, SocketAddr)>, window: Duration) -> Vec<(Way, bool)> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("runtime");
    runtime.block_on(async {
        let all = questions
            .into_iter()
            .map(|(way, to)| async move { (way, answers(to, way.udp, window).await) });
        futures::future::join_all(all).await
    })
}

const XA: (&str, &str) = ("x", "a");

fn pods(labels: Value) -> Value {
    json!({"podSelector": {"matchLabels": labels}})
}

/// Ingress to x/a under one rule.
fn ingress(rule: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"], "ingress": [rule]})
}

/// Egress of x/a under one rule.
fn egress(rule: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": [rule]})
}

pub(crate) fn truth_table(_: &Node) {
    let world = Pods::new();
    let to_xa = |way: &Way| way.to == XA;
    let from_xa = |way: &Way| way.from == XA;
    let ns = |name: &str| json!({"namespaceSelector": {"matchLabels": {"ns": name}}});
    let deny = |types: &[&str]| json!({"podSelector": {}, "policyTypes": types});

    world.check("no policies", &|_| true);
    world.case("nobody into x", &[("x", deny(&["Ingress"]))], &|way| way.to.0 != "x");
    world.case("nobody out of x", &[("x", deny(&["Egress"]))], &|way| way.from.0 != "x");
    world.case("nobody into or out of x", &[("x", deny(&["Ingress", "Egress"]))], &|way| {
        way.to.0 != "x" && way.from.0 != "x"
    });
    let everywhere: Vec<_> = NAMESPACES.map(|ns| (ns, deny(&["Ingress", "Egress"]))).to_vec();
    world.case("nobody anywhere", &everywhere, &|_| false);
    let all = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]});
    world.case("everybody into x, by a rule", &[("x", deny(&["Ingress"])), ("x", all)], &|_| true);
    let all = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]});
    world.case("out of x, by a rule", &[("x", deny(&["Egress"])), ("x", all)], &|_| true);
    let untyped = json!({"podSelector": {}, "egress": [{"to": [ns("y")]}]});
    world.case("types by default", &[("x", untyped)], &|way| {
        way.to.0 != "x" && (way.from.0 != "x" || way.to.0 == "y")
    });
    world.case("types by default, no rules", &[("x", json!({"podSelector": {}}))], &|way| {
        way.to.0 != "x"
    });

    // Who.
    world.case("pods", &[("x", ingress(json!({"from": [pods(json!({"pod": "b"}))]})))], &|way| {
        !to_xa(way) || way.from == ("x", "b")
    });
    let some = json!({"podSelector": {"matchExpressions": [
        {"key": "pod", "operator": "NotIn", "values": ["b"]}]}});
    world.case("pods by expression", &[("x", ingress(json!({"from": [some]})))], &|way| {
        !to_xa(way) || way.from == ("x", "c")
    });
    let own = json!({"podSelector": {}});
    world.case("its own namespace", &[("x", ingress(json!({"from": [own]})))], &|way| {
        !to_xa(way) || way.from.0 == "x"
    });
    world.case("a namespace", &[("x", ingress(json!({"from": [ns("y")]})))], &|way| {
        !to_xa(way) || way.from.0 == "y"
    });
    let some = json!({"namespaceSelector": {"matchExpressions": [
        {"key": "ns", "operator": "In", "values": ["x", "z"]}]}});
    world.case("namespaces by expression", &[("x", ingress(json!({"from": [some]})))], &|way| {
        !to_xa(way) || way.from.0 != "y"
    });
    let every = json!({"namespaceSelector": {}});
    world.case("every namespace", &[("x", ingress(json!({"from": [every]})))], &|_| true);
    let both = json!({"namespaceSelector": {"matchLabels": {"ns": "y"}},
        "podSelector": {"matchLabels": {"pod": "b"}}});
    world.case("pods of a namespace", &[("x", ingress(json!({"from": [both]})))], &|way| {
        !to_xa(way) || way.from == ("y", "b")
    });
    let either = json!({"from": [ns("y"), pods(json!({"pod": "b"}))]});
    world.case("pods or a namespace", &[("x", ingress(either))], &|way| {
        !to_xa(way) || way.from.0 == "y" || way.from == ("x", "b")
    });
    let nobody = json!({"from": [pods(json!({"pod": "nobody"}))]});
    world.case("pods that are not there", &[("x", ingress(nobody))], &|way| !to_xa(way));
    let other =
        json!({"podSelector": {"matchLabels": {"pod": "nobody"}}, "policyTypes": ["Ingress"]});
    world.case("a policy for nobody", &[("x", other)], &|_| true);

    // What.
    world.case("a port", &[("x", ingress(json!({"ports": [{"port": 81}]})))], &|way| {
        !to_xa(way) || (way.port == 81 && !way.udp)
    });
    world.case(
        "a port of UDP",
        &[("x", ingress(json!({"ports": [{"protocol": "UDP", "port": 80}]})))],
        &|way| !to_xa(way) || (way.port == 80 && way.udp),
    );
    world.case("a protocol", &[("x", ingress(json!({"ports": [{"protocol": "UDP"}]})))], &|way| {
        !to_xa(way) || way.udp
    });
    world.case(
        "another protocol",
        &[("x", ingress(json!({"ports": [{"protocol": "SCTP", "port": 80}]})))],
        &|way| !to_xa(way),
    );
    world.case(
        "a range of ports",
        &[("x", ingress(json!({"ports": [{"port": 81, "endPort": 90}]})))],
        &|way| !to_xa(way) || (way.port == 81 && !way.udp),
    );
    let named = json!({"ports": [{"port": "serve-81-tcp"}]});
    world.case("a named port", &[("x", ingress(named))], &|way| {
        !to_xa(way) || (way.port == 81 && !way.udp)
    });
    let named = json!({"ports": [{"port": "serve-80-udp", "protocol": "UDP"}], "from": [ns("y")]});
    world.case("a named port for a namespace", &[("x", ingress(named))], &|way| {
        !to_xa(way) || (way.port == 80 && way.udp && way.from.0 == "y")
    });
    let many = json!({"ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}], "from": [ns("y"), ns("z")]});
    world.case("ports for namespaces", &[("x", ingress(many))], &|way| {
        !to_xa(way) || (way.from.0 != "x" && (way.port == 80) != way.udp)
    });
    let (first, second) =
        (json!({"from": [ns("y")], "ports": [{"port": 80}]}), json!({"from": [ns("z")]}));
    world.case("two policies together", &[("x", ingress(first)), ("x", ingress(second))], &|way| {
        !to_xa(way) || way.from.0 == "z" || (way.from.0 == "y" && way.port == 80 && !way.udp)
    });

    // The way out.
    world.case(
        "out to pods",
        &[("x", egress(json!({"to": [pods(json!({"pod": "b"}))]})))],
        &|way| !from_xa(way) || way.to == ("x", "b"),
    );
    let out = json!({"to": [ns("y")], "ports": [{"port": 80}]});
    world.case("out to a namespace's port", &[("x", egress(out))], &|way| {
        !from_xa(way) || (way.to.0 == "y" && way.port == 80 && !way.udp)
    });
    let out = json!({"to": [ns("y")], "ports": [{"port": "serve-81-udp", "protocol": "UDP"}]});
    world.case("out to a namespace's named port", &[("x", egress(out))], &|way| {
        !from_xa(way) || (way.to.0 == "y" && way.port == 81 && way.udp)
    });
    let way_in = ingress(json!({"from": [ns("y")]}));
    let way_out = egress(json!({"to": [ns("z")], "ports": [{"port": 81}]}));
    world.case("in and out", &[("x", way_in), ("x", way_out)], &|way| {
        (!to_xa(way) || way.from.0 == "y")
            && (!from_xa(way) || (way.to.0 == "z" && way.port == 81 && !way.udp))
    });
    let meet =
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [ns("x")]}]});
    world.case(
        "both ends must agree",
        &[("x", egress(json!({"to": [ns("y")]}))), ("z", meet)],
        &|way| (!from_xa(way) || way.to.0 == "y") && (way.to.0 != "z" || way.from.0 == "x"),
    );

    // Addresses.
    let block =
        |of: (&str, &str), v6| format!("{}/{}", world.address(of, v6), if v6 { 128 } else { 32 });
    let blocks = json!({"from": [{"ipBlock": {"cidr": block(("y", "b"), false)}},
        {"ipBlock": {"cidr": block(("z", "c"), true)}}]});
    world.case("addresses", &[("x", ingress(blocks))], &|way| {
        !to_xa(way) || way.from == if way.v6 { ("z", "c") } else { ("y", "b") }
    });
    let holes = [block(("y", "b"), false), block(("z", "a"), false)];
    let blocks = json!({"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": holes}}]});
    world.case("addresses except some", &[("x", ingress(blocks))], &|way| {
        !to_xa(way) || (!way.v6 && way.from != ("y", "b") && way.from != ("z", "a"))
    });
    let blocks =
        json!({"to": [{"ipBlock": {"cidr": "::/0", "except": [block(("y", "b"), true)]}}]});
    world.case("out to addresses except one", &[("x", egress(blocks))], &|way| {
        !from_xa(way) || (way.v6 && way.to != ("y", "b"))
    });

    // Changes of what policies refer to.
    world.cluster.policy("x", "change", &ingress(json!({"from": [ns("y")]})));
    world.check("before a change", &|way| !to_xa(way) || way.from.0 == "y");
    world.cluster.namespace("z", &json!({"ns": "y"}));
    world.check("a namespace's labels change", &|way| !to_xa(way) || way.from.0 != "x");
    world.cluster.namespace("y", &json!({}));
    world.check("another's too", &|way| !to_xa(way) || way.from.0 == "z");
    let only = ingress(json!({"from": [pods(json!({"pod": "b"}))], "ports": [{"port": 80}]}));
    world.cluster.policy("x", "change", &only);
    let labels = |pod: (&str, &str), at, labels: Value| {
        let key = world.guests.keys().find(|key| **key == pod).expect("a pod");
        world.cluster.put_pod(pod.0, pod.1, at, &labels, &world.guests[key].addresses);
    };
    world.check("the policy changes", &|way| {
        !to_xa(way) || (way.from == ("x", "b") && way.port == 80 && !way.udp)
    });
    labels(("x", "c"), 2, json!({"pod": "b"}));
    world.check("a pod's labels let it in", &|way| {
        !to_xa(way) || (way.from.0 == "x" && way.port == 80 && !way.udp)
    });
    labels(("x", "b"), 0, json!({"pod": "a"}));
    world.check("a pod's labels isolate it", &|way| {
        (!to_xa(way) && way.to != ("x", "b"))
            || (way.from == ("x", "c") && way.port == 80 && !way.udp)
    });
    world.cluster.no_policy("x", "change");
    world.check("no policies again", &|_| true);
    let rules = world.cluster.machines[0].output("nft", "list tables");
    assert!(!rules.contains("policy"), "without policies there are no rules: {rules}");
}
