//! What further nodes cost: three on one machine with one command, and one more that joins.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Method;
use serde_json::Value;
use testkit::{Cluster, ClusterOptions};

use super::{TIMEOUT, has_condition, kubeconfig};
use crate::Subject;
use crate::endpoint::{Endpoint, request};
use crate::inside;
use crate::process::memory;
use crate::report::{Budget, Report, median, megabytes};

const POLL: Duration = Duration::from_millis(4);
/// After its start an agent settles: freed memory goes back to the kernel.
const SETTLE: Duration = Duration::from_secs(15);
const LOCAL: usize = 3;

/// Measures `skiff up --nodes 3`, what its agents occupy, and how long a third machine takes to join.
pub(crate) fn run(subject: &Subject, starts: usize) -> anyhow::Result<()> {
    let (mut together, mut joined, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    super::tell(&format!("{starts} starts of three nodes on one machine"));
    for last in (0..starts.max(1)).map(|start| start + 1 == starts.max(1)) {
        let options = ClusterOptions { local_nodes: LOCAL, ..ClusterOptions::default() };
        let mut cluster = Cluster::prepare(&subject.skiff, options)?;
        let observer = ready(&cluster, LOCAL);
        let start = Instant::now();
        cluster.spawn()?;
        together.push(observer.wait().with_context(|| cluster.log())? - start);
        if last {
            std::thread::sleep(SETTLE);
            for pid in cluster.local_agents() {
                agents.push(memory(pid)?);
            }
        }
    }
    ensure!(!agents.is_empty(), "no agent was found");
    super::tell(&format!("{starts} times a third machine joins"));
    for _ in 0..starts.max(1) {
        let options = ClusterOptions { nodes: 2, ..ClusterOptions::default() };
        let mut cluster = Cluster::start_with(&subject.skiff, options);
        let observer = ready(&cluster, 3);
        // The machine is made before the command runs; the token is there since the second node.
        cluster.add_machine();
        let start = Instant::now();
        cluster.start_agent(2);
        joined.push(observer.wait().with_context(|| cluster.agent_log(2))? - start);
    }
    let mut report = Report::default();
    let seconds = |times: &mut Vec<Duration>| median(times);
    report.add("up --nodes 3 to three Ready", "", Budget::None, seconds(&mut together), "s");
    report.add(
        "third machine, command to Ready",
        "",
        Budget::AtMost(2.0),
        seconds(&mut joined),
        "s",
    );
    let resident = agents.iter().map(|memory| memory.resident).max().unwrap_or_default();
    report.add("agent, resident", "", Budget::None, megabytes(resident), "MB");
    let own = agents.iter().map(|memory| memory.proportional).max().unwrap_or_default();
    report.add("of it proportional (PSS)", "", Budget::None, megabytes(own), "MB");
    report.print();
    Ok(())
}

/// When so many nodes were Ready first.
fn ready(cluster: &Cluster, count: usize) -> inside::Work<Instant> {
    let path = kubeconfig(cluster);
    inside::start(cluster, move || async move {
        let deadline = Instant::now() + TIMEOUT;
        let connection = loop {
            let connected = async {
                let mut connection = Endpoint::from_kubeconfig(&path)?.connect().await?;
                connection.exchange(request(Method::GET, "/readyz", "")).await?;
                anyhow::Ok(connection)
            };
            match connected.await {
                Ok(connection) => break connection,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let mut names = BTreeSet::new();
        let all = move |_: &str, node: &Value| {
            if has_condition(node, "Ready") {
                names.insert(node["metadata"]["name"].to_string());
            }
            (names.len() == count).then(Instant::now)
        };
        let nodes = connection.watch("/api/v1/nodes?watch=true", all);
        tokio::time::timeout(TIMEOUT, nodes).await.context("the nodes are not Ready")?
    })
}
