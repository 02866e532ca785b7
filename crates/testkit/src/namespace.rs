//! Network namespaces: a machine's network of one's own, with an address and a default route that
//! leads nowhere.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The address of a machine in its namespace.
const ADDRESS: &str = "10.77.0.2/24";
const GATEWAY: &str = "10.77.0.1";

/// A network namespace that is removed when dropped.
pub struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    /// Makes a namespace with loopback up and one interface, `eth0`, with an address.
    ///
    /// # Errors
    /// When not root, or `ip` is missing.
    pub fn create() -> anyhow::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("skiff-test-{}-{number}", std::process::id()) };
        ip(&["netns", "add", &namespace.name])?;
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", "eth0", "type", "veth", "peer", "name", "wire0"],
            &["link", "set", "wire0", "up"],
            &["link", "set", "eth0", "up"],
            &["addr", "add", ADDRESS, "dev", "eth0"],
            &["route", "add", "default", "via", GATEWAY, "dev", "eth0"],
        ] {
            ip(&[&["-n", &namespace.name], arguments].concat())?;
        }
        Ok(namespace)
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs in the namespace, with the machine's own view of files.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command_in(&self.path(), program)
    }

    /// Runs `work` on a thread of its own in the namespace and returns what it returns.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = self.path();
        std::thread::spawn(move || {
            let namespace = File::open(&path).expect("the namespace exists");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter network namespaces");
            work()
        })
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// A command that runs in the network namespace at `path`.
pub fn command_in(path: &std::path::Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path.display())).arg("--").arg(program);
    command
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("start ip: is iproute2 installed?")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
