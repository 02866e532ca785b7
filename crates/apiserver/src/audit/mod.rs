//! Audit: what was asked of the API server, by whom, and what became of it.
//!
//! A policy says how much is noted; events go to a file, a webhook, or both. Noting holds up a request only where that
//! is wished: when a sink cannot keep up, events are dropped and counted. Refuses to know what requests mean.

mod content;
mod file;
pub(crate) mod id;
mod policy;
mod record;
mod sink;
mod webhook;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::request::Parts;
use registry::UserInfo;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

pub use file::LogOptions;
pub use policy::{Level, Policy};
pub(crate) use record::Record;
pub use sink::{Mode, SinkOptions, Truncate};
use sink::{Noted, Sink};
pub use webhook::WebhookOptions;

use crate::{authz::Attributes, metrics::describe};

/// What is noted, and where it goes.
#[derive(Clone, Default)]
pub struct AuditOptions {
    /// What is noted; none is everything's metadata.
    pub policy: Option<Policy>,
    /// A file.
    pub log: Option<LogOptions>,
    /// A webhook.
    pub webhook: Option<WebhookOptions>,
}

/// A handle on audit; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Audit(Option<Arc<Shared>>);

struct Shared {
    policy: Policy,
    sinks: Vec<Sink>,
    /// Events made, and requests by level.
    events: AtomicU64,
    levels: [AtomicU64; 4],
}

impl Audit {
    /// Opens the sinks. Their tasks end when the last handle is gone.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) async fn open(options: AuditOptions) -> std::io::Result<Self> {
        let mut sinks = Vec::new();
        let mut sink = |name, options| {
            let (sink, events) = Sink::new(name, options);
            sinks.push(sink);
            events
        };
        if let Some(log) = options.log {
            let events = sink("log", log.sink);
            tokio::spawn(file::Log::open(log).await?.run(events));
        }
        if let Some(hook) = options.webhook {
            let events = sink("webhook", hook.sink);
            tokio::spawn(webhook::run(hook, events));
        }
        if sinks.is_empty() {
            return Ok(Self::default());
        }
        let policy = options.policy.unwrap_or_else(|| Policy::everything(Level::Metadata));
        let levels = std::array::from_fn(|_| AtomicU64::new(0));
        Ok(Self(Some(Arc::new(Shared { policy, sinks, events: AtomicU64::new(0), levels }))))
    }

    /// Begins to note a request, if the policy wants it noted.
    pub(crate) fn begin(
        &self,
        (id, long): (&str, bool),
        parts: &Parts,
        user: &UserInfo,
        asked: &Attributes<'_>,
    ) -> Option<Record> {
        let shared = self.0.as_ref()?;
        let verdict = shared.policy.judge(user, asked);
        shared.levels[verdict.level as usize].fetch_add(1, Relaxed);
        (verdict.level > Level::None)
            .then(|| Record::new(self, verdict, (id, long), parts, user, asked))
    }

    /// Hands an event to all sinks without waiting.
    fn send(&self, event: &Map<String, Value>) {
        let (Some(shared), Ok(text)) = (&self.0, serde_json::to_vec(event)) else { return };
        shared.events.fetch_add(1, Relaxed);
        let text = Bytes::from(text);
        shared.sinks.iter().for_each(|sink| sink.offer(event, &text));
    }

    /// Hands an event to all sinks, and waits for those that requests wait for. False if that failed and matters.
    async fn deliver(&self, event: &Map<String, Value>) -> bool {
        let (Some(shared), Ok(text)) = (&self.0, serde_json::to_vec(event)) else { return true };
        shared.events.fetch_add(1, Relaxed);
        let (text, mut good) = (Bytes::from(text), true);
        for sink in &shared.sinks {
            good &= sink.deliver(event, &text).await;
        }
        good
    }

    /// Writes metrics.
    pub(crate) fn write(&self, out: &mut String) {
        let Some(shared) = &self.0 else { return };
        let name = "apiserver_audit_event_total";
        describe(out, name, "counter", "Audit events made.");
        let _ = writeln!(out, "{name} {}", shared.events.load(Relaxed));
        let name = "apiserver_audit_level_total";
        describe(out, name, "counter", "Requests by how much is noted of them.");
        let levels = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];
        for level in levels {
            let count = shared.levels[level as usize].load(Relaxed);
            let _ = writeln!(out, "{name}{{level=\"{}\"}} {count}", level.name());
        }
        let name = "apiserver_audit_error_total";
        describe(out, name, "counter", "Audit events that were dropped.");
        for sink in &shared.sinks {
            let dropped = sink.dropped.load(Relaxed);
            let _ = writeln!(out, "{name}{{plugin=\"{}\"}} {dropped}", sink.name);
        }
    }
}

/// The next events that wait, at least one and at most `most`; none when there will be no more.
async fn batch(events: &mut mpsc::Receiver<Noted>, most: usize) -> Option<Vec<Noted>> {
    let mut batch = Vec::new();
    (events.recv_many(&mut batch, most).await > 0).then_some(batch)
}

#[cfg(test)]
mod tests;
