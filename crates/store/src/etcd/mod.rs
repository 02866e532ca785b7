//! The backend that several servers share: an etcd cluster, its content as a map
//! in memory fed by one watch.
//!
//! Revisions are etcd's. Reads never leave the process, but for the question how
//! far etcd has got; every commit is one transaction of etcd, acknowledged once
//! it is in the map.

mod coding;
mod commit;
mod feed;
mod members;
mod options;
mod pending;
mod proto;
mod shared;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use options::{EtcdOptions, EtcdTls};
pub use shared::SharedRecords;

use crate::{
    CommitError, Committed, Durability, Guard, Key, OpenError, Pending as Answer, ReadError,
    Revision, Snapshot, Store, Watch, WatchError, Write, Written, batch,
    hub::Hub,
    ring::{Limits, Ring},
    seal::Sealer,
    store::at_once,
};
use coding::{Coding, meta_key, number, revision};
use commit::Fence;
use feed::{ListError, list};
use members::{Failure, Members};
use pending::Pending;

/// Revisions that are read again at the start, so that watches can resume.
const RECENT: i64 = 1000;
/// How long the map may be behind before another member is asked to feed it.
const STALL: Duration = Duration::from_secs(3);

/// Who waits for etcd's current revision.
type Asker = oneshot::Sender<Result<Revision, String>>;

/// A store in etcd. A handle: cheap to clone; the store closes when the last
/// one goes, or on [`close`](Self::close).
pub struct Etcd<N: Send + Sync + 'static> {
    shared: Arc<Shared<N>>,
    asks: mpsc::UnboundedSender<Asker>,
    runtime: Handle,
    _open: Arc<DropGuard>,
}

impl<N: Send + Sync + 'static> Clone for Etcd<N> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            asks: self.asks.clone(),
            runtime: self.runtime.clone(),
            _open: Arc::clone(&self._open),
        }
    }
}

/// What the tasks of a store have in common.
struct Shared<N> {
    options: EtcdOptions,
    hub: Arc<Hub<N>>,
    members: Members,
    coding: Coding<N>,
    pending: Arc<Pending>,
    fence: Fence,
    /// Key that guarded deletions write their id to.
    mark: Bytes,
    /// Asks the feed to try another member.
    stalled: Notify,
    closing: CancellationToken,
    /// Why the map cannot follow etcd, other than that it is away.
    fault: Mutex<Option<String>>,
    /// Why etcd did not tell its revision when it was asked last.
    away: Mutex<Option<String>>,
    commits: AtomicU64,
}

/// Milliseconds since the epoch.
fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

impl<N: Send + Sync + 'static> Etcd<N> {
    /// Opens the store: reads all of it, and follows it from then on. `note`
    /// says what to note about a value that is read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        options: EtcdOptions,
        note: impl Fn(&Key, &Bytes) -> N + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let members = Members::new(&options)?;
        let patience = Instant::now() + options.patience;
        let current = members.revision(patience).await.map_err(unreachable)?;
        let sealer = open_sealer(&options, &members).await?;
        let coding = Coding::new(&options.prefix, sealer, Box::new(note));
        let mut process = [0; 8];
        aws_lc_rs::rand::fill(&mut process)
            .map_err(|_| crate::SealError::Crypto("no random numbers"))?;
        let pending = Arc::new(Pending::new(u64::from_ne_bytes(process)));
        let begin = (current - RECENT).max(1);
        let read = match list(&members, &coding, &pending, begin, options.patience).await {
            Err(ListError::Etcd(Failure::Compacted)) => {
                list(&members, &coding, &pending, 0, options.patience).await
            }
            read => read,
        };
        let snapshot = read.map_err(|error| match error {
            ListError::Etcd(failure) => unreachable(failure),
            ListError::Coding(error) => error.into(),
        })?;
        let limits = Limits { bytes: options.recent_bytes, age: options.recent_age };
        let ring = Ring::new(limits, snapshot.revision(), Vec::new());
        let own = |what: &str| meta_key(&options.prefix, &format!("{what}/{}", options.name));
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared {
            hub: Arc::new(Hub::new(snapshot, ring)),
            members,
            coding,
            pending,
            fence: Fence::new(own("fence")),
            mark: own("mark"),
            stalled: Notify::new(),
            closing: closing.clone(),
            fault: Mutex::default(),
            away: Mutex::default(),
            commits: AtomicU64::new(0),
            options,
        });
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(feed::run(Arc::clone(&shared)));
        tokio::spawn(feed::tell_revision(Arc::clone(&shared), asked));
        let mark = meta_key(&shared.options.prefix, "compaction");
        tokio::spawn(feed::compact(Arc::clone(&shared), mark));
        let open = Arc::new(closing.drop_guard());
        // Nothing that an earlier life left under way takes place after this.
        let deadline = Instant::now() + shared.options.patience;
        let fence = shared.fence.advance(0, &shared.members, deadline).await;
        let fence = fence.map_err(unreachable)?;
        let reached = shared.reach(revision(fence)).await;
        reached.map_err(|error| OpenError::Unreachable(error.to_string()))?;
        Ok(Self { shared, asks, runtime: Handle::current(), _open: open })
    }

    /// Ends all watches; later calls on any handle get `Closed`. Snapshots stay
    /// readable.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.hub.close();
    }
}

impl<N: Send + Sync + 'static> Shared<N> {
    /// Waits until the map has reached `revision`.
    async fn reach(&self, revision: Revision) -> Result<Snapshot<N>, ReadError> {
        let deadline = Instant::now() + self.options.patience;
        loop {
            match timeout(STALL, Arc::clone(&self.hub).at_least(revision)).await {
                Ok(reached) => return reached,
                Err(_) if Instant::now() >= deadline => {
                    let fault = self.fault.lock().clone();
                    return Err(ReadError::Unavailable(
                        fault.unwrap_or_else(|| "etcd's changes do not come in".to_owned()),
                    ));
                }
                Err(_) => self.stalled.notify_one(),
            }
        }
    }
}

fn unreachable(failure: Failure) -> OpenError {
    OpenError::Unreachable(failure.to_string())
}

async fn open_sealer(
    options: &EtcdOptions,
    members: &Members,
) -> Result<Option<Sealer>, OpenError> {
    let Some(seal) = &options.seal else { return Ok(None) };
    let plain: Coding<()> = Coding::new(&options.prefix, None, Box::new(|_, _| ()));
    let mut exist = false;
    for prefix in &seal.prefixes {
        let (start, end) = plain.range(prefix);
        let question = proto::count(start, end);
        let answer = members.range(question, Instant::now() + options.patience).await;
        exist |= answer.map_err(unreachable)?.count > 0;
    }
    Ok(Some(Sealer::open(seal, || exist)?))
}

impl<N: Send + Sync + 'static> Store<N> for Etcd<N> {
    fn snapshot(&self) -> Snapshot<N> {
        self.shared.hub.snapshot()
    }

    fn latest(&self) -> Answer<Result<Snapshot<N>, ReadError>> {
        if self.shared.closing.is_cancelled() {
            return at_once(Err(ReadError::Closed));
        }
        let (reply, answer) = oneshot::channel();
        let asked = self.asks.send(reply);
        let shared = Arc::clone(&self.shared);
        let latest = async move {
            asked.map_err(|_| ReadError::Closed)?;
            let revision = answer.await.map_err(|_| ReadError::Closed)?;
            shared.reach(revision.map_err(ReadError::Unavailable)?).await
        };
        Answer::Right(latest.boxed())
    }

    fn at(&self, revision: Revision) -> Result<Snapshot<N>, ReadError> {
        self.shared.hub.at(revision)
    }

    fn at_least(&self, revision: Revision) -> Answer<Result<Snapshot<N>, ReadError>> {
        let snapshot = self.snapshot();
        if snapshot.revision() >= revision {
            return at_once(Ok(snapshot));
        }
        Answer::Right(Arc::clone(&self.shared.hub).at_least(revision).boxed())
    }

    fn commit(
        &self,
        guards: Vec<Guard>,
        writes: Vec<Write<N>>,
        _durability: Durability,
    ) -> BoxFuture<'static, Result<Committed<N>, CommitError<N>>> {
        let refused = |error| futures::future::ready(Err(error)).boxed();
        if let Err(error) = batch::check(&guards, &writes) {
            return refused(error);
        }
        if self.shared.closing.is_cancelled() {
            return refused(CommitError::Closed);
        }
        let keys = guards.iter().map(|guard| &guard.key).chain(writes.iter().map(Write::key));
        if let Some(key) = keys.into_iter().find(|key| !key.starts_with('/')) {
            return refused(CommitError::Invalid(format!("{key} does not begin with /")));
        }
        // A task of its own: what was begun is finished, whoever waits for it.
        let task = self.runtime.spawn(Arc::clone(&self.shared).commit(guards, writes));
        async move { task.await.unwrap_or(Err(CommitError::Closed)) }.boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch<N>, WatchError> {
        self.shared.hub.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), CommitError<N>>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let revision = revision.min(shared.hub.snapshot().revision());
            shared.hub.compact(revision);
            match shared.members.compact(number(revision)).await {
                Ok(()) | Err(Failure::Compacted) => Ok(()),
                Err(failure) => Err(CommitError::Io(failure.to_string())),
            }
        }
        .boxed()
    }

    fn fault(&self) -> Option<String> {
        let own = self.shared.fault.lock().clone();
        own.or_else(|| self.shared.away.lock().clone())
    }

    fn written(&self) -> Written {
        let commits = self.shared.commits.load(Ordering::Relaxed);
        Written { commits, transactions: commits }
    }
}
