//! What can keep a kubelet from running.

use std::{io, path::PathBuf};

/// Why a kubelet does not run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory could not be made.
    #[error("cannot make {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control groups of pods could not be made.
    #[error("cannot make control groups under {root}: {source} (skiff needs to run as root)")]
    Cgroups {
        /// Their root.
        root: String,
        /// Why.
        source: io::Error,
    },
    /// The runtime does not answer.
    #[error("container runtime: {0}")]
    Runtime(#[from] cri::RuntimeError),
    /// The kubelet's API cannot listen.
    #[error("kubelet API: {0}")]
    Serve(#[from] serve::ServeError),
    /// The kubelet's certificate cannot be used.
    #[error("kubelet API: {0}")]
    Tls(#[from] rustls::Error),
}
