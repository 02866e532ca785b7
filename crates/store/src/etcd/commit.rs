//! Commits: one transaction of etcd each, and the certainty about its outcome.
//!
//! Every transaction also compares this server's *fence*, a key that nobody
//! else writes. When the answer to a transaction is lost, the fence is written:
//! after that the transaction can no longer take place. Once the map has
//! reached the fence's new revision, the transaction was seen or never was.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    Shared,
    coding::{number, revision},
    members::{Failure, Members},
    pending::{Sighting, Ticket},
    proto::{self, RequestOp, TxnRequest, TxnResponse},
};
use crate::{CommitError, Committed, Expect, Guard, Record, Revision, SealError, Write};

/// Operations that etcd takes in one transaction, as it comes (`--max-txn-ops`).
const MAX_OPERATIONS: usize = 128;
/// Pause before a transaction is tried again that found etcd busy or fenced.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// This server's fence.
pub(super) struct Fence {
    pub(super) key: Bytes,
    /// Revision at which the fence was last known to be written.
    at: AtomicI64,
    /// Held by whoever writes it.
    moving: tokio::sync::Mutex<()>,
}

impl Fence {
    pub(super) fn new(key: Bytes) -> Self {
        Self { key, at: AtomicI64::new(0), moving: tokio::sync::Mutex::new(()) }
    }

    fn current(&self) -> i64 {
        self.at.load(Ordering::Acquire)
    }

    /// Takes note of where the fence was found.
    fn learn(&self, at: i64) {
        self.at.fetch_max(at, Ordering::AcqRel);
    }

    /// Makes sure that no transaction which compared the fence to `old` takes
    /// place from now on; returns a revision that comes after those that did.
    /// All that ask at the same time share one write.
    pub(super) async fn advance(
        &self,
        old: i64,
        members: &Members,
        deadline: Instant,
    ) -> Result<i64, Failure> {
        let _moving = self.moving.lock().await;
        loop {
            let current = self.current();
            if current > old {
                return Ok(current);
            }
            let write = proto::put_op(self.key.clone(), Bytes::new());
            let request = TxnRequest { success: vec![write], ..TxnRequest::default() };
            match members.transact(request).await {
                Ok(done) => self.learn(done.revision()),
                Err(Failure::Unclear(_) | Failure::Busy) if Instant::now() < deadline => {
                    sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// How one attempt ended.
enum Attempt<N> {
    Applied(i64),
    /// Nothing was done; the fence was elsewhere.
    Fenced(i64),
    Refused(CommitError<N>),
    /// Nothing was done; etcd has too much to do.
    Busy,
    /// Perhaps done, and cannot be done later.
    Settled(CommitError<N>),
    /// Perhaps done, or to be done at any time.
    Unclear(String),
}

/// The request of a commit, but for the fence.
struct Prepared {
    request: TxnRequest,
    guards: Vec<Guard>,
}

impl<N: Send + Sync + 'static> Shared<N> {
    /// Carries out a commit that was found to be well-formed.
    pub(super) async fn commit(
        self: Arc<Self>,
        guards: Vec<Guard>,
        writes: Vec<Write<N>>,
    ) -> Result<Committed<N>, CommitError<N>> {
        let ticket = self.pending.register();
        let prepared = self.prepare(guards, &writes, &ticket)?;
        let deadline = Instant::now() + self.options.patience;
        let applied = loop {
            let fence = self.fence.current();
            match self.attempt(&prepared, fence).await {
                Attempt::Applied(at) => break revision(at),
                Attempt::Refused(error) => return Err(error),
                Attempt::Fenced(at) => self.fence.learn(at),
                Attempt::Busy => sleep(PAUSE).await,
                Attempt::Settled(error) => {
                    let now = self.members.revision(deadline).await.map_err(lost)?;
                    match self.outcome(&ticket, now).await? {
                        Some(at) => break at,
                        None => return Err(error),
                    }
                }
                Attempt::Unclear(why) => {
                    tracing::debug!(error = why, "the answer to a write was lost");
                    let at = self.fence.advance(fence, &self.members, deadline).await;
                    if let Some(at) = self.outcome(&ticket, at.map_err(lost)?).await? {
                        break at;
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(CommitError::Io(
                    "etcd took no write in time; nothing was written".into(),
                ));
            }
        };
        let reached = self.reach(applied).await;
        reached.map_err(|error| CommitError::Io(format!("the write was stored, but {error}")))?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(Committed { revision: applied, records: self.records(applied, writes) })
    }

    /// Whether a write took place before `at`, when nothing can have happened
    /// to it after.
    async fn outcome(&self, ticket: &Ticket, at: i64) -> Result<Option<Revision>, CommitError<N>> {
        let unknown = |why: String| {
            CommitError::Io(format!("{why}; whether the write took place is not known"))
        };
        self.reach(revision(at)).await.map_err(|error| unknown(error.to_string()))?;
        match ticket.sighting() {
            Sighting::At(at) => Ok(Some(at)),
            Sighting::None => Ok(None),
            Sighting::Unknown => Err(unknown("changes were missed".to_owned())),
        }
    }

    fn prepare(
        &self,
        guards: Vec<Guard>,
        writes: &[Write<N>],
        ticket: &Ticket,
    ) -> Result<Prepared, CommitError<N>> {
        if guards.len() >= MAX_OPERATIONS || writes.len() >= MAX_OPERATIONS {
            let most = MAX_OPERATIONS - 1;
            let why = format!("a commit to etcd holds at most {most} writes and {most} guards");
            return Err(CommitError::Invalid(why));
        }
        let mut request = TxnRequest::default();
        for guard in &guards {
            let key = self.coding.etcd_key(&guard.key);
            request.failure.push(proto::read_op(key.clone()));
            request.compare.push(match guard.expect {
                Expect::Absent => proto::modified_at(key, 0),
                Expect::Present => proto::exists(key),
                Expect::Modified(revision) => proto::modified_at(key, number(revision)),
            });
        }
        request.failure.push(proto::read_op(self.fence.key.clone()));
        let operations = writes.iter().map(|write| self.operation(write, ticket));
        request.success = operations
            .collect::<Result<_, _>>()
            .map_err(|error: SealError| CommitError::Io(error.to_string()))?;
        // Deletions carry no id: a key of ours does for them. What is not
        // guarded may simply be done again.
        let puts = writes.iter().any(|write| matches!(write, Write::Put { .. }));
        if !writes.is_empty() && !puts && !guards.is_empty() {
            request.success.push(proto::put_op(self.mark.clone(), ticket.id.mark()));
        }
        Ok(Prepared { request, guards })
    }

    fn operation(&self, write: &Write<N>, ticket: &Ticket) -> Result<RequestOp, SealError> {
        let key = self.coding.etcd_key(write.key());
        Ok(match write {
            Write::Put { key: own, value, .. } => {
                proto::put_op(key, self.coding.encode(own, value, ticket.id)?)
            }
            Write::Delete { .. } => proto::delete_op(key),
        })
    }

    async fn attempt(&self, prepared: &Prepared, fence: i64) -> Attempt<N> {
        let mut request = prepared.request.clone();
        request.compare.push(proto::modified_at(self.fence.key.clone(), fence));
        match self.members.transact(request).await {
            Ok(done) if done.succeeded => Attempt::Applied(done.revision()),
            Ok(refused) => self.refusal(&prepared.guards, &refused),
            Err(Failure::Busy) => Attempt::Busy,
            Err(Failure::NoSpace) => Attempt::Settled(CommitError::Full),
            Err(Failure::Unclear(why)) => Attempt::Unclear(why),
            Err(failure) => {
                let why = failure.to_string();
                let size = why.contains("too large") || why.contains("larger than max");
                Attempt::Refused(if size || why.contains("too many operations") {
                    CommitError::Invalid(why)
                } else {
                    CommitError::Io(why)
                })
            }
        }
    }

    /// Why a transaction did nothing: the first guard that does not hold, or
    /// else the fence.
    fn refusal(&self, guards: &[Guard], answer: &TxnResponse) -> Attempt<N> {
        for (index, guard) in guards.iter().enumerate() {
            let current = match answer.read(index).map(|kv| self.coding.record(&guard.key, kv)) {
                Some(Err(error)) => return Attempt::Refused(CommitError::Io(error.to_string())),
                Some(Ok(record)) => Some(Arc::new(record)),
                None => None,
            };
            if !guard.holds(current.as_deref()) {
                let key = guard.key.clone();
                return Attempt::Refused(CommitError::Conflict { key, current });
            }
        }
        Attempt::Fenced(answer.read(guards.len()).map_or(0, |fence| fence.mod_revision))
    }

    /// What each write left behind: the very records of the map.
    fn records(&self, at: Revision, writes: Vec<Write<N>>) -> Vec<Option<Arc<Record<N>>>> {
        let changes = self.hub.changes(at);
        let record = |write: Write<N>| {
            let Write::Put { key, value, note } = write else { return None };
            let event = changes.iter().find(|event| event.key == key);
            event.and_then(|event| event.current.clone()).or_else(|| {
                // So much was written since that the change is forgotten.
                Some(Arc::new(Record { value, created: at, modified: at, note }))
            })
        };
        writes.into_iter().map(record).collect()
    }
}

fn lost<N>(failure: Failure) -> CommitError<N> {
    CommitError::Io(format!(
        "etcd does not answer ({failure}); whether the write took place is not known"
    ))
}
