//! Which container holds which pod address: one small file per lease.
//!
//! A lease is written whole or not at all (rename), under a lock that every process takes. It
//! carries the boot it belongs to and its network namespace, so that what outlived its pod
//! can be told and taken back. Nothing is flushed: after a machine crash no lease is valid.

use std::{
    fs::{self, File, OpenOptions},
    hash::Hasher,
    io::{self, Read},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use serde::{Deserialize, Serialize};

use crate::options::gateway;

/// The longest wait for the lock; holders keep it for a file or two, or one nft transaction.
const LOCK_WAIT: Duration = Duration::from_secs(15);
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
    Exhausted(Ipv4Net),
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
    pub host_ip: Option<Ipv4Addr>,
}

/// One address held by one interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The container, as the runtime names it.
    pub container: String,
    /// The interface within the container.
    pub interface: String,
    /// Path of the network namespace.
    pub netns: String,
    /// The boot in which the lease was given.
    boot: String,
    /// Ports of the node that lead here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// What a lease is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) container: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) netns: &'a str,
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

    /// Gives out an address: the one already held by that interface, or the next after the last
    /// given, so that addresses are reused as late as possible.
    pub(crate) fn allocate(
        &self,
        network: Ipv4Net,
        request: &Request<'_>,
    ) -> Result<Lease, LeaseError> {
        let held = self.names()?;
        let mine = tag(request.container, request.interface);
        let known = held.iter().find(|(_, tag)| *tag == mine).map(|(address, _)| *address);
        let address = match known {
            Some(address) => address,
            None => {
                let taken: Vec<Ipv4Addr> = held.iter().map(|(address, _)| *address).collect();
                match next_free(network, self.last(), &taken) {
                    Some(address) => address,
                    None => self.reclaim(network)?,
                }
            }
        };
        let lease = Lease {
            address,
            container: request.container.to_owned(),
            interface: request.interface.to_owned(),
            netns: request.netns.to_owned(),
            boot: self.boot.clone(),
            host_ports: request.host_ports.clone(),
        };
        self.write(&file_name(address, &mine), &serde_json::to_vec(&lease).unwrap_or_default())?;
        if known.is_none() {
            self.write("last", address.to_string().as_bytes())?;
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

    /// Takes back dead leases to make room, and gives out a first free address.
    fn reclaim(&self, network: Ipv4Net) -> Result<Ipv4Addr, LeaseError> {
        self.reconcile()?;
        let taken: Vec<Ipv4Addr> = self.names()?.iter().map(|(address, _)| *address).collect();
        next_free(network, self.last(), &taken).ok_or(LeaseError::Exhausted(network))
    }

    fn lives(&self, lease: &Lease) -> bool {
        let namespace =
            statfs(lease.netns.as_str()).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
        lease.boot == self.boot && namespace
    }

    /// Address and tag of every lease file.
    fn names(&self) -> Result<Vec<(Ipv4Addr, String)>, LeaseError> {
        let entries = fs::read_dir(&self.directory).map_err(failed("list", &self.directory))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| {
                let (address, tag) = name.strip_suffix(".json")?.split_once('_')?;
                Some((address.parse().ok()?, tag.to_owned()))
            })
            .collect())
    }

    fn last(&self) -> Option<Ipv4Addr> {
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

/// The first free address after `last`, going round; never network, gateway or broadcast.
fn next_free(network: Ipv4Net, last: Option<Ipv4Addr>, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let first = u32::from(gateway(network)).checked_add(1)?;
    let end = u32::from(network.broadcast());
    let start = last
        .map(|last| u32::from(last).saturating_add(1))
        .filter(|start| (first..end).contains(start))
        .unwrap_or(first);
    let taken: std::collections::HashSet<u32> = taken.iter().map(|a| u32::from(*a)).collect();
    (start..end).chain(first..start).find(|candidate| !taken.contains(candidate)).map(Into::into)
}

fn file_name(address: Ipv4Addr, tag: &str) -> String {
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
        Request { container, interface: "eth0", netns, host_ports: Vec::new() }
    }

    fn network() -> Ipv4Net {
        "10.244.0.0/29".parse().expect("network")
    }

    #[test]
    fn addresses_go_round_and_run_out() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        let here = "/proc/self/ns/net";
        let addresses: Vec<String> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|name| {
                leases.allocate(network(), &request(name, here)).expect("free").address.to_string()
            })
            .collect();
        assert_eq!(
            addresses,
            ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5", "10.244.0.6"]
        );
        assert!(matches!(
            leases.allocate(network(), &request("f", here)),
            Err(LeaseError::Exhausted(_))
        ));
        leases.release("c", "eth0").expect("release");
        leases.release("c", "eth0").expect("release again");
        let again = leases.allocate(network(), &request("f", here)).expect("free again");
        assert_eq!(again.address.to_string(), "10.244.0.4");
        assert_eq!(leases.find("f", "eth0").expect("find"), Some(again));
        assert_eq!(leases.find("c", "eth0").expect("find"), None);
        assert_eq!(leases.list().expect("list").len(), 5);
    }

    #[test]
    fn a_freed_address_is_not_given_out_next() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        let here = "/proc/self/ns/net";
        let first = leases.allocate(network(), &request("a", here)).expect("free");
        leases.release("a", "eth0").expect("release");
        let second = leases.allocate(network(), &request("b", here)).expect("free");
        assert_ne!(first.address, second.address);
        let same = leases.allocate(network(), &request("b", here)).expect("held");
        assert_eq!(second, same);
    }

    #[test]
    fn leases_of_vanished_namespaces_come_back() {
        let directory = tempfile::tempdir().expect("directory");
        let leases = Leases::open(directory.path()).expect("open");
        leases.allocate(network(), &request("gone", "/nonexistent/netns")).expect("free");
        leases.allocate(network(), &request("here", "/proc/self/ns/net")).expect("free");
        fs::write(directory.path().join("10.244.0.6_0000000000000000.json"), b"{torn")
            .expect("write");
        let gone = leases.reconcile().expect("reconcile");
        assert_eq!(gone.iter().map(|lease| lease.container.as_str()).collect::<Vec<_>>(), ["gone"]);
        assert_eq!(leases.list().expect("list").len(), 1);
        assert_eq!(leases.names().expect("names").len(), 1);
    }
}
