//! The kubelet: runs the pods that are bound to a node, through a container runtime, and reports on them and on the
//! node. Knows nothing of how the node's network works, only of the revisions its proxies publish.
//!
//! - `pod`: the pure state machine of one pod and the projection of its state to the API's status.
//! - `actor`: one task a pod that feeds the machine and carries out what it asks for.
//! - `spec`: pure translation of pod specifications to what the runtime takes.
//! - `volumes`, `images`, `probes`, `hooks`, `drain`, `logs`, `cgroups`: what effects are made of.
//! - `node`: the Node object and its lease. `server`: the kubelet's HTTPS API.

mod actor;
mod admission;
mod adopt;
mod cgroups;
mod context;
mod drain;
mod error;
mod gc;
mod hooks;
mod http_get;
mod images;
mod kubelet;
mod logs;
mod monitor;
mod mounts;
mod node;
mod options;
mod pod;
mod probes;
mod resources;
mod server;
mod sources;
mod spec;
mod tunnel;
mod volumes;

use std::path::Path;

pub use error::KubeletError;
pub use kubelet::{Kubelet, KubeletDependencies, OtherMetrics};
pub use options::{KubeletOptions, ShutdownGrace};
pub use server::ServerIdentity;

/// Removes from the kernel what the pods of a node left there: mounts below the kubelet's root directory and control
/// groups below `cgroup_root`. For a node whose containers have all been stopped; files stay.
pub fn remove_traces(root_dir: &Path, cgroup_root: &str) {
    mounts::unmount_below(root_dir);
    cgroups::remove_all(cgroup_root);
}
