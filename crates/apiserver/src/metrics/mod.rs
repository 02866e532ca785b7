//! The API server's metrics, and their text in Prometheus' format.
//!
//! Names and labels are upstream's, so that existing dashboards work. Recording costs one short lock and no
//! allocation once a series exists.

mod histogram;
mod process;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use registry::{Row, Size};

pub(crate) use histogram::Histogram;

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// What a series is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Identifies the row, 0 for paths that name no resource.
    row: usize,
    subresource: &'static str,
    verb: &'static str,
    scope: &'static str,
    dry_run: bool,
}

struct Series {
    labels: String,
    codes: Vec<(u16, u64)>,
    buckets: [u64; BUCKETS.len() + 1],
    sum: f64,
}

/// A request, as metrics tell requests apart.
pub(crate) struct Observed<'a> {
    pub(crate) row: Option<&'a Arc<Row>>,
    pub(crate) subresource: &'a str,
    pub(crate) verb: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) dry_run: bool,
}

/// All metrics.
#[derive(Default)]
pub(crate) struct Metrics {
    series: Mutex<HashMap<Key, Series>>,
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

    /// Records an answered request.
    pub(crate) fn record(&self, observed: &Observed<'_>, code: u16, started: Instant, timed: bool) {
        let key = key(observed);
        let mut series = self.series.lock();
        let entry = series.entry(key).or_insert_with(|| Series {
            labels: labels(observed, key.subresource),
            codes: Vec::with_capacity(4),
            buckets: [0; BUCKETS.len() + 1],
            sum: 0.0,
        });
        match entry.codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => entry.codes.push((code, 1)),
        }
        if timed {
            let seconds = started.elapsed().as_secs_f64();
            let bucket =
                BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
            entry.buckets[bucket] += 1;
            entry.sum += seconds;
        }
    }

    /// All metrics as text.
    pub(crate) fn render(&self, written: store::Written, uptime: Duration) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.requests(&mut out);
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

    fn requests(&self, out: &mut String) {
        let series = self.series.lock();
        let mut sorted: Vec<&Series> = series.values().collect();
        sorted.sort_by(|left, right| left.labels.cmp(&right.labels));
        describe(
            out,
            "apiserver_request_total",
            "counter",
            "Requests answered, by what they asked for and the code.",
        );
        for one in &sorted {
            for (code, count) in &one.codes {
                let _ = writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",{}}} {count}",
                    one.labels
                );
            }
        }
        for (name, help) in [
            ("apiserver_request_duration_seconds", "Time to answer in seconds, streams left out."),
            ("apiserver_request_sli_duration_seconds", "The same: nothing of it is others' time."),
        ] {
            Self::durations(out, name, help, &sorted);
        }
    }

    fn durations(out: &mut String, name: &str, help: &str, series: &[&Series]) {
        describe(out, name, "histogram", help);
        for one in series {
            let total: u64 = one.buckets.iter().sum();
            if total == 0 {
                continue;
            }
            let mut seen = 0;
            for (bound, count) in BUCKETS.iter().zip(&one.buckets) {
                seen += count;
                let _ = writeln!(out, "{name}_bucket{{{},le=\"{bound}\"}} {seen}", one.labels);
            }
            let _ = writeln!(out, "{name}_bucket{{{},le=\"+Inf\"}} {total}", one.labels);
            let _ = writeln!(out, "{name}_sum{{{}}} {}", one.labels, one.sum);
            let _ = writeln!(out, "{name}_count{{{}}} {total}", one.labels);
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

/// Subresources come from clients; only those that exist become labels.
fn known_subresource(name: &str) -> &'static str {
    const KNOWN: [&str; 14] = [
        "approval",
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "finalize",
        "log",
        "portforward",
        "proxy",
        "resize",
        "scale",
        "status",
        "token",
    ];
    KNOWN.into_iter().find(|known| *known == name).unwrap_or_default()
}

fn key(observed: &Observed<'_>) -> Key {
    Key {
        row: observed.row.map_or(0, |row| Arc::as_ptr(row) as usize),
        subresource: known_subresource(observed.subresource),
        verb: observed.verb,
        scope: observed.scope,
        dry_run: observed.dry_run,
    }
}

/// Group, version and resource.
fn names<'a>(observed: &Observed<'a>) -> (&'a str, &'a str, &'a str) {
    observed.row.map_or(("", "", ""), |row| {
        (row.resource.group.as_str(), row.resource.version.as_str(), row.resource.resource.as_str())
    })
}

fn labels(observed: &Observed<'_>, subresource: &str) -> String {
    let (group, version, resource) = names(observed);
    let dry_run = if observed.dry_run { "All" } else { "" };
    format!(
        "component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{group}\",resource=\"{resource}\",scope=\"{}\",subresource=\"{subresource}\",verb=\"{}\",version=\"{version}\"",
        observed.scope,
        observed.verb.to_ascii_uppercase()
    )
}

#[cfg(test)]
mod tests;
