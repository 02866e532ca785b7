//! Audit events posted to a webhook, several at a time.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Mode, Noted, SinkOptions};
use crate::hook::Hook;

/// How often a batch is tried.
const ATTEMPTS: u32 = 5;

/// Where events are posted, and how many at once.
#[derive(Clone)]
pub struct WebhookOptions {
    /// Who gets them.
    pub hook: Hook,
    /// Events in one request.
    pub max_batch: usize,
    /// How long a batch may wait for more.
    pub max_wait: Duration,
    /// How long to wait before a batch is tried again; grows by half each time.
    pub backoff: Duration,
    /// Whether requests wait for it, and what is too large for it.
    pub sink: SinkOptions,
}

impl WebhookOptions {
    /// The usual bounds.
    pub fn new(hook: Hook) -> Self {
        let (max_wait, backoff) = (Duration::from_secs(30), Duration::from_secs(10));
        Self { hook, max_batch: 400, max_wait, backoff, sink: SinkOptions::default() }
    }
}

pub(super) async fn run(options: WebhookOptions, mut events: mpsc::Receiver<Noted>) {
    let waits = options.sink.mode == Mode::Batch;
    let limit = options.sink.truncate.map_or(usize::MAX, |truncate| truncate.max_batch);
    while let Some(mut batch) = super::batch(&mut events, options.max_batch).await {
        // What has come by then goes out; at once, if requests wait for it.
        if waits {
            let more = async {
                while batch.len() < options.max_batch
                    && let Some(event) = events.recv().await
                {
                    batch.push(event);
                }
            };
            let _ = tokio::time::timeout(options.max_wait, more).await;
        }
        while !batch.is_empty() {
            let mut size = 0;
            let fits = |noted: &&Noted| {
                size += noted.text.len();
                size <= limit
            };
            let count = batch.iter().take_while(fits).count().max(1);
            let rest = batch.split_off(count);
            let posted = post(&options, &batch).await;
            batch.into_iter().for_each(|noted| noted.done(posted));
            batch = rest;
        }
    }
}

/// Whether the events were taken.
async fn post(options: &WebhookOptions, batch: &[Noted]) -> bool {
    let texts: Vec<&[u8]> = batch.iter().map(|noted| noted.text.as_ref()).collect();
    let list = [
        &br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#[..],
        &texts.join(&b","[..]),
        b"]}",
    ];
    let (list, mut pause) = (list.concat(), options.backoff);
    for attempt in 1..=ATTEMPTS {
        match options.hook.post(list.clone()).await {
            Ok(_) => return true,
            Err(error) if attempt == ATTEMPTS => {
                tracing::error!(%error, events = batch.len(), "audit events are lost");
            }
            Err(error) => {
                tracing::warn!(%error, "audit events cannot be posted, trying again");
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
        }
    }
    false
}
