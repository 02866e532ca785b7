//! Network namespaces that vanish with the process, pods attached by the plugin itself, and small
//! servers and clients within them.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use skiff_network::{NetworkOptions, cni::InstallOptions};

/// No answer in these tests takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Who is silent for so long is taken for silent.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, held by a thread that runs jobs in it.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) path: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("new network namespace");
            let path =
                format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
            tell.send(path).expect("the other end waits");
            for job in queue {
                job();
            }
        });
        let path = told.recv().expect("the thread says where");
        Self { jobs: Some(jobs), thread: Some(thread), path }
    }

    /// Runs `job` within the namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move || drop(tell.send(job())));
        self.jobs.as_ref().expect("alive").send(job).expect("the thread lives");
        told.recv().expect("the job finishes")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `ip` with arguments separated by blanks.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("run ip");
    assert!(status.success(), "ip {arguments}");
}

/// The node: this process' own namespace.
pub(crate) struct Node {
    pub(crate) options: NetworkOptions,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) outside: Namespace,
    plugin: Value,
}

impl Node {
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("new network namespace");
        ip("link set lo up");
        let outside = Namespace::new();
        ip("link add up0 type veth peer name far0");
        ip(&format!("link set far0 netns {}", outside.path));
        ip("link set up0 up");
        ip("addr add 192.0.2.1/24 dev up0");
        outside.run(|| {
            ip("link set lo up");
            ip("link set far0 up");
            ip("addr add 192.0.2.9/24 dev far0");
            // Someone who uses the node as a router, to show what it lets through.
            ip("route add default via 192.0.2.1");
        });
        ip("route add default via 192.0.2.9");
        let directory = tempfile::tempdir().expect("directory");
        let options = NetworkOptions::new("node-1", directory.path().join("network"));
        skiff_network::setup(&options).expect("setup");
        skiff_network::setup(&options).expect("setup again");
        let plugin = install_plugin(directory.path(), &options);
        Self { options, directory, outside, plugin }
    }

    /// One call of the plugin: exit code 0 and its output, or its error.
    pub(crate) fn cni(
        &self,
        command: &str,
        id: &str,
        netns: &str,
        more: Value,
    ) -> Result<Value, Value> {
        call_plugin(&self.directory.path().join("bin"), &self.plugin, [command, id, netns], &more)
    }

    pub(crate) fn nft(&self) -> String {
        let output = Command::new("nft").args(["list", "ruleset"]).output().expect("run nft");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn leases(&self) -> usize {
        let entries = std::fs::read_dir(self.options.data_dir.join("leases")).expect("list");
        entries
            .filter(|entry| {
                let name = entry.as_ref().expect("entry").file_name();
                name.to_string_lossy().ends_with(".json")
            })
            .count()
    }
}

/// Installs the plugin below `directory`; returns the configuration that the runtime passes to it.
pub(crate) fn install_plugin(directory: &Path, options: &NetworkOptions) -> Value {
    let places = InstallOptions {
        bin_dir: directory.join("bin"),
        conf_dir: directory.join("conf"),
        executable: std::env::current_exe().expect("own path"),
    };
    let path = skiff_network::cni::install(&places, options).expect("install");
    let list: Value = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON");
    let mut plugin = list["plugins"][0].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    plugin["name"] = list["name"].clone();
    plugin
}

/// One call of the plugin in `bin_dir` with command, container and network namespace: exit code 0
/// and its output, or its error.
pub(crate) fn call_plugin(
    bin_dir: &Path,
    plugin: &Value,
    [command, id, netns]: [&str; 3],
    more: &Value,
) -> Result<Value, Value> {
    let mut config = plugin.clone();
    config.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    let mut child = Command::new(bin_dir.join(skiff_network::cni::PLUGIN_NAME))
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", more["podArguments"].as_str().unwrap_or_default())
        .env("CNI_PATH", bin_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run the plugin");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(config.to_string().as_bytes()).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("wait");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() { Ok(value) } else { Err(value) }
}

/// A pod: a namespace attached to the node.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) namespace: Namespace,
    pub(crate) result: Value,
}

impl Pod {
    pub(crate) fn start(node: &Node, name: &str) -> Self {
        Self::start_with(node, name, json!({}))
    }

    pub(crate) fn start_with(node: &Node, name: &str, more: Value) -> Self {
        let namespace = Namespace::new();
        let result = node.cni("ADD", name, &namespace.path, more).expect("ADD");
        let address = result["ips"][0]["address"].as_str().expect("address");
        let address = address.split('/').next().expect("first").parse().expect("address");
        Self { name: name.to_owned(), address, namespace, result }
    }

    pub(crate) fn stop(self, node: &Node) {
        node.cni("DEL", &self.name, &self.namespace.path, json!({})).expect("DEL");
    }

    /// A server that greets every connection with the pod's name and then echoes.
    pub(crate) fn listen(&self, port: u16) -> Server {
        let listener =
            self.namespace.run(move || TcpListener::bind(("0.0.0.0", port)).expect("bind"));
        Server::start(listener, self.name.clone())
    }

    /// A server that answers every datagram with the pod's name.
    pub(crate) fn listen_udp(&self, port: u16) -> Arc<AtomicBool> {
        let socket = self.namespace.run(move || UdpSocket::bind(("0.0.0.0", port)).expect("bind"));
        answer_udp(socket, self.name.clone())
    }

    pub(crate) fn ask(&self, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().expect("address");
        self.namespace.run(move || ask(to))
    }
}

/// Answers every datagram with `name` until told to stop.
pub(crate) fn answer_udp(socket: UdpSocket, name: String) -> Arc<AtomicBool> {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        }
    });
    stop
}

pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    /// Connections being served.
    active: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(listener: TcpListener, name: String) -> Self {
        listener.set_nonblocking(true).expect("non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let active = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (stop.clone(), active.clone());
        let thread = std::thread::spawn(move || {
            // On a stop, what is already in the accept queue is still served.
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let (name, count) = (name.clone(), count.clone());
                        std::thread::spawn(move || {
                            serve(stream, &name);
                            count.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                    Err(_) if stopped.load(Ordering::Relaxed) => break,
                    Err(_) => std::thread::sleep(Duration::from_micros(200)),
                }
            }
        });
        Self { stop, active, thread: Some(thread) }
    }
}

impl Server {
    /// Like a good server: takes nobody any more, and finishes what was accepted.
    pub(crate) fn end(self) {
        let active = self.active.clone();
        drop(self);
        crate::machines::until("what was accepted is finished", || {
            active.load(Ordering::Relaxed) == 0
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, name: &str) {
    let _ = stream.set_nonblocking(false);
    let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical().to_string());
    let peer = peer.unwrap_or_default();
    if stream.write_all(format!("{name} {peer}\n").as_bytes()).is_err() {
        return;
    }
    let mut buffer = [0; 256];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Connects and reads the greeting: the server's name and the client's address as it sees it.
pub(crate) fn ask(to: SocketAddr) -> io::Result<String> {
    ask_within(to, PATIENCE)
}

/// Like `ask`, for those that may get no answer.
pub(crate) fn ask_within(to: SocketAddr, patience: Duration) -> io::Result<String> {
    Ok(open_within(to, patience)?.1)
}

/// Like `ask`, leaving the connection open.
pub(crate) fn open(to: SocketAddr) -> io::Result<(TcpStream, String)> {
    open_within(to, PATIENCE)
}

fn open_within(to: SocketAddr, patience: Duration) -> io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut greeting = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        greeting.push(byte[0]);
    }
    if greeting.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((stream, String::from_utf8_lossy(&greeting).into_owned()))
}

/// Sends a datagram, as often as it takes, until there is an answer.
pub(crate) fn ask_udp(socket: &UdpSocket, to: &str) -> io::Result<String> {
    let began = Instant::now();
    loop {
        match ask_udp_once(socket, to) {
            Err(_) if began.elapsed() < PATIENCE => {}
            outcome => return outcome,
        }
    }
}

/// Sends one datagram and waits a moment for the answer.
pub(crate) fn ask_udp_once(socket: &UdpSocket, to: &str) -> io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"?", to)?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The server's name in a greeting.
pub(crate) fn name(greeting: &str) -> &str {
    greeting.split(' ').next().unwrap_or_default()
}

/// The client's address in a greeting.
pub(crate) fn peer(greeting: &str) -> &str {
    greeting.split(' ').nth(1).unwrap_or_default()
}
