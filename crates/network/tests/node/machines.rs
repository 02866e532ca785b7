//! Several machines on one segment, each a network namespace with a pod network that follows the
//! Nodes of a small API server.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use client::Caches;
use ipnet::IpNet;
use serde_json::{Value, json};
use skiff_network::{Backend, NetworkOptions, PodNetwork};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Fake,
    world::{Namespace, SILENCE, Server, ask, ask_within, call_plugin, install_plugin, ip},
};

/// Nothing here takes longer to happen.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a pod must have done before it is enough.
const SPOKEN: usize = 1000;

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A switch with an API server that tells of all Nodes.
pub(crate) struct Segment {
    pub(crate) api: Arc<Fake>,
    switch: Namespace,
}

impl Segment {
    pub(crate) fn new() -> Self {
        let switch = Namespace::new();
        switch.run(|| {
            ip("link add br0 type bridge");
            ip("link set br0 up");
        });
        Self { api: Fake::new(), switch }
    }

    /// Connects a namespace as `eth0` with two addresses that end in `number`.
    pub(crate) fn plug(&self, namespace: &Namespace, number: usize) {
        let (switch, machine) = (self.switch.path.clone(), namespace.path.clone());
        self.switch.run(move || {
            ip(&format!("link add port{number} type veth peer name eth0 netns {machine}"));
            ip(&format!("link set port{number} master br0 up"));
        });
        drop(switch);
        namespace.run(move || {
            ip("link set lo up");
            ip("link set eth0 up");
            ip(&format!("addr add 192.0.2.{number}/24 dev eth0"));
            ip(&format!("addr add 2001:db8::{number}/64 dev eth0 nodad"));
            ip("route add default via 192.0.2.150");
            // The strictest check of source addresses must not stand in the way.
            for device in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
                std::fs::write(path, "1").expect("set rp_filter");
            }
        });
    }

    /// A Node as the API tells of it.
    pub(crate) fn put_node(&self, name: &str, addresses: &[IpAddr], networks: &[IpNet]) {
        let addresses: Vec<Value> = addresses
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        self.api.put(
            "nodes",
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name},
                "spec": {"podCIDR": networks[0], "podCIDRs": networks},
                "status": {"addresses": addresses},
            }),
        );
    }

    pub(crate) fn remove_node(&self, name: &str) {
        self.api.remove("nodes", "", name);
    }
}

/// How a machine is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) backend: Backend,
    /// Whether the address that others send to is IPv6.
    pub(crate) v6_underlay: bool,
    /// Ranges of all nodes' pods; a node with number n gets the n-th.
    pub(crate) clusters: Vec<&'static str>,
}

impl Setup {
    pub(crate) fn new(backend: Backend) -> Self {
        let clusters = vec!["10.244.0.0/16", "fd00:10:244::/48"];
        Self { backend, v6_underlay: false, clusters }
    }
}

pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) options: NetworkOptions,
    pub(crate) namespace: Namespace,
    directory: tempfile::TempDir,
    plugin: Value,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Machine {
    /// A machine with a pod network at work, whose Node the API knows.
    pub(crate) fn new(segment: &Segment, number: usize, setup: &Setup) -> Self {
        Self::taking(segment, number, number, setup)
    }

    /// A machine whose pods wait for their network policies.
    pub(crate) fn policed(segment: &Segment, number: usize, setup: &Setup) -> Self {
        Self::with(segment, number, number, setup, |options| options.policy = true)
    }

    /// A machine whose pods have the ranges with this index.
    pub(crate) fn taking(segment: &Segment, number: usize, index: usize, setup: &Setup) -> Self {
        Self::with(segment, number, index, setup, |_| ())
    }

    fn with(
        segment: &Segment,
        number: usize,
        index: usize,
        setup: &Setup,
        change: impl FnOnce(&mut NetworkOptions),
    ) -> Self {
        let namespace = Namespace::new();
        segment.plug(&namespace, number);
        let directory = tempfile::tempdir().expect("directory");
        let name = format!("node-{number}");
        let mut options = NetworkOptions::new(&name, directory.path().join("network"));
        options.backend = setup.backend;
        let net = |text: &str| text.parse::<IpNet>().expect("network");
        options.cluster_networks = setup.clusters.iter().map(|text| net(text)).collect();
        options.service_networks = vec![net("10.96.0.0/12"), net("fd00:10:96::/112")];
        options.pod_networks = setup
            .clusters
            .iter()
            .map(|cluster| match cluster.contains(':') {
                true => net(&format!("fd00:10:244:{index:x}::/64")),
                false => net(&format!("10.244.{index}.0/24")),
            })
            .collect();
        let mut addresses: Vec<IpAddr> = vec![
            format!("192.0.2.{number}").parse().expect("address"),
            format!("2001:db8::{number}").parse().expect("address"),
        ];
        if setup.v6_underlay {
            addresses.reverse();
        }
        options.node_addresses.clone_from(&addresses);
        change(&mut options);
        let told = options.clone();
        namespace.run(move || skiff_network::setup(&told).expect("setup"));
        let plugin = install_plugin(directory.path(), &options);
        segment.put_node(&name, &addresses, &options.pod_networks);
        let mut machine =
            Self { name, addresses, options, namespace, directory, plugin, running: None };
        let api = segment.api.clone();
        machine.start(move || api.client());
        machine
    }

    /// Starts the part that follows Nodes, which `client` knows.
    pub(crate) fn start(&mut self, client: impl FnOnce() -> kube::Client + Send + 'static) {
        let shutdown = CancellationToken::new();
        let (stop, options) = (shutdown.clone(), self.options.clone());
        // Within the namespace, as is every thread that the runtime starts.
        let thread = self.namespace.run(move || {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("runtime");
                runtime.block_on(async {
                    let caches = Caches::new(client(), stop.clone());
                    PodNetwork::new(options, caches).run(stop).await.expect("pod network");
                });
            })
        });
        self.running = Some((shutdown, thread));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((shutdown, thread)) = self.running.take() {
            shutdown.cancel();
            thread.join().expect("pod network");
        }
    }

    /// What a program says that runs on the machine.
    pub(crate) fn output(&self, program: &'static str, arguments: &str) -> String {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        self.namespace.run(move || {
            let output = Command::new(program).args(&arguments).output().expect(program);
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// Runs `ip` on the machine.
    pub(crate) fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.namespace.run(move || ip(&arguments));
    }

    /// A pod on the machine.
    pub(crate) fn pod(&self, name: &str) -> Guest {
        self.pod_with(name, json!({}))
    }

    /// A pod of which the runtime says more.
    pub(crate) fn pod_with(&self, name: &str, more: Value) -> Guest {
        let namespace = Namespace::new();
        let (bin, plugin) = (self.directory.path().join("bin"), self.plugin.clone());
        let (id, path) = (name.to_owned(), namespace.path.clone());
        let call = move || call_plugin(&bin, &plugin, ["ADD", &id, &path], &more);
        let result = self.namespace.run(call).expect("ADD");
        let ips = result["ips"].as_array().expect("addresses").clone();
        let address = |ip: &Value| -> IpAddr {
            let text = ip["address"].as_str().expect("address");
            text.parse::<IpNet>().expect("address with prefix").addr()
        };
        let addresses = ips.iter().map(address).collect();
        Guest { name: name.to_owned(), addresses, namespace }
    }
}

/// Pods that the API knows.
impl Machine {
    /// Attaches a pod as the runtime does, which names it.
    pub(crate) fn pod_of(&self, namespace: &str, name: &str) -> Guest {
        self.pod_that(namespace, name, |done, _| done.store(SPOKEN, Ordering::Relaxed)).0
    }

    /// As [`Machine::pod_of`]; `work` goes on in the pod from before it has a network. It counts what
    /// it has done, and is told to stop when it has done enough with the network. Returns the count.
    pub(crate) fn pod_that(
        &self,
        namespace: &str,
        name: &str,
        work: impl FnOnce(&AtomicUsize, &AtomicBool) + Send + 'static,
    ) -> (Guest, usize) {
        let inside = Namespace::new();
        let progress = Arc::new((AtomicUsize::new(0), AtomicBool::new(false)));
        let told = progress.clone();
        let working = inside.run(move || std::thread::spawn(move || work(&told.0, &told.1)));
        let result = self.attach(namespace, name, &inside).expect("ADD");
        let attached = progress.0.load(Ordering::Relaxed);
        let done = || progress.0.load(Ordering::Relaxed);
        until("the pod does its work", || done() >= attached + SPOKEN || working.is_finished());
        progress.1.store(true, Ordering::Relaxed);
        let ips = result["ips"].as_array().expect("addresses").clone();
        let address = |ip: &Value| -> IpAddr {
            let text = ip["address"].as_str().expect("address");
            text.parse::<IpNet>().expect("address with prefix").addr()
        };
        let addresses = ips.iter().map(address).collect();
        let guest = Guest { name: name.to_owned(), addresses, namespace: inside };
        working.join().expect("the pod's work");
        (guest, done())
    }

    /// The error with which a pod's attachment fails.
    pub(crate) fn attach_error(&self, namespace: &str, name: &str) -> Value {
        self.attach(namespace, name, &Namespace::new()).expect_err("an error")
    }

    fn attach(&self, namespace: &str, name: &str, inside: &Namespace) -> Result<Value, Value> {
        let (bin, plugin) = (self.directory.path().join("bin"), self.plugin.clone());
        let id = format!("{namespace}-{name}");
        let pod = json!({"podArguments": format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={id}"
        )});
        let path = inside.path.clone();
        self.namespace.run(move || call_plugin(&bin, &plugin, ["ADD", &id, &path], &pod))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some((shutdown, thread)) = self.running.take() {
            shutdown.cancel();
            let _ = thread.join();
        }
    }
}

/// A pod of such a machine.
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) namespace: Namespace,
}

impl Guest {
    /// A server of both families.
    pub(crate) fn listen(&self, port: u16) -> Server {
        listen(&self.namespace, &self.name, port)
    }

    /// Asks once; the answer or the error as text.
    pub(crate) fn ask(&self, address: IpAddr, port: u16) -> Result<String, String> {
        let to = SocketAddr::new(address, port);
        self.namespace.run(move || ask(to).map_err(|error| format!("{to}: {error}")))
    }

    /// Whether there is an answer, and soon.
    pub(crate) fn reaches(&self, address: IpAddr, port: u16) -> bool {
        let to = SocketAddr::new(address, port);
        self.namespace.run(move || ask_within(to, SILENCE).is_ok())
    }
}

/// A server of both families in a namespace.
pub(crate) fn listen(namespace: &Namespace, name: &str, port: u16) -> Server {
    let listener = namespace.run(move || TcpListener::bind(("::", port)).expect("bind"));
    Server::start(listener, name.to_owned())
}
