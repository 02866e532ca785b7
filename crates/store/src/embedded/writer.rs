//! The one thread that writes: takes what waits, judges it, makes it durable in
//! one transaction, and only then lets it be seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Options,
    history::History,
    log::{Log, LogError},
    queue::{Commit, Job, Patience, Queue, Taken},
    recover::{Recovered, recover},
};
use crate::{CommitError, Durability, SealError, Snapshot, batch::Batch, hub::Hub, snapshot::Map};

/// How long a relaxed commit may wait for its sync. Leaves time for the sync
/// itself within the promised second.
const RELAXED_DELAY: Duration = Duration::from_millis(800);
/// Revisions that are reserved at a time.
pub(super) const RESERVE: u64 = 10_000;
/// The longest that commits wait for others to share their sync.
const MAX_PATIENCE: Duration = Duration::from_millis(1);
/// How long to leave a disk that failed alone before a commit tries it again.
const HEAL_DELAY: Duration = Duration::from_millis(200);
/// How long until it is tried again when nobody commits.
const HEAL_RETRY: Duration = Duration::from_secs(2);

/// Counters that the writer keeps.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) failures: AtomicU64,
    /// Why the log cannot be written at the moment.
    pub(super) fault: Mutex<Option<String>>,
}

/// The log, or why there is none at the moment.
enum Disk {
    Works(Box<Log>),
    Failed { why: String, since: Instant },
}

/// A compaction under way, and who waits for it.
struct Compaction<N> {
    horizon: u64,
    replies: Vec<oneshot::Sender<Result<(), CommitError<N>>>>,
}

pub(super) struct Writer<N> {
    options: Options,
    hub: Arc<Hub<N>>,
    queue: Arc<Queue<N>>,
    counters: Arc<Counters>,
    disk: Disk,
    history: History,
    /// Highest revision ever given out.
    last: u64,
    /// When the oldest change was written that is not synced yet.
    unsynced: Option<Instant>,
    compaction: Option<Compaction<N>>,
    patience: Patience,
    clock: u64,
}

/// Milliseconds since the epoch.
pub(super) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

impl<N: Send + Sync + 'static> Writer<N> {
    pub(super) fn new(
        options: Options,
        hub: Arc<Hub<N>>,
        queue: Arc<Queue<N>>,
        counters: Arc<Counters>,
        log: Log,
        history: History,
    ) -> Self {
        let last = hub.snapshot().revision().0;
        Self {
            options,
            hub,
            queue,
            counters,
            disk: Disk::Works(Box::new(log)),
            history,
            last,
            unsynced: None,
            compaction: None,
            patience: Patience::default(),
            clock: now(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            match self.queue.take(self.deadline(), self.patience) {
                Taken::Commits(commits) => self.commit(commits),
                Taken::Job(Job::Compact(revision, reply)) => self.start_compaction(
                    revision.0.min(self.hub.snapshot().revision().0),
                    Some(reply),
                ),
                Taken::Job(Job::Rotate(reply)) => {
                    let rotated = self.rotate();
                    let _ = reply.send(rotated);
                }
                Taken::Job(Job::Commit(commit)) => self.commit(vec![commit]),
                Taken::Deadline => {}
                Taken::Closed => break,
            }
            if self.unsynced.is_some_and(|since| since.elapsed() >= RELAXED_DELAY) {
                self.sync();
            }
            if matches!(&self.disk, Disk::Failed { since, .. } if since.elapsed() >= HEAL_RETRY) {
                // Says by itself how it went.
                let _ = self.log();
            }
            self.maintain();
        }
        self.finish();
    }

    /// When there is something to do even if nobody asks. An idle store sleeps.
    fn deadline(&self) -> Option<Instant> {
        match (&self.disk, &self.compaction) {
            (Disk::Failed { since, .. }, _) => Some(*since + HEAL_RETRY),
            (_, Some(_)) => Some(Instant::now()),
            _ => self.unsynced.map(|since| since + RELAXED_DELAY),
        }
    }

    /// Judges commits in order and applies those that hold, all in one
    /// transaction. Nobody gets an answer before it is on disk: a refusal may
    /// rest on an earlier commit of the same transaction.
    fn commit(&mut self, commits: Vec<Commit<N>>) {
        let mut batch = Batch::new(&self.hub.snapshot(), self.last);
        let mut durable = false;
        let mut answers = Vec::with_capacity(commits.len());
        for Commit { guards, writes, durability, reply, permit } in commits {
            let answer = batch.apply(&guards, writes);
            durable |= answer.is_ok() && durability == Durability::Durable;
            answers.push((reply, answer, permit));
        }
        let begin = Instant::now();
        let written = if batch.events().is_empty() { Ok(()) } else { self.write(&batch, durable) };
        self.last = batch.last();
        self.learn(answers.len(), durable, begin.elapsed());
        match written {
            Ok(()) => {
                let applied = answers.iter().filter(|(_, answer, _)| answer.is_ok()).count();
                self.counters.commits.fetch_add(applied as u64, Ordering::Relaxed);
                let refused = answers.len() - applied;
                self.counters.conflicts.fetch_add(refused as u64, Ordering::Relaxed);
                self.publish(batch);
                for (reply, answer, _permit) in answers {
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                for (reply, ..) in answers {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Decides how long the next commits wait for company: not at all if this
    /// was alone, and a small part of what the disk takes otherwise.
    fn learn(&mut self, together: usize, durable: bool, took: Duration) {
        let waiting = self.queue.len();
        let alone = together == 1 && waiting == 0;
        let wait = if durable && !alone { (took / 4).min(MAX_PATIENCE) } else { Duration::ZERO };
        self.patience = Patience { enough: together + waiting, wait };
    }

    fn publish(&mut self, batch: Batch<N>) {
        if batch.events().is_empty() {
            return;
        }
        for event in batch.events() {
            if let Some(previous) = &event.previous {
                let own = if event.current.is_none() { event.key.len() + 64 } else { 0 };
                let freed = previous.value.len() + event.key.len() + 64 + own;
                self.history.add(event.revision.0, self.clock, freed as u64);
            }
        }
        let (snapshot, events) = batch.finish();
        self.hub.publish(snapshot, events, self.clock);
    }

    fn write(&mut self, batch: &Batch<N>, durable: bool) -> Result<(), CommitError<N>> {
        self.clock = self.clock.max(now());
        let clock = self.clock;
        let log = self.log().map_err(CommitError::Io)?;
        // What is shown must lie below the mark that is on disk.
        let reserve = (batch.last() > log.state().reserved).then(|| batch.last() + RESERVE);
        let durable = durable || reserve.is_some();
        match log.append(batch.events(), durable, reserve, clock) {
            Ok(()) => {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                if durable {
                    self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                    self.unsynced = None;
                } else {
                    self.unsynced.get_or_insert_with(Instant::now);
                }
                Ok(())
            }
            Err(LogError::Full) => {
                tracing::warn!(directory = %self.options.directory.display(), "the disk is full");
                Err(CommitError::Full)
            }
            Err(LogError::Seal(error)) => Err(CommitError::Io(error.to_string())),
            Err(error) => Err(CommitError::Io(self.fail(&error))),
        }
    }

    /// The log, after mending it if it had failed.
    fn log(&mut self) -> Result<&mut Log, String> {
        if let Disk::Failed { why, since } = &self.disk {
            if since.elapsed() < HEAL_DELAY {
                return Err(why.clone());
            }
            match self.heal() {
                Ok(log) => {
                    tracing::info!("the disk works again; the log is complete");
                    *self.counters.fault.lock() = None;
                    self.disk = Disk::Works(Box::new(log));
                }
                Err(error) => return Err(self.fail(&error)),
            }
        }
        match &mut self.disk {
            Disk::Works(log) => Ok(log),
            Disk::Failed { why, .. } => Err(why.clone()),
        }
    }

    /// Stops using the log until it is known to be complete again.
    fn fail(&mut self, error: &LogError) -> String {
        let why = error.to_string();
        tracing::error!(error = %why, "the log failed; writes are refused until it is mended");
        self.disk = Disk::Failed { why: why.clone(), since: Instant::now() };
        *self.counters.fault.lock() = Some(why.clone());
        // Mending makes everything durable.
        self.unsynced = None;
        why
    }

    /// Opens the log anew and makes it hold exactly what is published.
    ///
    /// The WAL is written again and synced before anything else. What the failed
    /// transaction left behind is withdrawn; what relaxed commits lost is
    /// written again from memory; and everything is read back and compared
    /// before the next commit.
    fn heal(&mut self) -> Result<Log, LogError> {
        super::flush_wal(&self.options)?;
        let mut log = Log::open(&self.options)?;
        let published = self.hub.snapshot();
        let revision = published.revision().0;
        let found = self.read_back(&log, revision)?;
        log.withdraw(found.last.max(log.state().base).min(revision))?;
        if found.last < revision {
            let missing = self.hub.events_after(found.last);
            log.append(&missing, true, None, self.clock)?;
        }
        let found = self.read_back(&log, revision)?;
        if found.cut.is_some() || !same(&found.map, &published) {
            return Err(LogError::Corrupt(
                "the log on disk differs from memory; restart to read it anew".into(),
            ));
        }
        log.checkpoint(true)?;
        Ok(log)
    }

    fn read_back(&self, log: &Log, revision: u64) -> Result<Recovered<()>, LogError> {
        let options =
            Options { recent_bytes: 0, recent_age: Duration::ZERO, ..self.options.clone() };
        recover(log, &options, Some(revision), self.clock, |_, _| ())
    }

    fn sync(&mut self) {
        let last = self.hub.snapshot().revision().0;
        if let Disk::Works(log) = &mut self.disk {
            match log.sync(last) {
                Ok(()) => {
                    self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                    self.unsynced = None;
                }
                // No room to write down that it is synced: try again later.
                Err(LogError::Full) => self.unsynced = Some(Instant::now()),
                Err(error) => {
                    self.fail(&error);
                }
            }
        }
    }

    /// Housekeeping between transactions, in small steps.
    fn maintain(&mut self) {
        if let Some(horizon) = self.history.forget(self.clock) {
            self.start_compaction(horizon, None);
        }
        let Disk::Works(log) = &mut self.disk else {
            self.end_compaction(|| Err(CommitError::Io("the log is not available".into())));
            return;
        };
        let step = match &self.compaction {
            Some(compaction) => log.compact_step(compaction.horizon),
            None => Ok(false),
        };
        let checkpoint = if log.wants_checkpoint() { log.checkpoint(false) } else { Ok(()) };
        match step {
            Ok(true) => self.end_compaction(|| Ok(())),
            Ok(false) => {}
            Err(LogError::Full) => self.end_compaction(|| Err(CommitError::Full)),
            Err(error) => {
                let why = self.fail(&error);
                self.end_compaction(|| Err(CommitError::Io(why.clone())));
            }
        }
        match checkpoint {
            Ok(()) => {}
            Err(LogError::Full) => {
                tracing::warn!("no room to copy the WAL into the database; trying again later");
            }
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    fn start_compaction(
        &mut self,
        horizon: u64,
        reply: Option<oneshot::Sender<Result<(), CommitError<N>>>>,
    ) {
        self.history.forget_to(horizon);
        if reply.is_some() {
            self.hub.compact(crate::Revision(horizon));
        }
        let compaction = self.compaction.get_or_insert(Compaction { horizon, replies: Vec::new() });
        compaction.horizon = compaction.horizon.max(horizon);
        compaction.replies.extend(reply);
    }

    fn end_compaction(&mut self, result: impl Fn() -> Result<(), CommitError<N>>) {
        for reply in self.compaction.take().into_iter().flat_map(|done| done.replies) {
            let _ = reply.send(result());
        }
    }

    fn rotate(&mut self) -> Result<(), SealError> {
        let log = self.log().map_err(SealError::Rewrite)?;
        match log.rotate() {
            Ok(()) => Ok(()),
            Err(LogError::Seal(error)) => Err(error),
            Err(LogError::Full) => Err(SealError::Rewrite(LogError::Full.to_string())),
            Err(error) => Err(SealError::Rewrite(self.fail(&error))),
        }
    }

    /// Closes the log so that the next start finds nothing to repair.
    fn finish(mut self) {
        self.end_compaction(|| Err(CommitError::Closed));
        if let Disk::Failed { since, .. } = &mut self.disk {
            *since = since.checked_sub(HEAL_DELAY).unwrap_or(*since);
        }
        if let Err(error) = self.log().map(|_| ()) {
            tracing::error!(%error, "the store closes with a log that failed");
            return;
        }
        let last = self.hub.snapshot().revision().0;
        let Disk::Works(log) = self.disk else { return };
        if let Err(error) = log.finish(last) {
            tracing::warn!(%error, "the store could not close its log cleanly");
        }
    }
}

/// Whether the map read from disk is the one that is published.
fn same<N>(found: &Map<()>, published: &Snapshot<N>) -> bool {
    found.len() == published.len()
        && found.iter().zip(published.map().iter()).all(|((key, a), (other, b))| {
            key == other && a.created == b.created && a.modified == b.modified && a.value == b.value
        })
}
