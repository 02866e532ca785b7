//! One request as audit sees it, from the moment it is known who asks until its answer is complete.
//!
//! Decides nothing about what is noted: that is the policy's. Refuses to know where events go.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, header, request::Parts};
use meta::Status;
use registry::UserInfo;
use serde_json::{Map, Value, json};
use serve::{Body, ClientCertificate, Peer};

use super::{
    Audit, content,
    policy::{Level, Stage, Verdict},
};
use crate::{authz::Attributes, endpoints::user_info};

/// The longest user agent that is noted whole (upstream's limit).
const LONGEST_AGENT: usize = 1024;

/// The longest that a request takes without a word about it (upstream's figure).
const SLOW: Duration = Duration::from_millis(500);

/// A request under way.
pub(crate) struct Record {
    audit: Audit,
    verdict: Verdict,
    event: Map<String, Value>,
    long: bool,
    /// Whether all is said.
    answered: bool,
}

impl Record {
    pub(super) fn new(
        audit: &Audit,
        verdict: Verdict,
        (id, long): (&str, bool),
        parts: &Parts,
        user: &UserInfo,
        asked: &Attributes<'_>,
    ) -> Self {
        let mut event = Map::new();
        let mut set = |key: &str, value: Value| event.insert(key.to_owned(), value);
        set("level", verdict.level.name().into());
        set("auditID", id.into());
        set("stage", Value::Null);
        set("requestURI", parts.uri.path_and_query().map_or("/", |uri| uri.as_str()).into());
        set("verb", asked.verb.into());
        set("user", user_info(user));
        let sources = sources(parts);
        if !sources.is_empty() {
            set("sourceIPs", json!(sources));
        }
        let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        if let Some(agent) = agent {
            let cut: String = agent.chars().take(LONGEST_AGENT).collect();
            set(
                "userAgent",
                if cut.len() < agent.len() { format!("{cut}...TRUNCATED") } else { cut }.into(),
            );
        }
        if asked.resource_request {
            set("objectRef", reference(asked));
        }
        let received = meta::time::micros(jiff::Timestamp::now());
        set("requestReceivedTimestamp", received.into());
        Self { audit: audit.clone(), verdict, event, long, answered: false }
    }

    /// Notes that it is known who asks for what.
    ///
    /// # Errors
    /// 500 when it must be noted and cannot be.
    pub(crate) async fn received(&self) -> Result<(), Status> {
        if self.deliver(Stage::RequestReceived).await {
            return Ok(());
        }
        Err(Status::internal("failed to store audit event"))
    }

    /// Notes how long the layers took of a request that took long.
    pub(crate) fn latencies(&mut self, total: Duration, layers: &[(&str, Duration)]) {
        if self.long || total <= SLOW {
            return;
        }
        let spent = layers.iter().filter(|(_, took)| !took.is_zero());
        for (layer, took) in spent.chain([&("total", total)]) {
            self.annotate(&format!("apiserver.latency.k8s.io/{layer}"), &go_duration(*took));
        }
    }

    /// Notes that the request goes on as somebody else.
    pub(crate) fn impersonated(&mut self, user: &UserInfo) {
        self.event.insert("impersonatedUser".into(), user_info(user));
    }

    /// Adds an annotation.
    pub(crate) fn annotate(&mut self, key: &str, value: &str) {
        let annotations =
            self.event.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[key] = value.into();
    }

    /// Whether the request's body should be shown to [`Record::sent`].
    pub(crate) fn wants_body(&self, method: &Method) -> bool {
        !self.long && matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
    }

    /// Notes what was sent: the object itself if the policy says so, in any case which object it is.
    pub(crate) fn sent(&mut self, headers: &HeaderMap, body: &Bytes) {
        let Some(mut object) = content::json(headers, body) else { return };
        if let Some(reference) = self.event.get_mut("objectRef") {
            for field in ["name", "namespace", "uid", "resourceVersion"] {
                let given = object["metadata"][field].as_str().filter(|text| !text.is_empty());
                if let Some(given) = given.filter(|_| reference[field].is_null()) {
                    reference[field] = given.into();
                }
            }
        }
        if self.verdict.level >= Level::Request && self.event.contains_key("objectRef") {
            if self.verdict.omit_managed_fields {
                content::omit_managed_fields(&mut object);
            }
            self.event.insert("requestObject".into(), object);
        }
    }

    /// Notes the answer, and hands it on.
    pub(crate) async fn answer(
        mut self,
        response: Response<Body>,
        failure: Option<&Status>,
    ) -> Response<Body> {
        let (head, mut body) = response.into_parts();
        self.event.insert("responseStatus".into(), status(head.status.as_u16(), failure));
        if self.long {
            self.deliver(Stage::ResponseStarted).await;
            self.answered = true;
            // Complete when the last of the body is sent or the client is gone.
            let guard = Arc::new(OnDrop(self));
            let body = http_body_util::BodyExt::map_frame(body, move |frame| {
                let _held = &guard;
                frame
            });
            return Response::from_parts(head, Body::boxed(body));
        }
        if self.verdict.level == Level::RequestResponse && self.event.contains_key("objectRef") {
            let copied;
            (body, copied) = content::copy(body).await;
            let object = copied.and_then(|bytes| content::json(&head.headers, &bytes));
            if let Some(mut object) = object {
                if self.verdict.omit_managed_fields {
                    content::omit_managed_fields(&mut object);
                }
                self.event.insert("responseObject".into(), object);
            }
        }
        self.deliver(Stage::ResponseComplete).await;
        self.answered = true;
        Response::from_parts(head, body)
    }

    /// Notes that nobody could be found behind the request's credentials.
    pub(crate) async fn unauthenticated(mut self, parts: &Parts, failure: &Status) {
        self.answered = true;
        let mut status = status(failure.code, Some(failure));
        status["message"] = attempted(parts).into();
        self.event.insert("responseStatus".into(), status);
        self.deliver(Stage::ResponseStarted).await;
    }

    /// Notes that the server failed at the request.
    pub(crate) fn panicked(mut self) {
        self.answered = true;
        let failure = Status::internal("APIServer panic'd");
        self.event.insert("responseStatus".into(), status(failure.code, Some(&failure)));
        self.send(Stage::Panic);
    }

    fn send(&self, stage: Stage) {
        if let Some(event) = self.at(stage) {
            self.audit.send(&event);
        }
    }

    async fn deliver(&self, stage: Stage) -> bool {
        match self.at(stage) {
            Some(event) => self.audit.deliver(&event).await,
            None => true,
        }
    }

    /// The event of a stage, if it is noted.
    fn at(&self, stage: Stage) -> Option<Map<String, Value>> {
        if self.verdict.omit_stages.contains(&stage) {
            return None;
        }
        let mut event = self.event.clone();
        event.insert("stage".into(), stage.name().into());
        event.insert("stageTimestamp".into(), meta::time::micros(jiff::Timestamp::now()).into());
        Some(event)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The client went away before there was an answer.
        if !self.answered {
            let mut gone = status(200, None);
            gone["status"] = "Success".into();
            gone["message"] = "Connection closed early".into();
            self.event.insert("responseStatus".into(), gone);
            self.send(Stage::ResponseComplete);
        }
    }
}

struct OnDrop(Record);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.send(Stage::ResponseComplete);
    }
}

/// The answer's status: its code, and what a failure says.
fn status(code: u16, failure: Option<&Status>) -> Value {
    let mut status = failure
        .and_then(|failure| serde_json::from_slice::<Value>(&failure.to_json()).ok())
        .unwrap_or_else(|| json!({"metadata": {}, "code": code}));
    if let Some(fields) = status.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    status
}

/// How a request that was refused tried to say who sends it.
fn attempted(parts: &Parts) -> String {
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scheme = header.and_then(|text| text.trim().split_once(' ')).map(|(scheme, _)| scheme);
    let by = |name: &str| scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    let peer = parts.extensions.get::<Arc<Peer>>();
    let shown = peer.is_some_and(|peer| !matches!(peer.certificate, ClientCertificate::None));
    let ways = [("basic", by("basic")), ("bearer", by("bearer")), ("x509", shown)];
    let tried: Vec<&str> = ways.iter().filter(|(_, tried)| *tried).map(|(way, _)| *way).collect();
    match &tried[..] {
        [] => "Authentication failed, no credentials provided".into(),
        tried => format!("Authentication failed, attempted: {}", tried.join(", ")),
    }
}

fn reference(asked: &Attributes<'_>) -> Value {
    let fields = [
        ("resource", asked.resource),
        ("namespace", asked.namespace),
        ("name", asked.name),
        ("apiGroup", asked.group),
        ("apiVersion", asked.version),
        ("subresource", asked.subresource),
    ];
    let set = fields.into_iter().filter(|(_, value)| !value.is_empty());
    set.map(|(key, value)| (key.to_owned(), value.into())).collect::<Map<_, _>>().into()
}

/// Where the request came from: what proxies say, then the connection.
fn sources(parts: &Parts) -> Vec<String> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let address = |text: &str| text.trim().parse::<std::net::IpAddr>().ok();
    let mut sources: Vec<_> = text("x-forwarded-for")
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter_map(address)
        .collect();
    let real = text("x-real-ip").and_then(address).filter(|ip| !sources.contains(ip));
    sources.extend(real);
    let peer = parts.extensions.get::<Arc<Peer>>().and_then(|peer| peer.address);
    let peer = peer.map(|peer| peer.ip().to_canonical()).filter(|ip| sources.last() != Some(ip));
    sources.extend(peer);
    sources.iter().map(ToString::to_string).collect()
}

/// A time as Go writes it: `1m2.5s`, `523.4ms`, `7µs`.
fn go_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let (whole, unit) = match nanos {
        0 => return "0s".into(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (count, rest) = (nanos / whole, nanos % whole);
    let (minutes, count) = if unit == "s" { (count / 60, count % 60) } else { (0, count) };
    let digits = whole.ilog10() as usize;
    let fraction = if rest > 0 { format!(".{rest:0digits$}") } else { String::new() };
    let longer = match (minutes / 60, minutes % 60) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    format!("{longer}{count}{}{unit}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_look_as_go_prints_them() {
        for (micros, text) in [
            (0, "0s"),
            (7, "7µs"),
            (523_400, "523.4ms"),
            (1_000_050, "1.00005s"),
            (62_500_000, "1m2.5s"),
            (3_600_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_micros(micros)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1_500)), "1.5µs");
    }
}
