//! A write load on any store, for benchmarks: what a backend does alone, with
//! nothing above it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{CommitError, Durability, Expect, Guard, Store, Write};

/// What load to put on a store.
#[derive(Debug, Clone)]
pub struct Load {
    /// Commits that wait at the same time.
    pub in_flight: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// How long to go on.
    pub duration: Duration,
    /// How durable each commit is.
    pub durability: Durability,
    /// Prefix of the keys that are created; give each run its own.
    pub prefix: String,
}

/// What a store did under a [`Load`].
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Commits applied.
    pub commits: u64,
    /// Commits a second.
    pub per_second: f64,
    /// Half of the commits took no longer.
    pub median: Duration,
    /// 99 of 100 commits took no longer.
    pub p99: Duration,
}

/// Creates keys as fast as the store takes them. `note` makes the note of each.
///
/// # Errors
/// The first commit that fails.
pub async fn create<N: Send + Sync + 'static>(
    store: Arc<dyn Store<N>>,
    load: Load,
    note: impl Fn() -> N + Send + Sync + 'static,
) -> Result<Figures, CommitError<N>> {
    let (load, note, counter) = (Arc::new(load), Arc::new(note), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..load.in_flight.max(1) {
        let (store, load) = (Arc::clone(&store), Arc::clone(&load));
        let (note, counter) = (Arc::clone(&note), Arc::clone(&counter));
        workers.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < load.duration {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                let key = crate::Key::from(format!("{}{number:012}", load.prefix));
                let value = Bytes::from(vec![b'x'; load.value_bytes]);
                let guards = vec![Guard::new(key.clone(), Expect::Absent)];
                let writes = vec![Write::put(key, value, note())];
                let begin = Instant::now();
                store.commit(guards, writes, load.durability).await?;
                times.push(begin.elapsed());
            }
            Ok::<_, CommitError<N>>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(result) => times.extend(result?),
            Err(error) => return Err(CommitError::Io(error.to_string())),
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Ok(Figures {
        commits: times.len() as u64,
        per_second: times.len() as f64 / elapsed,
        median: at(50),
        p99: at(99),
    })
}
