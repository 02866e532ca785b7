//! The queue of keys: each waits at most once, is run by one at a time, and is run again if it
//! was added meanwhile.
//!
//! Knows nothing of what a run does. `State` is pure, time being given; `Queue` adds waiting.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use client::ObjectKey;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// First and longest delay after failures of a key.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1000));

#[derive(Default)]
struct State {
    waiting: VecDeque<ObjectKey>,
    /// Keys in `waiting`, or running and to be run again.
    dirty: HashSet<ObjectKey>,
    running: HashSet<ObjectKey>,
    delayed: BTreeSet<(Instant, ObjectKey)>,
    due: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, u32>,
}

impl State {
    fn add(&mut self, key: ObjectKey) {
        if self.dirty.insert(key.clone()) && !self.running.contains(&key) {
            self.waiting.push_back(key);
        }
    }

    /// Adds at `at`, or earlier if already due earlier.
    fn add_at(&mut self, key: ObjectKey, at: Instant) {
        if let Some(known) = self.due.get(&key).copied() {
            if known <= at {
                return;
            }
            self.delayed.remove(&(known, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// The delay before the next attempt at `key`.
    fn failed(&mut self, key: &ObjectKey) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = RETRY.0.saturating_mul(1 << (*failures).min(20)).min(RETRY.1);
        *failures = failures.saturating_add(1);
        delay
    }

    fn take(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some((at, _)) = self.delayed.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let key = self.waiting.pop_front()?;
        self.dirty.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &ObjectKey) {
        self.running.remove(key);
        if self.dirty.contains(key) {
            self.waiting.push_back(key.clone());
        }
    }
}

/// A queue that tasks add to and one loop takes from.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    /// Queues `key` now.
    pub(crate) fn add(&self, key: ObjectKey) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Queues `key` after `delay`.
    pub(crate) fn add_after(&self, key: ObjectKey, delay: Duration) {
        self.state.lock().add_at(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Queues `key` after its back-off.
    pub(crate) fn retry(&self, key: ObjectKey) {
        let mut state = self.state.lock();
        let delay = state.failed(&key);
        state.add_at(key, Instant::now() + delay);
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets the failures of `key`.
    pub(crate) fn succeeded(&self, key: &ObjectKey) {
        self.state.lock().failures.remove(key);
    }

    /// The run of `key` has ended.
    pub(crate) fn done(&self, key: &ObjectKey) {
        self.state.lock().done(key);
        self.changed.notify_one();
    }

    /// Waits for a key to run. Cancel safe. For one caller at a time.
    pub(crate) async fn take(&self) -> ObjectKey {
        loop {
            let due = {
                let mut state = self.state.lock();
                if let Some(key) = state.take(Instant::now()) {
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match due {
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Keys waiting to be run now.
    pub(crate) fn depth(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::cluster(name)
    }

    #[test]
    fn a_key_waits_once_and_runs_alone() {
        let now = Instant::now();
        let mut state = State::default();
        state.add(key("a"));
        state.add(key("a"));
        state.add(key("b"));
        assert_eq!(state.take(now), Some(key("a")));
        state.add(key("a"));
        assert_eq!(state.take(now), Some(key("b")));
        assert_eq!(state.take(now), None, "a is running");
        state.done(&key("a"));
        assert_eq!(state.take(now), Some(key("a")));
        state.done(&key("a"));
        assert_eq!(state.take(now), None);
    }

    #[test]
    fn the_earlier_of_two_delays_counts() {
        let now = Instant::now();
        let mut state = State::default();
        state.add_at(key("a"), now + Duration::from_secs(9));
        state.add_at(key("a"), now + Duration::from_secs(3));
        state.add_at(key("a"), now + Duration::from_secs(6));
        assert_eq!(state.take(now + Duration::from_secs(2)), None);
        assert_eq!(state.take(now + Duration::from_secs(3)), Some(key("a")));
        state.done(&key("a"));
        assert_eq!(state.take(now + Duration::from_secs(99)), None);
    }

    #[test]
    fn failures_back_off_from_5_ms_to_1000_s() {
        let mut state = State::default();
        assert_eq!(state.failed(&key("a")), Duration::from_millis(5));
        assert_eq!(state.failed(&key("a")), Duration::from_millis(10));
        for _ in 0..40 {
            state.failed(&key("a"));
        }
        assert_eq!(state.failed(&key("a")), Duration::from_secs(1000));
        assert_eq!(state.failed(&key("b")), Duration::from_millis(5));
    }

    #[tokio::test]
    async fn taking_waits_for_the_delay() {
        let queue = Queue::default();
        queue.add_after(key("a"), Duration::from_millis(20));
        let began = Instant::now();
        assert_eq!(queue.take().await, key("a"));
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
