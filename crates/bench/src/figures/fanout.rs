//! A thousand watchers of one resource: does each see every change, how late, and what does it cost the
//! server's memory.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use testkit::Cluster;
use tokio::task::JoinSet;

use super::kubeconfig;
use crate::endpoint::Endpoint;
use crate::inside;
use crate::load::Outcome;
use crate::process::memory;
use crate::report::{Budget, Report, megabytes};
use crate::wire::{self, Wire};

/// How many watch.
const WATCHERS: usize = 1000;
/// Changes a second.
const RATE: u64 = 100;
/// How long a watcher waits for the next change.
const PATIENCE: Duration = Duration::from_secs(30);
/// What stands before and after the number and the time of a change.
const MARK: &[u8] = b"@@";
/// Digits of the number and of the time, in microseconds.
const DIGITS: usize = 16;

/// The encodings that are watched: a name for the report and what is asked for.
const ENCODINGS: &[(&str, &str)] =
    &[("JSON", "application/json"), ("protobuf", "application/vnd.kubernetes.protobuf")];

/// Measures changes of one ConfigMap for `seconds`, watched by a thousand in each encoding.
pub(crate) fn run(cluster: &Cluster, seconds: u64, report: &mut Report) -> anyhow::Result<()> {
    let pid = cluster.pid().context("skiff does not run")?;
    for (name, accept) in ENCODINGS {
        super::tell(&format!("{WATCHERS} watchers, {RATE} changes a second, {name}"));
        let path = kubeconfig(cluster);
        let changes = RATE * seconds.max(3);
        let (mut seen, grown) = inside::run(cluster, move || async move {
            let endpoint = Endpoint::from_kubeconfig(&path)?;
            let resident = move || memory(pid).map(|memory| memory.resident);
            measure(&endpoint, name, accept, changes, resident).await
        })?;
        let expected = (WATCHERS as u64 * changes) as f64;
        let share = seen.requests() as f64 / expected * 100.0;
        let what = format!("changes seen by {WATCHERS} watchers, {name}");
        report.add(&what, "", Budget::AtLeast(100.0), share, "%");
        let late = |seen: &mut Outcome, part| seen.percentile(part).as_secs_f64() * 1e3;
        report.add("    median delay", "", Budget::None, late(&mut seen, 50), "ms");
        report.add("    99 of 100", "", Budget::AtMost(50.0), late(&mut seen, 99), "ms");
        report.add("    memory grown meanwhile", "", Budget::AtMost(10.0), grown, "MB");
    }
    Ok(())
}

/// The delays of all changes at all watchers, and by how much the server grew after the first third.
async fn measure(
    endpoint: &Endpoint,
    encoding: &str,
    accept: &str,
    changes: u64,
    resident: impl Fn() -> anyhow::Result<u64>,
) -> anyhow::Result<(Outcome, f64)> {
    let (start, name) = (Instant::now(), format!("watched-{}", encoding.to_lowercase()));
    let mut writer = endpoint.wire().await?;
    writer.count(&change("POST", &name, 0, start)).await?;
    let query = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut wire = endpoint.wire().await?;
        wire.open(&wire::request_for("GET", &query, accept, "")).await?;
        watchers.spawn(watch(wire, changes, start));
    }
    let (mut ticks, mut before) = (tokio::time::interval(Duration::from_secs(1) / RATE as u32), 0);
    for number in 1..=changes {
        ticks.tick().await;
        writer.count(&change("PUT", &name, number, start)).await?;
        if number == changes / 3 {
            before = resident()?;
        }
    }
    let (after, mut all) = (resident()?, Outcome::default());
    while let Some(seen) = watchers.join_next().await {
        all.add(Outcome::of(seen.context("a watcher panicked")??));
    }
    Ok((all, megabytes(after.saturating_sub(before))))
}

/// Watches until the last change; what came first may be the state at the beginning. Each change is to
/// come once, in order.
async fn watch(mut wire: Wire, last: u64, start: Instant) -> anyhow::Result<Vec<Duration>> {
    let (mut delays, mut next) = (Vec::with_capacity(last as usize), 0);
    while next <= last {
        let chunk =
            tokio::time::timeout(PATIENCE, wire.chunk()).await.context("no change came")??;
        for (number, sent) in marks(chunk) {
            // The state at the beginning, whatever it is.
            if next == 0 && delays.is_empty() && number == 0 {
                next = 1;
                continue;
            }
            ensure!(number == next, "change {number} came instead of {next}");
            delays.push(start.elapsed().saturating_sub(sent));
            next += 1;
        }
    }
    Ok(delays)
}

const MAPS: &str = "/api/v1/namespaces/bench/configmaps";

/// A request that makes a change which says when it was made.
fn change(method: &str, name: &str, number: u64, start: Instant) -> Bytes {
    let sent = start.elapsed().as_micros();
    let path = if method == "POST" { MAPS.to_owned() } else { format!("{MAPS}/{name}") };
    let payload = "x".repeat(900);
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"at":"@@{number:0DIGITS$}{sent:0DIGITS$}","payload":"{payload}"}}}}"#
    );
    wire::request(method, &path, &body)
}

/// The changes in a piece of a watch: their numbers and when they were made.
fn marks(mut piece: &[u8]) -> Vec<(u64, Duration)> {
    let mut found = Vec::new();
    while let Some(at) = piece.windows(MARK.len()).position(|window| window == MARK) {
        piece = &piece[at + MARK.len()..];
        let number = |from: usize| {
            let digits = piece.get(from..from + DIGITS)?;
            std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
        };
        if let (Some(change), Some(sent)) = (number(0), number(DIGITS)) {
            found.push((change, Duration::from_micros(sent)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_in_what_is_watched() {
        let (one, other) =
            (change("PUT", "a", 7, Instant::now()), change("PUT", "a", 8, Instant::now()));
        let numbers =
            |piece: &[u8]| marks(piece).iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!(numbers(&[one, other].concat()), [7, 8]);
        assert_eq!(numbers(b"@@12"), Vec::<u64>::new());
    }
}
