//! A full disk: writes fail and say why, reads go on, nothing is damaged, and service resumes with space.
//! And what may lie on a disk: no secret in plain text.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;
use testkit::{Cluster, ClusterOptions, eventually, eventually_ok, website_images};

use super::http::request;
use super::{PATIENCE, await_output, await_ready, field, pod, processes_with};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FULL: &str = "the disk that holds the store is full: the object was not stored";

/// A small file system of its own; goes when dropped.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn mount() -> Self {
        let directory = tempfile::Builder::new().prefix("skiff-").tempdir().expect("a directory");
        let options = ["-t", "tmpfs", "-o", "size=48m", "tmpfs"];
        let status = Command::new("mount").args(options).arg(directory.path()).status();
        assert!(status.expect("start mount").success(), "mount a small file system");
        Self { directory }
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("make a file");
        let block = vec![1; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the file is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
    }
}

/// Tries to create a ConfigMap of 20 KiB; the answer's code.
fn create(cluster: &Cluster, name: &str) -> super::http::Answer {
    let body = json!({"metadata": {"name": name}, "data": {"a": "x".repeat(20 * 1024)}});
    request(cluster, "POST", CONFIG_MAPS, "application/json", body.to_string().as_bytes())
}

#[test]
fn a_full_disk_costs_nothing_that_was_stored() {
    let disk = Disk::mount();
    let data = disk.directory.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let options = ClusterOptions { data_directory: Some(data), ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(crate::SKIFF, options);
    let mut stored = Vec::new();
    let mut number = 0;
    let mut create_next = |cluster: &Cluster| {
        number += 1;
        let name = format!("map-{number}");
        let answer = create(cluster, &name);
        (name, answer)
    };
    stored.push(create_next(&cluster).0);
    for _ in 0..2 {
        disk.fill();
        // The store may still have some room of its own.
        let refused = eventually_ok("a write to be refused", PATIENCE, || {
            let (name, answer) = create_next(&cluster);
            if answer.code == 201 {
                stored.push(name);
                return Err("there was room".to_owned());
            }
            Ok(answer)
        });
        assert_eq!((refused.code, refused.reason()), (503, "ServiceUnavailable"), "{refused:?}");
        assert_eq!(refused.message(), FULL);
        let told = cluster
            .try_kubectl(&["label", "configmap", "map-1", "--overwrite", "a=b"])
            .map_err(|error| format!("{error:#}"));
        if let Err(message) = told {
            assert!(message.contains(FULL), "{message}");
        }
        assert_reads(&cluster, &stored);
        disk.free();
        let (name, _) = eventually_ok("writes to be taken again", PATIENCE, || {
            let (name, answer) = create_next(&cluster);
            if answer.code == 201 { Ok((name, answer)) } else { Err(format!("{answer:?}")) }
        });
        stored.push(name);
        assert_reads(&cluster, &stored);
    }
    container_killed(&cluster, &disk);
    // Killed while the disk is full, and started on the full disk.
    disk.fill();
    cluster.kill();
    cluster.spawn().expect("start skiff up");
    eventually_ok("an answer or a refusal", PATIENCE, || {
        let refused = cluster.log().lines().any(|line| line.starts_with("skiff: "));
        let answers = cluster.try_kubectl(&["get", "--raw", "/readyz"]).is_ok();
        if refused || answers { Ok(()) } else { Err("neither") }
    });
    cluster.kill();
    disk.free();
    cluster.restart();
    assert_reads(&cluster, &stored);
    assert_eq!(create(&cluster, "afterwards").code, 201);
    super::assert_calm(&cluster);
    // A full disk does not keep a cluster from going.
    disk.fill();
    cluster.down(&[]).expect("skiff down");
    let data = cluster.directory().to_owned();
    super::assert_nothing_left(cluster.namespace(), &data, cluster.cgroup());
}

/// A container ends while there is no room to start it again or to note that: both happen later.
fn container_killed(cluster: &Cluster, disk: &Disk) {
    cluster.import(&website_images()[..1]);
    await_output(cluster, &["get", "serviceaccount", "default", "-o", "name"], |_| true);
    cluster.apply(&pod("victim", "[sleep, '765432']", "", "")).expect("the pod is accepted");
    await_ready(cluster, "victim");
    let name = format!("/{}/", cluster.cgroup());
    let running = || -> Option<i32> {
        let of_cluster = |process: &String| {
            let pid: i32 = process.split(':').next()?.parse().ok()?;
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            cgroups.contains(&name).then_some(pid)
        };
        processes_with("/testapp sleep 765432").iter().find_map(of_cluster)
    };
    // At first it is the runtime's own process.
    let pid = eventually_ok("the container to run", PATIENCE, || running().ok_or("it does not"));
    disk.fill();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill a container's process");
    eventually("the container to be gone", PATIENCE, || running() != Some(pid));
    assert!(cluster.try_kubectl(&["get", "pod", "victim"]).is_ok(), "reads go on");
    disk.free();
    await_output(
        cluster,
        &["get", "pod", "victim", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"],
        |count| count.parse().is_ok_and(|count: u32| count >= 1),
    );
    await_ready(cluster, "victim");
    cluster.kubectl(&["delete", "pod", "victim"]);
}

/// Everything that was stored can be read, and nothing that was refused.
fn assert_reads(cluster: &Cluster, stored: &[String]) {
    let path = "{.items[*].metadata.name}";
    let names = field(cluster, "configmaps", path);
    let mut names: Vec<&str> = names.split(' ').filter(|name| name.starts_with("map-")).collect();
    let mut expected: Vec<&str> = stored.iter().map(String::as_str).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn secrets_are_not_on_disk_in_plain_text() {
    let mut cluster = Cluster::start(crate::SKIFF);
    let (first, second) = ("moss-green-lighthouse-71", "quiet-otter-umbrella-42");
    cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "sealed",
        &format!("--from-literal=password={first}"),
    ]);
    let patch = json!({"stringData": {"password": second}}).to_string();
    cluster.kubectl(&["patch", "secret", "sealed", "-p", &patch]);
    // The ConfigMap shows that what is looked for would be found.
    let witness = "plain-as-daylight-17";
    let literal = format!("--from-literal=text={witness}");
    cluster.kubectl(&["create", "configmap", "open", &literal]);
    let encoded: Vec<String> =
        ["{.data.password}"].iter().map(|path| field(&cluster, "secret/sealed", path)).collect();
    let needles: Vec<&str> =
        [first, second].into_iter().chain(encoded.iter().map(String::as_str)).collect();
    for round in ["while it runs", "after a kill", "after a stop"] {
        let found = files_with(cluster.directory(), &needles);
        assert!(found.is_empty(), "{round}: {found:?}");
        let store = cluster.directory().join("store");
        assert!(!files_with(&store, &[witness]).is_empty(), "{round}: the search finds nothing");
        match round {
            "while it runs" => cluster.kill(),
            "after a kill" => {
                cluster.restart();
                let now = field(&cluster, "secret/sealed", "{.data.password}");
                assert_eq!(now, encoded[0], "it can still be read");
                cluster.down(&[]).expect("skiff down");
            }
            _ => {}
        }
    }
}

/// Files below a directory that contain any of the texts.
fn files_with(directory: &Path, needles: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(files_with(&path, needles));
        } else if kind.is_file() && path.file_name().is_some_and(|name| name != "test.log") {
            let content = std::fs::read(&path).unwrap_or_default();
            let has = |needle: &&str| {
                content.windows(needle.len()).any(|window| window == needle.as_bytes())
            };
            if needles.iter().any(has) {
                found.push(path);
            }
        }
    }
    found
}
