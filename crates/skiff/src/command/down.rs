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
use crate::instance::{self, Description};
use crate::layout::Layout;

/// How long the process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn run(layout: &Layout, purge: bool) -> anyhow::Result<ExitCode> {
    let found = instance::find(layout)?;
    if let Some((description, true)) = &found {
        stop_process(layout, description)?;
    }
    if let Some((description, _)) = &found {
        super::block_on(cluster::remove_traces(layout, description))?;
    }
    if purge && layout.root().exists() {
        purge_data(layout)?;
    }
    match found {
        Some(_) => {
            eprintln!("nothing of the cluster in {} is left running", layout.root().display())
        }
        None => eprintln!("no cluster was ever started in {}", layout.root().display()),
    }
    Ok(ExitCode::SUCCESS)
}

fn stop_process(layout: &Layout, description: &Description) -> anyhow::Result<()> {
    let pid = Pid::from_raw(description.pid);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("stop process {pid}: are you root?"));
            }
        }
        let deadline = Instant::now() + PATIENCE;
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
