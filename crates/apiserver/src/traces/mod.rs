//! Traces: a span for each request, sent to a collector over OTLP (gRPC), as `TracingConfiguration` says.
//!
//! Off unless configured. A trace that a client began goes on here (W3C Trace Context); that it wants to be sampled
//! counts only from administrators. Sending never holds up a request.

mod wire;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, header, request::Parts, uri::PathAndQuery};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

use self::wire::{
    Export, Exported, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, SpanStatus,
};

/// Spans that may wait to be sent.
const WAITING: usize = 4096;
/// Spans sent at once.
const BATCH: usize = 512;
/// How long spans wait for others.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const MILLION: u32 = 1_000_000;

/// The `TracingConfiguration` of `apiserver.config.k8s.io`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingConfiguration {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<u32>,
}

impl TracingConfiguration {
    /// Reads a configuration from YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json = codec::yaml::to_json(text.as_bytes()).map_err(|error| error.to_string())?;
        let config: Self = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        let version = config.api_version.strip_prefix("apiserver.config.k8s.io/");
        if !matches!(version, Some("v1" | "v1beta1")) || config.kind != "TracingConfiguration" {
            return Err(
                "it must be of apiVersion apiserver.config.k8s.io/v1 and kind TracingConfiguration"
                    .into(),
            );
        }
        if config.sampling_rate_per_million.is_some_and(|rate| rate > MILLION) {
            return Err("samplingRatePerMillion: it must be at most one million".into());
        }
        config.channel().map_err(|error| format!("endpoint: {error}"))?;
        Ok(config)
    }

    fn channel(&self) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = self.endpoint.as_deref().unwrap_or("localhost:4317");
        Ok(Endpoint::from_shared(format!("http://{endpoint}"))?
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT))
    }
}

/// A handle on traces; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Traces(Option<Arc<Shared>>);

struct Shared {
    per_million: u32,
    spans: mpsc::Sender<Span>,
}

/// A request under way.
pub(crate) struct Trace {
    shared: Arc<Shared>,
    span: Span,
    sampled: bool,
    /// Whether the client wants it sampled.
    wanted: bool,
}

impl Traces {
    /// Begins to send spans, until the last handle is gone.
    pub(crate) fn open(config: Option<&TracingConfiguration>) -> Self {
        let channel =
            config.and_then(|config| Some((config, config.channel().ok()?.connect_lazy())));
        let Some((config, channel)) = channel else { return Self::default() };
        let (spans, waiting) = mpsc::channel(WAITING);
        tokio::spawn(send(channel, waiting));
        let per_million = config.sampling_rate_per_million.unwrap_or(0);
        Self(Some(Arc::new(Shared { per_million, spans })))
    }

    /// Begins the span of a request.
    pub(crate) fn begin(&self, parts: &Parts) -> Option<Trace> {
        let shared = self.0.clone()?;
        let random = meta::names::uid().replace('-', "");
        let own = bytes(&random)?;
        let (trace_id, parent, wanted) =
            parent(&parts.headers).unwrap_or_else(|| (own.clone(), Vec::new(), false));
        let sampled = sampled(&trace_id, shared.per_million);
        let mut attributes = vec![
            KeyValue::text("http.request.method", method(&parts.method)),
            KeyValue::text("url.path", parts.uri.path()),
        ];
        let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        attributes.extend(agent.map(|agent| KeyValue::text("user_agent.original", agent)));
        // The second half of what is random, where the first may be the trace's.
        let span_id = own.get(8..).unwrap_or_default().to_vec();
        let span = Span {
            trace_id,
            span_id,
            parent_span_id: parent,
            name: "KubernetesAPI".into(),
            kind: 2,
            start_time_unix_nano: now(),
            end_time_unix_nano: 0,
            attributes,
            status: None,
        };
        Some(Trace { shared, span, sampled, wanted })
    }
}

impl Trace {
    /// Takes the client's word for it that this should be sampled.
    pub(crate) fn trust(&mut self) {
        self.sampled |= self.wanted;
    }

    /// Ends the span.
    pub(crate) fn end(mut self, audit_id: &str, code: u16) {
        if !self.sampled {
            return;
        }
        self.span.end_time_unix_nano = now();
        self.span.attributes.push(KeyValue::text("audit-id", audit_id));
        self.span.attributes.push(KeyValue::number("http.response.status_code", code.into()));
        self.span.status = (code >= 500).then_some(SpanStatus { code: 2 });
        // What does not fit is left out.
        let _ = self.shared.spans.try_send(self.span);
    }
}

/// The same decision for all parts of a trace: by its id.
fn sampled(trace_id: &[u8], per_million: u32) -> bool {
    let last = trace_id.last_chunk::<8>().map_or(0, |last| u64::from_be_bytes(*last));
    last % u64::from(MILLION) < u64::from(per_million)
}

/// Trace, parent and whether it is sampled, as `traceparent` says.
fn parent(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>, bool)> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sizes = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
    let (trace, parent, flags) = (bytes(trace)?, bytes(parent)?, bytes(flags)?);
    let set = |id: &[u8]| id.iter().any(|byte| *byte != 0);
    (sizes && version != "ff" && set(&trace) && set(&parent))
        .then(|| (trace, parent, flags[0] & 1 == 1))
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() {
        return None;
    }
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect()
}

fn method(method: &Method) -> &str {
    method.as_str()
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default()
}

async fn send(channel: Channel, mut waiting: mpsc::Receiver<Span>) {
    let mut spans = Vec::new();
    while waiting.recv_many(&mut spans, BATCH).await > 0 {
        let more = async {
            while spans.len() < BATCH
                && let Some(span) = waiting.recv().await
            {
                spans.push(span);
            }
        };
        // What has come by then goes out.
        let _ = tokio::time::timeout(PAUSE, more).await;
        if let Err(error) = export(&channel, std::mem::take(&mut spans)).await {
            tracing::debug!(%error, "spans are lost");
        }
    }
}

async fn export(channel: &Channel, spans: Vec<Span>) -> Result<(), tonic::Status> {
    let attributes = vec![KeyValue::text("service.name", "apiserver")];
    let scope_spans = vec![ScopeSpans { spans }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }];
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Export, Exported>::default();
    let request = tonic::Request::new(Export { resource_spans });
    client.unary(request, PathAndQuery::from_static(METHOD), codec).await.map(drop)
}

#[cfg(test)]
mod tests;
