//! What the API server serves, beside a bare server and a bare store on the same processors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use store::{Durability, Embedded, Options, Store};
use testkit::Cluster;

use super::kubeconfig;
use crate::Subject;
use crate::bare::Bare;
use crate::endpoint::{Endpoint, request};
use crate::inside;
use crate::load::{self, Load, Outcome};
use crate::process::memory;
use crate::report::{Budget, Report, megabytes};

const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
/// Connections of small requests.
const MANY: usize = 64;
/// Connections of large answers.
const FEW: usize = 8;
/// Freed memory goes back to the kernel within a second or two.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures reads and writes for `seconds` each, on `objects` ConfigMaps of 1.2 KB.
pub(crate) fn run(subject: &Subject, seconds: u64, objects: u64) -> anyhow::Result<()> {
    let cluster = super::start(subject)?;
    let duration = Duration::from_secs(seconds.max(1));
    let mut report = Report::default();
    let path = kubeconfig(&cluster);
    let (one, all) = inside::run(&cluster, move || fill(path, objects))?;
    std::thread::sleep(SETTLE);
    let pid = cluster.pid().context("skiff does not run")?;
    let resident = megabytes(memory(pid)?.resident);
    let what = format!("resident memory, {objects} ConfigMaps");
    report.add(&what, "937 MB", Budget::AtMost(120.0), resident, "MB");

    reads(&cluster, &one, &all, duration, &mut report)?;
    writes(&cluster, duration, &mut report)?;
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
    duration: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let load = |connections| Load { connections, duration, requests: u64::MAX };
    let server = Bare::start(cluster, one, all)?;
    let bare = server.endpoint()?;
    let skiff = Endpoint::from_kubeconfig(&kubeconfig(cluster))?;
    let measure = |endpoint: &Endpoint, path: String, load| {
        let endpoint = endpoint.clone();
        inside::run(cluster, move || async move { get(&endpoint, path, load).await })
    };

    let own = measure(&skiff, format!("{CONFIG_MAPS}/object-000007"), load(MANY))?;
    let other = measure(&bare, "/one".to_owned(), load(MANY))?;
    report.add("GET, 64 connections", "2755 /s", Budget::AtLeast(25_000.0), own.rate(), "/s");
    latency(report, &own);
    report.add("GET of the bare server", "", Budget::None, other.rate(), "/s");
    let ratio = own.rate() / other.rate() * 100.0;
    report.add("GET beside the bare server", "", Budget::AtLeast(60.0), ratio, "%");

    let own = measure(&skiff, CONFIG_MAPS.to_owned(), load(FEW))?;
    let other = measure(&bare, "/all".to_owned(), load(FEW))?;
    let rate = own.megabytes();
    report.add("LIST all, 8 connections", "108 MB/s", Budget::AtLeast(1000.0), rate, "MB/s");
    report.add("LIST of the bare server", "", Budget::None, other.megabytes(), "MB/s");
    let ratio = own.megabytes() / other.megabytes() * 100.0;
    report.add("LIST beside the bare server", "", Budget::AtLeast(50.0), ratio, "%");

    let own = measure(&skiff, format!("{CONFIG_MAPS}?limit=500"), load(FEW))?;
    report.add("LIST limit=500", "66 /s", Budget::AtLeast(1000.0), own.rate(), "/s");
    Ok(())
}

fn writes(cluster: &Cluster, duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    let skiff = Endpoint::from_kubeconfig(&kubeconfig(cluster))?;
    let load = Load { connections: MANY, duration, requests: u64::MAX };
    let make = |number| create(&format!("load-{number:08}"), 900);
    let own = inside::run(cluster, move || async move { load::run(&skiff, load, make).await })?;
    let directory = tempfile::tempdir_in(cluster.directory()).context("make a directory")?;
    let (other, batch) = bare_store(directory.path(), duration)?;
    report.add(
        "CREATE 1 KB, 64 connections",
        "1300 /s",
        Budget::AtLeast(10_000.0),
        own.rate(),
        "/s",
    );
    latency(report, &own);
    report.add("CREATE of the bare store", "", Budget::None, other, "/s");
    report.add("commits a batch there", "", Budget::None, batch, "");
    let ratio = own.rate() / other * 100.0;
    report.add("CREATE beside the bare store", "", Budget::AtLeast(50.0), ratio, "%");
    Ok(())
}

fn latency(report: &mut Report, outcome: &Outcome) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    report.add("    median", "", Budget::None, milliseconds(outcome.median), "ms");
    report.add("    99 of 100", "", Budget::None, milliseconds(outcome.p99), "ms");
}

/// One request of each kind that is counted, to reads that repeat.
async fn get(endpoint: &Endpoint, path: String, load: Load) -> anyhow::Result<Outcome> {
    let first = endpoint.connect().await?.count(request(Method::GET, &path, "")).await?;
    let outcome = load::run(endpoint, load, move |_| request(Method::GET, &path, "")).await?;
    anyhow::ensure!(
        outcome.bytes == first * outcome.requests,
        "answers to the same request differ in length"
    );
    Ok(outcome)
}

/// Creates the objects, and returns what the server answers for one and for all.
async fn fill(kubeconfig: PathBuf, objects: u64) -> anyhow::Result<(Bytes, Bytes)> {
    let endpoint = Endpoint::from_kubeconfig(&kubeconfig)?;
    let mut connection = endpoint.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    let namespaces = "/api/v1/namespaces";
    connection.exchange(request(Method::POST, namespaces, namespace.to_string())).await?;
    let load = Load { connections: MANY, duration: super::TIMEOUT, requests: objects };
    let made =
        load::run(&endpoint, load, |number| create(&format!("object-{number:06}"), 1000)).await?;
    anyhow::ensure!(made.requests == objects, "creating the objects took too long");
    let one = format!("{CONFIG_MAPS}/object-000007");
    let one = connection.exchange(request(Method::GET, &one, "")).await?;
    let all = connection.exchange(request(Method::GET, CONFIG_MAPS, "")).await?;
    Ok((one, all))
}

/// A request that creates a ConfigMap with so many bytes of data.
fn create(name: &str, bytes: usize) -> Request<Full<Bytes>> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"payload": "x".repeat(bytes)},
    });
    request(Method::POST, CONFIG_MAPS, object.to_string())
}

/// Commits a second of the embedded store alone, and how many of them it writes at once.
fn bare_store(directory: &Path, duration: Duration) -> anyhow::Result<(f64, f64)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Embedded::open(Options::new(directory.join("store")), |_, _| ())?;
        let load = store::load::Load {
            in_flight: MANY,
            value_bytes: 1024,
            duration,
            durability: Durability::Durable,
            prefix: "/registry/configmaps/bench/".to_owned(),
        };
        let shared: Arc<dyn Store<()>> = Arc::new(store.clone());
        let figures = store::load::create(shared, load, || ())
            .await
            .map_err(|error| anyhow::anyhow!("load the bare store: {error}"))?;
        let batch = figures.commits as f64 / store.stats().batches.max(1) as f64;
        store.close().await;
        Ok((figures.per_second, batch))
    })
}
