//! A closed loop of requests: every connection sends its next request when it has read the last
//! answer whole. Bounded in number and time; one answer that is no success fails the whole load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::endpoint::Endpoint;
use crate::wire::Wire;

/// How long after the end of a load its last answers may come.
const LAST_ANSWER: Duration = Duration::from_secs(60);

/// How much load, for how long.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Connections, each with one request under way.
    pub(crate) connections: usize,
    /// No request is sent later.
    pub(crate) duration: Duration,
    /// No more requests than these are sent.
    pub(crate) requests: u64,
}

/// What came of it, or of several loads one after the other.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes of the answers' bodies.
    pub(crate) bytes: u64,
    elapsed: Duration,
    times: Vec<Duration>,
}

impl Outcome {
    /// What took so long each.
    pub(crate) fn of(times: Vec<Duration>) -> Self {
        Self { times, ..Self::default() }
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// Requests that were answered.
    pub(crate) fn requests(&self) -> u64 {
        self.times.len() as u64
    }

    /// The time within which so many of a hundred requests were answered.
    pub(crate) fn percentile(&mut self, part: usize) -> Duration {
        self.times.sort_unstable();
        self.times.get(self.times.len() * part / 100).copied().unwrap_or_default()
    }

    /// Adds what another load did.
    pub(crate) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.elapsed += other.elapsed;
        self.times.extend(other.times);
    }

    /// Megabytes (10^6) a second.
    pub(crate) fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }
}

/// Puts `load` on `endpoint`; `make` makes the n-th request, as `wire::request` does.
pub(crate) async fn run<F>(endpoint: &Endpoint, load: Load, make: F) -> anyhow::Result<Outcome>
where
    F: Fn(u64) -> Bytes + Clone + Send + 'static,
{
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(endpoint.wire().await?);
    }
    let counter = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for connection in connections {
        workers.spawn(work(connection, load, start, counter.clone(), make.clone()));
    }
    let (mut bytes, mut times) = (0, Vec::new());
    let limit = tokio::time::Instant::from_std(start + load.duration + LAST_ANSWER);
    loop {
        let joined = tokio::time::timeout_at(limit, workers.join_next()).await;
        let Some(worker) = joined.context("a request has got no answer")? else { break };
        let (read, taken) = worker.context("a worker panicked")??;
        bytes += read;
        times.extend(taken);
    }
    Ok(Outcome { bytes, elapsed: start.elapsed(), times })
}

async fn work<F: Fn(u64) -> Bytes>(
    mut connection: Wire,
    load: Load,
    start: Instant,
    counter: Arc<AtomicU64>,
    make: F,
) -> anyhow::Result<(u64, Vec<Duration>)> {
    let (mut bytes, mut times) = (0, Vec::new());
    loop {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests || start.elapsed() > load.duration {
            return Ok((bytes, times));
        }
        let begin = Instant::now();
        bytes += connection.count(&make(number)).await?;
        times.push(begin.elapsed());
    }
}
