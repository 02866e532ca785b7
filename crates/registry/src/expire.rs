//! Objects that vanish some time after they were last written: events.
//!
//! Owns the sweep. The time of a write is not stored, so the newest time that the object itself
//! tells stands for it.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use meta::{Revision, time};
use serde_json::Value;
use store::{Durability, Expect, Guard, Key, Write};
use tokio_util::sync::CancellationToken;

use crate::object::{meta_text, parse};
use crate::registry::Registry;

/// Expired objects are looked for this often.
const INTERVAL: Duration = Duration::from_secs(30);

/// What is known of objects already looked at, so that each is parsed once a write.
type Seen = HashMap<Key, (Revision, Timestamp)>;

/// Sweeps until shutdown.
pub(crate) async fn run(engine: &Registry, shutdown: &CancellationToken) {
    let mut seen = Seen::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => sweep(engine, &mut seen).await,
        }
    }
}

/// Removes what has expired.
async fn sweep(engine: &Registry, seen: &mut Seen) {
    let now = (engine.clock)();
    let snapshot = engine.store.snapshot();
    let mut kept = Seen::new();
    let mut expired = Vec::new();
    let rows = engine.rows.iter().filter(|row| row.served_as_stored());
    let storages = rows.filter_map(|row| Some((row.prefix(None), row.storage.as_ref()?.ttl?)));
    for (prefix, ttl) in storages {
        for (key, record) in snapshot.range(&prefix) {
            let written = match seen.get(key) {
                Some((revision, written)) if *revision == record.modified => *written,
                _ => last_written(&parse(&record.value)).unwrap_or(now),
            };
            if written + SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX) <= now {
                expired.push((key.clone(), record.modified));
            } else {
                kept.insert(key.clone(), (record.modified, written));
            }
        }
    }
    drop(snapshot);
    *seen = kept;
    for (key, revision) in expired {
        let guard = Guard::new(key.clone(), Expect::Modified(revision));
        // One that was written meanwhile has not expired after all.
        let removed =
            engine.store.commit(vec![guard], vec![Write::delete(key)], Durability::Relaxed).await;
        if let Err(error) = removed
            && !matches!(error, store::CommitError::Conflict { .. })
        {
            tracing::warn!(%error, "an expired object could not be removed");
            return;
        }
    }
}

/// The newest time of writing that an event tells.
fn last_written(event: &Value) -> Option<Timestamp> {
    let times = [
        meta_text(event, "creationTimestamp"),
        event["lastTimestamp"].as_str().unwrap_or_default(),
        event["eventTime"].as_str().unwrap_or_default(),
        event["series"]["lastObservedTime"].as_str().unwrap_or_default(),
    ];
    times.into_iter().filter_map(time::parse).max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use serde_json::json;
    use store::{Embedded, Store};

    use super::*;
    use crate::header::{Header, header_reader};
    use crate::registry::Options;
    use crate::row::Rows;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn events_vanish_an_hour_after_they_were_last_seen() {
        let directory = tempfile::tempdir().expect("directory");
        let rows = Arc::new(Rows::builtin());
        let options = store::Options::new(directory.path().join("store"));
        let store = Embedded::open(options, header_reader(rows.clone())).expect("store opens");
        let store: Arc<dyn Store<Header>> = Arc::new(store);
        let now = Arc::new(AtomicI64::new(0));
        let clock = now.clone();
        let engine = Registry::new(
            store.clone(),
            rows,
            Options {
                clock: Arc::new(move || {
                    Timestamp::from_second(clock.load(Ordering::SeqCst)).expect("time")
                }),
                ..Options::default()
            },
        );
        let event = |last: &str| json!({"metadata": {"creationTimestamp": "1970-01-01T00:00:00Z"}, "lastTimestamp": last});
        let events = [
            ("/registry/events/d/a", event("")),
            ("/registry/events/d/b", event("1970-01-01T00:30:00Z")),
        ];
        for (key, event) in events {
            let write = Write::put(key, event.to_string().into(), Header::default());
            store.commit(Vec::new(), vec![write], Durability::Relaxed).await.expect("stored");
        }
        let mut seen = Seen::new();
        let mut left = Vec::new();
        for minute in [59, 61, 91] {
            now.store(minute * 60, Ordering::SeqCst);
            sweep(&engine, &mut seen).await;
            left.push(store.snapshot().range("/registry/events/").count());
        }
        assert_eq!(left, [2, 1, 0]);
        assert!(seen.is_empty());
    }
}
