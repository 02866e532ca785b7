//! Watches: what they begin with, what they turn changes into, when they end.
//!
//! Owns the translation of store events through selectors, bookmarks and time limits.

mod source;

use std::collections::VecDeque;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use meta::{Revision, Status};
use rand::Rng as _;
use store::{Event, Key, Record, WatchError};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::frames;
use crate::header::Header;
use crate::outcome::{Answer, EventType, Outcome, WatchEvent};
use crate::read;
use crate::registry::Registry;
use crate::request::Request;
use crate::row::Row;
use crate::selection::Selection;
use source::Source;

/// Bookmarks come about this often.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// The longest time limit that is heeded.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A watch that asks for no time limit ends after between one and two of these.
const SHORTEST: Duration = Duration::from_secs(30 * 60);

/// WATCH of a collection.
pub(crate) async fn watch(engine: &Arc<Registry>, request: &Request) -> Answer {
    let row = &request.row;
    let selection = Selection::parse(row, &request.params, request.name.as_deref())?;
    let version = read::version(&request.params.resource_version)?;
    let namespace = request
        .namespace
        .as_deref()
        .filter(|n| !n.is_empty())
        .or_else(|| selection.namespace().filter(|_| row.namespaced()))
        .map(str::to_owned);
    let mut watcher = Watcher {
        prefix: row.prefix(namespace.as_deref()),
        node: selection.node(row).map(str::to_owned),
        engine: engine.clone(),
        row: row.clone(),
        selection,
        bookmarks: request.params.bookmarks,
        initial: VecDeque::new(),
        announce_end: None,
        source: None,
        start: start(request, version),
        deadline: Box::pin(sleep_until(Instant::now() + limit(request))),
        next_bookmark: Box::pin(sleep_until(Instant::now() + jittered(BOOKMARK_INTERVAL))),
        ended: false,
        failure: None,
    };
    // Once a watch is permitted, failures are events (as upstream has it).
    watcher.failure = watcher.begin().await.err();
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((event, watcher))
    });
    Ok(Outcome::Watch(stream.boxed()))
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// With everything there is, no older than a revision, then what happens.
    State { no_older: Option<Revision>, announce_end: bool },
    /// With what happened after a revision.
    After(Revision),
}

fn start(request: &Request, version: Option<Revision>) -> Start {
    match (request.params.send_initial_events, version) {
        (Some(true), version) => {
            Start::State { no_older: version, announce_end: request.params.bookmarks }
        }
        (_, Some(revision)) if revision.0 > 0 => Start::After(revision),
        (Some(false), _) => Start::After(Revision(0)),
        (None, version) => Start::State { no_older: version, announce_end: false },
    }
}

fn limit(request: &Request) -> Duration {
    let asked = request.params.timeout.map(|timeout| timeout.min(LONGEST));
    asked.unwrap_or_else(|| SHORTEST.mul_f64(rand::rng().random_range(1.0..2.0)))
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.8..1.0))
}

/// A running watch.
struct Watcher {
    engine: Arc<Registry>,
    row: Arc<Row>,
    selection: Selection,
    prefix: String,
    /// The one node whose pods are watched.
    node: Option<String>,
    bookmarks: bool,
    start: Start,
    /// Objects that are there at the beginning.
    initial: VecDeque<(Key, Arc<Record<Header>>)>,
    /// The revision that a bookmark must name when `initial` has run out.
    announce_end: Option<Revision>,
    source: Option<Source>,
    /// Timers live as long as the watch: to make them anew for every event costs more than the event.
    deadline: Pin<Box<Sleep>>,
    next_bookmark: Pin<Box<Sleep>>,
    ended: bool,
    /// Why the watch could not begin.
    failure: Option<Status>,
}

impl Watcher {
    /// The next event, or the end.
    async fn next(&mut self) -> Option<WatchEvent> {
        if self.ended {
            return None;
        }
        if let Some(status) = self.failure.take() {
            self.ended = true;
            return Some(frames::error(&status));
        }
        if let Some((key, record)) = self.initial.pop_front() {
            let frames = &self.engine.frames;
            return Some(frames.frame(&self.row, EventType::Added, &key, &record, record.modified));
        }
        if let Some(revision) = self.announce_end.take() {
            return Some(self.bookmark(revision, true));
        }
        self.follow().await
    }

    async fn begin(&mut self) -> Result<(), Status> {
        let from = match self.start {
            Start::After(Revision(0)) => self.engine.latest().await?.revision(),
            Start::After(revision) => revision,
            Start::State { no_older, announce_end } => {
                let index = self.engine.pods.read();
                let snapshot = read::at_least(&self.engine, no_older).await?;
                let selected = |(key, record): &(&Key, &Arc<Record<Header>>)| {
                    key.starts_with(&self.prefix) && self.selection.matches(key, &record.note)
                };
                let owned =
                    |(key, record): (&Key, &Arc<Record<Header>>)| (key.clone(), record.clone());
                self.initial = match &self.node {
                    Some(node) => {
                        let all =
                            self.engine.pods.candidates(&self.engine, &index, &snapshot, node);
                        all.iter().filter(selected).map(owned).collect()
                    }
                    None => snapshot.range(&self.prefix).filter(selected).map(owned).collect(),
                };
                self.announce_end = announce_end.then(|| snapshot.revision());
                snapshot.revision()
            }
        };
        let source = Source::open(
            &self.engine,
            &self.prefix,
            self.node.as_deref(),
            from,
            self.deadline.deadline(),
        )
        .await;
        self.source = Some(source.map_err(|error| watch_error(&error))?);
        Ok(())
    }

    /// Waits for what happens next.
    async fn follow(&mut self) -> Option<WatchEvent> {
        loop {
            let source = self.source.as_mut()?;
            let event = tokio::select! {
                biased;
                event = source.next() => event,
                () = &mut self.deadline => {
                    self.ended = true;
                    let revision = source.progress();
                    return self.bookmarks.then(|| self.bookmark(revision, false));
                }
                () = &mut self.next_bookmark, if self.bookmarks => {
                    let next = Instant::now() + jittered(BOOKMARK_INTERVAL);
                    self.next_bookmark.as_mut().reset(next);
                    let revision = source.progress();
                    return Some(self.bookmark(revision, false));
                }
            };
            match event {
                Ok(event) => {
                    if let Some(event) = self.translate(&event) {
                        return Some(event);
                    }
                }
                Err(error @ WatchError::Compacted { .. }) => {
                    self.ended = true;
                    return Some(frames::error(&watch_error(&error)));
                }
                Err(error) => {
                    // The client resumes from what it saw last.
                    tracing::debug!(%error, prefix = self.prefix, "a watch ends");
                    return None;
                }
            }
        }
    }

    /// A change as this watch's selectors see it.
    fn translate(&self, event: &Event<Header>) -> Option<WatchEvent> {
        if !event.key.starts_with(&self.prefix) {
            return None;
        }
        let selected =
            |record: &&Arc<Record<Header>>| self.selection.matches(&event.key, &record.note);
        let before = event.previous.as_ref().filter(selected);
        let after = event.current.as_ref().filter(selected);
        let (event_type, record) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => (EventType::Added, after),
            (Some(_), Some(after)) => (EventType::Modified, after),
            // What ceased to match shows as it was when it still did, as upstream has it.
            (Some(before), None) => (EventType::Deleted, before),
        };
        let frames = &self.engine.frames;
        Some(frames.frame(&self.row, event_type, &event.key, record, event.revision))
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> WatchEvent {
        let annotations =
            if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
        frames::frame(EventType::Bookmark, |out| {
            let (kind, version) = (&self.row.kind.kind, self.row.api_version());
            let _ = write!(
                out,
                r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}"{annotations}}}}}"#
            );
        })
    }
}

/// A watch that cannot begin or go on, as the client sees it.
fn watch_error(error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { revision, oldest } => {
            Status::expired(format!("too old resource version: {revision} ({oldest})"))
        }
        WatchError::Future { revision, current } => {
            Status::too_large_resource_version(revision.0, current.0)
        }
        WatchError::Lagged | WatchError::Closed => Status::service_unavailable(error.to_string()),
    }
}
