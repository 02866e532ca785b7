//! A real containerd in scratch directories: start, adopt, survive its starter, restart, stop without leftovers.
//! Needs root and the package containerd.

use std::{fs, path::Path, time::Duration};

use cri::{
    Runtime,
    containerd::{Containerd, ContainerdOptions, stop_all},
};
use skiff_cri as cri;
use tokio_util::sync::CancellationToken;

fn options(dir: &Path) -> ContainerdOptions {
    ContainerdOptions::new(dir.join("root"), dir.join("run"))
}

/// The process that is noted, unless the note is being written.
fn pid(options: &ContainerdOptions) -> Option<i32> {
    fs::read_to_string(options.run_dir.join("containerd.pid")).ok()?.parse().ok()
}

fn runs(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

#[tokio::test]
async fn lives_on_is_adopted_restarted_and_stopped() {
    let dir = tempfile::Builder::new().prefix("skiff-cri").tempdir().unwrap();
    let options = options(dir.path());

    let first = Containerd::start(options.clone()).await.unwrap();
    let version = first.runtime().version().await.unwrap();
    assert_eq!(version.runtime_name, "containerd");
    let first_pid = pid(&options).unwrap();

    // Whoever started it goes away; it stays, and the next start adopts it.
    drop(first);
    assert!(runs(first_pid));
    let second = Containerd::start(options.clone()).await.unwrap();
    assert_eq!(pid(&options), Some(first_pid));

    // It dies: the supervisor starts another one.
    let shutdown = CancellationToken::new();
    let supervised = tokio::spawn(second.run(shutdown.clone()));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(first_pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let again = async {
        loop {
            match pid(&options).filter(|pid| *pid != first_pid) {
                Some(pid) => return pid,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(120), again).await;
    let second_pid = again.expect("containerd was not started again");
    shutdown.cancel();
    supervised.await.unwrap();
    assert!(runs(second_pid), "a supervisor that shuts down must leave containerd running");

    stop_all(&options, Duration::ZERO).await;
    assert!(!runs(second_pid));
    assert!(!options.run_dir.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "mounts are left:\n{mounts}");
}

#[tokio::test]
async fn a_missing_executable_is_named_with_the_package() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.binary = "/no/such/containerd".into();
    let message = Containerd::start(options).await.unwrap_err().to_string();
    assert!(message.contains("/no/such/containerd is not installed"), "{message}");
    assert!(message.contains("apt-get install containerd"), "{message}");
}
