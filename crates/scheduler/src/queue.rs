//! Whose turn it is. Pods wait in one of four places: ready to be tried, in back-off after a
//! failed attempt, parked until something changes that may help, or held back by a gate.
//! Pure: callers bring the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::options::SchedulerOptions;
use crate::plugin::{Order, Plugin, PluginSet};
use crate::pod::{PodInfo, PodKey};

/// A pod whose turn it is.
#[derive(Debug)]
pub struct Attempt {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The how-manieth attempt this is, from 1.
    pub number: u32,
    /// Reason and message last reported.
    pub reported: Option<(String, String)>,
}

enum Place<K> {
    Active((K, u64)),
    Backoff((Instant, u64)),
    Parked((Instant, u64)),
    Held,
}

struct Waiting<K> {
    pod: Arc<PodInfo>,
    attempts: u32,
    reported: Option<(String, String)>,
    /// When its place in the order dates from.
    since: Instant,
    /// When its back-off ends.
    backoff_ends: Instant,
    /// Plugins that were against it at the last attempt.
    against: PluginSet,
    place: Place<K>,
}

/// Pods that have no node yet.
pub struct Queue<O: Order> {
    plugins: &'static [Plugin],
    initial_backoff: Duration,
    max_backoff: Duration,
    flush_after: Duration,
    serial: u64,
    pods: HashMap<PodKey, Waiting<O::Key>>,
    active: BTreeMap<(O::Key, u64), PodKey>,
    /// By the end of their back-off.
    backoff: BTreeMap<(Instant, u64), PodKey>,
    /// By when they are tried again although nothing happened.
    parked: BTreeMap<(Instant, u64), PodKey>,
}

/// How many pods wait where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Ready to be tried.
    pub active: usize,
    /// Waiting for time to pass.
    pub backoff: usize,
    /// Waiting for something to change.
    pub parked: usize,
    /// Held back by a gate.
    pub held: usize,
}

impl<O: Order> Queue<O> {
    /// An empty queue; `plugins` say what wakes pods.
    #[must_use]
    pub fn new(plugins: &'static [Plugin], options: &SchedulerOptions) -> Self {
        Self {
            plugins,
            initial_backoff: options.initial_backoff,
            max_backoff: options.max_backoff,
            flush_after: options.flush_after,
            serial: 0,
            pods: HashMap::new(),
            active: BTreeMap::new(),
            backoff: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    /// Takes in a pod without a node, new or changed. `held`: by which gate.
    pub fn set(&mut self, pod: Arc<PodInfo>, held: Option<PluginSet>, now: Instant) {
        let Some(mut waiting) = self.take(&pod.key) else {
            self.insert(
                Waiting {
                    pod,
                    attempts: 0,
                    reported: None,
                    since: now,
                    backoff_ends: now,
                    against: held.unwrap_or_default(),
                    place: Place::Held,
                },
                held.is_some(),
            );
            return;
        };
        let changed = waiting.pod.wants != pod.wants;
        let was_held = matches!(waiting.place, Place::Held);
        waiting.pod = pod;
        if let Some(gate) = held {
            waiting.against = gate;
            self.insert(waiting, true);
        } else if was_held {
            waiting.since = now;
            self.insert(waiting, false);
        } else if !changed || !self.helped(&waiting) {
            self.put_back(waiting);
        } else if now < waiting.backoff_ends {
            self.back_off(waiting);
        } else {
            self.insert(waiting, false);
        }
    }

    /// Whether a change of the pod itself is a reason to try it again.
    fn helped(&self, waiting: &Waiting<O::Key>) -> bool {
        !matches!(waiting.place, Place::Parked(_))
            || waiting.against.woken(self.plugins, &waiting.pod, &Event::PodChanged)
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &PodKey) {
        self.take(key);
    }

    /// The uid of the pod of that key, if it waits.
    #[must_use]
    pub fn uid(&self, key: &PodKey) -> Option<&str> {
        self.pods.get(key).map(|waiting| &*waiting.pod.uid)
    }

    /// The pod whose turn it is. Once taken it is the caller's: to bind, or to
    /// [`Queue::park`] or [`Queue::retry`].
    pub fn pop(&mut self) -> Option<Attempt> {
        let (_, key) = self.active.first_key_value()?;
        let key = key.clone();
        let waiting = self.take(&key)?;
        Some(Attempt { pod: waiting.pod, number: waiting.attempts + 1, reported: waiting.reported })
    }

    /// Takes back a pod that has no place now, until something changes for `against`.
    pub fn park(&mut self, attempt: Attempt, against: PluginSet, now: Instant) {
        let mut waiting = self.returned(attempt, now);
        waiting.against = against;
        self.serial += 1;
        waiting.place = Place::Parked((now + self.flush_after, self.serial));
        self.put_back(waiting);
    }

    /// Takes back a pod whose attempt failed for reasons that lie outside of it.
    pub fn retry(&mut self, attempt: Attempt, now: Instant) {
        let waiting = self.returned(attempt, now);
        self.back_off(waiting);
    }

    /// Something happened: pods that it may help are tried again, after their back-off.
    pub fn wake(&mut self, event: &Event<'_>, now: Instant) {
        let woken: Vec<PodKey> = self
            .parked
            .values()
            .filter(|key| {
                self.pods
                    .get(*key)
                    .is_some_and(|one| one.against.woken(self.plugins, &one.pod, event))
            })
            .cloned()
            .collect();
        for key in woken {
            self.unpark(&key, now);
        }
    }

    /// Moves pods whose time has come.
    pub fn advance(&mut self, now: Instant) {
        while let Some(entry) = self.backoff.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.get().clone();
            if let Some(waiting) = self.take(&key) {
                self.insert(waiting, false);
            }
        }
        while let Some(entry) = self.parked.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.get().clone();
            self.unpark(&key, now);
        }
    }

    /// When [`Queue::advance`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = |list: &BTreeMap<(Instant, u64), PodKey>| {
            list.first_key_value().map(|((time, _), _)| *time)
        };
        first(&self.backoff).into_iter().chain(first(&self.parked)).min()
    }

    /// Whether a pod is ready to be tried.
    #[must_use]
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// How many pods wait where.
    #[must_use]
    pub fn lengths(&self) -> Lengths {
        let (active, backoff, parked) = (self.active.len(), self.backoff.len(), self.parked.len());
        Lengths { active, backoff, parked, held: self.pods.len() - active - backoff - parked }
    }

    fn returned(&self, attempt: Attempt, now: Instant) -> Waiting<O::Key> {
        Waiting {
            pod: attempt.pod,
            attempts: attempt.number,
            reported: attempt.reported,
            since: now,
            backoff_ends: now + self.backoff_after(attempt.number),
            against: PluginSet::default(),
            place: Place::Held,
        }
    }

    fn backoff_after(&self, attempts: u32) -> Duration {
        let doubled = self.initial_backoff.checked_mul(1 << (attempts.max(1) - 1).min(16));
        doubled.unwrap_or(self.max_backoff).min(self.max_backoff)
    }

    fn unpark(&mut self, key: &PodKey, now: Instant) {
        let Some(waiting) = self.take(key) else { return };
        if now < waiting.backoff_ends {
            self.back_off(waiting);
        } else {
            self.insert(waiting, false);
        }
    }

    fn back_off(&mut self, mut waiting: Waiting<O::Key>) {
        self.serial += 1;
        waiting.place = Place::Backoff((waiting.backoff_ends, self.serial));
        self.put_back(waiting);
    }

    /// To those held, or to those ready.
    fn insert(&mut self, mut waiting: Waiting<O::Key>, held: bool) {
        self.serial += 1;
        waiting.place = if held {
            Place::Held
        } else {
            Place::Active((O::key(&waiting.pod, waiting.since), self.serial))
        };
        self.put_back(waiting);
    }

    /// To where `place` says.
    fn put_back(&mut self, waiting: Waiting<O::Key>) {
        let key = waiting.pod.key.clone();
        match &waiting.place {
            Place::Active(at) => drop(self.active.insert(at.clone(), key.clone())),
            Place::Backoff(at) => drop(self.backoff.insert(*at, key.clone())),
            Place::Parked(at) => drop(self.parked.insert(*at, key.clone())),
            Place::Held => {}
        }
        self.pods.insert(key, waiting);
    }

    fn take(&mut self, key: &PodKey) -> Option<Waiting<O::Key>> {
        let waiting = self.pods.remove(key)?;
        match &waiting.place {
            Place::Active(at) => drop(self.active.remove(at)),
            Place::Backoff(at) => drop(self.backoff.remove(at)),
            Place::Parked(at) => drop(self.parked.remove(at)),
            Place::Held => {}
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests;
