//! What the API server serves, beside a bare server and a bare store on the same processors.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::Method;
use serde_json::json;
use store::{Durability, Embedded, Options, Store};
use testkit::Cluster;

use super::kubeconfig;
use crate::Subject;
use crate::bare::Bare;
use crate::endpoint::{Endpoint, request};
use crate::inside;
use crate::load::{self, Load, Outcome};
use crate::process::{memory, processor_time};
use crate::report::{Budget, Report, megabytes};
use crate::wire;

const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Connections of small requests.
const MANY: usize = 64;
/// Connections of large answers.
const FEW: usize = 8;
/// What is compared takes turns of this length: what disturbs one disturbs the other.
const ROUND: Duration = Duration::from_secs(1);
/// Freed memory goes back to the kernel within a second or two.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures reads and writes for `seconds` each, on `objects` ConfigMaps of 1.2 KB.
pub(crate) fn run(subject: &Subject, seconds: u64, objects: u64) -> anyhow::Result<()> {
    let cluster = super::start(subject)?;
    let mut report = Report::default();
    super::tell(&format!("creating {objects} ConfigMaps"));
    let path = kubeconfig(&cluster);
    let (one, all) = inside::run(&cluster, move || fill(path, objects))?;
    std::thread::sleep(SETTLE);
    let pid = cluster.pid().context("skiff does not run")?;
    let resident = megabytes(memory(pid)?.resident);
    let what = format!("resident memory, {objects} ConfigMaps");
    report.add(&what, "937 MB", Budget::AtMost(120.0), resident, "MB");

    let rounds = seconds.max(1);
    reads(&cluster, &one, &all, rounds, &mut report)?;
    protobuf(&cluster, rounds, &mut report)?;
    writes(&cluster, rounds, &mut report)?;
    patches(&cluster, rounds, objects, &mut report)?;
    super::fanout::run(&cluster, rounds, &mut report)?;
    std::thread::sleep(SETTLE);
    let resident = megabytes(memory(pid)?.resident);
    report.add("resident memory after the loads", "", Budget::None, resident, "MB");
    report.print();
    Ok(())
}

fn reads(
    cluster: &Cluster,
    one: &[u8],
    all: &[u8],
    rounds: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = Bare::start(cluster, one, all)?;
    let bare = server.endpoint()?;
    let skiff = Endpoint::from_kubeconfig(&kubeconfig(cluster))?;
    let measure = |path: String, other: &'static str, connections| {
        super::tell(&format!("GET {path}, {connections} connections"));
        let (skiff, bare) = (skiff.clone(), bare.clone());
        inside::run(cluster, move || async move {
            let (mut own, mut others) = (Outcome::default(), Outcome::default());
            for _ in 0..rounds {
                own.add(get(&skiff, &path, connections).await?);
                if !other.is_empty() {
                    others.add(get(&bare, other, connections).await?);
                }
            }
            Ok((own, others))
        })
    };

    let (mut own, other) = measure(format!("{CONFIG_MAPS}/object-00000007"), "/one", MANY)?;
    report.add("GET, 64 connections", "2755 /s", Budget::AtLeast(25_000.0), own.rate(), "/s");
    latency(report, &mut own);
    report.add("GET of the bare server", "", Budget::None, other.rate(), "/s");
    let ratio = own.rate() / other.rate() * 100.0;
    report.add("GET beside the bare server", "", Budget::AtLeast(60.0), ratio, "%");

    let (own, other) = measure(CONFIG_MAPS.to_owned(), "/all", FEW)?;
    let rate = own.megabytes();
    report.add("LIST all, 8 connections", "108 MB/s", Budget::AtLeast(1000.0), rate, "MB/s");
    report.add("LIST of the bare server", "", Budget::None, other.megabytes(), "MB/s");
    let ratio = own.megabytes() / other.megabytes() * 100.0;
    report.add("LIST beside the bare server", "", Budget::AtLeast(50.0), ratio, "%");

    let (own, _) = measure(format!("{CONFIG_MAPS}?limit=500"), "", FEW)?;
    report.add("LIST limit=500", "66 /s", Budget::AtLeast(1000.0), own.rate(), "/s");
    Ok(())
}

/// The same reads in protobuf, beside those in JSON.
fn protobuf(cluster: &Cluster, rounds: u64, report: &mut Report) -> anyhow::Result<()> {
    let skiff = Endpoint::from_kubeconfig(&kubeconfig(cluster))?;
    let reads = [
        ("GET in protobuf", format!("{CONFIG_MAPS}/object-00000007"), MANY),
        ("LIST limit=500 in protobuf", format!("{CONFIG_MAPS}?limit=500"), FEW),
    ];
    for (what, path, connections) in reads {
        super::tell(&format!("{what}, {connections} connections"));
        let skiff = skiff.clone();
        let (own, json) = inside::run(cluster, move || async move {
            let (mut own, mut json) = (Outcome::default(), Outcome::default());
            for _ in 0..rounds {
                let request = wire::request_for("GET", &path, PROTOBUF, "");
                let load = Load { connections, duration: ROUND, requests: u64::MAX };
                own.add(load::run(&skiff, load, move |_| request.clone()).await?);
                json.add(get(&skiff, &path, connections).await?);
            }
            Ok((own, json))
        })?;
        report.add(what, "", Budget::None, own.rate(), "/s");
        report.add("    beside JSON", "", Budget::None, own.rate() / json.rate() * 100.0, "%");
    }
    Ok(())
}

fn writes(cluster: &Cluster, rounds: u64, report: &mut Report) -> anyhow::Result<()> {
    super::tell("POST, 64 connections");
    let directory = tempfile::tempdir_in(cluster.directory()).context("make a directory")?;
    let path = kubeconfig(cluster);
    let pid = cluster.pid().context("skiff does not run")?;
    let (mut own, used, batch, other, full) = inside::run(cluster, move || async move {
        let skiff = Endpoint::from_kubeconfig(&path)?;
        let store = Embedded::open(Options::new(directory.path().join("store")), |_, _| ())?;
        let (mut own, before) = (Outcome::default(), written(&skiff).await?);
        let (mut other, mut full, mut used) = (Vec::new(), Vec::new(), Duration::ZERO);
        for round in 0..rounds {
            let load = Load { connections: MANY, duration: ROUND, requests: u64::MAX };
            let make = create(format!("load-{round:03}-"), 900);
            let start = processor_time(pid)?;
            own.add(load::run(&skiff, load, make).await?);
            used += processor_time(pid)?.saturating_sub(start);
            let batch = written(&skiff).await?.since(before);
            other.push(bare_store(&store, batch.round() as usize, round).await?);
            full.push(bare_store(&store, MANY, round).await?);
        }
        store.close().await;
        let batch = written(&skiff).await?.since(before);
        Ok((own, used, batch, mean(&other), mean(&full)))
    })?;
    report.add(
        "CREATE 1 KB, 64 connections",
        "1300 /s",
        Budget::AtLeast(10_000.0),
        own.rate(),
        "/s",
    );
    latency(report, &mut own);
    let each = used.as_secs_f64() * 1e6 / own.requests() as f64;
    report.add("    processor of skiff each", "", Budget::None, each, "µs");
    report.add("    commits a transaction", "", Budget::None, batch, "");
    report.add("CREATE of the bare store so", "", Budget::None, other, "/s");
    let ratio = own.rate() / other * 100.0;
    report.add("CREATE beside the bare store", "", Budget::AtLeast(50.0), ratio, "%");
    report.add("the bare store, 64 in flight", "", Budget::None, full, "/s");
    Ok(())
}

/// Patches of the objects that are there, taking turns with creations.
fn patches(
    cluster: &Cluster,
    rounds: u64,
    objects: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    super::tell("PATCH, 64 connections");
    let path = kubeconfig(cluster);
    let outcomes = inside::run(cluster, move || async move {
        let skiff = Endpoint::from_kubeconfig(&path)?;
        let load = Load { connections: MANY, duration: ROUND, requests: u64::MAX };
        let (mut created, mut merged, mut applied) = <(Outcome, Outcome, Outcome)>::default();
        for round in 0..rounds {
            let make = create(format!("turn-{round:03}-"), 900);
            created.add(load::run(&skiff, load, make).await?);
            let make = patch("application/merge-patch+json", "", "merged", objects);
            merged.add(load::run(&skiff, load, make).await?);
            let make = patch("application/apply-patch+yaml", APPLY, "applied", objects);
            applied.add(load::run(&skiff, load, make).await?);
        }
        Ok((created, merged, applied))
    })?;
    let (created, merged, applied) = outcomes;
    for (what, own) in [("merge patch, 64 connections", merged), ("apply", applied)] {
        report.add(what, "", Budget::None, own.rate(), "/s");
        let ratio = own.rate() / created.rate() * 100.0;
        report.add("    beside CREATE", "", Budget::AtLeast(70.0), ratio, "%");
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn latency(report: &mut Report, outcome: &mut Outcome) {
    for (what, part) in [("    median", 50), ("    99 of 100", 99)] {
        let milliseconds = outcome.percentile(part).as_secs_f64() * 1e3;
        report.add(what, "", Budget::None, milliseconds, "ms");
    }
}

/// One round of the same read.
async fn get(endpoint: &Endpoint, path: &str, connections: usize) -> anyhow::Result<Outcome> {
    let request = wire::request("GET", path, "");
    let first = endpoint.wire().await?.count(&request).await?;
    let load = Load { connections, duration: ROUND, requests: u64::MAX };
    let outcome = load::run(endpoint, load, move |_| request.clone()).await?;
    anyhow::ensure!(
        outcome.bytes == first * outcome.requests(),
        "answers to the same request differ in length"
    );
    Ok(outcome)
}

/// What skiff's store has written.
#[derive(Clone, Copy)]
struct Written {
    commits: f64,
    transactions: f64,
}

impl Written {
    /// Commits a transaction since an earlier look.
    fn since(self, before: Self) -> f64 {
        (self.commits - before.commits) / (self.transactions - before.transactions).max(1.0)
    }
}

/// Reads what skiff says that its store has written.
async fn written(endpoint: &Endpoint) -> anyhow::Result<Written> {
    let path = request(Method::GET, "/metrics", "");
    let text = endpoint.connect().await?.exchange(path).await?;
    let text = String::from_utf8_lossy(&text);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("no metric {name}"))
    };
    Ok(Written {
        commits: value("skiff_store_commits_total")?,
        transactions: value("skiff_store_transactions_total")?,
    })
}

/// Creates the objects, and returns what the server answers for one and for all.
async fn fill(kubeconfig: PathBuf, objects: u64) -> anyhow::Result<(Bytes, Bytes)> {
    let endpoint = Endpoint::from_kubeconfig(&kubeconfig)?;
    let mut connection = endpoint.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    let namespaces = "/api/v1/namespaces";
    connection.exchange(request(Method::POST, namespaces, namespace.to_string())).await?;
    let load = Load { connections: MANY, duration: super::TIMEOUT, requests: objects };
    let made = load::run(&endpoint, load, create("object-".to_owned(), 1000)).await?;
    anyhow::ensure!(made.requests() == objects, "creating the objects took too long");
    let one = format!("{CONFIG_MAPS}/object-00000007");
    let one = connection.exchange(request(Method::GET, &one, "")).await?;
    let all = connection.exchange(request(Method::GET, CONFIG_MAPS, "")).await?;
    Ok((one, all))
}

/// Creates pods that no scheduler looks at.
pub(super) async fn fill_pods(kubeconfig: PathBuf, pods: u64) -> anyhow::Result<()> {
    let endpoint = Endpoint::from_kubeconfig(&kubeconfig)?;
    let mut connection = endpoint.connect().await?;
    super::appears(&mut connection, "/api/v1/namespaces/default/serviceaccounts/default").await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{NUMBER}")},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]},
    });
    let path = "/api/v1/namespaces/default/pods";
    let make = numbered(wire::request("POST", path, &pod.to_string()), |number| [number]);
    let load = Load { connections: MANY, duration: super::TIMEOUT, requests: pods };
    let made = load::run(&endpoint, load, make).await?;
    anyhow::ensure!(made.requests() == pods, "creating the pods took too long");
    Ok(())
}

/// What stands for a number of eight digits in a request.
const NUMBER: &str = "########";

/// Makes requests that create ConfigMaps with so many bytes of data.
fn create(prefix: String, bytes: usize) -> impl Fn(u64) -> Bytes + Clone + Send + 'static {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("{prefix}{NUMBER}")},
        "data": {"payload": "x".repeat(bytes)},
    });
    numbered(wire::request("POST", CONFIG_MAPS, &object.to_string()), |number| [number])
}

const APPLY: &str = "?fieldManager=bench&force=true";

/// Makes patches that change one value in one of the first `objects` objects after the other, each
/// time to another value.
fn patch(
    content_type: &str,
    query: &str,
    key: &str,
    objects: u64,
) -> impl Fn(u64) -> Bytes + Clone + Send + 'static {
    let start = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros());
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "data": {key: format!("{start}-{NUMBER}")},
    });
    let path = format!("{CONFIG_MAPS}/object-{NUMBER}{query}");
    let template = wire::patch(&path, content_type, &object.to_string());
    numbered(template, move |number| [number % objects, number])
}

/// Makes requests from a template by putting numbers where it says so.
fn numbered<const N: usize>(
    template: Bytes,
    numbers: impl Fn(u64) -> [u64; N] + Clone + Send + 'static,
) -> impl Fn(u64) -> Bytes + Clone + Send + 'static {
    let text = String::from_utf8_lossy(&template);
    let places: Vec<usize> = text.match_indices(NUMBER).map(|(at, _)| at).collect();
    move |number| {
        let mut request = BytesMut::from(&template[..]);
        for (at, number) in places.iter().zip(numbers(number)) {
            request[*at..at + NUMBER.len()].copy_from_slice(format!("{number:08}").as_bytes());
        }
        request.freeze()
    }
}

/// Commits a second of the embedded store alone.
async fn bare_store(store: &Embedded<()>, in_flight: usize, round: u64) -> anyhow::Result<f64> {
    let load = store::load::Load {
        in_flight,
        value_bytes: 1024,
        duration: ROUND,
        durability: Durability::Durable,
        prefix: format!("/registry/configmaps/bench/{in_flight}-{round}-"),
    };
    let shared: Arc<dyn Store<()>> = Arc::new(store.clone());
    let figures = store::load::create(shared, load, || ()).await;
    let figures = figures.map_err(|error| anyhow::anyhow!("load the bare store: {error}"))?;
    Ok(figures.per_second)
}
