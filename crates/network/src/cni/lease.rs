//! Which container holds which pod address: one small file per lease.
//!
//! A lease is written whole or not at all (rename), under a lock that every process takes. It
//! carries the boot it belongs to and its network namespace, so that what outlived its pod
//! can be told and taken back. Nothing is flushed: after a machine crash no lease is valid.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    hash::Hasher,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::options::{address_at, number};

/// The longest wait for the lock; holders keep it for a file or two, or one nft transaction.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// As many addresses of a range are given out at most: nobody has more pods on a node.
const LARGEST_OFFSET: u32 = 1 << 16;
/// The first address that is neither the range's own nor the gateway's.
const FIRST_OFFSET: u32 = 2;
/// No lease file is larger, in bytes.
const LEASE_BYTES: u64 = 64 * 1024;

/// Why leases could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A file operation failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process kept the lock too long.
    #[error("address leases in {} are locked by another process", .0.display())]
    Busy(PathBuf),
    /// All addresses are taken.
    #[error("no free address in {0}")]
    Exhausted(IpNet),
}

/// A port of the node that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// Port on the node.
    pub host_port: u16,
    /// Port of the pod.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Only on this address of the node; all of them if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// The pod that a container is of, as the runtime names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty if the runtime does not tell.
    #[serde(default)]
    pub uid: String,
}

/// Addresses held by one interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The addresses, at most one a family, the primary one first. All are equally far from the
    /// beginnings of their ranges.
    #[serde(alias = "address", deserialize_with = "one_or_more")]
    pub addresses: Vec<IpAddr>,
    /// The container, as the runtime names it.
    pub container: String,
    /// The interface within the container.
    pub interface: String,
    /// Path of the network namespace.
    pub netns: String,
    /// The pod, if the runtime tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The boot in which the lease was given.
    boot: String,
    /// Ports of the node that lead here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A list, or the one address of leases of nodes with one family.
fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(IpAddr),
        More(Vec<IpAddr>),
    }
    Ok(match Either::deserialize(from)? {
        Either::One(address) => vec![address],
        Either::More(addresses) => addresses,
    })
}

/// What a lease is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) container: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) netns: &'a str,
    pub(crate) pod: Option<PodName>,
    pub(crate) host_ports: Vec<HostPort>,
}

/// The leases of one node, locked against other processes until dropped.
pub(crate) struct Leases {
    directory: PathBuf,
    boot: String,
    _lock: Flock<File>,
}

impl Leases {
    /// Opens the directory, making it if needed, and takes its lock.
    pub(crate) fn open(directory: &Path) -> Result<Self, LeaseError> {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        let path = directory.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        let started = Instant::now();
        let lock = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((back, _)) if started.elapsed() < LOCK_WAIT => file = back,
                Err(_) => return Err(LeaseError::Busy(directory.to_owned())),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self { directory: directory.to_owned(), boot: boot.trim().to_owned(), _lock: lock })
    }

    /// Gives out one address of each range: those already held by that interface, or the next after
    /// the last given, so that addresses are reused as late as possible.
    pub(crate) fn allocate(
        &self,
        networks: &[IpNet],
        request: &Request<'_>,
    ) -> Result<Lease, LeaseError> {
        let held = self.names()?;
        let mine = tag(request.container, request.interface);
        let known = held.iter().find(|(_, tag)| *tag == mine);
        let offset = match known.and_then(|(address, _)| offset(networks, *address)) {
            Some(offset) => offset,
            None => {
                // From before this node got other ranges.
                self.release(request.container, request.interface)?;
                let offset = self.free(networks)?.map_or_else(|| self.reclaim(networks), Ok)?;
                if let Some(network) = networks.first() {
                    self.write("last", address_at(*network, offset).to_string().as_bytes())?;
                }
                offset
            }
        };
        let lease = Lease {
            addresses: networks.iter().map(|network| address_at(*network, offset)).collect(),
            container: request.container.to_owned(),
            interface: request.interface.to_owned(),
            netns: request.netns.to_owned(),
            pod: request.pod.clone(),
            boot: self.boot.clone(),
            host_ports: request.host_ports.clone(),
        };
        if let Some(address) = lease.addresses.first() {
            let name = file_name(*address, &mine);
            self.write(&name, &serde_json::to_vec(&lease).unwrap_or_default())?;
        }
        Ok(lease)
    }

    /// The lease of an interface.
    pub(crate) fn find(
        &self,
        container: &str,
        interface: &str,
    ) -> Result<Option<Lease>, LeaseError> {
        let mine = tag(container, interface);
        let held = self.names()?;
        let Some((address, _)) = held.iter().find(|(_, tag)| *tag == mine) else {
            return Ok(None);
        };
        self.read(&file_name(*address, &mine))
    }

    /// Takes back the lease of an interface; nothing happens if there is none.
    pub(crate) fn release(&self, container: &str, interface: &str) -> Result<(), LeaseError> {
        let mine = tag(container, interface);
        for (address, _) in self.names()?.iter().filter(|(_, tag)| *tag == mine) {
            self.remove(&file_name(*address, &mine))?;
        }
        Ok(())
    }

    /// Every readable lease.
    pub(crate) fn list(&self) -> Result<Vec<Lease>, LeaseError> {
        let mut leases = Vec::new();
        for (address, tag) in self.names()? {
            leases.extend(self.read(&file_name(address, &tag))?);
        }
        Ok(leases)
    }

    /// Takes back every lease whose network namespace is gone, and unreadable ones; returns the
    /// readable ones taken back.
    pub(crate) fn reconcile(&self) -> Result<Vec<Lease>, LeaseError> {
        let mut gone = Vec::new();
        for (address, tag) in self.names()? {
            let name = file_name(address, &tag);
            match self.read(&name)? {
                Some(lease) if self.lives(&lease) => continue,
                Some(lease) => gone.push(lease),
                None => {}
            }
            self.remove(&name)?;
        }
        Ok(gone)
    }

    /// Takes back dead leases to make room, and gives out a first free place.
    fn reclaim(&self, networks: &[IpNet]) -> Result<u32, LeaseError> {
        self.reconcile()?;
        let smallest = networks.iter().min_by_key(|network| end(network)).copied();
        let exhausted = || LeaseError::Exhausted(smallest.unwrap_or_default());
        self.free(networks)?.ok_or_else(exhausted)
    }

    fn free(&self, networks: &[IpNet]) -> Result<Option<u32>, LeaseError> {
        let held = self.names()?;
        let taken = held.iter().filter_map(|(address, _)| offset(networks, *address)).collect();
        let last = self.last().and_then(|last| offset(networks, last));
        Ok(next_free(networks, last, &taken))
    }

    fn lives(&self, lease: &Lease) -> bool {
        let namespace =
            statfs(lease.netns.as_str()).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
        lease.boot == self.boot && namespace
    }

    /// Address and tag of every lease file.
    fn names(&self) -> Result<Vec<(IpAddr, String)>, LeaseError> {
        let entries = fs::read_dir(&self.directory).map_err(failed("list", &self.directory))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| {
                let (address, tag) = name.strip_suffix(".json")?.split_once('_')?;
                Some((address.parse().ok()?, tag.to_owned()))
            })
            .collect())
    }

    fn last(&self) -> Option<IpAddr> {
        fs::read_to_string(self.directory.join("last")).ok()?.trim().parse().ok()
    }

    fn read(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        let path = self.directory.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(LEASE_BYTES).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), LeaseError> {
        let temporary = self.directory.join("new");
        fs::write(&temporary, bytes).map_err(failed("write", &temporary))?;
        let path = self.directory.join(name);
        fs::rename(&temporary, &path).map_err(failed("rename to", &path))
    }

    fn remove(&self, name: &str) -> Result<(), LeaseError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The first free place after `last`, going round; never that of network, gateway or broadcast.
fn next_free(networks: &[IpNet], last: Option<u32>, taken: &HashSet<u32>) -> Option<u32> {
    let end = networks.iter().map(end).min()?;
    let after = last.map(|last| last.saturating_add(1));
    let start = after.filter(|start| (FIRST_OFFSET..end).contains(start)).unwrap_or(FIRST_OFFSET);
    (start..end).chain(FIRST_OFFSET..start).find(|candidate| !taken.contains(candidate))
}

/// How far the end of a range's usable addresses is from its beginning.
fn end(network: &IpNet) -> u32 {
    let distance = number(network.broadcast()) - number(network.network());
    u32::try_from(distance).unwrap_or(u32::MAX).min(LARGEST_OFFSET)
}

/// How far an address is from the beginning of its range; `None` if it is in none.
fn offset(networks: &[IpNet], address: IpAddr) -> Option<u32> {
    let network = networks.iter().find(|network| network.contains(&address))?;
    u32::try_from(number(address) - number(network.network())).ok()
}

fn file_name(address: IpAddr, tag: &str) -> String {
    format!("{address}_{tag}.json")
}

/// A short name for an interface of a container: in file names and names of devices.
pub(crate) fn tag(container: &str, interface: &str) -> String {
    let mut hasher = Fnv::default();
    hasher.write(container.as_bytes());
    hasher.write(b"/");
    hasher.write(interface.as_bytes());
    format!("{:016x}", hasher.finish())
}

/// FNV-1a, 64 bits: stable over versions, unlike the standard library's hasher.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeaseError {
    let path = path.to_owned();
    move |source| LeaseError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(container: &'a str, netns: &'a str) -> Request<'a> {
        Request { container, interface: "eth0", netns, pod: None, host_ports: Vec::new() }
    }

    fn networks() -> Vec<IpNet> {
        vec!["10.244.0.0/29".parse().expect("network")]
    }

    #[test]
    fn addresses_go_round_and_run_out() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        let here = "/proc/self/ns/net";
        let addresses: Vec<String> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|name| {
                leases.allocate(&networks(), &request(name, here)).expect("free").addresses[0]
                    .to_string()
            })
            .collect();
        assert_eq!(
            addresses,
            ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5", "10.244.0.6"]
        );
        assert!(matches!(
            leases.allocate(&networks(), &request("f", here)),
            Err(LeaseError::Exhausted(_))
        ));
        leases.release("c", "eth0").expect("release");
        leases.release("c", "eth0").expect("release again");
        let again = leases.allocate(&networks(), &request("f", here)).expect("free again");
        assert_eq!(again.addresses[0].to_string(), "10.244.0.4");
        assert_eq!(leases.find("f", "eth0").expect("find"), Some(again));
        assert_eq!(leases.find("c", "eth0").expect("find"), None);
        assert_eq!(leases.list().expect("list").len(), 5);
    }

    #[test]
    fn a_freed_address_is_not_given_out_next() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        let here = "/proc/self/ns/net";
        let first = leases.allocate(&networks(), &request("a", here)).expect("free");
        leases.release("a", "eth0").expect("release");
        let second = leases.allocate(&networks(), &request("b", here)).expect("free");
        assert_ne!(first.addresses, second.addresses);
        let same = leases.allocate(&networks(), &request("b", here)).expect("held");
        assert_eq!(second, same);
    }

    #[test]
    fn both_families_and_ranges_that_change() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        let here = "/proc/self/ns/net";
        let both = ["fd00:0:0:1::/64", "10.244.1.0/24"].map(|net| net.parse().expect("network"));
        let lease = leases.allocate(&both, &request("a", here)).expect("free");
        let text: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["fd00:0:0:1::2", "10.244.1.2"]);
        assert_eq!(leases.list().expect("list"), [lease]);
        let moved = leases.allocate(&networks(), &request("a", here)).expect("free");
        assert_eq!(moved.addresses[0].to_string(), "10.244.0.2");
        assert_eq!(leases.list().expect("list"), [moved]);
        let old = r#"{"address":"10.244.0.3","container":"b","interface":"eth0","netns":"/n","boot":"x"}"#;
        let old: Lease = serde_json::from_str(old).expect("a lease of one address");
        assert_eq!(old.addresses.len(), 1);
    }

    #[test]
    fn leases_of_vanished_namespaces_come_back() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        leases.allocate(&networks(), &request("gone", "/nonexistent/netns")).expect("free");
        leases.allocate(&networks(), &request("here", "/proc/self/ns/net")).expect("free");
        fs::write(directory.path().join("10.244.0.6_0000000000000000.json"), b"{torn")
            .expect("write");
        let gone = leases.reconcile().expect("reconcile");
        assert_eq!(gone.iter().map(|lease| lease.container.as_str()).collect::<Vec<_>>(), ["gone"]);
        assert_eq!(leases.list().expect("list").len(), 1);
        assert_eq!(leases.names().expect("names").len(), 1);
    }
}
