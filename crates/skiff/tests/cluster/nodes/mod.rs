//! Clusters of three nodes: everything reaches everything, and what goes wrong between or on machines
//! costs no request that could have been answered.

mod balancer;
mod local;
mod partition;
mod policies;
mod reach;
mod website;

use std::time::{Duration, Instant};

use testkit::load::{Load, LoadOptions, Report};
use testkit::{Cluster, ClusterOptions, Machine, eventually, eventually_ok, website_images};

use crate::tool::{PATIENCE, finish};

/// A cluster of three nodes that have the website's first two images.
fn three(options: ClusterOptions) -> Cluster {
    let cluster = Cluster::start_with(crate::SKIFF, ClusterOptions { nodes: 3, ..options });
    cluster.import(&website_images()[..2]);
    cluster
}

/// What GET prints on a machine; the complaint where it fails.
fn get_from(machine: &Machine, url: &str) -> Result<String, String> {
    let mut command = machine.command("curl");
    command.args(["--silent", "--show-error", "--globoff", "--fail-with-body", "--max-time", "5"]);
    command.arg(url);
    let outcome = finish(command, "");
    match outcome.code {
        Some(0) => Ok(outcome.out),
        _ => Err(format!("{}: GET {url}: {outcome:?}", machine.name())),
    }
}

/// A pod of the website that runs on one node.
fn pod_on(name: &str, node: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {labels}}}, spec: {{nodeName: {node}, \
         terminationGracePeriodSeconds: 5, containers: [{{name: c, image: 'skiff.local/website:1.0.0', \
         ports: [{{name: http, containerPort: 8080}}], \
         readinessProbe: {{httpGet: {{path: /readyz, port: http}}, periodSeconds: 1}}}}]}}}}\n"
    )
}

/// The website in so many pods, spread by a Service of type NodePort at 30080.
fn website(replicas: usize) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../../examples/website/1.0.0.yaml");
    let text = std::fs::read_to_string(path).expect("the example is there");
    text.replace("replicas: 3", &format!("replicas: {replicas}"))
}

/// A load on new connections alone from one machine, in turn to every target.
fn load_from(machine: &Machine, targets: &[String], workers: usize) -> Load {
    let options = LoadOptions {
        targets: targets.iter().map(|target| target.parse().expect("an address")).collect(),
        path: "/".into(),
        fresh: workers,
        kept: 0,
        pause: Duration::from_millis(10),
    };
    Load::start(machine, &options)
}

/// The website's cluster address with its port.
fn cluster_ip(cluster: &Cluster) -> String {
    let path = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
    cluster.kubectl(&["get", "service", "website", "-o", path])
}

/// Waits until a load has come so many requests further.
fn goes_on(load: &Load, further: usize) {
    let reached = load.count() + further;
    eventually("the load to go on", PATIENCE, || load.count() >= reached);
}

/// Fails unless every request was answered; says how many there were.
fn assert_no_failure(what: &str, report: &Report) {
    println!("{what}: {} answers, {} retries", report.answers.len(), report.retries);
    assert!(
        report.failures.is_empty(),
        "{what}: {} failed: {:#?}",
        report.failures.len(),
        &report.failures[..report.failures.len().min(10)]
    );
    assert!(!report.answers.is_empty(), "{what}: nobody asked");
}

/// Waits for a condition and prints how long it took from `since`.
fn converges(what: &str, since: Instant, condition: impl FnMut() -> bool) {
    eventually(what, PATIENCE, condition);
    println!("{what}: {:.1} s", since.elapsed().as_secs_f64());
}

/// The Ready condition of a node: True, False or Unknown.
fn ready(cluster: &Cluster, node: &str) -> String {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    cluster.try_kubectl(&["get", "node", node, "-o", path]).unwrap_or_default()
}

/// Addresses of the website's ready pods, with their nodes.
fn endpoints(cluster: &Cluster) -> Vec<(String, String)> {
    let path = "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {.nodeName}{\"\\n\"}{end}";
    let selector = "kubernetes.io/service-name=website";
    let out = cluster.try_kubectl(&["get", "endpointslices", "-l", selector, "-o", path]);
    out.unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(address, node)| (address.to_owned(), node.to_owned()))
        .collect()
}

/// Waits until the website has so many ready pods on each of these nodes at least, and says where.
fn spread(cluster: &Cluster, nodes: &[&str]) -> Vec<(String, String)> {
    eventually_ok("a pod of the website on every node", PATIENCE, || {
        let found = endpoints(cluster);
        let everywhere = nodes.iter().all(|node| found.iter().any(|(_, on)| on == node));
        if everywhere { Ok(found) } else { Err(format!("{found:?}")) }
    })
}
