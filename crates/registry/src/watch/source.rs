//! Where a watch's events come from: the store's own watch, or the dispatch of one node's pods.

use std::sync::Arc;
use std::time::Duration;

use meta::Revision;
use store::{Event, Watch, WatchError};
use tokio::time::Instant;

use crate::header::Header;
use crate::index::{PODS, Subscription};
use crate::registry::Registry;

/// The events of a watch, in order, each once.
pub(super) enum Source {
    /// Every event of a prefix.
    Store(Watch<Header>),
    /// Events of one node's pods.
    Node {
        /// What happened before the subscription, until it has been caught up with.
        behind: Option<Watch<Header>>,
        subscription: Subscription,
        /// Every event up to here was returned before the subscription took over.
        seen: Revision,
        engine: Arc<Registry>,
    },
}

impl Source {
    /// Events after `from`. A revision in the future is waited for until `deadline`.
    ///
    /// # Errors
    /// As [`store::Store::watch`].
    pub(super) async fn open(
        engine: &Arc<Registry>,
        prefix: &str,
        node: Option<&str>,
        from: Revision,
        deadline: Instant,
    ) -> Result<Self, WatchError> {
        let subscription = node.and_then(|node| engine.pods.subscribe(node));
        let prefix = if subscription.is_some() { PODS } else { prefix };
        let events = match engine.store.watch(prefix, from) {
            Err(WatchError::Future { .. }) => {
                let patience = deadline.duration_since(Instant::now()).min(Duration::from_secs(30));
                let reached = tokio::time::timeout(patience, engine.store.at_least(from)).await;
                drop(reached);
                engine.store.watch(prefix, from)?
            }
            other => other?,
        };
        Ok(match subscription {
            None => Self::Store(events),
            Some(subscription) => {
                let behind = (from < subscription.joined).then_some(events);
                Self::Node { behind, subscription, seen: from, engine: engine.clone() }
            }
        })
    }

    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// When the watch is over.
    pub(super) async fn next(&mut self) -> Result<Arc<Event<Header>>, WatchError> {
        match self {
            Self::Store(events) => events.next().await,
            Self::Node { behind, subscription, seen, .. } => loop {
                if let Some(events) = behind {
                    if *seen >= subscription.joined {
                        // Events of one revision come together; then the dispatch takes over.
                        match events.try_next()? {
                            Some(event) => {
                                *seen = event.revision;
                                return Ok(event);
                            }
                            None => *behind = None,
                        }
                        continue;
                    }
                    let event = events.next().await?;
                    *seen = event.revision;
                    return Ok(event);
                }
                let event = subscription.events.recv().await.ok_or(WatchError::Lagged)?;
                if event.revision > *seen {
                    return Ok(event);
                }
            },
        }
    }

    /// What a bookmark may promise.
    pub(super) fn progress(&self) -> Revision {
        match self {
            Self::Store(events) => events.progress(),
            Self::Node { behind: Some(_), seen, .. } => *seen,
            Self::Node { subscription, seen, engine, .. } => {
                // Read first: what was dispatched by then is in the queue, or was taken from it.
                let dispatched = engine.pods.dispatched();
                if subscription.events.is_empty() { dispatched.max(*seen) } else { *seen }
            }
        }
    }
}
