//! Where events wait for a file or a webhook, what of a large one is kept, and who waits until it is written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Events that may wait for a sink, and the most bytes of them.
const WAITING: usize = 10_000;
pub(super) const MOST_BYTES: usize = 64 << 20;
/// The longest that a request waits for a sink.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Whether requests wait until their events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They don't; events that come too fast are dropped.
    #[default]
    Batch,
    /// They do.
    Blocking,
    /// They do, and one that cannot be noted before it begins is refused.
    BlockingStrict,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "batch" => Self::Batch,
            "blocking" => Self::Blocking,
            "blocking-strict" => Self::BlockingStrict,
            _ => return Err("it is one of batch, blocking, blocking-strict".into()),
        })
    }
}

/// Sizes in bytes that a sink takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Truncate {
    /// Of one event; larger ones lose what was sent and answered.
    pub max_event: usize,
    /// Of several together.
    pub max_batch: usize,
}

/// How a sink is treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinkOptions {
    /// Whether requests wait for it.
    pub mode: Mode,
    /// What is too large for it.
    pub truncate: Option<Truncate>,
}

/// An event on its way, and who waits for it.
pub(super) struct Noted {
    pub(super) text: Bytes,
    /// The bytes that it holds while it waits.
    _room: OwnedSemaphorePermit,
    written: Option<oneshot::Sender<bool>>,
}

impl Noted {
    /// Says whether it was written.
    pub(super) fn done(self, written: bool) {
        if let Some(waiting) = self.written {
            let _ = waiting.send(written);
        }
    }
}

pub(super) struct Sink {
    pub(super) name: &'static str,
    options: SinkOptions,
    events: mpsc::Sender<Noted>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    pub(super) dropped: AtomicU64,
}

impl Sink {
    pub(super) fn new(name: &'static str, options: SinkOptions) -> (Self, mpsc::Receiver<Noted>) {
        let (events, receiver) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(MOST_BYTES));
        (Self { name, options, events, room, dropped: AtomicU64::new(0) }, receiver)
    }

    /// Puts an event into the queue, if it fits.
    pub(super) fn offer(&self, event: &Map<String, Value>, text: &Bytes) {
        let offered = self.fitting(event, text).and_then(|text| {
            let size = u32::try_from(text.len()).ok()?;
            let room = self.room.clone().try_acquire_many_owned(size).ok()?;
            self.events.try_send(Noted { text, _room: room, written: None }).ok()
        });
        if offered.is_none() {
            self.lose();
        }
    }

    /// As [`Sink::offer`]; where requests wait for the sink, comes back when the event is written. False if that
    /// failed and matters.
    pub(super) async fn deliver(&self, event: &Map<String, Value>, text: &Bytes) -> bool {
        if self.options.mode == Mode::Batch {
            self.offer(event, text);
            return true;
        }
        let written = async {
            let text = self.fitting(event, text)?;
            let size = u32::try_from(text.len()).ok()?;
            let room = self.room.clone().acquire_many_owned(size).await.ok()?;
            let (written, told) = oneshot::channel();
            self.events.send(Noted { text, _room: room, written: Some(written) }).await.ok()?;
            told.await.ok().filter(|written| *written)
        };
        let written = tokio::time::timeout(LONGEST_WAIT, written).await;
        let good = matches!(written, Ok(Some(_)));
        if !good {
            self.lose();
        }
        good || self.options.mode == Mode::Blocking
    }

    /// The text as it is, or without bodies; none if it is too large even so.
    fn fitting(&self, event: &Map<String, Value>, text: &Bytes) -> Option<Bytes> {
        let limit = self.options.truncate.map_or(usize::MAX, |truncate| truncate.max_event);
        if text.len() <= limit {
            return Some(text.clone());
        }
        let bodies = ["requestObject", "responseObject"];
        let kept = event.iter().filter(|(field, _)| !bodies.contains(&field.as_str()));
        let mut event: Map<String, Value> = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
        event.entry("annotations").or_insert_with(|| json!({}))["audit.k8s.io/truncated"] =
            "true".into();
        let text = serde_json::to_vec(&event).ok()?;
        (text.len() <= limit).then(|| text.into())
    }

    fn lose(&self) {
        if self.dropped.fetch_add(1, Relaxed).is_multiple_of(1000) {
            tracing::warn!(sink = self.name, "audit events are lost: too many, or too large");
        }
    }
}
