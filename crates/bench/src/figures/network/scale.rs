//! What many Services and many policies cost: programming all, programming one, passing them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};
use testkit::Cluster;

use super::{Pods, api, traffic};
use crate::endpoint::request;
use crate::figures::{IMAGE, TIMEOUT, has_condition, tell};
use crate::report::{Budget, Report, median};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
/// Changes of which the middle counts.
const CHANGES: usize = 15;
/// Connections of which the middle counts.
const PROBES: usize = 600;
const ENDPOINTS: u64 = 10;
/// One policy of so many is for the pods that are measured.
const OTHERS: u64 = 10;

fn slice(name: &str, addresses: &[IpAddr], port: u16) -> Value {
    let endpoint =
        |address: &IpAddr| json!({"addresses": [address], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"port": port, "protocol": "TCP"}],
    })
}

fn service_object(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": port, "protocol": "TCP"}]}})
}

/// Creates a Service with these endpoints; returns where it is reached.
pub(super) fn service(
    cluster: &Cluster,
    name: &str,
    addresses: &[IpAddr],
    port: u16,
) -> anyhow::Result<SocketAddr> {
    let body = service_object(name, port).to_string();
    let made = api::send(cluster, request(Method::POST, &format!("{NAMESPACE}/services"), body))?;
    let body = slice(name, addresses, port).to_string();
    api::send(cluster, request(Method::POST, SLICES, body))?;
    let address = made["spec"]["clusterIP"].as_str().context("the Service has no address")?;
    Ok(SocketAddr::new(address.parse()?, port))
}

/// Addresses where nobody is.
fn nowhere(service: u64) -> Vec<IpAddr> {
    let address =
        |n| IpAddr::from((0x0a20_0000_u32 + (service * ENDPOINTS + n) as u32).to_be_bytes());
    (0..ENDPOINTS).map(address).collect()
}

/// Makes Services by and by and measures beside them.
pub(super) fn services(
    most: u64,
    cluster: &Cluster,
    pods: &Pods,
    probe: SocketAddr,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut made = 0;
    let mut first = None;
    for count in [10, 1000, 10_000].into_iter().filter(|count| *count <= most) {
        tell(&format!("{count} Services"));
        let name = |n: u64| format!("s{n}");
        api::create(cluster, made, count, move |n| {
            (format!("{NAMESPACE}/services"), service_object(&name(n), 80))
        })?;
        api::create(cluster, made, count, move |n| {
            (SLICES.to_owned(), slice(&name(n), &nowhere(n), 8080))
        })?;
        made = count;
        api::rest(cluster)?;
        let mut times = traffic::connections(&pods.near.namespace, probe, PROBES)?;
        let taken = median(&mut times) * 1e6;
        report.add(&format!("a connection beside {count} Services"), "", Budget::None, taken, "µs");
        let few = *first.get_or_insert(taken);
        if count > 10 {
            let budget = Budget::AtMost(125.0);
            report.add("  of that beside 10", "", budget, taken / few * 100.0, "%");
        }
        // The last ones: earlier ones have changed before.
        let change = |n: usize| {
            let n = made - 1 - n as u64;
            let mut body = slice(&format!("s{n}"), &nowhere(n), 8080);
            body["endpoints"].as_array_mut().map(Vec::pop);
            api::patch(&format!("{SLICES}/s{n}"), &json!({"endpoints": body["endpoints"]}))
        };
        let changes = CHANGES.min(made as usize);
        let mut times = api::until_programmed(cluster, (0..changes).map(change).collect())?;
        let what = format!("an endpoint goes beside {count} Services, request to kernel");
        report.add(&what, "", Budget::AtMost(10.0), median(&mut times) * 1e3, "ms");
    }
    tell("all Services anew");
    let changes = api::Changes::listen(cluster)?;
    let begin = Instant::now();
    let mut remove = cluster.namespace().command("nft");
    let status = remove.args(["flush", "ruleset"]).status().context("run nft")?;
    ensure!(status.success(), "nft refused");
    traffic::until_connected(&pods.near.namespace, probe, TIMEOUT)?;
    let last = changes.last()?.context("nothing was programmed")?;
    let taken = (last - begin).as_secs_f64();
    report.add(&format!("all of {made} Services programmed"), "", Budget::AtMost(5.0), taken, "s");
    Ok(())
}

/// A pod that policies select.
fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "policed"}},
        // Without the environment of ten thousand Services, which no process can be started with.
        "spec": {"nodeName": "node-1", "enableServiceLinks": false, "containers": [{"name": "website", "image": IMAGE}]}})
}

/// A policy of a cluster in which not all are for the same pods.
fn policy(number: u64, port: u64) -> Value {
    let app =
        if number.is_multiple_of(OTHERS) { "policed".to_owned() } else { format!("app-{number}") };
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": format!("p{number}")},
    "spec": {"podSelector": {"matchLabels": {"app": app}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"number": number.to_string()}}}],
            "ports": [{"port": port}]},
    ]}})
}

/// Makes policies, of which a part selects the pods here, and changes one of these at a time.
pub(super) fn policies(count: u64, cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    tell(&format!("{count} policies"));
    let start = |name: &str| -> anyhow::Result<Duration> {
        let (pods, begin) = (format!("{NAMESPACE}/pods"), Instant::now());
        api::send(cluster, request(Method::POST, &pods, pod(name).to_string()))?;
        loop {
            let found = api::send(cluster, request(Method::GET, &format!("{pods}/{name}"), ""))?;
            if has_condition(&found, "Ready") {
                return Ok(begin.elapsed());
            }
            ensure!(begin.elapsed() < TIMEOUT, "{name} is not Ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    start("first")?;
    let free = start("free")?;
    api::create(cluster, 0, count, |n| (POLICIES.to_owned(), policy(n, 80)))?;
    let change = |n: usize| {
        let n = n as u64 * OTHERS;
        api::patch(&format!("{POLICIES}/p{n}"), &json!({"spec": policy(n, 81)["spec"]}))
    };
    let changes = CHANGES.min(count.div_ceil(OTHERS) as usize);
    let mut times = api::until_programmed(cluster, (0..changes).map(change).collect())?;
    let what = format!("one of {count} policies changes, request to kernel");
    report.add(&what, "", Budget::None, median(&mut times) * 1e3, "ms");
    api::rest(cluster)?;
    let policed = start("policed")?;
    report.add("a pod to Ready without policies", "", Budget::AtMost(0.5), free.as_secs_f64(), "s");
    let selecting = count.div_ceil(OTHERS);
    let what = format!("a pod to Ready under {selecting} of {count} policies");
    report.add(&what, "", Budget::AtMost(0.5), policed.as_secs_f64(), "s");
    Ok(())
}
