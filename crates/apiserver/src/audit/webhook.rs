//! Audit events posted to a webhook, several at a time.

use std::time::Duration;

use bytes::Bytes;

use super::Waiting;
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
}

impl WebhookOptions {
    /// The usual bounds.
    pub fn new(hook: Hook) -> Self {
        let (max_wait, backoff) = (Duration::from_secs(30), Duration::from_secs(10));
        Self { hook, max_batch: 400, max_wait, backoff }
    }
}

pub(super) async fn run(options: WebhookOptions, mut waiting: Waiting) {
    while let Some(mut batch) = waiting.batch(options.max_batch).await {
        let more = async {
            while batch.len() < options.max_batch
                && let Some(event) = waiting.events.recv().await
            {
                batch.push(event);
            }
        };
        // What has come by then goes out.
        let _ = tokio::time::timeout(options.max_wait, more).await;
        post(&options, &batch).await;
        waiting.done(&batch);
    }
}

async fn post(options: &WebhookOptions, batch: &[Bytes]) {
    let list = [
        &br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#[..],
        &batch.join(&b","[..]),
        b"]}",
    ];
    let (list, mut pause) = (list.concat(), options.backoff);
    for attempt in 1..=ATTEMPTS {
        match options.hook.post(list.clone()).await {
            Ok(_) => return,
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
}
