//! How fast pods talk, and what Services, policies and names cost: beside the same topology made by
//! ip(8) alone, in the same run, in turns.

mod api;
mod attach;
mod plain;
mod scale;
mod traffic;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use network::lab::Lab;

use serde_json::Value;
use testkit::{Cluster, ClusterOptions};

use self::{
    attach::{Pod, attach},
    traffic::Server,
};
use crate::Subject;
use crate::endpoint::Endpoint;
use crate::inside;
use crate::process::processor_time;
use crate::report::{Budget, Report};

const PORT: u16 = 7070;
/// Turns that what is compared takes.
const ROUNDS: usize = 9;
const STREAM: Duration = Duration::from_millis(1000);
const CONNECTIONS: usize = 5400;

/// What is measured, and how much of it.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// The most Services, of ten endpoints each
    #[arg(long, default_value_t = 10_000)]
    services: u64,
    /// NetworkPolicies
    #[arg(long, default_value_t = 1000)]
    policies: u64,
    /// Questions to DNS
    #[arg(long, default_value_t = 300_000)]
    questions: u64,
}

/// Measures everything on a cluster of two nodes, which a third joins at the end.
pub(crate) fn run(subject: &Subject, options: &Options) -> anyhow::Result<()> {
    ensure!(subject.skiff.is_file(), "there is no {}", subject.skiff.display());
    let mut cluster = Cluster::start_with(
        &subject.skiff,
        ClusterOptions { nodes: 2, ..ClusterOptions::default() },
    );
    let directory = tempfile::tempdir()?;
    let lab = Lab::open(directory.path().join("lab"))?;
    let mut report = Report::default();
    let outcome = measure(subject, options, &mut cluster, &lab, &mut report);
    if outcome.is_err() {
        let log = cluster.log();
        let end = log.lines().rev().take(20).collect::<Vec<_>>();
        end.iter().rev().for_each(|line| super::tell(line));
    }
    lab.remove()?;
    report.print();
    outcome
}

fn measure(
    subject: &Subject,
    options: &Options,
    cluster: &mut Cluster,
    lab: &Lab,
    report: &mut Report,
) -> anyhow::Result<()> {
    let pods = Pods {
        near: attach(lab, cluster, 0, "near")?,
        server: attach(lab, cluster, 0, "server")?,
        far: attach(lab, cluster, 1, "far")?,
    };
    let server = Server::start(&pods.server.namespace, PORT)?;
    super::tell("streams between pods, beside plain ones");
    streams(&pods, &server, lab, report)?;
    super::tell("connections through a Service, beside direct ones");
    let service = scale::service(cluster, "probe", &[pods.server.address], PORT)?;
    through_a_service(&pods, service, report)?;
    super::tell("DNS");
    names(options, cluster, &pods, report)?;
    super::tell("a third node");
    let joined = join(cluster)?;
    report.add("a third node joins, command to Ready", "", Budget::AtMost(2.0), joined, "s");
    scale::services(options.services, cluster, &pods, service, report)?;
    super::import_image(subject, cluster)?;
    scale::policies(options.policies, cluster, report)
}

/// Pods on the first node and on the second.
struct Pods {
    near: Pod,
    server: Pod,
    far: Pod,
}

fn streams(pods: &Pods, server: &Server, lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let plain = plain::build(lab, pods.near.mtu, PORT)?;
    let plain_server = Server::start(&plain.server, PORT)?;
    let to = SocketAddr::new(pods.server.address, PORT);
    let ways = [
        ("on one node", 0.95, &pods.near.namespace, &plain.near),
        ("across VXLAN", 0.80, &pods.far.namespace, &plain.far),
    ];
    for (what, budget, ours, theirs) in ways {
        let (mut real, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            real.push(traffic::throughput(ours, server, to, STREAM)?);
            bare.push(traffic::throughput(theirs, &plain_server, plain.address, STREAM)?);
        }
        let part = of_the_other(&real, &bare);
        let (real, bare) = (middle(&mut real), middle(&mut bare));
        report.add(&format!("stream {what}"), "", Budget::None, real * 8.0 / 1e9, "Gbit/s");
        report.add(&format!("plain stream {what}"), "", Budget::None, bare * 8.0 / 1e9, "Gbit/s");
        report.add("  of the plain one", "", Budget::AtLeast(budget * 100.0), part * 100.0, "%");
    }
    Ok(())
}

fn through_a_service(pods: &Pods, service: SocketAddr, report: &mut Report) -> anyhow::Result<()> {
    traffic::until_connected(&pods.near.namespace, service, super::TIMEOUT)?;
    let direct = SocketAddr::new(pods.server.address, PORT);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (to, rates) in [(service, &mut ours), (direct, &mut theirs)] {
            let begin = Instant::now();
            traffic::connections(&pods.near.namespace, to, CONNECTIONS / ROUNDS)?;
            rates.push((CONNECTIONS / ROUNDS) as f64 / begin.elapsed().as_secs_f64());
        }
    }
    let part = of_the_other(&ours, &theirs);
    let (ours, theirs) = (middle(&mut ours), middle(&mut theirs));
    report.add("connections through a Service", "", Budget::None, ours, "/s");
    report.add("direct connections", "", Budget::None, theirs, "/s");
    report.add("  of direct", "", Budget::AtLeast(80.0), part * 100.0, "%");
    Ok(())
}

/// What one core answers: by the processor time that skiff uses, since the clients take some too.
fn names(
    options: &Options,
    cluster: &Cluster,
    pods: &Pods,
    report: &mut Report,
) -> anyhow::Result<()> {
    let IpAddr::V4(address) = pods.near.address else { return Ok(()) };
    let [a, b, c, _] = address.octets();
    let gateway = SocketAddr::from(([a, b, c, 1], 53));
    let question = question("kubernetes.default.svc.cluster.local");
    let client = &pods.near.namespace;
    traffic::questions(client, gateway, &question, (1, 1), 100, super::TIMEOUT)?;
    let pid = cluster.pid().context("skiff does not run")?;
    let (used, begin) = (processor_time(pid)?, Instant::now());
    let limit = Duration::from_secs(10);
    let answers =
        traffic::questions(client, gateway, &question, (4, 64), options.questions, limit)?;
    let (elapsed, used) = (begin.elapsed().as_secs_f64(), processor_time(pid)? - used);
    let count = answers.times.len() as f64;
    let a_core = count / used.as_secs_f64();
    report.add(
        "cached answers of DNS a second of one core",
        "",
        Budget::AtLeast(100_000.0),
        a_core,
        "/s",
    );
    report.add("  beside the clients", "", Budget::None, count / elapsed, "/s");
    report.add("  questions lost", "", Budget::None, answers.lost as f64, "");
    let mut one = traffic::questions(client, gateway, &question, (1, 1), 5000, limit)?.times;
    one.sort_unstable();
    let p99 = one.get(one.len() * 99 / 100).map_or(f64::NAN, Duration::as_secs_f64);
    report.add("an answer of DNS, p99", "", Budget::AtMost(1.0), p99 * 1e3, "ms");
    Ok(())
}

/// A question for the IPv4 address of `name`; its number is zero.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Seconds from the command that starts one more agent until its node is Ready.
fn join(cluster: &mut Cluster) -> anyhow::Result<f64> {
    let path = super::kubeconfig(cluster);
    let name = format!("node-{}", cluster.nodes() + 1);
    let watching = inside::start(cluster, move || async move {
        let endpoint = Endpoint::from_kubeconfig(&path)?;
        let nodes = format!("/api/v1/nodes?watch=true&fieldSelector=metadata.name%3D{name}");
        let ready = |_: &str, node: &Value| super::has_condition(node, "Ready").then(Instant::now);
        let watch = async { endpoint.connect().await?.watch(&nodes, ready).await };
        tokio::time::timeout(super::TIMEOUT, watch).await.context("the third node is not Ready")?
    });
    // The machine is made before the command runs; the token is there since the second node.
    cluster.add_machine();
    let begin = Instant::now();
    cluster.start_agent(cluster.nodes() - 1);
    Ok((watching.wait()? - begin).as_secs_f64())
}

/// The middle of what each turn reached of the other's: whatever else the machine does weighs on
/// both.
fn of_the_other(ours: &[f64], theirs: &[f64]) -> f64 {
    middle(&mut ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
