//! The API server's metrics, and their text in Prometheus' format.
//!
//! Names and labels are upstream's, so that existing dashboards work. Recording costs one short lock and no
//! allocation once a series exists.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use registry::Row;

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 3.0, 6.0, 20.0, 60.0];

/// What a series is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Identifies the row, 0 for paths that name no resource.
    row: usize,
    subresource: &'static str,
    verb: &'static str,
    scope: &'static str,
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
}

/// All metrics.
#[derive(Default)]
pub(crate) struct Metrics {
    series: Mutex<HashMap<Key, Series>>,
    /// Requests being worked on: reads and writes.
    inflight: [AtomicI64; 2],
    long_running: AtomicI64,
    rejected: AtomicU64,
}

/// Counts a request for as long as it lives.
pub(crate) struct Running<'a>(&'a AtomicI64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a stream for as long as it lives; owned, to travel with the response's body.
pub(crate) struct Streaming(Arc<Metrics>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.long_running.fetch_sub(1, Ordering::Relaxed);
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
    pub(crate) fn stream(self: &Arc<Self>) -> Streaming {
        self.long_running.fetch_add(1, Ordering::Relaxed);
        Streaming(self.clone())
    }

    /// Counts a request refused by flow control.
    pub(crate) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Records an answered request.
    pub(crate) fn record(&self, observed: &Observed<'_>, code: u16, started: Instant, timed: bool) {
        let key = Key {
            row: observed.row.map_or(0, |row| Arc::as_ptr(row) as usize),
            subresource: known_subresource(observed.subresource),
            verb: observed.verb,
            scope: observed.scope,
        };
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
        describe(
            &mut out,
            "apiserver_longrunning_requests",
            "gauge",
            "Watches and other streams that are open.",
        );
        let _ = writeln!(
            out,
            "apiserver_longrunning_requests {}",
            self.long_running.load(Ordering::Relaxed)
        );
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
        process(&mut out, uptime);
        out
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
        let name = "apiserver_request_duration_seconds";
        describe(out, name, "histogram", "Time to answer in seconds, streams left out.");
        for one in &sorted {
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

/// One gauge without labels.
pub(crate) fn gauge(out: &mut String, name: &str, help: &str, value: usize) {
    describe(out, name, "gauge", help);
    let _ = writeln!(out, "{name} {value}");
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
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

fn labels(observed: &Observed<'_>, subresource: &str) -> String {
    let (group, version, resource) = observed.row.map_or(("", "", ""), |row| {
        (row.resource.group.as_str(), row.resource.version.as_str(), row.resource.resource.as_str())
    });
    format!(
        "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{}\",subresource=\"{subresource}\",verb=\"{}\",version=\"{version}\"",
        observed.scope,
        observed.verb.to_ascii_uppercase()
    )
}

/// What the kernel says about this process.
fn process(out: &mut String, uptime: Duration) {
    // Fields after the command's closing parenthesis, which may itself hold anything.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    // Ticks are hundredths of a second and pages 4 KiB wherever skiff runs.
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        describe(out, "process_cpu_seconds_total", "counter", "User and system time in seconds.");
        let _ = writeln!(out, "process_cpu_seconds_total {}", (user + system) / 100.0);
    }
    if let (Some(size), Some(pages)) = (field(20), field(21)) {
        describe(out, "process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.");
        let _ = writeln!(out, "process_virtual_memory_bytes {size}");
        describe(out, "process_resident_memory_bytes", "gauge", "Resident memory in bytes.");
        let _ = writeln!(out, "process_resident_memory_bytes {}", pages * 4096.0);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        describe(out, "process_open_fds", "gauge", "Open file descriptors.");
        let _ = writeln!(out, "process_open_fds {}", files.count());
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let started = Duration::from_millis(u64::try_from(now).unwrap_or(0)).saturating_sub(uptime);
    describe(out, "process_start_time_seconds", "gauge", "Start, in seconds since 1970.");
    let _ = writeln!(out, "process_start_time_seconds {}", started.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_rendered_with_codes_and_buckets() {
        let metrics = Arc::new(Metrics::default());
        let rows = registry::Rows::builtin();
        let observed = Observed {
            row: rows.get("apps", "v1", "deployments"),
            subresource: "status",
            verb: "get",
            scope: "resource",
        };
        metrics.record(&observed, 200, Instant::now(), true);
        metrics.record(&observed, 404, Instant::now(), true);
        metrics.record(
            &Observed { subresource: "/etc/passwd", ..observed },
            404,
            Instant::now(),
            false,
        );
        let stream = metrics.stream();
        let written = store::Written { commits: 7, transactions: 3 };
        let text = metrics.render(written, Duration::from_secs(1));
        let labels = "component=\"apiserver\",group=\"apps\",resource=\"deployments\",scope=\"resource\",subresource=\"status\",verb=\"GET\",version=\"v1\"";
        assert!(
            text.contains(&format!("apiserver_request_total{{code=\"404\",{labels}}} 1\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("apiserver_request_duration_seconds_count{{{labels}}} 2\n"))
        );
        assert!(text.contains("apiserver_longrunning_requests 1\n"));
        assert!(text.contains("skiff_store_commits_total 7\n"));
        assert!(!text.contains("passwd") && text.contains("process_resident_memory_bytes"));
        drop(stream);
        assert!(
            metrics.render(written, Duration::ZERO).contains("apiserver_longrunning_requests 0\n")
        );
    }
}
