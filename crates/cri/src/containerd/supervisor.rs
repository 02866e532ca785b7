//! containerd's process: starting or adopting it, waiting until it serves, restarting it with back-off. Knows nothing
//! of what runs in it.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::config::{ContainerdOptions, Snapshotter, render};
use crate::{GrpcRuntime, Runtime, RuntimeError};

/// How long a start may take before it counts as failed.
const START: Duration = Duration::from_secs(30);
/// How often a process that is not our child is looked at.
const ADOPTED_CHECK: Duration = Duration::from_secs(2);
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
const BACK_OFF_MOST: Duration = Duration::from_secs(10);
/// containerd's own log is cut when it grows beyond this many bytes.
const LOG_LIMIT: u64 = 16 << 20;

/// Why containerd does not run.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// The executable is missing.
    #[error("{} is not installed: install the package containerd (apt-get install containerd)", .0.display())]
    Missing(PathBuf),
    /// A directory or file could not be made.
    #[error("cannot prepare {}: {source}", path.display())]
    Prepare {
        /// What could not be made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("cannot start containerd: {0}")]
    Spawn(io::Error),
    /// The process ended at once; the last lines of its log tell why.
    #[error("containerd ended while starting: {log}")]
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// It runs, but without its Kubernetes interface.
    #[error("containerd's CRI plugin did not load: {log}")]
    NoCri {
        /// The last lines of its log.
        log: String,
    },
    /// It runs but does not answer.
    #[error("containerd does not answer on {} within {seconds} s: {log}", socket.display())]
    Silent {
        /// Where it should answer.
        socket: PathBuf,
        /// How long skiff waited.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
}

/// A containerd that serves. Dropping it leaves the process alone; [`Containerd::run`] keeps it alive.
#[derive(Debug)]
pub struct Containerd {
    options: ContainerdOptions,
    snapshotter: Snapshotter,
    process: Process,
}

/// The running process: our child, or one a former skiff started.
#[derive(Debug)]
enum Process {
    Child(Child),
    Adopted(Pid),
}

impl Containerd {
    /// Adopts the containerd of these directories if one runs with the same configuration, or starts one, and waits
    /// until it answers. A running one with another configuration is restarted; its containers keep running.
    ///
    /// # Errors
    /// When the executable is missing, the directories cannot be made, or it does not answer in time.
    pub async fn start(options: ContainerdOptions) -> Result<Self, ContainerdError> {
        let snapshotter = prepare(&options)?;
        let config = render(&options, snapshotter);
        let changed =
            fs::read_to_string(options.config_file()).ok().as_deref() != Some(config.as_str());
        if changed {
            write(&options.config_file(), config.as_bytes())?;
        }
        if let Some(pid) = running(&options) {
            if !changed {
                info!(pid = pid.as_raw(), "adopting the running containerd");
                write(&options.pid_file(), pid.to_string().as_bytes())?;
                let mut adopted = Self { options, snapshotter, process: Process::Adopted(pid) };
                adopted.wait_until_ready().await?;
                return Ok(adopted);
            }
            info!(pid = pid.as_raw(), "restarting containerd with a changed configuration");
            terminate(pid, Duration::from_secs(10)).await;
        }
        let process = Process::Child(spawn(&options)?);
        let mut started = Self { options, snapshotter, process };
        match started.wait_until_ready().await {
            Ok(()) => Ok(started),
            Err(error) => {
                started.kill_child();
                Err(error)
            }
        }
    }

    /// A client of this containerd.
    pub fn runtime(&self) -> GrpcRuntime {
        GrpcRuntime::new(&self.options.socket())
    }

    /// The options it was started with.
    pub fn options(&self) -> &ContainerdOptions {
        &self.options
    }

    /// The snapshotter in use.
    pub fn snapshotter(&self) -> Snapshotter {
        self.snapshotter
    }

    /// Restarts containerd whenever it ends, until `shutdown`; then returns and leaves it running.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut back_off = BACK_OFF_FIRST;
        loop {
            let since = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.ended() => {}
            }
            if since.elapsed() > BACK_OFF_MOST * 6 {
                back_off = BACK_OFF_FIRST;
            }
            warn!(retry_in = ?back_off, "containerd ended; its containers keep running");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(back_off) => {}
            }
            back_off = (back_off * 2).min(BACK_OFF_MOST);
            match spawn(&self.options) {
                Ok(child) => self.process = Process::Child(child),
                Err(error) => {
                    warn!(%error, "containerd could not be started again");
                    continue;
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                ready = self.wait_until_ready() => match ready {
                    Ok(()) => info!("containerd serves again"),
                    Err(error) => warn!(%error, "containerd was started again but does not serve"),
                }
            }
        }
    }

    /// Ends a process that never served: a failed start leaves nothing half started.
    fn kill_child(&mut self) {
        if let Process::Child(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.options.pid_file());
    }

    /// Resolves when the process has ended.
    async fn ended(&mut self) {
        loop {
            match &mut self.process {
                // A child is reaped by asking; asking twice a second costs nothing measurable.
                Process::Child(child) => match child.try_wait() {
                    Ok(None) => sleep(Duration::from_millis(500)).await,
                    Ok(Some(_)) | Err(_) => return,
                },
                Process::Adopted(pid) => {
                    if !alive(*pid) {
                        return;
                    }
                    sleep(ADOPTED_CHECK).await;
                }
            }
        }
    }

    async fn wait_until_ready(&mut self) -> Result<(), ContainerdError> {
        let deadline = Instant::now() + START;
        let mut pause = Duration::from_millis(5);
        loop {
            if self.options.socket().exists() {
                match self.runtime().version().await {
                    Ok(_) => return Ok(()),
                    // It serves, but its CRI plugin did not load.
                    Err(RuntimeError::Unimplemented(_)) => {
                        return Err(ContainerdError::NoCri { log: log_tail(&self.options) });
                    }
                    Err(_) => {}
                }
            }
            if let Process::Child(child) = &mut self.process
                && !matches!(child.try_wait(), Ok(None))
            {
                return Err(ContainerdError::Ended { log: log_tail(&self.options) });
            }
            if Instant::now() >= deadline {
                return Err(ContainerdError::Silent {
                    socket: self.options.socket(),
                    seconds: START.as_secs(),
                    log: log_tail(&self.options),
                });
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(50));
        }
    }
}

/// Makes the directories and decides on the snapshotter.
fn prepare(options: &ContainerdOptions) -> Result<Snapshotter, ContainerdError> {
    let store = options.store();
    for dir in [
        &store,
        &options.run_dir,
        &options.cni_bin_dir,
        &options.cni_conf_dir,
        &options.registry_dir,
    ] {
        fs::create_dir_all(dir)
            .map_err(|source| ContainerdError::Prepare { path: dir.clone(), source })?;
    }
    // A store keeps the snapshotter it was filled with: images are unpacked for one of them.
    let filled = [Snapshotter::Overlay, Snapshotter::Native].into_iter().find(|s| {
        store.join(format!("io.containerd.snapshotter.v1.{}/snapshots/1", s.name())).exists()
    });
    Ok(options.snapshotter.or(filled).unwrap_or_else(|| Snapshotter::detect(&store)))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ContainerdError> {
    fs::write(path, bytes)
        .map_err(|source| ContainerdError::Prepare { path: path.to_owned(), source })
}

/// Starts the process in its own process group, so that signals meant for skiff do not reach it.
fn spawn(options: &ContainerdOptions) -> Result<Child, ContainerdError> {
    let log_file = options.log_file();
    if fs::metadata(&log_file).is_ok_and(|m| m.len() > LOG_LIMIT) {
        let _ = fs::remove_file(&log_file);
    }
    let open = || OpenOptions::new().create(true).append(true).open(&log_file);
    let prepare = |source| ContainerdError::Prepare { path: log_file.clone(), source };
    let (out, err) = (open().map_err(prepare)?, open().map_err(prepare)?);
    let child = Command::new(&options.binary)
        .arg("--config")
        .arg(options.config_file())
        // Fewer pages kept by the collector: an idle containerd has little garbage.
        .env("GOGC", "50")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ContainerdError::Missing(options.binary.clone()),
            _ => ContainerdError::Spawn(error),
        })?;
    write(&options.pid_file(), child.id().to_string().as_bytes())?;
    Ok(child)
}

/// The containerd of these directories, if it runs: a process that was given our configuration file. The pid file says
/// where to look first; it is missing when skiff was killed between starting the process and writing it.
pub(super) fn running(options: &ContainerdOptions) -> Option<Pid> {
    let config = options.config_file();
    let config = config.as_os_str().as_bytes();
    let is_ours = |pid: i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|command| command.split(|byte| *byte == 0).any(|word| word == config))
            && alive(Pid::from_raw(pid))
    };
    let recorded = fs::read_to_string(options.pid_file()).ok();
    let recorded = recorded.and_then(|text| text.trim().parse().ok()).filter(|pid| is_ours(*pid));
    // The lowest: a child has its parent's command line until it runs its own program.
    let found = || processes().filter(|pid| is_ours(*pid)).min();
    recorded.or_else(found).map(Pid::from_raw)
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Asks a process to end and kills it when it does not within `patience`.
pub(super) async fn terminate(pid: Pid, patience: Duration) {
    let _ = kill(pid, Signal::SIGTERM);
    let deadline = Instant::now() + patience;
    while alive(pid) {
        if Instant::now() >= deadline {
            let _ = kill(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10)).await;
        if Instant::now() >= deadline + patience {
            return;
        }
    }
}

/// Whether a process runs; a zombie does not.
pub(super) fn alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

/// The last lines of containerd's log, for error messages.
fn log_tail(options: &ContainerdOptions) -> String {
    let text = fs::read(options.log_file()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
