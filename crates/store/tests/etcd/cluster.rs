//! etcd clusters for tests: real members with TLS on loopback addresses of
//! their own. They end with the test.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use store::{Etcd, EtcdOptions, EtcdTls, OpenError};
use tempfile::TempDir;

use crate::suite::Note;

/// Members that run, and how to reach them.
pub(crate) struct Cluster {
    directory: TempDir,
    address: Ipv4Addr,
    members: Vec<Option<Child>>,
    tls: EtcdTls,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}

impl Cluster {
    /// Starts a cluster of `size` members; they elect a leader while the store opens.
    pub(crate) fn start(size: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // All of 127/8 is this machine: no other test or cluster uses this one.
        let [a, b, c] = rand::random::<[u8; 3]>();
        let address = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        let tls = certificates(directory.path(), address);
        let mut cluster =
            Self { directory, address, members: (0..size).map(|_| None).collect(), tls };
        for index in 0..size {
            cluster.restart(index);
        }
        cluster
    }

    /// The addresses of the members.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|index| format!("https://{}", self.listener(index))).collect()
    }

    /// Where a member takes clients.
    pub(crate) fn listener(&self, index: usize) -> String {
        format!("{}:{}", self.address, 2379 + 10 * index)
    }

    fn peer(&self, index: usize) -> String {
        format!("http://{}:{}", self.address, 2380 + 10 * index)
    }

    /// Starts a member that does not run.
    pub(crate) fn restart(&mut self, index: usize) {
        let path = |name: &str| self.directory.path().join(name);
        let all: Vec<String> =
            (0..self.members.len()).map(|index| format!("m{index}={}", self.peer(index))).collect();
        let client = format!("https://{}", self.listener(index));
        let log =
            File::options().create(true).append(true).open(path(&format!("m{index}.log"))).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(path(&format!("m{index}")))
            .args(["--name", &format!("m{index}"), "--initial-cluster", &all.join(",")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &self.peer(index)])
            .args(["--initial-advertise-peer-urls", &self.peer(index)])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--max-request-bytes", "33554432", "--client-cert-auth"])
            .arg("--trusted-ca-file")
            .arg(path("ca.crt"))
            .arg("--cert-file")
            .arg(path("server.crt"))
            .arg("--key-file")
            .arg(path("server.key"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd and setpriv are installed");
        self.members[index] = Some(child);
    }

    /// Ends a member without a chance to say anything.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Options of the server `name`, with all members as endpoints.
    pub(crate) fn options(&self, name: &str) -> EtcdOptions {
        let mut options = EtcdOptions::new(self.endpoints(), name);
        options.tls = Some(self.tls.clone());
        options.patience = std::time::Duration::from_secs(60);
        options
    }

    /// Opens the store as the server `name`.
    pub(crate) async fn open(&self, name: &str) -> Etcd<Note> {
        open(self.options(name)).await.unwrap()
    }
}

pub(crate) async fn open(options: EtcdOptions) -> Result<Etcd<Note>, OpenError> {
    Etcd::open(options, |_, value| value.len()).await
}

/// Writes what etcd needs, returns what its clients need.
fn certificates(directory: &std::path::Path, address: Ipv4Addr) -> EtcdTls {
    let (ca_key, mut ca) = (KeyPair::generate().unwrap(), CertificateParams::default());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let (key, mut leaf) = (KeyPair::generate().unwrap(), CertificateParams::default());
    leaf.subject_alt_names = vec![SanType::IpAddress(address.into())];
    leaf.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let files = [
        ("ca.crt", ca_certificate.pem()),
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ];
    for (name, text) in &files {
        fs::write(directory.join(name), text).unwrap();
    }
    let [authority, certificate, key] = files.map(|(_, text)| text.into_bytes());
    EtcdTls { authority, identity: Some((certificate, key)) }
}
