//! Where things lie in the data directory. Everything of a cluster is under one directory, so that
//! several clusters can live on one machine and removing it removes the cluster.

use std::path::{Path, PathBuf};

/// Where a cluster lives when nothing else is said.
pub(crate) const DEFAULT_DATA_DIRECTORY: &str = "/var/lib/skiff";

/// The data directory of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Held locked by the process that serves the cluster; holds its description.
    pub(crate) fn instance(&self) -> PathBuf {
        self.root.join("instance.json")
    }

    /// What the cluster was started with, kept for `down` after the process has gone.
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
}
