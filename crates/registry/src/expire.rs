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
