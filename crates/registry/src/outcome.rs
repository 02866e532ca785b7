//! What the engine answers: finished JSON, ready to be sent or to be encoded otherwise.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::Stream;
use meta::{Revision, Status};
use store::Key;

use crate::object::{self, Object};
use crate::row::Row;

/// The answer to a request that succeeded.
pub enum Outcome {
    /// One object: `kind`, `apiVersion` and `metadata.resourceVersion` are in the bytes.
    Object {
        /// HTTP's number: 200, 201 (created) or 202 (deletion accepted).
        code: u16,
        /// The object as JSON.
        bytes: Bytes,
        /// Which stored object in which version it is, if it is one.
        identity: Option<Identity>,
        /// Texts for `Warning` headers.
        warnings: Vec<String>,
    },
    /// A collection.
    List(List),
    /// A running watch; dropping it ends it.
    Watch(WatchStream),
    /// A `Status` of success, as most deletions answer, as JSON.
    Status {
        /// HTTP's number.
        code: u16,
        /// The status object as JSON.
        bytes: Bytes,
        /// Texts for `Warning` headers.
        warnings: Vec<String>,
    },
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Object { code, bytes, .. } | Self::Status { code, bytes, .. } => {
                write!(f, "{code} {}", String::from_utf8_lossy(bytes))
            }
            Self::List(list) => write!(f, "list of {} at {}", list.items.len(), list.revision),
            Self::Watch(_) => f.write_str("watch"),
        }
    }
}

/// A stored object in one of its versions: what is made of its bytes may be kept under it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Where it is kept.
    pub key: Key,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// A consistent read of a collection.
pub struct List {
    /// The row that was listed: gives the list's kind and version.
    pub row: Arc<Row>,
    /// The revision of the snapshot, `metadata.resourceVersion`.
    pub revision: Revision,
    /// Token for the next page; empty at the end.
    pub continue_token: String,
    /// How many objects follow this page, where that is known.
    pub remaining: Option<u64>,
    /// The objects, ordered by namespace and name.
    pub items: Vec<Object>,
}

impl List {
    /// The list as JSON in pieces of about 64 KiB, so that a big list need not be held twice.
    pub fn chunks(self) -> impl Iterator<Item = Bytes> + Send {
        object::list_chunks(self)
    }

    /// The whole list as JSON.
    pub fn to_json(self) -> Bytes {
        let mut chunks = self.chunks();
        let first = chunks.next().unwrap_or_default();
        match chunks.next() {
            None => first,
            Some(second) => {
                let mut all = Vec::from(first);
                all.extend_from_slice(&second);
                chunks.for_each(|c| all.extend_from_slice(&c));
                all.into()
            }
        }
    }
}

/// What happened to an object, from the point of view of the watch's selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// It came to be, or came to match.
    Added,
    /// It changed.
    Modified,
    /// It went, or ceased to match.
    Deleted,
    /// Nothing happened up to the revision the object carries.
    Bookmark,
    /// The watch failed; the object is a `Status` and the stream ends.
    Error,
}

impl EventType {
    /// As the `type` field spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One event of a watch. Cheap to clone: the bytes are shared by all watchers.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub event_type: EventType,
    /// The whole JSON frame, `{"type":"ADDED","object":{…}}` and a newline.
    pub frame: Bytes,
    /// The object alone: a part of `frame`.
    pub object: Bytes,
    /// What others make of the event.
    pub(crate) forms: Arc<[OnceLock<Bytes>; FORMS]>,
}

/// How many other forms an event may have.
const FORMS: usize = 5;

impl WatchEvent {
    /// The event in one of its other forms, which are numbered from 0 to 4: made once, shared by all watchers.
    pub fn form(&self, number: usize, make: impl FnOnce() -> Bytes) -> Bytes {
        match self.forms.get(number) {
            Some(form) => form.get_or_init(make).clone(),
            None => make(),
        }
    }
}

/// Events of a watch, in order of revision.
pub type WatchStream = Pin<Box<dyn Stream<Item = WatchEvent> + Send>>;

/// The engine's result.
pub type Answer = Result<Outcome, Status>;
