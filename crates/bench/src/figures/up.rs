//! How long a start takes, from the first instruction of the process, containerd included.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Method;
use serde_json::Value;
use testkit::{Cluster, ClusterOptions};

use super::{TIMEOUT, has_condition, kubeconfig};
use crate::Subject;
use crate::endpoint::{Connection, Endpoint, request};
use crate::inside;
use crate::report::{Budget, Report, median, megabytes};

/// Short against what is measured, long enough to leave the processors to skiff.
const POLL: Duration = Duration::from_millis(4);

#[derive(Default)]
struct Times {
    readyz: Vec<Duration>,
    node: Vec<Duration>,
}

/// Measures starts on an empty data directory, and starts after `skiff down`.
pub(crate) fn run(subject: &Subject, starts: usize, pods: u64) -> anyhow::Result<()> {
    let (mut fresh, mut again) = (Times::default(), Times::default());
    super::tell(&format!("{starts} starts and restarts"));
    for _ in 0..starts.max(1) {
        let mut cluster = Cluster::prepare(&subject.skiff, ClusterOptions::default())?;
        measure(&mut cluster, &mut fresh)?;
        cluster.down(&[])?;
        // Heartbeats are counted in seconds: one of before must not pass for one of after.
        std::thread::sleep(Duration::from_millis(1100));
        measure(&mut cluster, &mut again)?;
    }
    let mut report = Report::default();
    let add =
        |report: &mut Report, what: &str, peer: &str, budget: f64, times: &mut Vec<Duration>| {
            report.add(what, peer, Budget::AtMost(budget), median(times), "s");
        };
    add(&mut report, "process start to /readyz", "4.1 s", 0.5, &mut fresh.readyz);
    add(&mut report, "process start to node Ready", "5.1 s", 2.0, &mut fresh.node);
    add(&mut report, "restart to /readyz", "", 0.5, &mut again.readyz);
    add(&mut report, "restart to node Ready", "", 2.0, &mut again.node);
    if pods > 0 {
        super::tell(&format!("a restart with {pods} pods"));
        let mut full = full(subject, pods)?;
        let what = format!("restart to /readyz with {pods} pods");
        report.add(&what, "", Budget::AtMost(3.0), median(&mut full.readyz), "s");
    }
    let size = std::fs::metadata(&subject.skiff).context("look at the executable")?.len();
    report.add("executable", "455 MB", Budget::AtMost(50.0), megabytes(size), "MB");
    report.print();
    Ok(())
}

/// Restarts of a cluster with many pods, none of which a node runs: nobody binds them.
fn full(subject: &Subject, pods: u64) -> anyhow::Result<Times> {
    let mut cluster = super::start(subject)?;
    let path = kubeconfig(&cluster);
    inside::run(&cluster, move || super::api::fill_pods(path, pods))?;
    let mut times = Times::default();
    for _ in 0..3 {
        cluster.down(&[])?;
        std::thread::sleep(Duration::from_millis(1100));
        measure(&mut cluster, &mut times)?;
    }
    Ok(times)
}

fn measure(cluster: &mut Cluster, times: &mut Times) -> anyhow::Result<()> {
    let path = kubeconfig(cluster);
    let begin = jiff::Timestamp::now();
    let observer = inside::start(cluster, move || observe(path, begin));
    let start = Instant::now();
    cluster.spawn()?;
    let (readyz, node) = observer.wait().with_context(|| cluster.log())?;
    times.readyz.push(readyz - start);
    times.node.push(node - start);
    Ok(())
}

/// When `/readyz` first answered 200, and when the node first was Ready.
async fn observe(
    kubeconfig: PathBuf,
    begin: jiff::Timestamp,
) -> anyhow::Result<(Instant, Instant)> {
    let deadline = Instant::now() + TIMEOUT;
    let connection = loop {
        match ready(&kubeconfig).await {
            Ok(connection) => break connection,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    let readyz = Instant::now();
    let is_ready = move |_: &str, node: &Value| {
        (has_condition(node, "Ready") && heard_since(node, begin)).then(Instant::now)
    };
    let node = connection.watch("/api/v1/nodes?watch=true", is_ready);
    let node = tokio::time::timeout(TIMEOUT, node).await.context("the node is not Ready")??;
    Ok((readyz, node))
}

async fn ready(kubeconfig: &Path) -> anyhow::Result<Connection> {
    let mut connection = Endpoint::from_kubeconfig(kubeconfig)?.connect().await?;
    connection.exchange(request(Method::GET, "/readyz", "")).await?;
    Ok(connection)
}

/// Whether the node has spoken since `begin`: what was true before a restart is no news.
fn heard_since(node: &Value, begin: jiff::Timestamp) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        let time = condition["lastHeartbeatTime"].as_str().and_then(|text| text.parse().ok());
        time.is_some_and(|time: jiff::Timestamp| time.as_second() >= begin.as_second())
    })
}
