//! The consumer's end of a watch. Refuses to know who feeds it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::Stream;
use tokio::sync::mpsc;

use crate::{Event, Revision, WatchError};

/// What feeder and consumer of one watch share beside the queue.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Bytes of the events that are queued.
    pub(crate) bytes: AtomicUsize,
    /// Set when events were dropped because the consumer did not keep up.
    pub(crate) lagged: AtomicBool,
}

/// Events of a key prefix in order. Ends with an error, and then stays ended.
///
/// Dropping it ends the watch. A consumer that does not keep up is cut off with
/// [`WatchError::Lagged`]; it never slows down the store or other watches.
pub struct Watch<N> {
    backlog: VecDeque<Arc<Event<N>>>,
    queue: mpsc::Receiver<Arc<Event<N>>>,
    gauge: Arc<Gauge>,
    dispatched: Arc<AtomicU64>,
    /// Every event up to here has been returned.
    complete: u64,
    /// Revision of the event returned last.
    last: u64,
    _registration: Box<dyn Send + Sync>,
}

impl<N> Watch<N> {
    pub(crate) fn new(
        from: Revision,
        backlog: VecDeque<Arc<Event<N>>>,
        queue: mpsc::Receiver<Arc<Event<N>>>,
        gauge: Arc<Gauge>,
        dispatched: Arc<AtomicU64>,
        registration: Box<dyn Send + Sync>,
    ) -> Self {
        Self {
            backlog,
            queue,
            gauge,
            dispatched,
            complete: from.0,
            last: from.0,
            _registration: registration,
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// [`WatchError::Lagged`] or [`WatchError::Closed`]; the watch is over.
    pub async fn next(&mut self) -> Result<Arc<Event<N>>, WatchError> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// The next event if it is there already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Event<N>>>, WatchError> {
        if let Some(event) = self.backlog.pop_front() {
            return Ok(Some(self.returned(event)));
        }
        self.check_lag()?;
        match self.queue.try_recv() {
            Ok(event) => Ok(Some(self.received(event))),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.over()),
        }
    }

    /// Polls for the next event, for callers that write their own futures.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn poll_event(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Arc<Event<N>>, WatchError>> {
        if let Some(event) = self.backlog.pop_front() {
            return Poll::Ready(Ok(self.returned(event)));
        }
        self.check_lag()?;
        match self.queue.poll_recv(context) {
            Poll::Ready(Some(event)) => Poll::Ready(Ok(self.received(event))),
            Poll::Ready(None) => Poll::Ready(Err(self.over())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The revision up to which everything has been returned: what a bookmark
    /// may promise. It moves on without events, because the store does.
    #[must_use]
    pub fn progress(&self) -> Revision {
        // Read first: what was dispatched by then is in the queue, or was
        // taken from it.
        let dispatched = self.dispatched.load(Ordering::Acquire);
        if self.backlog.is_empty()
            && self.queue.is_empty()
            && !self.gauge.lagged.load(Ordering::Acquire)
        {
            return Revision(dispatched.max(self.complete));
        }
        Revision(self.complete)
    }

    fn received(&mut self, event: Arc<Event<N>>) -> Arc<Event<N>> {
        self.gauge.bytes.fetch_sub(event.weight(), Ordering::Relaxed);
        self.returned(event)
    }

    fn returned(&mut self, event: Arc<Event<N>>) -> Arc<Event<N>> {
        let revision = event.revision.0;
        if revision > self.last {
            self.complete = self.last.max(self.complete);
            self.last = revision;
        }
        event
    }

    fn check_lag(&self) -> Result<(), WatchError> {
        if self.gauge.lagged.load(Ordering::Acquire) { Err(WatchError::Lagged) } else { Ok(()) }
    }

    fn over(&self) -> WatchError {
        self.check_lag().err().unwrap_or(WatchError::Closed)
    }
}

impl<N> Stream for Watch<N> {
    type Item = Result<Arc<Event<N>>, WatchError>;

    /// Repeats its last error for ever; take it as the end.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context).map(Some)
    }
}

impl<N> std::fmt::Debug for Watch<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
