//! A stream of changes to a cache's objects, coalesced per key so that a slow reader costs memory
//! proportional to the objects and not to the changes.
//!
//! Knows nothing of how the cache learns of changes.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;

use crate::{ObjectKey, cache::Shared};

/// How an object changed since this subscription last reported it.
///
/// Changes that happen while the reader is busy are merged: `before` is the state last reported,
/// `after` the newest. An object deleted and created again under the same name may therefore show
/// as one change with different uids; one created and deleted in between does not show at all.
#[derive(Debug)]
pub struct Change<K> {
    /// Which object.
    pub key: ObjectKey,
    /// The object as last reported; `None` when it is new to the reader.
    pub before: Option<Arc<K>>,
    /// The object now; `None` when it is gone.
    pub after: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest state known: `after`, or what was deleted.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// Where a cache leaves changes for one reader.
pub(crate) struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
}

/// An object before and after.
type States<K> = (Option<Arc<K>>, Option<Arc<K>>);

struct Pending<K> {
    order: VecDeque<Arc<ObjectKey>>,
    changes: HashMap<Arc<ObjectKey>, States<K>>,
    waker: Option<Waker>,
    closed: bool,
}

impl<K> Mailbox<K> {
    pub(crate) fn new() -> Self {
        Self {
            pending: Mutex::new(Pending {
                order: VecDeque::new(),
                changes: HashMap::new(),
                waker: None,
                closed: false,
            }),
        }
    }

    /// Records a change, merging it with one not yet read.
    pub(crate) fn put(&self, key: &Arc<ObjectKey>, before: Option<Arc<K>>, after: Option<Arc<K>>) {
        let waker = {
            let mut pending = self.pending.lock();
            let pending = &mut *pending;
            match pending.changes.get_mut(key) {
                Some(change) => {
                    if change.0.is_none() && after.is_none() {
                        pending.changes.remove(key);
                        pending.order.retain(|waiting| waiting != key);
                    } else {
                        change.1 = after;
                    }
                }
                None => {
                    pending.order.push_back(key.clone());
                    pending.changes.insert(key.clone(), (before, after));
                }
            }
            pending.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the stream once what is pending has been read.
    pub(crate) fn close(&self) {
        let waker = {
            let mut pending = self.pending.lock();
            pending.closed = true;
            pending.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Change<K>>> {
        let mut pending = self.pending.lock();
        while let Some(key) = pending.order.pop_front() {
            if let Some((before, after)) = pending.changes.remove(&key) {
                return Poll::Ready(Some(Change { key: (*key).clone(), before, after }));
            }
        }
        if pending.closed {
            return Poll::Ready(None);
        }
        pending.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Changes to a cache, starting with its contents as additions. Ends when the caches shut down.
///
/// Keeps the cache's watch alive. Use [`Subscription::next`] or the [`Stream`] implementation.
pub struct Subscription<K> {
    pub(crate) mailbox: Arc<Mailbox<K>>,
    pub(crate) _cache: Arc<Shared<K>>,
}

impl<K> Subscription<K> {
    /// The next change; `None` once the caches have shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<Change<K>> {
        std::future::poll_fn(|context| self.mailbox.poll(context)).await
    }
}

impl<K> Stream for Subscription<K> {
    type Item = Change<K>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change<K>>> {
        self.mailbox.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;

    fn key(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey::cluster(name))
    }

    fn drain(mailbox: &Mailbox<u32>) -> Vec<(String, Option<u32>, Option<u32>)> {
        let context = Context::from_waker(noop_waker_ref());
        let mut seen = Vec::new();
        while let Poll::Ready(Some(change)) = mailbox.poll(&context) {
            seen.push((change.key.name, change.before.map(|v| *v), change.after.map(|v| *v)));
        }
        seen
    }

    #[test]
    fn changes_of_one_key_merge_and_keep_their_place() {
        let mailbox = Mailbox::new();
        mailbox.put(&key("a"), Some(Arc::new(1)), Some(Arc::new(2)));
        mailbox.put(&key("b"), None, Some(Arc::new(1)));
        mailbox.put(&key("a"), Some(Arc::new(2)), Some(Arc::new(3)));
        assert_eq!(drain(&mailbox), [("a".into(), Some(1), Some(3)), ("b".into(), None, Some(1))]);
    }

    #[test]
    fn what_the_reader_never_saw_is_not_reported_as_deleted() {
        let mailbox = Mailbox::new();
        mailbox.put(&key("a"), None, Some(Arc::new(1)));
        mailbox.put(&key("a"), Some(Arc::new(1)), None);
        assert!(drain(&mailbox).is_empty());
        mailbox.put(&key("a"), None, Some(Arc::new(2)));
        assert_eq!(drain(&mailbox), [("a".into(), None, Some(2))]);
    }

    #[test]
    fn a_closed_mailbox_is_read_to_its_end() {
        let mailbox = Mailbox::new();
        mailbox.put(&key("a"), None, Some(Arc::new(1)));
        mailbox.close();
        assert_eq!(drain(&mailbox).len(), 1);
        let context = Context::from_waker(noop_waker_ref());
        assert!(matches!(mailbox.poll(&context), Poll::Ready(None)));
    }
}
