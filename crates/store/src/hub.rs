//! Publication: the current snapshot, the ring of recent events and everybody
//! who watches. One lock makes the three agree; readers of the current snapshot
//! do not take it. Refuses to know how changes became durable.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch as latest};

use crate::{
    Event, ReadError, Revision, Snapshot, Watch, WatchError, ring::Ring, snapshot::Map,
    watch::Gauge,
};

/// Events that may wait in the queue of one watch.
const QUEUE_EVENTS: usize = 8192;
/// Bytes of events that may wait in the queue of one watch.
const QUEUE_BYTES: usize = 16 << 20;
/// Rebuilt snapshots that are kept for the next page of the same list.
const REBUILT: usize = 8;

/// Takes the place of the revision reached when the store closes.
const CLOSED: u64 = u64::MAX;

/// The point where commits become visible.
pub(crate) struct Hub<N> {
    current: ArcSwap<Snapshot<N>>,
    state: Arc<Mutex<State<N>>>,
    dispatched: Arc<AtomicU64>,
    reached: latest::Sender<u64>,
}

struct State<N> {
    ring: Ring<N>,
    rebuilt: VecDeque<Snapshot<N>>,
    groups: BTreeMap<Box<[u8]>, Group<N>>,
    next_watcher: u64,
    watchers: usize,
    closed: bool,
}

type Group<N> = HashMap<u64, Watcher<N>>;

struct Watcher<N> {
    queue: mpsc::Sender<Arc<Event<N>>>,
    gauge: Arc<Gauge>,
}

/// Takes a watcher out of the hub when its consumer goes.
struct Registration<N> {
    state: Weak<Mutex<State<N>>>,
    prefix: Box<[u8]>,
    id: u64,
}

impl<N> Drop for Registration<N> {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            state.lock().remove(&self.prefix, self.id);
        }
    }
}

impl<N: Send + Sync + 'static> Hub<N> {
    pub(crate) fn new(snapshot: Snapshot<N>, ring: Ring<N>) -> Self {
        let revision = snapshot.revision().0;
        Self {
            current: ArcSwap::from_pointee(snapshot),
            state: Arc::new(Mutex::new(State {
                ring,
                rebuilt: VecDeque::new(),
                groups: BTreeMap::new(),
                next_watcher: 0,
                watchers: 0,
                closed: false,
            })),
            dispatched: Arc::new(AtomicU64::new(revision)),
            reached: latest::Sender::new(revision),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot<N> {
        Snapshot::clone(&self.current.load())
    }

    /// Makes `snapshot` the current one and hands out the events that led to
    /// it. `now` is in milliseconds since the epoch.
    pub(crate) fn publish(&self, snapshot: Snapshot<N>, events: Vec<Arc<Event<N>>>, now: u64) {
        let revision = snapshot.revision().0;
        {
            let mut state = self.state.lock();
            self.current.store(Arc::new(snapshot));
            for event in events {
                state.dispatch(&event);
                state.ring.push(event, now);
            }
            state.ring.trim(now);
            let floor = state.ring.floor();
            state.rebuilt.retain(|snapshot| snapshot.revision() >= floor);
            self.dispatched.store(revision, Ordering::Release);
        }
        self.reached.send_replace(revision);
    }

    pub(crate) fn at(&self, revision: Revision) -> Result<Snapshot<N>, ReadError> {
        let (current, after) = {
            let state = self.state.lock();
            let current = self.snapshot();
            if revision == current.revision() {
                return Ok(current);
            }
            if revision > current.revision() {
                return Err(ReadError::Future { revision, current: current.revision() });
            }
            if !state.ring.covers(revision) {
                return Err(ReadError::Compacted { revision, oldest: state.ring.floor() });
            }
            if let Some(known) = state.rebuilt.iter().find(|s| s.revision() == revision) {
                return Ok(known.clone());
            }
            (current, state.ring.after(revision))
        };
        let mut map: Map<N> = current.map().clone();
        for event in after.iter().rev() {
            match &event.previous {
                Some(previous) => map.insert(event.key.clone(), Arc::clone(previous)),
                None => map.remove(event.key.as_str()),
            };
        }
        let snapshot = Snapshot::new(map, revision);
        let mut state = self.state.lock();
        if state.rebuilt.len() >= REBUILT {
            state.rebuilt.pop_front();
        }
        if state.ring.covers(revision) {
            state.rebuilt.push_back(snapshot.clone());
        }
        Ok(snapshot)
    }

    pub(crate) fn watch(&self, prefix: &str, from: Revision) -> Result<Watch<N>, WatchError> {
        let gauge = Arc::new(Gauge::default());
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        let (registration, after) = {
            let mut state = self.state.lock();
            let current = self.snapshot().revision();
            if state.closed {
                return Err(WatchError::Closed);
            }
            if from > current {
                return Err(WatchError::Future { revision: from, current });
            }
            if !state.ring.covers(from) {
                let oldest = state.ring.floor();
                return Err(WatchError::Compacted { revision: from, oldest });
            }
            let id = state.add(prefix, Watcher { queue: sender, gauge: Arc::clone(&gauge) });
            let registration = Registration {
                state: Arc::downgrade(&self.state),
                prefix: prefix.as_bytes().into(),
                id,
            };
            (registration, (from < current).then(|| state.ring.after(from)))
        };
        let backlog = after.map_or_else(VecDeque::new, |after| {
            after.iter().filter(|event| event.key.starts_with(prefix)).cloned().collect()
        });
        Ok(Watch::new(
            from,
            backlog,
            receiver,
            gauge,
            Arc::clone(&self.dispatched),
            Box::new(registration),
        ))
    }

    /// Lets everything up to `revision` be forgotten.
    pub(crate) fn compact(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.ring.compact(revision);
        let floor = state.ring.floor();
        state.rebuilt.retain(|snapshot| snapshot.revision() >= floor);
    }

    /// Waits until `revision` is reached. Holds nothing that keeps the store
    /// open.
    pub(crate) async fn at_least(
        self: Arc<Self>,
        revision: Revision,
    ) -> Result<Snapshot<N>, ReadError> {
        let mut reached = self.reached.subscribe();
        let now =
            *reached.wait_for(|now| *now >= revision.0).await.map_err(|_| ReadError::Closed)?;
        if now == CLOSED && self.snapshot().revision() < revision {
            return Err(ReadError::Closed);
        }
        Ok(self.snapshot())
    }

    /// Events after `revision` that are still known.
    pub(crate) fn events_after(&self, revision: u64) -> Vec<Arc<Event<N>>> {
        let after = self.state.lock().ring.after(Revision(revision));
        after.iter().cloned().collect()
    }

    /// What the commit of exactly this revision changed, if that is still known.
    pub(crate) fn changes(&self, revision: Revision) -> Vec<Arc<Event<N>>> {
        let before = Revision(revision.0.saturating_sub(1));
        let after = self.state.lock().ring.after(before);
        after.iter().take_while(|event| event.revision == revision).cloned().collect()
    }

    /// Makes `snapshot` the current one without knowing what led to it: watches
    /// end, and nothing before it can be read or watched from.
    pub(crate) fn replace(&self, snapshot: Snapshot<N>) {
        let revision = snapshot.revision();
        {
            let mut state = self.state.lock();
            self.current.store(Arc::new(snapshot));
            state.ring.compact(revision);
            state.rebuilt.clear();
            for watcher in state.groups.values().flat_map(HashMap::values) {
                watcher.gauge.lagged.store(true, Ordering::Release);
            }
            state.groups.clear();
            state.watchers = 0;
            self.dispatched.store(revision.0, Ordering::Release);
        }
        self.reached.send_replace(revision.0);
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.groups.clear();
        state.watchers = 0;
        drop(state);
        self.reached.send_replace(CLOSED);
    }

    /// Watches open, bytes held by old events, and the oldest revision that can
    /// be read.
    pub(crate) fn load(&self) -> (usize, usize, Revision) {
        let state = self.state.lock();
        (state.watchers, state.ring.bytes(), state.ring.floor())
    }
}

impl<N> State<N> {
    fn add(&mut self, prefix: &str, watcher: Watcher<N>) -> u64 {
        let id = self.next_watcher;
        self.next_watcher += 1;
        self.groups.entry(prefix.as_bytes().into()).or_default().insert(id, watcher);
        self.watchers += 1;
        id
    }

    fn remove(&mut self, prefix: &[u8], id: u64) {
        let Some(group) = self.groups.get_mut(prefix) else { return };
        if group.remove(&id).is_some() {
            self.watchers -= 1;
        }
        if group.is_empty() {
            self.groups.remove(prefix);
        }
    }

    /// Queues an event for every watcher of a prefix of its key. Walks only the
    /// prefixes that match, and one more for each that does not.
    fn dispatch(&mut self, event: &Arc<Event<N>>) {
        let key = event.key.as_bytes();
        let mut bound = key;
        let mut gone = 0;
        loop {
            let up_to = (Bound::Unbounded, Bound::Included(bound));
            let Some((prefix, group)) = self.groups.range_mut::<[u8], _>(up_to).next_back() else {
                break;
            };
            if key.starts_with(prefix) {
                let before = group.len();
                group.retain(|_, watcher| watcher.offer(event));
                gone += before - group.len();
                match prefix.len() {
                    0 => break,
                    length => bound = &key[..length - 1],
                }
            } else {
                let common = prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
                bound = &key[..common];
            }
        }
        if gone > 0 {
            self.watchers -= gone;
            self.groups.retain(|_, group| !group.is_empty());
        }
    }
}

impl<N> Watcher<N> {
    /// Queues the event, or says that the watcher is to be dropped.
    fn offer(&self, event: &Arc<Event<N>>) -> bool {
        let weight = event.weight();
        let queued = self.gauge.bytes.fetch_add(weight, Ordering::Relaxed);
        let fits = queued == 0 || queued + weight <= QUEUE_BYTES;
        if fits && self.queue.try_send(Arc::clone(event)).is_ok() {
            return true;
        }
        self.gauge.lagged.store(true, Ordering::Release);
        false
    }
}
