//! `skiff down`: stops the process, then the pods, then removes what they left in the kernel.
//!
//! Works on whatever is still there: a cluster that runs, or the remains of one that was killed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster;
use crate::instance::{self, Description, Role};
use crate::layout::Layout;

/// How long the process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same when its pods end first, in their own time.
const PODS_PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn run(layout: &Layout, purge: bool, graceful: bool) -> anyhow::Result<ExitCode> {
    let found = instance::find(layout)?;
    if let Some((description, true)) = &found {
        stop_process(layout, description, graceful)?;
    }
    if let Some((description, _)) = &found {
        super::block_on(cluster::remove_traces(layout, description))?;
    }
    if purge && layout.root().exists() {
        purge_data(layout)?;
    }
    match found {
        Some((Description { role: Role::Agent, node, .. }, _)) => {
            let name = node.map(|node| node.node_name).unwrap_or_default();
            eprintln!("nothing of the node in {} is left running", layout.root().display());
            eprintln!("the cluster still knows it: `kubectl delete node {name}` makes it forget");
        }
        Some(_) => {
            eprintln!("nothing of the cluster in {} is left running", layout.root().display())
        }
        None => eprintln!("no cluster was ever started in {}", layout.root().display()),
    }
    Ok(ExitCode::SUCCESS)
}

fn stop_process(layout: &Layout, description: &Description, graceful: bool) -> anyhow::Result<()> {
    let pid = Pid::from_raw(description.pid);
    let gently = (cluster::POWER_FAILURE, PODS_PATIENCE);
    let first = (graceful && description.node.is_some()).then_some(gently);
    let rest = [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, PATIENCE)];
    for (signal, patience) in first.into_iter().chain(rest) {
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("stop process {pid}: are you root?"));
            }
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(instance::find(layout)?, Some((_, true))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    bail!("process {pid} does not end")
}

/// Where something is mounted, in the order of mounting.
fn mounts() -> anyhow::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect())
}

/// Never removes what is still mounted: that may be a user's data.
fn purge_data(layout: &Layout) -> anyhow::Result<()> {
    let root = layout.root().canonicalize().context("resolve the data directory")?;
    if let Some(mount) = mounts()?.iter().find(|mount| mount.starts_with(&root) && **mount != root)
    {
        bail!(
            "{} is still mounted: unmount it, then run `skiff down --purge` again",
            mount.display()
        );
    }
    if !layout.is_ours() {
        bail!("{} does not look like a data directory of skiff: not removed", root.display());
    }
    std::fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))
}
