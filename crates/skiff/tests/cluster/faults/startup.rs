//! Starts that cannot succeed: one clear message, exit code not 0, nothing half started.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use testkit::{Cluster, eventually_ok};

use super::{PATIENCE, assert_nothing_left};

const CGROUP: &str = "skiff-test-refused";
const TOOLS: [&str; 6] = ["nft", "containerd", "ctr", "runc", "containerd-shim-runc-v2", "ip"];

/// A machine on which `skiff up` is about to be refused.
struct Machine {
    namespace: testkit::Machine,
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("skiff-").tempdir().expect("a directory");
        Self { namespace: testkit::Machine::create().expect("root"), directory }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a file below the data directory.
    fn write(&self, path: &str, text: &str) {
        let path = self.data().join(path);
        std::fs::create_dir_all(path.parent().expect("below the data")).expect("a directory");
        std::fs::write(path, text).expect("write a file");
    }

    /// A directory for `PATH` that has every tool but `missing`.
    fn path_without(&self, missing: &str) -> PathBuf {
        let directory = self.directory.path().join(format!("without-{missing}"));
        std::fs::create_dir(&directory).expect("a directory");
        for tool in TOOLS.iter().filter(|tool| **tool != missing) {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
                .map(|place| Path::new(place).join(tool))
                .into_iter()
                .find(|candidate| candidate.exists())
                .unwrap_or_else(|| panic!("{tool} is installed"));
            symlink(found, directory.join(tool)).expect("link a tool");
        }
        directory
    }

    /// `skiff up`, behind `wrapper` such as `env PATH=…`.
    fn up(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let words: Vec<&str> = wrapper.iter().copied().chain([crate::SKIFF]).collect();
        let mut command = self.namespace.command(words[0]);
        command.args(&words[1..]).args(["up", "--cgroup", CGROUP, "--data-dir"]);
        command.arg(self.data()).args(arguments);
        command
    }

    /// Runs a command that must fail by itself, with a message that has `expected`, and leave nothing.
    fn check_refused(&self, command: Command, expected: &str) {
        let message = refusal(command);
        assert!(message.contains(expected), "expected {expected:?} in:\n{message}");
        let own: Vec<&str> = message.lines().filter(|line| line.starts_with("skiff: ")).collect();
        assert_eq!(own.len(), 1, "one message:\n{message}");
        assert_nothing_left(&self.namespace, &self.data(), CGROUP);
    }
}

/// What a command that fails says on standard error.
fn refusal(mut command: Command) -> String {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start skiff");
    let status = await_end(&mut child);
    let mut message = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut message).expect("read the message");
    assert!(!status.success(), "it succeeded:\n{message}");
    message
}

fn await_end(child: &mut Child) -> std::process::ExitStatus {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually_ok("skiff to give up", PATIENCE, || {
            child.try_wait().ok().flatten().ok_or("it goes on")
        })
    }));
    ended.unwrap_or_else(|panic| {
        let _ = child.kill();
        let _ = child.wait();
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn only_root_may_start_a_cluster() {
    let machine = Machine::new();
    // Where everybody may look: the build's own directory may be private.
    let executable = machine.directory.path().join("skiff");
    std::fs::hard_link(crate::SKIFF, &executable)
        .or_else(|_| std::fs::copy(crate::SKIFF, &executable).map(drop))
        .expect("a second name for the executable");
    let mut rights = std::fs::metadata(machine.directory.path()).expect("it exists").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o755);
    std::fs::set_permissions(machine.directory.path(), rights).expect("open the directory");
    for detach in [&[][..], &["--detach"]] {
        let mut command = machine.namespace.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&executable)
            .args(["up", "--cgroup", CGROUP, "--data-dir"])
            .arg(machine.data())
            .args(detach);
        machine.check_refused(command, "skiff must run as root");
    }
    assert!(!machine.data().exists());
}

#[test]
fn what_is_missing_or_taken_is_named() {
    let machine = Machine::new();
    // It is found off the path too: only where its file is hidden it is missing.
    let hidden =
        ["unshare", "-m", "sh", "-c", "mount --bind /dev/null /usr/sbin/nft && exec \"$@\"", "sh"];
    let expected = "nft is not installed: apt-get install nftables";
    machine.check_refused(machine.up(&hidden, &[]), expected);
    machine.check_refused(machine.up(&hidden, &["--detach"]), expected);
    std::fs::remove_file(machine.data().join("skiff.log")).expect("a log was written");
    for (missing, expected) in [
        ("containerd", "containerd is not installed: apt-get install containerd runc"),
        ("runc", "runc is not installed: apt-get install containerd runc"),
    ] {
        let path = format!("PATH={}", machine.path_without(missing).display());
        machine.check_refused(machine.up(&["env", &path], &[]), expected);
        machine.check_refused(machine.up(&["env", &path], &["--detach"]), expected);
        std::fs::remove_file(machine.data().join("skiff.log")).expect("a log was written");
    }
    for (port, arguments) in
        [(6443, &[][..]), (10250, &[]), (7443, &["--listen", "127.0.0.1:7443"])]
    {
        let listening = machine
            .namespace
            .run(move || std::net::TcpListener::bind(("127.0.0.1", port)))
            .join()
            .expect("no panic")
            .expect("a free port");
        let expected = format!("port {port} is taken by another process");
        machine.check_refused(machine.up(&[], arguments), &expected);
        drop(listening);
    }
    // The DNS server of a host that takes every address, the pods' gateway too.
    let listening = machine
        .namespace
        .run(|| std::net::UdpSocket::bind(("0.0.0.0", 53)))
        .join()
        .expect("no panic")
        .expect("a free port");
    machine
        .check_refused(machine.up(&[], &[]), "cluster DNS failed: listen for DNS on 10.244.0.1:53");
    drop(listening);
    machine.check_refused(
        machine.up(&[], &["--node-name", "Not_A_Name"]),
        "\"Not_A_Name\" cannot be a node's name: a lowercase RFC 1123 subdomain must consist of",
    );
}

#[test]
fn what_fails_half_way_is_undone() {
    let machine = Machine::new();
    let path = machine.path_without("containerd");
    let fake = path.join("containerd");
    std::fs::write(&fake, "#!/bin/sh\necho 'out of order' >&2\nexit 3\n").expect("a script");
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("an executable");
    let path = format!("PATH={}", path.display());
    machine.check_refused(
        machine.up(&["env", &path], &[]),
        "start the container runtime: containerd ended while starting: out of order",
    );
    // The control plane fails while the node's part is already starting.
    std::fs::rename(machine.data().join("pki/ca.key"), machine.data().join("kept"))
        .expect("a key was made");
    machine.write("pki/ca.key", "no key\n");
    machine.check_refused(machine.up(&[], &[]), "start the control plane: ");
    std::fs::rename(machine.data().join("kept"), machine.data().join("pki/ca.key"))
        .expect("put it back");
    // The store's own format, in the header of its database (SQLite's user version).
    for file in ["store/store.db-wal", "store/store.db-shm"] {
        let _ = std::fs::remove_file(machine.data().join(file));
    }
    let database = File::options().write(true).open(machine.data().join("store/store.db"));
    database
        .and_then(|file| file.write_all_at(&99_u32.to_be_bytes(), 60))
        .expect("there is a store");
    machine.check_refused(machine.up(&[], &[]), "store.db has on-disk format 99, and this release");
    std::fs::remove_dir_all(machine.data().join("store")).expect("there is a store");
    machine.write("store/store.db", "this is not a database, and long enough to be seen as one");
    machine.check_refused(
        machine.up(&[], &[]),
        "store.db is damaged: file is not a database; restore a backup",
    );
}

#[test]
fn unusable_data_directories_are_refused() {
    let machine = Machine::new();
    std::fs::write(machine.data(), "a file").expect("write a file");
    machine.check_refused(machine.up(&[], &[]), "choose another with --data-dir");
    machine.check_refused(machine.up(&[], &["--detach"]), "choose another with --data-dir");
    std::fs::remove_file(machine.data()).expect("it was there");

    std::fs::create_dir(machine.data()).expect("a directory");
    let mounted = ReadOnly::mount(machine.data());
    machine.check_refused(machine.up(&[], &[]), "data cannot be written to");
    machine.check_refused(machine.up(&[], &["--detach"]), "data cannot be written to");
    drop(mounted);

    machine.write("instance.json", r#"{"format": 99, "version": "7.0.0", "unheardOf": true}"#);
    machine.check_refused(
        machine.up(&[], &[]),
        "the data directory was written by skiff 7.0.0 (format 99)",
    );
    machine.write("instance.json", "{nonsense");
    machine.check_refused(machine.up(&[], &[]), "instance.json in the data directory is damaged");
}

/// A read-only file system over a directory.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(directory: PathBuf) -> Self {
        let options = ["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"];
        let status = Command::new("mount").args(options).arg(&directory).status();
        assert!(status.expect("start mount").success(), "mount a read-only file system");
        Self(directory)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_data_directory_serves_one_cluster() {
    let cluster = Cluster::start(crate::SKIFF);
    let elsewhere = testkit::Machine::create().expect("root");
    for detach in [&[][..], &["--detach"]] {
        let mut command = elsewhere.command(crate::SKIFF);
        command.args(["up", "--data-dir"]).arg(cluster.directory()).args(detach);
        let message = refusal(command);
        let expected = format!("as process {}", cluster.pid().expect("it runs"));
        assert!(message.contains("skiff runs already in"), "{message}");
        assert!(message.contains(&expected), "{message}");
    }
    assert!(cluster.kubectl(&["get", "nodes"]).contains("Ready"), "the first goes on");
}
