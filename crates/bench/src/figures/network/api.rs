//! What the network benches ask of the API: many objects at a time, one change and its echo in the
//! kernel.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use testkit::Cluster;

use crate::endpoint::{Endpoint, request};
use crate::figures::{TIMEOUT, kubeconfig};
use crate::inside;
use crate::load::{self, Load};

/// Connections on which objects are made.
const CONNECTIONS: usize = 16;

/// Creates objects `first..last`, whose paths and bodies `make` gives.
pub(crate) fn create<F>(cluster: &Cluster, first: u64, last: u64, make: F) -> anyhow::Result<()>
where
    F: Fn(u64) -> (String, Value) + Clone + Send + 'static,
{
    let path = kubeconfig(cluster);
    inside::run(cluster, move || async move {
        let endpoint = Endpoint::from_kubeconfig(&path)?;
        let requests = last.saturating_sub(first);
        let load = Load { connections: CONNECTIONS, duration: TIMEOUT * 4, requests };
        let made = load::run(&endpoint, load, move |number| {
            let (path, body) = make(first + number);
            request(Method::POST, &path, body.to_string())
        });
        let made = made.await?.requests();
        anyhow::ensure!(made == requests, "only {made} of {requests} objects were made");
        Ok(())
    })
}

/// Sends one request and returns the answer.
pub(crate) fn send(cluster: &Cluster, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
    let path = kubeconfig(cluster);
    inside::run(cluster, move || async move {
        let mut connection = Endpoint::from_kubeconfig(&path)?.connect().await?;
        Ok(serde_json::from_slice(&connection.exchange(request).await?)?)
    })
}

/// A merge patch.
pub(crate) fn patch(path: &str, body: &Value) -> Request<Full<Bytes>> {
    let mut patch = request(Method::PATCH, path, body.to_string());
    let media = http::HeaderValue::from_static("application/merge-patch+json");
    patch.headers_mut().insert(http::header::CONTENT_TYPE, media);
    patch
}

/// How long each request took until the first change of the node's nftables after it was sent.
pub(crate) fn until_programmed(
    cluster: &Cluster,
    requests: Vec<Request<Full<Bytes>>>,
) -> anyhow::Result<Vec<Duration>> {
    let mut monitor = Monitor::start(cluster)?;
    let path = kubeconfig(cluster);
    inside::run(cluster, move || measure(path, requests, monitor.take()))
}

async fn measure(
    kubeconfig: PathBuf,
    requests: Vec<Request<Full<Bytes>>>,
    changes: (Child, mpsc::Receiver<Instant>),
) -> anyhow::Result<Vec<Duration>> {
    let (mut child, changes) = changes;
    let mut connection = Endpoint::from_kubeconfig(&kubeconfig)?.connect().await?;
    let mut times = Vec::new();
    for request in requests {
        // What came before has come to rest.
        while changes.recv_timeout(Duration::from_millis(300)).is_ok() {}
        let begin = Instant::now();
        connection.exchange(request).await?;
        let changed = changes.recv_timeout(Duration::from_secs(10));
        times.push(changed.context("the kernel's rules did not change")? - begin);
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(times)
}

/// What nft tells of changes on the first node.
struct Monitor(Option<(Child, mpsc::Receiver<Instant>)>);

impl Monitor {
    fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut command = cluster.namespace().command("nft");
        command.arg("monitor").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("run nft monitor")?;
        let output = child.stdout.take().context("nft has no output")?;
        let (tell, changes) = mpsc::channel();
        std::thread::spawn(move || {
            for _ in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
        // It listens when it tells of a change made for that.
        let begin = Instant::now();
        loop {
            for verb in ["add", "delete"] {
                let mut nft = cluster.namespace().command("nft");
                nft.args([verb, "table", "ip", "bench"]).status().context("run nft")?;
            }
            if changes.recv_timeout(Duration::from_millis(200)).is_ok() {
                return Ok(Self(Some((child, changes))));
            }
            anyhow::ensure!(begin.elapsed() < TIMEOUT, "nft monitor tells nothing");
        }
    }

    fn take(&mut self) -> (Child, mpsc::Receiver<Instant>) {
        self.0.take().expect("taken once")
    }
}
