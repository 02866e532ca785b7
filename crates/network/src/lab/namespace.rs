//! Network namespaces by the files that stand for them: made, entered, left to others.
//!
//! Knows nothing of wires and addresses.

use std::{
    ffi::OsStr,
    fs::File,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{LabError, pin};
use crate::netlink::{Socket, route};

/// A network namespace. It lasts as long as its pin, or a process in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// The namespace of this process.
    pub fn own() -> Self {
        Self::at("/proc/self/ns/net")
    }

    /// The namespace that the file at `path` stands for.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The namespace pinned at `path`, made with its loopback device up where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, LabError> {
        if !pin::is_pinned(path) {
            on_thread(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(LabError::kernel("make a network namespace: are you root?"))?;
                let mut socket = Socket::route()?;
                if let Some(loopback) = route::link(&mut socket, "lo")? {
                    route::set_up(&mut socket, loopback.index, None)?;
                }
                pin::pin(Path::new("/proc/thread-self/ns/net"), path)
            })?;
        }
        Ok(Self::at(path))
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into the namespace.
    ///
    /// # Errors
    /// When it has gone, or without root.
    pub fn enter(&self) -> Result<(), LabError> {
        let file = File::open(&self.path).map_err(LabError::file("open", &self.path))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .map_err(LabError::kernel(format!("enter {}", self.path.display())))
    }

    /// Does `work` in the namespace, on a thread of its own, and waits for it. Programs started by it
    /// run in the namespace too.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_thread(|| self.enter().map(|()| work()))
    }

    /// A command that runs in the namespace, with this process' view of files.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }
}

/// Does `work` on a thread of its own, whose namespaces may change, and waits for it.
pub(super) fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
