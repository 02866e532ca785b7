//! The backend that needs no server: an immutable map in memory, a log on disk,
//! and one thread that writes.
//!
//! Opening reads the whole log. Afterwards reads never touch the disk, and only
//! the writer does.

mod history;
mod log;
mod options;
mod queue;
mod recover;
mod row;
mod writer;

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write as _},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, TryAcquireError, oneshot, watch as latest};

pub use options::{Options, Vfs};

use crate::{
    CommitError, Committed, Durability, Guard, Key, OpenError, Pending, ReadError, Revision,
    SealError, Snapshot, Store, Watch, WatchError, Write, Written, batch, hub::Hub, store::at_once,
};
use log::{Log, LogError, State, database};
use queue::{Commit, Job, Queue};
use recover::{Recovered, recover};
use writer::{Counters, RESERVE, Writer, now};

/// What an embedded store holds and has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that exist.
    pub keys: usize,
    /// The store's revision.
    pub revision: Revision,
    /// The oldest revision that can be read, and watched from.
    pub oldest: Revision,
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
    hub: Arc<Hub<N>>,
    queue: Arc<Queue<N>>,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Turns true when the writer has closed the files.
    finished: latest::Receiver<bool>,
}

impl<N> Drop for Inner<N> {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl<N: Send + Sync + 'static> Embedded<N> {
    /// Opens the store in `options.directory`, or makes one. `note` says what
    /// to note about a value that is read from disk. Blocks while the log is
    /// read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        options: Options,
        note: impl Fn(&Key, &Bytes) -> N + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let path = database(&options.directory);
        let lock = lock(&options.directory)?;
        flush_wal(&options).map_err(|error| refuse(&path, error))?;
        let mut log = Log::open(&options).map_err(|error| refuse(&path, error))?;
        let found = recover(&log, &options, None, now(), note)
            .and_then(|found| begin(&mut log, found))
            .map_err(|error| refuse(&path, error))?;
        let (hub, history) = found;

        let (hub, queue) = (Arc::new(hub), Arc::new(Queue::new()));
        let counters = Arc::new(Counters::default());
        let writer = Writer::new(
            options,
            Arc::clone(&hub),
            Arc::clone(&queue),
            Arc::clone(&counters),
            log,
            history,
        );
        let (finish, finished) = latest::channel(false);
        let end =
            End { hub: Arc::clone(&hub), queue: Arc::clone(&queue), finish, lock: Some(lock) };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let _end = end;
                go_first();
                writer.run();
            })
            .map_err(|error| OpenError::Io { path, message: error.to_string() })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { hub, queue, counters, thread, finished }) })
    }

    /// Writes everything down and closes the files. Later calls on any handle
    /// get `Closed`; snapshots stay readable.
    pub async fn close(&self) {
        self.inner.queue.close();
        let mut finished = self.inner.finished.clone();
        // An error says that the writer is gone, which is as good.
        let _ = finished.wait_for(|finished| *finished).await;
    }

    /// Makes a new sealing key, seals everything anew that older ones sealed,
    /// and then forgets those. Commits wait meanwhile.
    ///
    /// # Errors
    /// See [`SealError`]; values stay readable in any case.
    pub async fn rotate_sealing_key(&self) -> Result<(), SealError> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(Job::Rotate(reply));
        answer.await.unwrap_or_else(|_| Err(SealError::Rewrite("the store is closed".into())))
    }

    /// Why commits are refused at the moment, other than for want of space:
    /// what a health check should say. Nothing if they are not.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if *self.inner.finished.borrow() {
            return Some("the store is closed".to_owned());
        }
        self.inner.counters.fault.lock().clone()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Inner { hub, counters, .. } = &*self.inner;
        let snapshot = hub.snapshot();
        let (watches, recent_bytes, oldest) = hub.load();
        Stats {
            keys: snapshot.len(),
            revision: snapshot.revision(),
            oldest,
            watches,
            recent_bytes,
            commits: counters.commits.load(Ordering::Relaxed),
            conflicts: counters.conflicts.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
        }
    }
}

/// Cleans up when the writer ends, however it ends.
struct End<N: Send + Sync + 'static> {
    hub: Arc<Hub<N>>,
    queue: Arc<Queue<N>>,
    finish: latest::Sender<bool>,
    lock: Option<File>,
}

impl<N: Send + Sync + 'static> Drop for End<N> {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.clear();
        self.hub.close();
        drop(self.lock.take());
        self.finish.send_replace(true);
    }
}

/// Nice value of the writer's thread.
const WRITER_NICENESS: i32 = -10;

/// Lets this thread run as soon as it can: everybody waits for it, and it soon waits for the disk again. Linux keeps
/// this by thread.
fn go_first() {
    if let Err(error) = rustix::process::setpriority_process(None, WRITER_NICENESS) {
        tracing::debug!(%error, "the writer's thread keeps its priority");
    }
}

/// Makes the directory and takes its lock, which goes with the process.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let io = |path: &Path, error: &io::Error| OpenError::Io {
        path: path.to_owned(),
        message: error.to_string(),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| io(directory, &error))?;
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| io(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io(&path, &error)),
    }
}

/// Begins a life of the store on top of what the log holds. If the last life
/// did not end well, revisions may have been shown that the log does not hold:
/// the new life starts above all of them, and says so on disk first.
fn begin<N: Send + Sync + 'static>(
    log: &mut Log,
    mut found: Recovered<N>,
) -> Result<(Hub<N>, history::History), LogError> {
    let before = log.state();
    let last = found.last.max(before.base);
    if last < before.synced || found.cut.is_some() {
        tracing::error!(
            database = %log.path().display(),
            last,
            "the end of the log was damaged and is cut off; the last changes may be lost \
             (damaged rows are kept in the table \"cut\")"
        );
    }
    let base = if before.reserved > last { before.reserved + 1 } else { last };
    let gap = (base > last).then_some((last, base));
    let state = State { reserved: base + RESERVE, base, synced: base, ..before };
    log.begin(state, gap, found.cut, now())?;
    if let Some((low, high)) = gap {
        found.ring.add_gap(low, high);
    }
    let hub = Hub::new(Snapshot::new(found.map, Revision(base)), found.ring);
    Ok((hub, found.history))
}

fn refuse(path: &Path, error: LogError) -> OpenError {
    let path = PathBuf::from(path);
    match error {
        LogError::Full => OpenError::Full { path },
        LogError::Io(message) => OpenError::Io { path, message },
        LogError::Corrupt(what) => OpenError::Corrupt { path, what },
        LogError::Newer(found) => OpenError::Newer { path, found, supported: log::FORMAT },
        LogError::Foreign => OpenError::Foreign { path },
        LogError::Seal(error) => OpenError::Seal(error),
    }
}

/// Makes sure that the WAL which SQLite will read is on disk. After a failed
/// sync the kernel may call pages clean that never got there; SQLite would copy
/// them into the database, lose the power half way, and be left with neither.
/// A store that was closed in order has no WAL.
fn flush_wal(options: &Options) -> Result<(), LogError> {
    if options.unsafe_no_fsync {
        return Ok(());
    }
    let wal = database(&options.directory).with_extension("db-wal");
    let flush = options.vfs.as_ref().map_or(rewrite as _, |vfs| vfs.rewrite);
    flush(&wal).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => LogError::Full,
        _ => LogError::Io(format!("{}: {error}", wal.display())),
    })
}

/// Writes a file's bytes over themselves and waits for the disk: whatever the
/// kernel believes to be clean is on disk afterwards.
fn rewrite(path: &Path) -> io::Result<()> {
    let mut file = match fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        file.seek(SeekFrom::Start(position))?;
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return file.sync_all();
        }
        file.seek(SeekFrom::Start(position))?;
        file.write_all(&buffer[..length])?;
        position += length as u64;
    }
}

/// Waits for room in the queue if need be, then queues the commit.
async fn enqueue<N>(
    queue: Arc<Queue<N>>,
    room: Arc<Semaphore>,
    permits: u32,
    commit: impl FnOnce(tokio::sync::OwnedSemaphorePermit) -> Commit<N>,
) -> Result<(), CommitError<N>> {
    let permit = room.acquire_many_owned(permits).await.map_err(|_| CommitError::Closed)?;
    queue.push(Job::Commit(commit(permit)));
    Ok(())
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
        Pending::Right(Arc::clone(&self.inner.hub).at_least(revision).boxed())
    }

    fn commit(
        &self,
        guards: Vec<Guard>,
        writes: Vec<Write<N>>,
        durability: Durability,
    ) -> BoxFuture<'static, Result<Committed<N>, CommitError<N>>> {
        let refused = |error| futures::future::ready(Err(error)).boxed();
        if let Err(error) = batch::check(&guards, &writes) {
            return refused(error);
        }
        let Some(permits) = Queue::permits(&writes) else {
            return refused(CommitError::Invalid("the commit is too large".into()));
        };
        let (reply, answer) = oneshot::channel();
        let commit = move |permit| Commit { guards, writes, durability, reply, permit };
        let queue = &self.inner.queue;
        match queue.room().try_acquire_many_owned(permits) {
            Ok(permit) => {
                queue.push(Job::Commit(commit(permit)));
                async move { answer.await.unwrap_or(Err(CommitError::Closed)) }.boxed()
            }
            Err(TryAcquireError::Closed) => refused(CommitError::Closed),
            Err(TryAcquireError::NoPermits) => {
                let queued = enqueue(Arc::clone(queue), queue.room(), permits, commit);
                async move {
                    queued.await?;
                    answer.await.unwrap_or(Err(CommitError::Closed))
                }
                .boxed()
            }
        }
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch<N>, WatchError> {
        self.inner.hub.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), CommitError<N>>> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(Job::Compact(revision, reply));
        async move { answer.await.unwrap_or(Err(CommitError::Closed)) }.boxed()
    }

    fn written(&self) -> Written {
        let counters = &self.inner.counters;
        Written {
            commits: counters.commits.load(Ordering::Relaxed),
            transactions: counters.batches.load(Ordering::Relaxed),
        }
    }
}
