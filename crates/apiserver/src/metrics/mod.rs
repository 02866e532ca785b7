//! The API server's metrics, and their text in Prometheus' format.
//!
//! Names and labels are upstream's, so that existing dashboards work. Recording costs one short lock and no
//! allocation once a series exists.

mod admission;
mod buckets;
mod histogram;
mod process;
mod requests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Response;
use parking_lot::Mutex;
use registry::{Row, Size};
use serve::Body;

use requests::{Key, Requests, key, labels, names};
pub(crate) use {
    admission::Admission,
    buckets::Buckets,
    histogram::Histogram,
    requests::{Observed, Went, scope, verb},
};

/// All metrics.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Arc<Requests>,
    /// Requests being worked on: reads and writes.
    inflight: [AtomicI64; 2],
    streams: Mutex<HashMap<Key, Arc<Stream>>>,
    rejected: AtomicU64,
}

/// Streams of one kind.
struct Stream {
    labels: String,
    /// Those that are watches also count by this.
    watched: String,
    open: AtomicI64,
    events: AtomicU64,
}

/// Counts a request for as long as it lives.
pub(crate) struct Running<'a>(&'a AtomicI64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a stream for as long as it lives; owned, to travel with the response's body.
pub(crate) struct Streaming(Arc<Stream>);

impl Streaming {
    /// Counts an event that is sent.
    pub(crate) fn event(&self) {
        self.0.events.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request that begins.
    pub(crate) fn begin(&self, read: bool) -> Running<'_> {
        let gauge = &self.inflight[usize::from(!read)];
        gauge.fetch_add(1, Ordering::Relaxed);
        Running(gauge)
    }

    /// Requests being worked on.
    pub(crate) fn running(&self, read: bool) -> usize {
        usize::try_from(self.inflight[usize::from(!read)].load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Counts a stream that begins.
    pub(crate) fn stream(&self, observed: &Observed<'_>) -> Streaming {
        let key = key(observed);
        let mut streams = self.streams.lock();
        let stream = streams.entry(key).or_insert_with(|| {
            let (group, version, resource) = names(observed);
            Arc::new(Stream {
                labels: labels(observed, key.subresource),
                watched: format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\""),
                open: AtomicI64::new(0),
                events: AtomicU64::new(0),
            })
        });
        stream.open.fetch_add(1, Ordering::Relaxed);
        Streaming(stream.clone())
    }

    /// Counts a request refused by flow control.
    pub(crate) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answered request.
    pub(crate) fn answered(
        &self,
        observed: &Observed<'_>,
        went: &Went,
        response: Response<Body>,
    ) -> Response<Body> {
        self.requests.answered(observed, went, response)
    }

    /// All metrics as text.
    pub(crate) fn render(&self, written: store::Written, uptime: Duration) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.requests.write(&mut out);
        let gauges = [
            ("readOnly", self.inflight[0].load(Ordering::Relaxed)),
            ("mutating", self.inflight[1].load(Ordering::Relaxed)),
        ];
        describe(
            &mut out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Requests being worked on, by kind.",
        );
        for (kind, value) in gauges {
            let _ = writeln!(
                out,
                "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {value}"
            );
        }
        self.streams(&mut out);
        describe(
            &mut out,
            "apiserver_rejected_requests_total",
            "counter",
            "Requests answered 429.",
        );
        let _ = writeln!(
            out,
            "apiserver_rejected_requests_total {}",
            self.rejected.load(Ordering::Relaxed)
        );
        let name = "skiff_store_commits_total";
        describe(&mut out, name, "counter", "Commits that the store has applied.");
        let _ = writeln!(out, "{name} {}", written.commits);
        let name = "skiff_store_transactions_total";
        describe(&mut out, name, "counter", "Transactions in which the store wrote them.");
        let _ = writeln!(out, "{name} {}", written.transactions);
        process::write(&mut out, uptime);
        out
    }

    fn streams(&self, out: &mut String) {
        let streams = self.streams.lock();
        let mut sorted: Vec<&Arc<Stream>> = streams.values().collect();
        sorted.sort_by(|left, right| left.labels.cmp(&right.labels));
        let name = "apiserver_longrunning_requests";
        describe(out, name, "gauge", "Watches and other streams that are open.");
        for one in &sorted {
            let _ = writeln!(out, "{name}{{{}}} {}", one.labels, one.open.load(Ordering::Relaxed));
        }
        let name = "apiserver_watch_events_total";
        describe(out, name, "counter", "Events sent to watches.");
        let mut events: BTreeMap<&str, u64> = BTreeMap::new();
        for one in sorted.iter().filter(|one| !one.watched.is_empty()) {
            *events.entry(&one.watched).or_default() += one.events.load(Ordering::Relaxed);
        }
        for (labels, count) in events {
            let _ = writeln!(out, "{name}{{{labels}}} {count}");
        }
    }
}

/// Counts of a few things that are told apart by their place.
pub(crate) struct Tally<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Tally<N> {
    pub(crate) fn count(&self, at: usize) {
        if let Some(count) = self.0.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

/// One gauge without labels.
pub(crate) fn gauge(out: &mut String, name: &str, help: &str, value: usize) {
    describe(out, name, "gauge", help);
    let _ = writeln!(out, "{name} {value}");
}

/// Which version of the API this is.
pub(crate) fn build(out: &mut String, version: &str) {
    let name = "kubernetes_build_info";
    describe(out, name, "gauge", "The version, as labels.");
    let _ = writeln!(
        out,
        "{name}{{build_date=\"\",compiler=\"rustc\",git_commit=\"\",git_tree_state=\"clean\",git_version=\"{version}\",go_version=\"\",major=\"1\",minor=\"36\",platform=\"linux/{}\"}} 1",
        platform()
    );
}

/// The architecture, as Go names it.
pub(crate) fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// How many objects there are of each kind.
pub(crate) fn sizes(out: &mut String, sizes: &[(Arc<Row>, Size)]) {
    for (name, help) in [
        ("apiserver_storage_objects", "Objects stored, by resource; counted now and then."),
        ("apiserver_resource_objects", "Objects stored, by group and resource; likewise."),
    ] {
        describe(out, name, "gauge", help);
        for (row, size) in sizes {
            let labels = match name {
                "apiserver_storage_objects" => format!("resource=\"{}\"", row.group_resource()),
                _ => format!(
                    "group=\"{}\",resource=\"{}\"",
                    row.resource.group, row.resource.resource
                ),
            };
            let _ = writeln!(out, "{name}{{{labels}}} {}", size.objects);
        }
    }
}

pub(crate) fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests;
