//! Where things lie in the data directory. Everything of a cluster is under one directory, so that
//! several clusters can live on one machine and removing it removes the cluster.

use std::hash::Hasher;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a cluster lives when nothing else is said.
pub(crate) const DEFAULT_DATA_DIRECTORY: &str = "/var/lib/skiff";

/// The data directory of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// However a directory is written, it is the same cluster: what lies elsewhere is named after it.
    pub(crate) fn new(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self { root: root.components().collect() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Held locked by the process that serves the cluster; holds its description.
    pub(crate) fn instance(&self) -> PathBuf {
        self.root.join("instance.json")
    }

    /// What a detached process says.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("skiff.log")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Keys and certificates; never inside the database's directory, which backups copy.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub(crate) fn storage_key(&self) -> PathBuf {
        self.pki().join("storage.keys")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    /// What lives as long as the machine is up: sockets, process ids. Short, because a socket's path
    /// has at most 107 bytes.
    pub(crate) fn runtime(&self) -> PathBuf {
        if self.root == Path::new(DEFAULT_DATA_DIRECTORY) {
            return PathBuf::from("/run/skiff");
        }
        // A hash that stays the same from version to version: `down` may be a newer skiff's.
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(self.root.as_os_str().as_bytes());
        PathBuf::from(format!("/run/skiff-{:016x}", hasher.finish()))
    }

    /// Exists once the node of the process is Ready.
    pub(crate) fn ready_mark(&self, pid: u32) -> PathBuf {
        self.runtime().join(format!("ready-{pid}"))
    }

    /// Whether the directory holds what a cluster writes: a guard before anything is removed.
    pub(crate) fn is_ours(&self) -> bool {
        self.instance().is_file()
    }

    pub(crate) fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.root.join("logs").join("pods")
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    /// Holds the data directories of further nodes on this machine.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// The data directory of a further node on this machine.
    pub(crate) fn node(&self, name: &str) -> Self {
        Self::new(&self.nodes().join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_the_same_however_it_is_written() {
        let here = std::env::current_dir().expect("a directory");
        let wanted = Layout::new(&here.join("data")).runtime();
        for way in ["data", "./data", "data/", "././data/."] {
            assert_eq!(Layout::new(Path::new(way)).runtime(), wanted, "{way}");
        }
        assert_eq!(Layout::new(Path::new("/var/lib/skiff/")).runtime(), Path::new("/run/skiff"));
        assert_ne!(Layout::new(Path::new("other")).runtime(), wanted);
    }
}
