//! `kill -9` of skiff at any moment, SIGTERM, `skiff down`: every acknowledged object is there afterwards,
//! watches go on, pods keep their containers, Services answer meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::load::{Load, LoadOptions, Report};
use testkit::{Cluster, ClusterOptions, Machine, eventually, website_images};

use super::http::request;
use super::{PATIENCE, assert_calm, assert_nothing_left, await_output, field, run_directory};

const PROXY: &str = "127.0.0.1:8001";
const WEBSITE: &str = "app.kubernetes.io/name=website";

/// A child that ends with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn background(mut command: Command) -> Background {
    command.stdin(Stdio::null());
    Background(command.spawn().expect("start a program in the background"))
}

/// Creates ConfigMaps one after the other, through failures, and remembers which were acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(namespace: &Machine, prefix: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let (stopped, names) = (stop.clone(), acknowledged.clone());
        let thread = namespace.run(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                let name = format!("{prefix}-{number}");
                if create(&name) {
                    names.lock().expect("no writer panicked").insert(name);
                } else {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { stop, acknowledged, thread }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no writer panicked").len()
    }

    fn finish(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer does not panic");
        self.acknowledged.lock().expect("no writer panicked").clone()
    }
}

/// Whether the API server, behind `kubectl proxy`, has acknowledged a new ConfigMap.
fn create(name: &str) -> bool {
    let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"of":"{name}"}}}}"#);
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(PROXY)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(
            stream,
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: {PROXY}\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 201")
    };
    attempt().unwrap_or(false)
}

fn example(version: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().nth(2).expect("crates/skiff is two levels deep");
    let path = root.join(format!("examples/website/{version}.yaml"));
    path.to_str().expect("the path is UTF-8").to_owned()
}

fn rollout(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deploy/website", "--timeout=200s"]);
}

/// Name, container and restarts of each pod of the website.
fn containers(cluster: &Cluster) -> BTreeSet<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} \
                {.status.containerStatuses[0].containerID} \
                {.status.containerStatuses[0].restartCount} \
                {.status.podIP}{\"\\n\"}{end}";
    let output = cluster.kubectl(&["get", "pods", "-l", WEBSITE, "-o", path]);
    output.lines().map(str::to_owned).collect()
}

fn load(cluster: &Cluster) -> Load {
    let address = field(cluster, "service/website", "{.spec.clusterIP}");
    let targets = [format!("{address}:80"), "127.0.0.1:30080".to_owned()];
    let options = LoadOptions {
        targets: targets.iter().map(|target| target.parse().expect("an address")).collect(),
        path: "/".into(),
        fresh: 2,
        kept: 2,
        pause: Duration::from_millis(20),
    };
    Load::start(cluster.namespace(), &options)
}

fn assert_no_failure(report: &Report) {
    assert!(
        report.failures.is_empty(),
        "{} of {} failed: {:#?}",
        report.failures.len(),
        report.answers.len() + report.failures.len(),
        &report.failures[..report.failures.len().min(10)]
    );
}

/// Ends the process as an administrator does, and waits for it.
fn terminate(cluster: &mut Cluster) {
    let pid = cluster.pid().expect("the cluster runs");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("send SIGTERM");
    let status = format!("/proc/{pid}/stat");
    eventually("skiff to end", PATIENCE, || {
        // A zombie until the cluster is told below.
        std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "))
    });
    cluster.kill();
}

/// What a watch from `version` reports, until it has said `last`.
fn watch_until(cluster: &Cluster, version: &str, last: &str) -> String {
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=2"
    );
    await_output(cluster, &["get", "--raw", &path], |output| output.contains(last))
}

#[test]
fn a_killed_skiff_loses_nothing() {
    let mut cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images()[..2]);
    cluster.kubectl(&["apply", "-f", &example("1.0.0")]);
    let mut proxy = cluster.kubectl_command(&["proxy", "--port=8001"]);
    proxy.stdout(Stdio::null()).stderr(Stdio::null());
    let proxy = background(proxy);
    rollout(&cluster);
    let load = load(&cluster);
    under_writes(&mut cluster);
    in_a_rollout(&mut cluster, &load);
    by_signal(&mut cluster, &load);
    runtime_killed(&mut cluster);
    drop(proxy);
    let report = load.finish();
    assert!(report.answers.len() > 500, "{} answers", report.answers.len());
    assert_no_failure(&report);
    down_and_up(&mut cluster);
    assert_calm(&cluster);
}

/// Killed again and again while objects are written: all that were acknowledged are there, each once.
fn under_writes(cluster: &mut Cluster) {
    let before = containers(cluster);
    assert_eq!(before.len(), 3, "{before:?}");
    cluster.kubectl(&["create", "configmap", "first", "--from-literal=a=b"]);
    let version = field(cluster, "configmap/first", "{.metadata.resourceVersion}");
    let writers = ["a", "b", "c"].map(|prefix| Writer::start(cluster.namespace(), prefix));
    for round in 1..=3 {
        let goal = round * 150;
        eventually("the writers to go on", PATIENCE, || {
            writers.iter().map(Writer::count).sum::<usize>() >= goal
        });
        // Events and heartbeats are written without waiting for the disk: the newest revision that
        // anybody has seen may be one of theirs.
        let newest = newest_revision(cluster);
        cluster.kill();
        cluster.restart();
        resumes_or_expires(cluster, &newest);
    }
    let acknowledged: BTreeSet<String> = writers.into_iter().flat_map(Writer::finish).collect();
    let path = "jsonpath={range .items[*]}{.metadata.name} {.data.of}{\"\\n\"}{end}";
    let stored: BTreeSet<String> = cluster
        .kubectl(&["get", "configmaps", "-o", path])
        .lines()
        .filter_map(|line| {
            let (name, content) = line.split_once(' ')?;
            assert!(content.is_empty() || name == content, "{name} holds {content:?}");
            Some(name.to_owned())
        })
        .collect();
    let lost: Vec<&String> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());

    // A watch resumes where it was before the kills, and sees what came since and what comes.
    cluster.kubectl(&["create", "configmap", "last", "--from-literal=a=b"]);
    let seen = watch_until(cluster, &version, r#""name":"last""#);
    for name in acknowledged.iter().step_by(50) {
        assert!(seen.contains(&format!(r#""name":"{name}""#)), "the watch has not seen {name}");
    }
    let later: u64 = field(cluster, "configmap/last", "{.metadata.resourceVersion}")
        .parse()
        .expect("a revision");
    assert!(later > version.parse().expect("a revision"), "revisions only grow");
    assert_eq!(containers(cluster), before, "containers go on, with their counts");
}

fn newest_revision(cluster: &Cluster) -> String {
    cluster.kubectl(&["get", "events", "-A", "-o", "jsonpath={.metadata.resourceVersion}"])
}

/// A watch from a revision seen before a crash goes on, or is told at once to list again.
fn resumes_or_expires(cluster: &Cluster, version: &str) {
    let path = format!("/api/v1/events?watch=1&resourceVersion={version}&timeoutSeconds=1");
    let answer = request(cluster, "GET", &path, "", b"");
    let expired = answer.reason() == "Expired" || answer.body.to_string().contains("Expired");
    assert!(answer.code == 200 || expired, "from {version}: {answer:?}");
    assert!(!answer.body.to_string().contains("Too large resource version"), "{answer:?}");
}

/// Killed in the middle of a rollout, which ends well afterwards; whoever waits for it needs no restart.
fn in_a_rollout(cluster: &mut Cluster, load: &Load) {
    // It goes on only when somebody waits for it.
    cluster.kubectl(&["rollout", "pause", "deploy/website"]);
    cluster.kubectl(&["apply", "-f", &example("1.1.0")]);
    let said = cluster.directory().join("rollout.txt");
    let mut status = cluster.kubectl_command(&["rollout", "status", "deploy/website"]);
    status.stdout(File::create(&said).expect("make a file")).stderr(Stdio::null());
    let mut waiting = background(status);
    eventually("kubectl to wait", PATIENCE, || {
        std::fs::read_to_string(&said).is_ok_and(|text| text.starts_with("Waiting for deployment"))
    });
    cluster.kubectl(&["rollout", "resume", "deploy/website"]);
    let updated = "jsonpath={.status.updatedReplicas}";
    await_output(cluster, &["get", "deploy", "website", "-o", updated], |output| {
        output.parse().is_ok_and(|count: u32| count > 0)
    });
    cluster.kill();
    let answered = load.count();
    eventually("Services to answer meanwhile", PATIENCE, || load.count() > answered + 100);
    cluster.restart();
    rollout(cluster);
    eventually("kubectl to see the end", PATIENCE, || {
        waiting.0.try_wait().is_ok_and(|ended| ended.is_some())
    });
    let said = std::fs::read_to_string(&said).expect("the file is there");
    assert!(said.ends_with("successfully rolled out\n"), "{said}");
    let available = field(cluster, "deploy/website", "{.status.availableReplicas}");
    assert_eq!(available, "3");
    let path = "jsonpath={.items[*].spec.containers[0].image}";
    await_output(cluster, &["get", "pods", "-l", WEBSITE, "-o", path], |images| {
        images == ["skiff.local/website:1.1.0"; 3].join(" ")
    });
}

/// Stopped in order: the same holds.
fn by_signal(cluster: &mut Cluster, load: &Load) {
    let before = containers(cluster);
    cluster.kubectl(&["label", "configmap", "first", "touched=yes"]);
    terminate(cluster);
    let answered = load.count();
    eventually("Services to answer meanwhile", PATIENCE, || load.count() > answered + 100);
    cluster.restart();
    assert_eq!(containers(cluster), before, "containers go on, with their counts");
    assert_eq!(field(cluster, "configmap/first", "{.metadata.labels.touched}"), "yes");
}

/// The container runtime is killed: it is started again, and its containers go on.
fn runtime_killed(cluster: &mut Cluster) {
    let before = containers(cluster);
    let file = run_directory(cluster.directory()).join("containerd/containerd.pid");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let first = read();
    let pid = first.trim().parse().expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill containerd");
    eventually("another containerd", PATIENCE, || read() != first);
    cluster.kubectl(&["scale", "deploy/website", "--replicas=4"]);
    rollout(cluster);
    let after = containers(cluster);
    assert!(before.is_subset(&after), "before {before:?}, after {after:?}");

    // Both at once: what runs is found again.
    let pid = read().trim().parse().expect("a process id");
    cluster.kill();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill containerd");
    cluster.restart();
    assert_eq!(containers(cluster), after, "containers go on, with their counts");
    cluster.kubectl(&["scale", "deploy/website", "--replicas=3"]);
    rollout(cluster);
}

/// `skiff down` leaves nothing but data, from which a later `up` goes on.
fn down_and_up(cluster: &mut Cluster) {
    let uid = field(cluster, "configmap/first", "{.metadata.uid}");
    cluster.down(&[]).expect("skiff down");
    assert_nothing_left(cluster.namespace(), cluster.directory(), cluster.cgroup());
    cluster.restart();
    assert_eq!(field(cluster, "configmap/first", "{.metadata.uid}"), uid);
    rollout(cluster);
    let load = load(cluster);
    eventually("the website to answer again", PATIENCE, || load.count() > 50);
    assert_no_failure(&load.finish());

    // The same after a kill, when only `down` is left to clear up.
    cluster.kill();
    cluster.down(&[]).expect("skiff down");
    assert_nothing_left(cluster.namespace(), cluster.directory(), cluster.cgroup());
}

/// Killed at many moments of rollouts: users notice nothing, and each rollout ends well.
#[test]
fn rollouts_survive_kills() {
    let mut cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images()[..2]);
    cluster.kubectl(&["apply", "-f", &example("1.0.0")]);
    rollout(&cluster);
    let load = load(&cluster);
    let versions = ["1.1.0", "1.0.0"].into_iter().cycle();
    for (version, milliseconds) in versions.zip([30, 150, 400, 800, 1300, 2000]) {
        cluster.kubectl(&["apply", "-f", &example(version)]);
        // No condition to wait for: the moment itself is what is tried.
        std::thread::sleep(Duration::from_millis(milliseconds));
        cluster.kill();
        let answered = load.count();
        eventually("Services to answer meanwhile", PATIENCE, || load.count() > answered + 20);
        cluster.restart();
        rollout(&cluster);
        let image = format!("skiff.local/website:{version}");
        let path = "jsonpath={.items[*].spec.containers[0].image}";
        await_output(&cluster, &["get", "pods", "-l", WEBSITE, "-o", path], |images| {
            images == [image.as_str(); 3].join(" ")
        });
    }
    let report = load.finish();
    println!("{} answers, {} retries", report.answers.len(), report.retries);
    assert_no_failure(&report);
    assert_calm(&cluster);
}

/// Killed at every stage of its own start.
#[test]
fn a_start_may_be_killed_at_any_moment() {
    let mut cluster =
        Cluster::prepare(crate::SKIFF, ClusterOptions::default()).expect("prepare a cluster");
    for milliseconds in [5, 40, 80, 120, 180, 250, 350, 500] {
        cluster.spawn().expect("start skiff up");
        // No condition to wait for: the moment itself is what is tried.
        std::thread::sleep(Duration::from_millis(milliseconds));
        cluster.kill();
    }
    cluster.restart();
    cluster.kubectl(&["create", "configmap", "usable", "--from-literal=a=b"]);
    await_output(&cluster, &["get", "serviceaccount", "default", "-o", "name"], |_| true);
    let path = cluster.directory().to_owned();
    cluster.down(&[]).expect("skiff down");
    assert_nothing_left(cluster.namespace(), &path, cluster.cgroup());
}
