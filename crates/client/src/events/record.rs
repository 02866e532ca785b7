//! The recorder's handle, its bounded queue and the task that writes events.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::correlate::{Correlator, Verdict};
use crate::{ErrorExt, backoff::Backoff};

/// Events that may wait to be written; more are dropped.
const QUEUE: usize = 1000;
/// Attempts to write one event.
const ATTEMPTS: usize = 6;
/// Longest message the API accepts, in bytes.
const MESSAGE: usize = 1024;

/// An event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something expected happened.
    Normal,
    /// Something a user may have to act on.
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events of one component. Cheap to clone; recording never waits and never fails.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Event>,
    source: Arc<EventSource>,
    instance: Arc<str>,
}

impl EventRecorder {
    /// A recorder for `component` (such as `kubelet`) on `host`, writing through `client` until
    /// `shutdown`. Must be called within a tokio runtime.
    pub fn new(
        client: kube::Client,
        component: &str,
        host: Option<&str>,
        shutdown: CancellationToken,
    ) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            shutdown.run_until_cancelled(write_all(client, events)).await;
        });
        Self {
            queue,
            source: Arc::new(EventSource {
                component: Some(component.to_owned()),
                host: host.map(str::to_owned),
            }),
            instance: host.unwrap_or_default().into(),
        }
    }

    /// A recorder that writes nothing, for tests.
    pub fn silent() -> Self {
        let (queue, _) = mpsc::channel(1);
        Self { queue, source: Arc::default(), instance: "".into() }
    }

    /// Records that something happened to `about`. `reason` is a short CamelCase word, `action`
    /// what the component did about it (may be empty), `note` a sentence for users.
    pub fn event(
        &self,
        about: &ObjectReference,
        kind: EventKind,
        reason: &str,
        action: &str,
        note: impl Into<String>,
    ) {
        let now = Timestamp::now();
        let namespace =
            about.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".into());
        let component = self.source.component.clone();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(about.name.as_deref().unwrap_or_default(), now)),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            type_: Some(kind.as_str().to_owned()),
            reason: Some(reason.to_owned()),
            action: Some(action.to_owned()).filter(|action| !action.is_empty()),
            message: Some(shorten(note.into())),
            source: Some((*self.source).clone()),
            reporting_component: component,
            reporting_instance: Some(self.instance.to_string()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            debug!(reason, "event dropped: the queue is full or closed");
        }
    }

    /// Records a `Normal` event without an action.
    pub fn normal(&self, about: &ObjectReference, reason: &str, note: impl Into<String>) {
        self.event(about, EventKind::Normal, reason, "", note);
    }

    /// Records a `Warning` event without an action.
    pub fn warning(&self, about: &ObjectReference, reason: &str, note: impl Into<String>) {
        self.event(about, EventKind::Warning, reason, "", note);
    }
}

/// A reference to `object` as events carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// `<object>.<nanoseconds in hexadecimal>`, within the length of a name.
fn event_name(object: &str, now: Timestamp) -> String {
    let mut end = object.len().min(253 - 17);
    while !object.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}.{:x}", &object[..end], now.as_nanosecond())
}

fn shorten(mut message: String) -> String {
    if message.len() > MESSAGE {
        let mut end = MESSAGE - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// Owned by the recorder's creator through its shutdown token; also ends with the last handle.
async fn write_all(client: kube::Client, mut events: mpsc::Receiver<Event>) {
    let mut correlator = Correlator::default();
    while let Some(event) = events.recv().await {
        match correlator.judge(event, Timestamp::now()) {
            Verdict::Create(event) => write(&client, &event, false).await,
            Verdict::Count(event) => write(&client, &event, true).await,
            Verdict::Drop => {}
        }
    }
}

/// Writes one event, retrying only when the server could not be reached or was busy.
async fn write(client: &kube::Client, event: &Event, mut count: bool) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    for _ in 0..ATTEMPTS {
        let result = if count {
            let patch = json!({
                "count": event.count,
                "lastTimestamp": event.last_timestamp,
                "message": event.message,
            });
            let name = event.metadata.name.as_deref().unwrap_or_default();
            api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
        } else {
            api.create(&PostParams::default(), event).await
        };
        match result {
            Ok(_) => return,
            Err(error) if count && error.is_not_found() => count = false,
            Err(error) => match error.code() {
                Some(code) if code < 500 && code != 429 => {
                    // A namespace on its way out refuses events; nobody will miss them.
                    debug!(%error, reason = event.reason, "event refused");
                    return;
                }
                _ => tokio::time::sleep(backoff.next()).await,
            },
        }
    }
    warn!(reason = event.reason, message = event.message, "event lost");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_messages_stay_within_limits() {
        let now = Timestamp::from_second(1_700_000_000).expect("in range");
        assert_eq!(event_name("web", now), "web.17979cfe362a0000");
        assert!(event_name(&"a".repeat(253), now).len() <= 253);
        assert_eq!(shorten("é".repeat(600)).len(), 1023);
    }
}
