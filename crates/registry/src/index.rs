//! Pods by node: so that a kubelet's list and watch never look at other nodes' pods.
//!
//! Owns one watch of all pods, an index from node to keys, and the dispatch of events to the
//! watchers of a node. Refuses to know what watchers make of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meta::Revision;
use parking_lot::Mutex;
use store::{Event, Key, Record, Snapshot, WatchError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::header::Header;
use crate::read::Candidates;
use crate::registry::Registry;

/// The prefix of all pods' keys.
pub(crate) const PODS: &str = "/registry/pods/";

/// A watcher of a node that is this many events behind is cut off.
const QUEUE: usize = 1024;

type Keys = imbl::OrdSet<Key>;
type Sender = mpsc::Sender<Arc<Event<Header>>>;

/// See the module.
#[derive(Default)]
pub(crate) struct PodIndex {
    state: Mutex<State>,
    /// Every event up to here was dispatched.
    dispatched: AtomicU64,
}

/// `dispatched` moves at least this often, for bookmarks on quiet nodes.
const TICK: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    /// The index shows every event up to here; `None` while nobody keeps it.
    revision: Option<Revision>,
    nodes: imbl::HashMap<Arc<str>, Keys>,
    watchers: HashMap<Arc<str>, Vec<Sender>>,
}

/// The index as it was at some revision: a pointer.
pub(crate) struct Reading {
    revision: Option<Revision>,
    nodes: imbl::HashMap<Arc<str>, Keys>,
}

/// The events of one node's pods after a revision.
pub(crate) struct Subscription {
    /// Every event up to here was dispatched before the subscription began.
    pub(crate) joined: Revision,
    /// Later events; it closes when the watcher falls behind.
    pub(crate) events: mpsc::Receiver<Arc<Event<Header>>>,
}

impl PodIndex {
    /// The index now.
    pub(crate) fn read(&self) -> Reading {
        let state = self.state.lock();
        Reading { revision: state.revision, nodes: state.nodes.clone() }
    }

    /// The records of a snapshot among which all pods of a node are. The snapshot must be at
    /// least as new as the reading.
    pub(crate) fn candidates(
        &self,
        engine: &Registry,
        index: &Reading,
        snapshot: &Snapshot<Header>,
        node: &str,
    ) -> Candidates {
        let indexed = index.revision.and_then(|revision| {
            // What happened since the index was read adds to it.
            let mut changes = engine.store.watch(PODS, revision).ok()?;
            let mut keys = index.nodes.get(node).cloned().unwrap_or_default();
            while let Ok(Some(event)) = changes.try_next() {
                if nodes_of(engine, &event).any(|n| n == node) {
                    keys.insert(event.key.clone());
                }
            }
            Some(keys)
        });
        match indexed {
            Some(keys) => keys
                .into_iter()
                .filter_map(|key| Some((key.clone(), snapshot.get(&key)?.clone())))
                .collect(),
            None => snapshot.range(PODS).map(|(k, r)| (k.clone(), r.clone())).collect(),
        }
    }

    /// Follows the pods of a node; `None` while nobody keeps the index.
    pub(crate) fn subscribe(&self, node: &str) -> Option<Subscription> {
        let mut state = self.state.lock();
        let joined = state.revision?;
        let (sender, events) = mpsc::channel(QUEUE);
        let watchers = state.watchers.entry(node.into()).or_default();
        watchers.retain(|w| !w.is_closed());
        watchers.push(sender);
        Some(Subscription { joined, events })
    }

    /// The revision up to which every event was dispatched to the watchers of its node.
    pub(crate) fn dispatched(&self) -> Revision {
        Revision(self.dispatched.load(Ordering::Acquire))
    }

    /// Keeps the index until shutdown.
    pub(crate) async fn run(&self, engine: &Registry, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let snapshot = engine.store.snapshot();
            let mut events = match engine.store.watch(PODS, snapshot.revision()) {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(%error, "pods cannot be followed");
                    break;
                }
            };
            self.fill(engine, &snapshot);
            drop(snapshot);
            let mut tick = tokio::time::interval(TICK);
            let ended = loop {
                tokio::select! {
                    () = shutdown.cancelled() => break WatchError::Closed,
                    event = events.next() => match event {
                        Ok(event) => self.apply(engine, &event),
                        Err(error) => break error,
                    },
                    _ = tick.tick() => {
                        self.dispatched.store(events.progress().0, Ordering::Release);
                    }
                }
            };
            *self.state.lock() = State::default();
            if ended == WatchError::Closed {
                break;
            }
        }
    }

    fn fill(&self, engine: &Registry, snapshot: &Snapshot<Header>) {
        let mut nodes: imbl::HashMap<Arc<str>, Keys> = imbl::HashMap::new();
        for (key, record) in snapshot.range(PODS) {
            if let Some(node) = node_of(engine, Some(record)) {
                nodes.entry(node.into()).or_default().insert(key.clone());
            }
        }
        let mut state = self.state.lock();
        *state = State { revision: Some(snapshot.revision()), nodes, watchers: HashMap::new() };
    }

    fn apply(&self, engine: &Registry, event: &Arc<Event<Header>>) {
        let before = node_of(engine, event.previous.as_ref());
        let after = node_of(engine, event.current.as_ref());
        let mut state = self.state.lock();
        if before != after {
            if let Some(node) = before
                && let Some(keys) = state.nodes.get_mut(node)
            {
                keys.remove(&event.key);
                if keys.is_empty() {
                    state.nodes.remove(node);
                }
            }
            if let Some(node) = after {
                state.nodes.entry(node.into()).or_default().insert(event.key.clone());
            }
        }
        let other = before.filter(|b| Some(*b) != after);
        for node in other.into_iter().chain(after) {
            let Some(watchers) = state.watchers.get_mut(node) else { continue };
            watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
            if watchers.is_empty() {
                state.watchers.remove(node);
            }
        }
        state.revision = Some(event.revision);
    }
}

/// The nodes that an event is about.
fn nodes_of<'a>(
    engine: &Registry,
    event: &'a Event<Header>,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let before = node_of(engine, event.previous.as_ref());
    let after = node_of(engine, event.current.as_ref());
    before.into_iter().chain(after)
}

/// The node a pod is bound to.
fn node_of<'a>(engine: &Registry, pod: Option<&'a Arc<Record<Header>>>) -> Option<&'a str> {
    let node = pod?.note.field(engine.node_field);
    (!node.is_empty()).then_some(node)
}
