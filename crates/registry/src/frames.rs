//! Watch events as bytes, made once and shared by all who watch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use meta::{Revision, Status};
use parking_lot::Mutex;
use store::{Key, Record};

use crate::header::Header;
use crate::object::Object;
use crate::outcome::{EventType, WatchEvent};
use crate::row::Row;

/// Frames kept for watchers that have not come to them yet.
const MOST_FRAMES: usize = 512;
const MOST_BYTES: usize = 1 << 20;

/// Which event of which object in which version. The row is told apart by its address: rows live
/// as long as the frames.
type Id = (Revision, Key, EventType, usize);

/// The frames of recent events.
#[derive(Default)]
pub(crate) struct Frames {
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    frames: HashMap<Id, WatchEvent>,
    order: VecDeque<Id>,
    bytes: usize,
}

impl Frames {
    /// The frame of an event; `revision` is that of the event, which for a deletion is not the
    /// record's.
    pub(crate) fn frame(
        &self,
        row: &Arc<Row>,
        event_type: EventType,
        key: &Key,
        record: &Arc<Record<Header>>,
        revision: Revision,
    ) -> WatchEvent {
        let id = (revision, key.clone(), event_type, Arc::as_ptr(row).addr());
        if let Some(frame) = self.recent.lock().frames.get(&id) {
            return frame.clone();
        }
        let object = Object::new(row, key.clone(), record.clone());
        let event = frame(event_type, |out| object.write_json(row, revision, out));
        self.recent.lock().keep(id, event)
    }
}

impl Recent {
    /// Keeps an event; where another watcher was first, that one's is used, so that all share its forms.
    fn keep(&mut self, id: Id, event: WatchEvent) -> WatchEvent {
        if let Some(first) = self.frames.get(&id) {
            return first.clone();
        }
        self.bytes += event.frame.len();
        self.frames.insert(id.clone(), event.clone());
        self.order.push_back(id);
        while self.order.len() > MOST_FRAMES || self.bytes > MOST_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(event) = self.frames.remove(&oldest) {
                self.bytes -= event.frame.len();
            }
        }
        event
    }
}

/// A frame around an object that `write` appends.
pub(crate) fn frame(event_type: EventType, write: impl FnOnce(&mut Vec<u8>)) -> WatchEvent {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(event_type.as_str().as_bytes());
    out.extend_from_slice(br#"","object":"#);
    let start = out.len();
    write(&mut out);
    let end = out.len();
    out.extend_from_slice(b"}\n");
    let frame = Bytes::from(out);
    WatchEvent { event_type, object: frame.slice(start..end), frame, forms: Arc::default() }
}

/// The event that ends a watch with an error.
pub(crate) fn error(status: &Status) -> WatchEvent {
    frame(EventType::Error, |out| out.extend_from_slice(&status.to_json()))
}
