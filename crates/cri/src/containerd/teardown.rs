//! The end of a private containerd and of everything it runs: containers, shims, mounts, sockets. Knows nothing of
//! the objects the containers stood for.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    config::ContainerdOptions,
    mounts::unmount_below,
    supervisor::{Containerd, alive, running, terminate},
};
use crate::{GrpcRuntime, Runtime, RuntimeError, v1};

/// What was stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Sandboxes removed.
    pub sandboxes: usize,
    /// Containers stopped.
    pub containers: usize,
    /// Mounts undone.
    pub mounts: usize,
}

/// Stops every container and sandbox of the containerd of `options` (containers get `grace` to end by themselves),
/// then its shims and containerd itself, undoes its mounts and removes its run directory. Persistent data stays.
/// Works, as far as it can, when containerd is not running: it is started for the time of the stop, so that networks
/// are released properly.
pub async fn stop_all(options: &ContainerdOptions, grace: Duration) -> StopReport {
    let mut report = StopReport::default();
    if !options.run_dir.exists() {
        report.mounts = unmount_below(&options.root);
        return report;
    }
    let something_runs = running(options).is_some() || !shims(options).is_empty();
    if something_runs {
        match Containerd::start(options.clone()).await {
            Ok(containerd) => match stop_sandboxes(&containerd.runtime(), grace).await {
                Ok((sandboxes, containers)) => {
                    report.sandboxes = sandboxes;
                    report.containers = containers;
                }
                Err(error) => {
                    warn!(%error, "containers could not be stopped through containerd; killing them")
                }
            },
            Err(error) => {
                warn!(%error, "containerd could not be started to stop its containers; killing them")
            }
        }
    }
    if let Some(pid) = running(options) {
        terminate(pid, Duration::from_secs(10)).await;
    }
    kill_shims(options).await;
    report.mounts = unmount_below(&options.run_dir) + unmount_below(&options.root);
    if let Err(error) = fs::remove_dir_all(&options.run_dir) {
        warn!(%error, dir = %options.run_dir.display(), "run directory could not be removed");
    }
    report
}

/// Stops and removes everything through the runtime, in parallel.
async fn stop_sandboxes(
    runtime: &GrpcRuntime,
    grace: Duration,
) -> Result<(usize, usize), RuntimeError> {
    let running =
        Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() });
    let filter = v1::ContainerFilter { state: running, ..Default::default() };
    let containers = runtime.list_containers(filter).await?;
    if !grace.is_zero() {
        join_all(containers.iter().map(|c| runtime.stop_container(c.id.clone(), grace))).await;
    }
    let sandboxes = runtime.list_pod_sandboxes(v1::PodSandboxFilter::default()).await?;
    let results = join_all(sandboxes.iter().map(|sandbox| async {
        let stop =
            timeout(Duration::from_secs(30), runtime.stop_pod_sandbox(sandbox.id.clone())).await;
        if let Ok(Err(error)) = &stop {
            warn!(%error, sandbox = %sandbox.id, "sandbox could not be stopped");
        }
        timeout(Duration::from_secs(30), runtime.remove_pod_sandbox(sandbox.id.clone())).await
    }))
    .await;
    Ok((results.iter().filter(|r| matches!(r, Ok(Ok(())))).count(), containers.len()))
}

/// Shims of this containerd: processes that name its socket.
fn shims(options: &ContainerdOptions) -> Vec<Pid> {
    let socket = options.socket();
    let socket = socket.to_string_lossy();
    processes()
        .filter(|(_, command)| {
            let mut arguments = command.split(|b| *b == 0);
            let shim = arguments.next().is_some_and(|program| {
                Path::new(&*String::from_utf8_lossy(program))
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("containerd-shim"))
            });
            shim && arguments.any(|argument| argument == socket.as_bytes())
        })
        .map(|(pid, _)| pid)
        .collect()
}

fn processes() -> impl Iterator<Item = (Pid, Vec<u8>)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((Pid::from_raw(pid), fs::read(entry.path().join("cmdline")).ok()?))
    })
}

/// Kills shims that are left, with the processes they hold, and removes their sockets.
async fn kill_shims(options: &ContainerdOptions) {
    for socket in shim_sockets(options) {
        let _ = fs::remove_file(socket);
    }
    let left = shims(options);
    for shim in &left {
        for child in children(*shim) {
            let _ = kill(child, Signal::SIGKILL);
        }
        let _ = kill(*shim, Signal::SIGKILL);
    }
    for shim in left {
        while alive(shim) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Direct children of a process: the containers of a shim.
fn children(parent: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .map(Pid::from_raw)
        .collect()
}

/// Sockets of shims, as their bundles name them; they lie outside the run directory.
fn shim_sockets(options: &ContainerdOptions) -> Vec<PathBuf> {
    let bundles = options.state().join("io.containerd.runtime.v2.task/k8s.io");
    fs::read_dir(bundles)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok())
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .collect()
}
