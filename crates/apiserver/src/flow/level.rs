//! A priority level at work: its seats, who sits on them, and who waits for one.
//!
//! While nobody waits, taking and leaving a seat is one atomic step each. Refuses to know how many seats a level
//! should have and which requests come to it.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    counts::{Counts, Reason},
    debug::About,
    limits::Demand,
    queues::{self, Queues, Shape, Spot},
};

/// Who waits, and how it is told that its turn has come.
pub(super) struct Waiter {
    wake: oneshot::Sender<()>,
    pub(super) about: About,
}

pub(super) type Queue = queues::Queue<Waiter>;

/// The seats of a request: while it runs, and what is kept of them for so long afterwards, while others are busy
/// with what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seats {
    pub(super) during: u32,
    pub(super) kept: u32,
    pub(super) after: Duration,
}

impl Seats {
    pub(super) fn during(during: u32) -> Self {
        Self { during, kept: 0, after: Duration::ZERO }
    }
}

/// What is to be done with requests of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They never wait.
    Exempt,
    /// Those that find no seat are refused.
    Reject,
    /// Those that find no seat wait.
    Queue(Shape),
}

/// A level.
pub(super) struct Level {
    kind: Kind,
    /// Seats there are now.
    limit: AtomicU32,
    /// Seats that are taken; more than there are after the limit was lowered.
    used: AtomicU32,
    /// Requests that wait.
    waiting: AtomicU32,
    queues: Option<Mutex<Queues<Waiter>>>,
    /// The most seats that were wanted at once since [`Level::demand`] was asked last.
    peak: AtomicU32,
    /// Seats × nanoseconds of all that has run.
    work: AtomicU64,
    /// What of that [`Level::demand`] has told.
    told: AtomicU64,
}

impl Level {
    pub(super) fn new(kind: Kind, limit: u32) -> Self {
        let queues = match kind {
            Kind::Queue(shape) => Some(Mutex::new(Queues::new(shape))),
            Kind::Exempt | Kind::Reject => None,
        };
        Self {
            kind,
            limit: limit.into(),
            used: 0.into(),
            waiting: 0.into(),
            queues,
            peak: 0.into(),
            work: 0.into(),
            told: 0.into(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Seats there are, and those that are taken.
    pub(super) fn seats(&self) -> (u32, u32) {
        (self.limit.load(Relaxed), self.used.load(Relaxed))
    }

    /// What `look` makes of the queues; there may be none.
    pub(super) fn inspect<R>(&self, look: impl FnOnce(&[Queue]) -> R) -> R {
        match &self.queues {
            Some(queues) => look(queues.lock().all()),
            None => look(&[]),
        }
    }

    /// Changes the number of seats; those who wait may have their turn now.
    pub(super) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, SeqCst);
        self.wake();
    }

    /// What was wanted of the level during the last `period`.
    pub(super) fn demand(&self, period: Duration) -> Demand {
        let work = self.work.load(Relaxed);
        let done = work - self.told.swap(work, Relaxed);
        let peak = self.peak.swap(self.used.load(Relaxed), Relaxed);
        // What takes long and is not done yet counts by the seats it holds.
        let average = Duration::from_nanos(done).as_secs_f64() / period.as_secs_f64().max(0.001);
        Demand {
            peak,
            average: average.max(f64::from(self.used.load(Relaxed)).min(f64::from(peak))),
        }
    }

    /// Takes seats if there are enough. A request that is wider than the level may have it alone.
    fn take(&self, seats: u32) -> bool {
        let exempt = self.kind == Kind::Exempt;
        let limit = self.limit.load(SeqCst);
        let taken = self.used.fetch_update(SeqCst, Relaxed, |used| {
            let fits = exempt || used.saturating_add(seats) <= limit || (used == 0 && limit > 0);
            fits.then_some(used.saturating_add(seats))
        });
        if let Ok(used) = taken {
            self.note(used.saturating_add(seats));
        }
        taken.is_ok()
    }

    fn note(&self, wanted: u32) {
        if wanted > self.peak.load(Relaxed) {
            self.peak.fetch_max(wanted, Relaxed);
        }
    }

    fn give_back(&self, seats: u32, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.work.fetch_add(nanos.saturating_mul(seats.into()), Relaxed);
        self.used.fetch_sub(seats, SeqCst);
        self.wake();
    }

    /// Serves those who wait as far as there are seats.
    fn wake(&self) {
        // Whoever begins to wait says so before looking for a seat once more; whoever leaves one looks here after
        // leaving it. One of the two sees the other.
        if self.waiting.load(SeqCst) > 0
            && let Some(queues) = &self.queues
        {
            self.serve(&mut queues.lock());
        }
    }

    fn serve(&self, queues: &mut Queues<Waiter>) {
        while let Some(waiter) = queues.serve(|seats| self.take(seats)) {
            // Cannot fail: who gives up waiting takes itself out of the queue first.
            let _ = waiter.wake.send(());
        }
        self.waiting.store(u32::try_from(queues.len()).unwrap_or(u32::MAX), SeqCst);
    }
}

/// Seats at once, if nobody waits for some.
pub(super) fn try_enter(level: &Arc<Level>, counts: &Arc<Counts>, seats: Seats) -> Option<Place> {
    let free = level.kind == Kind::Exempt || level.waiting.load(SeqCst) == 0;
    if !free || !level.take(seats.during) {
        return None;
    }
    Some(Place::new(level, counts, seats, None))
}

/// Waits for seats at most so long.
pub(super) async fn wait(
    level: &Arc<Level>,
    counts: &Arc<Counts>,
    (flow, about): (u64, About),
    seats: Seats,
    limit: Duration,
) -> Result<Place, Reason> {
    let began = Instant::now();
    let Some(mut turn) = Turn::take(level, counts, (flow, about), seats) else {
        return Err(if level.queues.is_some() {
            Reason::QueueFull
        } else {
            Reason::ConcurrencyLimit
        });
    };
    let served = tokio::time::timeout(limit, &mut turn.served).await;
    match served {
        Ok(Ok(())) => {
            counts.wait(began.elapsed(), true);
            Ok(turn.sit())
        }
        // Its drop takes it out of the queue, or gives back the seats that came too late.
        _ => {
            counts.wait(began.elapsed(), false);
            turn.told = true;
            Err(Reason::TimeOut)
        }
    }
}

/// A request that waits. Wherever its future ends, it leaves neither an entry nor seats behind.
struct Turn {
    level: Arc<Level>,
    counts: Arc<Counts>,
    seats: Seats,
    spot: Spot,
    served: oneshot::Receiver<()>,
    seated: bool,
    /// Whether it is told that its time is over, rather than going away by itself.
    told: bool,
}

impl Turn {
    fn take(
        level: &Arc<Level>,
        counts: &Arc<Counts>,
        (flow, about): (u64, About),
        seats: Seats,
    ) -> Option<Self> {
        let (wake, served) = oneshot::channel();
        let mut queues = level.queues.as_ref()?.lock();
        let spot = queues.enqueue(flow, seats.during, Waiter { wake, about })?;
        level.waiting.store(u32::try_from(queues.len()).unwrap_or(u32::MAX), SeqCst);
        let wanted = queues.seats() + u64::from(level.used.load(Relaxed));
        level.note(u32::try_from(wanted).unwrap_or(u32::MAX));
        level.serve(&mut queues);
        counts.waiting(seats.during, true);
        Some(Self {
            level: level.clone(),
            counts: counts.clone(),
            seats,
            spot,
            served,
            seated: false,
            told: false,
        })
    }

    fn sit(mut self) -> Place {
        self.seated = true;
        Place::new(&self.level, &self.counts, self.seats, Some(self.spot.queue))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let seats = self.seats.during;
        self.counts.waiting(seats, false);
        if self.seated {
            return;
        }
        if !self.told {
            self.counts.reject(Reason::Cancelled);
        }
        let Some(queues) = &self.level.queues else { return };
        let mut queues = queues.lock();
        if !queues.remove(self.spot) {
            queues.ran(self.spot.queue, seats, Duration::ZERO);
            self.level.used.fetch_sub(seats, SeqCst);
        }
        // One that was too wide may have held up the others.
        self.level.serve(&mut queues);
    }
}

/// Seats that a request sits on; given back when dropped.
pub(crate) struct Place {
    level: Arc<Level>,
    counts: Arc<Counts>,
    seats: Seats,
    /// The queue it came from, if it had to wait.
    queue: Option<usize>,
    since: Instant,
}

impl Place {
    fn new(level: &Arc<Level>, counts: &Arc<Counts>, seats: Seats, queue: Option<usize>) -> Self {
        counts.begin(seats.during);
        let (level, counts) = (level.clone(), counts.clone());
        Self { level, counts, seats, queue, since: Instant::now() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (took, Seats { during, kept, after }) = (self.since.elapsed(), self.seats);
        self.counts.end(during, took);
        if let (Some(at), Some(queues)) = (self.queue, &self.level.queues) {
            queues.lock().ran(at, during, took);
        }
        let kept = kept.min(during);
        if kept > 0
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let level = self.level.clone();
            runtime.spawn(async move {
                tokio::time::sleep(after).await;
                level.give_back(kept, took + after);
            });
            self.level.give_back(during - kept, took);
        } else {
            self.level.give_back(during, took);
        }
    }
}

#[cfg(test)]
mod tests;
