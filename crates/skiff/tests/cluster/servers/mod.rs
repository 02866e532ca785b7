//! Several servers on one etcd: what one does shows on the other, nothing is given out twice, and what
//! was acknowledged outlives any of them.

mod faults;
mod ranges;
mod share;
mod together;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use client::{Remote, ServerAddress, Servers};
use pki::{Authority, Profile};
use tempfile::TempDir;
use testkit::{Families, Machine, Site, eventually};

use crate::SKIFF;

const PATIENCE: Duration = Duration::from_secs(240);

/// An etcd cluster on one machine, and servers on machines of their own. They end with the test.
struct Shared {
    site: Arc<Site>,
    directory: TempDir,
    etcd: Machine,
    members: Vec<Option<Child>>,
    servers: Vec<Server>,
    /// Further arguments of every server.
    arguments: Vec<String>,
}

struct Server {
    machine: Machine,
    directory: PathBuf,
    process: Option<Child>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let servers = self.servers.iter_mut().map(|server| &mut server.process);
        servers.chain(&mut self.members).for_each(kill);
        if std::thread::panicking() {
            for index in 0..self.servers.len() {
                eprintln!("--- server {index}\n{}", self.log(index));
            }
        }
    }
}

/// Ends a process without a chance to say anything.
fn kill(process: &mut Option<Child>) {
    if let Some(mut process) = process.take() {
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Shared {
    /// Starts the members of etcd; no server yet.
    fn new(members: usize) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let site = Site::create(Families::V4).expect("a site");
        let directory = tempfile::Builder::new().prefix("skiff-").tempdir().expect("a directory");
        let etcd = site.machine("etcd", 9).expect("a machine");
        certificates(directory.path(), etcd.address());
        let members = (0..members).map(|_| None).collect();
        let (servers, arguments) = (Vec::new(), Vec::new());
        let mut shared = Self { site, directory, etcd, members, servers, arguments };
        (0..shared.members.len()).for_each(|index| shared.start_member(index));
        shared
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn endpoint(&self, index: usize) -> String {
        format!("https://{}:{}", self.etcd.address(), 2379 + 10 * index)
    }

    fn start_member(&mut self, index: usize) {
        let peer = |index: usize| format!("http://{}:{}", self.etcd.address(), 2380 + 10 * index);
        let all: Vec<String> =
            (0..self.members.len()).map(|index| format!("m{index}={}", peer(index))).collect();
        let log = File::create(self.path(&format!("m{index}.log"))).expect("a log");
        let mut command = self.etcd.command("etcd");
        command
            .args(["--logger", "zap", "--log-level", "error", "--client-cert-auth"])
            .args(["--name", &format!("m{index}"), "--initial-cluster", &all.join(",")])
            .args(["--listen-client-urls", &self.endpoint(index)])
            .args(["--advertise-client-urls", &self.endpoint(index)])
            .args(["--listen-peer-urls", &peer(index)])
            .args(["--initial-advertise-peer-urls", &peer(index)])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .arg("--data-dir")
            .arg(self.path(&format!("m{index}")))
            .arg("--trusted-ca-file")
            .arg(self.path("etcd.crt"))
            .arg("--cert-file")
            .arg(self.path("member.crt"))
            .arg("--key-file")
            .arg(self.path("member.key"));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("etcd is installed");
        self.members[index] = Some(child);
    }

    /// Makes one more server and starts it, without waiting.
    fn add_server(&mut self) -> usize {
        let index = self.servers.len();
        let name = format!("server-{index}");
        let machine =
            self.site.machine(&name, u8::try_from(index + 1).expect("few")).expect("a machine");
        let directory = self.path(&name);
        self.servers.push(Server { machine, directory, process: None });
        if index > 0 {
            let secret = "pki/datastore.secret";
            let (from, to) = (&self.servers[0].directory, &self.servers[index].directory);
            std::fs::create_dir_all(to.join("pki")).expect("a directory");
            std::fs::copy(from.join(secret), to.join(secret)).expect("the secret");
        }
        self.start_server(index);
        index
    }

    fn start_server(&mut self, index: usize) {
        let endpoints: Vec<String> = (0..self.members.len()).map(|m| self.endpoint(m)).collect();
        let path = self.path(&format!("server-{index}.log"));
        let log = File::options().create(true).append(true).open(path).expect("a log");
        let server = &self.servers[index];
        let mut command = server.machine.command(SKIFF);
        command
            .args(["server", "--log", "info,client=debug", "--data-dir"])
            .arg(&server.directory)
            .args(["--advertise-address", &server.machine.address().to_string()])
            .args(["--datastore-endpoint", &endpoints.join(","), "--datastore-cafile"])
            .arg(self.path("etcd.crt"))
            .arg("--datastore-certfile")
            .arg(self.path("client.crt"))
            .arg("--datastore-keyfile")
            .arg(self.path("client.key"))
            .args(&self.arguments);
        let errors = log.try_clone().expect("share the log");
        let child = command.stdout(log).stderr(errors).spawn().expect("start skiff server");
        self.servers[index].process = Some(child);
    }

    /// Adds a server and waits until it answers.
    fn add_ready_server(&mut self) -> usize {
        let index = self.add_server();
        self.wait_ready(index);
        index
    }

    fn wait_ready(&self, index: usize) {
        eventually(&format!("server {index} is ready"), PATIENCE, || {
            self.servers[index].directory.join("admin.kubeconfig").exists()
                && self.kubectl(index, &["get", "--raw", "/readyz"]).is_ok()
        });
    }

    fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.path(&format!("server-{index}.log"))).unwrap_or_default()
    }

    /// kubectl on the machine of a server, as its administrator.
    fn kubectl(&self, index: usize, arguments: &[&str]) -> Result<String, String> {
        let server = &self.servers[index];
        let output = server
            .machine
            .command("kubectl")
            .arg("--kubeconfig")
            .arg(server.directory.join("admin.kubeconfig"))
            .args(["--request-timeout", "20s"])
            .args(arguments)
            .output()
            .expect("run kubectl");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Runs `work` on the machine that is no part of the cluster, with a client of these servers (the
    /// first first, the others where it fails) as administrator.
    fn with_client<T: Send + 'static, F: Future<Output = T>>(
        &self,
        servers: &[usize],
        work: impl FnOnce(kube::Client) -> F + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let authority = Authority::load_or_create(&self.servers[0].directory.join("pki"), "ca");
        let authority = authority.expect("the cluster's authority");
        let profile = Profile::client("test", Some("system:masters"));
        let identity = authority.issue(&profile).expect("a certificate");
        let identity = (identity.chain().expect("chain"), identity.private_key().expect("key"));
        let ca = authority.certificate_der().expect("certificate");
        let tls = serve::tls::client_config(&[ca], Some(identity)).expect("TLS");
        let addresses: Vec<ServerAddress> = servers
            .iter()
            .map(|server| {
                let address = self.servers[*server].machine.address();
                format!("https://{address}:6443").parse().expect("an address")
            })
            .collect();
        let outside = self.site.machine("outside", 0).expect("a machine");
        outside.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let remote = Remote::new(Servers::new(addresses), &tls, None);
                work(remote.client()).await
            })
        })
    }
}

/// Writes what etcd and its clients need.
fn certificates(directory: &Path, address: IpAddr) {
    let authority = Authority::load_or_create(&directory.join("etcd-ca"), "ca").expect("authority");
    let member = Profile::server("etcd", vec![], vec![address]);
    let client = Profile::client("skiff", None);
    std::fs::write(directory.join("etcd.crt"), authority.certificate()).expect("write");
    for (name, profile) in [("member", member), ("client", client)] {
        let identity = authority.issue(&profile).expect("a certificate");
        identity.save(&directory.join(format!("{name}.key"))).expect("write");
        std::fs::copy(directory.join(format!("{name}.key")), directory.join(format!("{name}.crt")))
            .expect("copy");
    }
}
