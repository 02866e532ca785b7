//! The contract of every backend. Knows nothing of how it is kept.

use futures::future::{BoxFuture, Either, Ready, ready};

use crate::{
    CommitError, Committed, Durability, Guard, ReadError, Revision, Snapshot, Watch, WatchError,
    Write,
};

/// A result that is often there at once: awaiting it then costs no allocation.
pub type Pending<T> = Either<Ready<T>, BoxFuture<'static, T>>;

pub(crate) fn at_once<T>(value: T) -> Pending<T> {
    Either::Left(ready(value))
}

/// A versioned, ordered, watchable map from keys to records.
///
/// One revision counts the commits of the whole store. It only grows; after a
/// crash it starts above everything that a client can have seen.
///
/// A commit that was acknowledged is in every later [`snapshot`](Self::snapshot)
/// of this process and in every later [`latest`](Self::latest) of any process.
/// A watch never delivers an event that is not yet in the snapshot.
pub trait Store<N>: Send + Sync + 'static {
    /// What this process knows now: never waits, may be behind other processes
    /// that share the store (with the embedded backend there are none).
    fn snapshot(&self) -> Snapshot<N>;

    /// A snapshot at least as new as every commit acknowledged to anybody
    /// before the call.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] or [`ReadError::Closed`].
    fn latest(&self) -> Pending<Result<Snapshot<N>, ReadError>>;

    /// The store exactly as it was at `revision`.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] if it is older than about five minutes,
    /// [`ReadError::Future`] if the store has not got there.
    fn at(&self, revision: Revision) -> Result<Snapshot<N>, ReadError>;

    /// Waits until the store has reached `revision`; bound the wait yourself.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    fn at_least(&self, revision: Revision) -> Pending<Result<Snapshot<N>, ReadError>>;

    /// Applies `writes` under one new revision if all `guards` hold, or does
    /// nothing. Guards see all commits before this one. Dropping the future
    /// does not withdraw the commit.
    ///
    /// # Errors
    /// See [`CommitError`].
    fn commit(
        &self,
        guards: Vec<Guard>,
        writes: Vec<Write<N>>,
        durability: Durability,
    ) -> BoxFuture<'static, Result<Committed<N>, CommitError<N>>>;

    /// All events after revision `from` on keys that start with `prefix`, in
    /// order, each once.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] if events after `from` are no longer kept,
    /// [`WatchError::Future`] if the store has not reached `from`.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch<N>, WatchError>;

    /// Forgets what was before `revision`: later reads and watches from below
    /// it get `Compacted`. Returns when the log has forgotten it too. The store
    /// does this by itself as time passes; a revision in the future is taken as
    /// the current one.
    ///
    /// # Errors
    /// [`CommitError::Full`], [`CommitError::Io`] or [`CommitError::Closed`]:
    /// nothing is lost, and compaction is tried again later.
    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), CommitError<N>>>;

    /// Why nothing current can be read, as far as that was noticed without asking: what a health
    /// check should say. Nothing while all is well.
    fn fault(&self) -> Option<String> {
        None
    }

    /// What was written since the store was opened.
    fn written(&self) -> Written;
}

/// What a store has written since it was opened, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Commits applied.
    pub commits: u64,
    /// Transactions of the backend; each holds one commit or more.
    pub transactions: u64,
}
