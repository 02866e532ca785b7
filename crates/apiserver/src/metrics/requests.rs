//! What is counted of requests: codes, durations, sizes, terminations. Names and labels are upstream's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, Method, Response, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use registry::Row;
use serve::Body;

use super::{Buckets, describe};
use crate::request::RequestInfo;

/// Upper bounds of durations, in seconds; those without others' time leave out the first two.
const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// Upper bounds of answers, in bytes.
const BYTES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// A request, as metrics tell requests apart.
pub(crate) struct Observed<'a> {
    pub(crate) row: Option<&'a Arc<Row>>,
    pub(crate) subresource: &'a str,
    pub(crate) verb: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) dry_run: bool,
}

/// How a request went.
pub(crate) struct Went {
    pub(crate) took: Duration,
    /// Of that, what it waited for seats.
    pub(crate) waited: Duration,
    /// Whether it had an end of its own.
    pub(crate) timed: bool,
    /// Whether the server gave it up to protect itself.
    pub(crate) terminated: bool,
}

/// What a series is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Identifies the row, 0 for paths that name no resource.
    row: usize,
    pub(super) subresource: &'static str,
    verb: &'static str,
    scope: &'static str,
    dry_run: bool,
}

/// All series of requests.
#[derive(Default)]
pub(super) struct Requests(Mutex<HashMap<Key, Series>>);

struct Series {
    labels: String,
    dry_run: bool,
    /// The labels by which a deprecated kind is told, or nothing.
    deprecated: String,
    /// How often each code was answered, and how often by giving up.
    codes: Vec<(u16, [u64; 2])>,
    took: Buckets<24>,
    /// Without the time spent waiting for seats.
    own: Buckets<22>,
    sizes: Buckets<8>,
}

impl Requests {
    /// Counts an answer. The size of one that is still being made is counted when it is sent.
    pub(super) fn answered(
        self: &Arc<Self>,
        observed: &Observed<'_>,
        went: &Went,
        response: Response<Body>,
    ) -> Response<Body> {
        let (key, code) = (key(observed), response.status().as_u16());
        let read = matches!(key.verb, "GET" | "LIST") && went.timed && !key.dry_run;
        let size = http_body::Body::size_hint(response.body()).exact();
        {
            let mut series = self.0.lock();
            let entry = series.entry(key).or_insert_with(|| Series {
                labels: labels(observed, key.subresource),
                dry_run: observed.dry_run,
                deprecated: deprecated(observed, key.subresource),
                codes: Vec::with_capacity(4),
                took: Buckets::default(),
                own: Buckets::default(),
                sizes: Buckets::default(),
            });
            let at =
                entry.codes.iter().position(|(known, _)| *known == code).unwrap_or_else(|| {
                    entry.codes.push((code, [0; 2]));
                    entry.codes.len() - 1
                });
            let counts = &mut entry.codes[at].1;
            counts[0] += 1;
            counts[1] += u64::from(went.terminated);
            if went.timed {
                entry.took.observe(&SECONDS, went.took.as_secs_f64());
            }
            if went.timed && !key.dry_run {
                let own = went.took.saturating_sub(went.waited);
                entry.own.observe(&SECONDS[2..], own.as_secs_f64());
            }
            if let Some(size) = size.filter(|_| read) {
                entry.sizes.observe(&BYTES, size as f64);
            }
        }
        if !read || size.is_some() {
            return response;
        }
        let mut sizing = Sizing { requests: self.clone(), key, bytes: 0 };
        response.map(|body| {
            Body::boxed(body.map_frame(move |frame| {
                sizing.add(frame.data_ref().map_or(0, bytes::Bytes::len));
                frame
            }))
        })
    }

    pub(super) fn write(&self, out: &mut String) {
        let series = self.0.lock();
        let mut sorted: Vec<&Series> = series.values().collect();
        sorted.sort_by(|left, right| {
            (&left.labels, left.dry_run).cmp(&(&right.labels, right.dry_run))
        });
        let name = "apiserver_request_total";
        describe(out, name, "counter", "Requests answered, by what they asked for and the code.");
        let mut terminated: BTreeMap<(&str, u16), u64> = BTreeMap::new();
        for one in &sorted {
            for (code, [count, given_up]) in &one.codes {
                let _ = writeln!(out, "{name}{{code=\"{code}\",{}}} {count}", one.full());
                if *given_up > 0 {
                    *terminated.entry((&one.labels, *code)).or_default() += given_up;
                }
            }
        }
        let name = "apiserver_request_terminations_total";
        describe(out, name, "counter", "Requests that the server gave up to protect itself.");
        for ((labels, code), count) in terminated {
            let _ = writeln!(out, "{name}{{code=\"{code}\",{labels}}} {count}");
        }
        let name = "apiserver_requested_deprecated_apis";
        describe(out, name, "gauge", "Deprecated kinds that somebody has asked for.");
        let told: BTreeSet<&str> = sorted.iter().map(|one| &*one.deprecated).collect();
        for labels in told.into_iter().filter(|labels| !labels.is_empty()) {
            let _ = writeln!(out, "{name}{{{labels}}} 1");
        }
        let name = "apiserver_request_duration_seconds";
        describe(out, name, "histogram", "Time to answer in seconds, streams left out.");
        sorted.iter().for_each(|one| one.took.write(out, (name, &one.full()), &SECONDS));
        let name = "apiserver_request_sli_duration_seconds";
        describe(out, name, "histogram", "The same without the time spent waiting for seats.");
        sorted.iter().for_each(|one| one.own.write(out, (name, &one.labels), &SECONDS[2..]));
        let name = "apiserver_response_sizes";
        describe(out, name, "histogram", "Bytes of answers to reads.");
        sorted.iter().for_each(|one| one.sizes.write(out, (name, &one.labels), &BYTES));
    }
}

impl Series {
    fn full(&self) -> String {
        format!("dry_run=\"{}\",{}", if self.dry_run { "All" } else { "" }, self.labels)
    }
}

/// Counts the bytes of an answer until it is sent or given up.
struct Sizing {
    requests: Arc<Requests>,
    key: Key,
    bytes: usize,
}

impl Sizing {
    /// A method, so that closures hold all of it and not a copy of the count.
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Drop for Sizing {
    fn drop(&mut self) {
        if let Some(series) = self.requests.0.lock().get_mut(&self.key) {
            series.sizes.observe(&BYTES, self.bytes as f64);
        }
    }
}

/// The verb of a request as metrics have it: the method, with a few told apart.
pub(crate) fn verb(info: &RequestInfo, method: &Method, headers: &HeaderMap) -> &'static str {
    let connects = || {
        matches!(info.subresource(), "log" | "exec" | "portforward" | "attach" | "proxy")
            && info.is_resource()
    };
    let applied = || {
        let media = headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        media == Some(registry::PatchType::Apply.media_type().as_bytes())
    };
    match (info.verb(), method.as_str()) {
        _ if connects() => "CONNECT",
        ("watch", _) => "WATCH",
        ("list", _) => "LIST",
        (_, "GET" | "HEAD") => "GET",
        (_, "POST") => "POST",
        (_, "PUT") => "PUT",
        (_, "PATCH") if applied() => "APPLY",
        (_, "PATCH") => "PATCH",
        (_, "DELETE") => "DELETE",
        _ => "other",
    }
}

/// How much a request is about.
pub(crate) fn scope(info: &RequestInfo) -> &'static str {
    match () {
        () if !info.name().is_empty() || info.verb() == "create" => "resource",
        () if !info.namespace().is_empty() => "namespace",
        () if info.is_resource() => "cluster",
        () => "",
    }
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

pub(super) fn key(observed: &Observed<'_>) -> Key {
    Key {
        row: observed.row.map_or(0, |row| Arc::as_ptr(row) as usize),
        subresource: known_subresource(observed.subresource),
        verb: observed.verb,
        scope: observed.scope,
        dry_run: observed.dry_run,
    }
}

/// Group, version and resource.
pub(super) fn names<'a>(observed: &Observed<'a>) -> (&'a str, &'a str, &'a str) {
    observed.row.map_or(("", "", ""), |row| {
        (row.resource.group.as_str(), row.resource.version.as_str(), row.resource.resource.as_str())
    })
}

/// Nothing that is deprecated here has an end in sight.
fn deprecated(observed: &Observed<'_>, subresource: &str) -> String {
    if observed.row.is_none_or(|row| row.deprecated.is_none()) {
        return String::new();
    }
    let (group, version, resource) = names(observed);
    format!(
        "group=\"{group}\",removed_release=\"\",resource=\"{resource}\",subresource=\"{subresource}\",version=\"{version}\""
    )
}

/// All labels but `dry_run`.
pub(super) fn labels(observed: &Observed<'_>, subresource: &str) -> String {
    let (group, version, resource) = names(observed);
    format!(
        "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{}\",subresource=\"{subresource}\",verb=\"{}\",version=\"{version}\"",
        observed.scope, observed.verb
    )
}
