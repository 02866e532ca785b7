//! The queue before the writer: bounded, eager, and drained in batches.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{CommitError, Committed, Durability, Guard, Revision, SealError, Write};

/// Memory that waiting commits may hold, in KiB: senders wait beyond it.
const QUEUE_KIB: usize = 64 << 10;
/// Commits that one transaction takes at most.
const BATCH_COMMITS: usize = 1024;
/// KiB that one transaction takes at most, unless one commit is larger.
const BATCH_KIB: usize = 8 << 10;

/// A commit that waits, and who waits for it.
pub(super) struct Commit<N> {
    pub(super) guards: Vec<Guard>,
    pub(super) writes: Vec<Write<N>>,
    pub(super) durability: Durability,
    pub(super) reply: oneshot::Sender<Result<Committed<N>, CommitError<N>>>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Something for the writer to do.
pub(super) enum Job<N> {
    Commit(Commit<N>),
    Compact(Revision, oneshot::Sender<Result<(), CommitError<N>>>),
    Rotate(oneshot::Sender<Result<(), SealError>>),
}

/// What [`Queue::take`] found.
pub(super) enum Taken<N> {
    /// Commits that go into one transaction.
    Commits(Vec<Commit<N>>),
    /// One other job.
    Job(Job<N>),
    /// Nothing, and the deadline has passed.
    Deadline,
    /// Nothing, and nothing will come.
    Closed,
}

pub(super) struct Queue<N> {
    state: Mutex<State<N>>,
    wake: Condvar,
    room: Arc<Semaphore>,
}

struct State<N> {
    jobs: VecDeque<Job<N>>,
    closed: bool,
    /// Jobs that must wait before the writer is woken.
    wanted: usize,
}

/// What the writer waits for beyond the first commit. Those who were just
/// answered often come back at once; a transaction that takes them along costs
/// the disk no more than one that does not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    /// Enough jobs to begin at once.
    pub(super) enough: usize,
    /// How long to wait for them.
    pub(super) wait: Duration,
}

impl<N> Queue<N> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false, wanted: 1 }),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
        }
    }

    /// Permits that a commit needs before it may be queued; nothing if it is
    /// larger than the queue.
    pub(super) fn permits(writes: &[Write<N>]) -> Option<u32> {
        let bytes: usize = writes
            .iter()
            .map(|write| match write {
                Write::Put { value, .. } => value.len() + 256,
                Write::Delete { .. } => 256,
            })
            .sum();
        let kib = bytes / 1024 + 1;
        if kib > QUEUE_KIB { None } else { u32::try_from(kib).ok() }
    }

    pub(super) fn room(&self) -> Arc<Semaphore> {
        Arc::clone(&self.room)
    }

    /// Queues a job; gives nothing back if the queue is closed, which drops the
    /// job and with it its reply.
    pub(super) fn push(&self, job: Job<N>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.jobs.push_back(job);
            let wake = state.jobs.len() >= state.wanted;
            drop(state);
            if wake {
                self.wake.notify_one();
            }
        }
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().jobs.len()
    }

    /// Lets the writer finish what is queued, and nothing more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.wake.notify_all();
    }

    /// Drops what is queued.
    pub(super) fn clear(&self) {
        let dropped = std::mem::take(&mut self.state.lock().jobs);
        drop(dropped);
    }

    /// Waits for work, until `deadline` if there is one, and for more of it
    /// with `patience`.
    pub(super) fn take(&self, deadline: Option<Instant>, patience: Patience) -> Taken<N> {
        let mut state = self.state.lock();
        loop {
            match state.jobs.front() {
                Some(Job::Commit(_)) => {
                    self.gather(&mut state, patience);
                    return Taken::Commits(take_commits(&mut state.jobs));
                }
                Some(_) => {
                    if let Some(job) = state.jobs.pop_front() {
                        return Taken::Job(job);
                    }
                }
                None if state.closed => return Taken::Closed,
                None => match deadline {
                    None => self.wake.wait(&mut state),
                    Some(deadline) => {
                        if self.wake.wait_until(&mut state, deadline).timed_out()
                            && state.jobs.is_empty()
                        {
                            return Taken::Deadline;
                        }
                    }
                },
            }
        }
    }

    fn gather(&self, state: &mut MutexGuard<'_, State<N>>, patience: Patience) {
        if patience.wait.is_zero() {
            return;
        }
        let until = Instant::now() + patience.wait;
        state.wanted = patience.enough.min(BATCH_COMMITS);
        while state.jobs.len() < state.wanted
            && !state.closed
            && !self.wake.wait_until(state, until).timed_out()
        {}
        state.wanted = 1;
    }
}

fn take_commits<N>(jobs: &mut VecDeque<Job<N>>) -> Vec<Commit<N>> {
    let mut commits = Vec::new();
    let mut kib = 0;
    while commits.len() < BATCH_COMMITS && kib < BATCH_KIB {
        match jobs.pop_front() {
            Some(Job::Commit(commit)) => {
                kib += commit.permit.num_permits();
                commits.push(commit);
            }
            Some(other) => {
                jobs.push_front(other);
                break;
            }
            None => break,
        }
    }
    commits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(count: usize) -> Queue<()> {
        let queue = Queue::new();
        for _ in 0..count {
            let permit = queue.room().try_acquire_many_owned(1).unwrap();
            let (reply, _) = oneshot::channel();
            let (guards, writes) = (vec![], vec![]);
            let durability = Durability::Durable;
            queue.push(Job::Commit(Commit { guards, writes, durability, reply, permit }));
        }
        queue
    }

    fn taken(queue: &Queue<()>, patience: Patience) -> usize {
        match queue.take(None, patience) {
            Taken::Commits(commits) => commits.len(),
            _ => 0,
        }
    }

    #[test]
    fn takes_all_that_waits_up_to_a_batch_and_in_order_with_other_jobs() {
        let patience = Patience::default();
        let many = queue(BATCH_COMMITS + 5);
        assert_eq!(taken(&many, patience), BATCH_COMMITS);
        let (reply, _) = oneshot::channel();
        many.push(Job::Rotate(reply));
        assert_eq!(taken(&many, patience), 5);
        assert!(matches!(many.take(None, patience), Taken::Job(Job::Rotate(_))));
        let past = Some(Instant::now());
        assert!(matches!(many.take(past, patience), Taken::Deadline));
        many.close();
        assert!(matches!(many.take(None, patience), Taken::Closed));
    }

    #[test]
    fn patience_ends_with_company_or_with_time() {
        let hours = Duration::from_secs(3600);
        let company = queue(3);
        assert_eq!(taken(&company, Patience { enough: 3, wait: hours }), 3);
        let alone = queue(1);
        assert_eq!(taken(&alone, Patience { enough: 3, wait: Duration::from_millis(1) }), 1);
        let closing = queue(1);
        closing.close();
        assert_eq!(taken(&closing, Patience { enough: 3, wait: hours }), 1);
    }
}
