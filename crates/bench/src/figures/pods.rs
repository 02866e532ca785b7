//! How long pods take, and what they cost skiff.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{IMAGE, TIMEOUT, appears, has_condition, kubeconfig};
use crate::Subject;
use crate::endpoint::{Endpoint, request};
use crate::inside;
use crate::process::memory;
use crate::report::{Budget, Report, median};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Statuses and events are written, freed memory goes back to the kernel.
const SETTLE: Duration = Duration::from_secs(8);

/// Measures `pods` pods one after the other, then a deployment of `replicas`.
pub(crate) fn run(subject: &Subject, pods: usize, replicas: usize) -> anyhow::Result<()> {
    let cluster = super::start(subject)?;
    super::import_image(subject, &cluster)?;
    let path = kubeconfig(&cluster);
    super::tell(&format!("{pods} pods, one after the other"));
    let mut times = inside::run(&cluster, move || one_by_one(path, pods.max(1)))?;
    std::thread::sleep(SETTLE);

    super::tell(&format!("a deployment of {replicas} replicas, then of twice as many"));
    let path = kubeconfig(&cluster);
    let available = inside::run(&cluster, move || deployment(path, replicas.max(1)))?;
    std::thread::sleep(SETTLE);
    // What the first pods made skiff set up once is no cost of a pod.
    let pid = cluster.pid().context("skiff does not run")?;
    let before = memory(pid)?.resident;
    let path = kubeconfig(&cluster);
    inside::run(&cluster, move || scale(path, replicas.max(1) * 2))?;
    std::thread::sleep(SETTLE);
    let growth = memory(pid)?.resident.saturating_sub(before) as f64 / 1e3 / replicas as f64;

    let mut report = Report::default();
    let ready = median(&mut times);
    report.add("pod created to Ready", "0.80 s", Budget::AtMost(0.5), ready, "s");
    let slowest = times.last().map_or(f64::NAN, Duration::as_secs_f64);
    report.add("the slowest of them", "", Budget::None, slowest, "s");
    let what = format!("deployment of {replicas} to Available");
    let budget = if replicas == 30 { Budget::AtMost(5.0) } else { Budget::None };
    report.add(&what, "9.1 s", budget, available.as_secs_f64(), "s");
    report.add("memory of skiff a running pod", "", Budget::None, growth, "kB");
    report.print();
    Ok(())
}

/// No probes: their period is not what is measured.
fn container() -> Value {
    json!({"name": "website", "image": IMAGE, "ports": [{"containerPort": 8080}]})
}

async fn one_by_one(kubeconfig: PathBuf, pods: usize) -> anyhow::Result<Vec<Duration>> {
    let endpoint = Endpoint::from_kubeconfig(&kubeconfig)?;
    let mut connection = endpoint.connect().await?;
    appears(&mut connection, "/api/v1/namespaces/default/serviceaccounts/default").await?;
    let mut times = Vec::new();
    for number in 0..pods {
        let name = format!("pod-{number}");
        let watched = format!("{PODS}?watch=true&fieldSelector=metadata.name%3D{name}");
        let watcher = endpoint.connect().await?;
        let ready = tokio::spawn(async move {
            let is_ready = |_: &str, pod: &Value| has_condition(pod, "Ready").then(Instant::now);
            watcher.watch(&watched, is_ready).await
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [container()]},
        });
        let begin = Instant::now();
        connection.exchange(request(Method::POST, PODS, pod.to_string())).await?;
        let ready =
            tokio::time::timeout(TIMEOUT, ready).await.context("a pod is not Ready")???;
        times.push(ready - begin);
        let path = format!("{PODS}/{name}?gracePeriodSeconds=0");
        connection.exchange(request(Method::DELETE, &path, "")).await?;
        // The next pod has the node for itself.
        while connection.exchange(request(Method::GET, &format!("{PODS}/{name}"), "")).await.is_ok()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(times)
}

/// Creates the deployment; how long it took until it was available.
async fn deployment(kubeconfig: PathBuf, replicas: usize) -> anyhow::Result<Duration> {
    let endpoint = Endpoint::from_kubeconfig(&kubeconfig)?;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "website"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "website"}},
            "template": {
                "metadata": {"labels": {"app": "website"}},
                "spec": {"containers": [container()]},
            },
        },
    });
    let create = request(Method::POST, DEPLOYMENTS, deployment.to_string());
    until_available(&endpoint, create, replicas).await
}

async fn scale(kubeconfig: PathBuf, replicas: usize) -> anyhow::Result<Duration> {
    let endpoint = Endpoint::from_kubeconfig(&kubeconfig)?;
    let scale = json!({"spec": {"replicas": replicas}}).to_string();
    let mut scale = request(Method::PATCH, &format!("{DEPLOYMENTS}/website"), scale);
    let media = http::HeaderValue::from_static("application/merge-patch+json");
    scale.headers_mut().insert(http::header::CONTENT_TYPE, media);
    until_available(&endpoint, scale, replicas).await
}

/// How long it takes from sending `change` until so many replicas are available.
async fn until_available(
    endpoint: &Endpoint,
    change: http::Request<Full<Bytes>>,
    replicas: usize,
) -> anyhow::Result<Duration> {
    let mut connection = endpoint.connect().await?;
    let watcher = endpoint.connect().await?;
    let available = tokio::spawn(async move {
        let all = |_: &str, deployment: &Value| {
            (deployment["status"]["availableReplicas"] == replicas).then(Instant::now)
        };
        watcher.watch(&format!("{DEPLOYMENTS}?watch=true"), all).await
    });
    let begin = Instant::now();
    connection.exchange(change).await?;
    let end = tokio::time::timeout(TIMEOUT, available)
        .await
        .context("replicas are not available")???;
    Ok(end - begin)
}
