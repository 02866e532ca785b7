//! Spans, as a collector on loopback gets them.

use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use prost::Message as _;
use serve::{Body, Server, ServerOptions};
use tokio_util::sync::CancellationToken;

use super::*;

/// A collector on loopback, and what it got.
async fn collector() -> (String, Arc<Mutex<Vec<Span>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    let handler = move |request: Request<Body>| {
        let kept = kept.clone();
        async move {
            assert_eq!(request.uri().path(), METHOD);
            let body = request.into_body().read(1 << 20).await.expect("body");
            let export = Export::decode(&body[5..]).expect("an export");
            let spans = export.resource_spans.into_iter().flat_map(|one| one.scope_spans);
            kept.lock().expect("lock").extend(spans.flat_map(|scope| scope.spans));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
            let frames = frames.map(Ok::<_, std::io::Error>);
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
            let mut response = Response::new(Body::boxed(body));
            let media = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            response
        }
    };
    let any = ([127, 0, 0, 1], 0).into();
    let server = Server::bind(any, None, ServerOptions::default()).await.expect("listens");
    let address = server.local_address().expect("address").to_string();
    tokio::spawn(server.run(handler, CancellationToken::new()));
    (address, got)
}

fn config(more: &str) -> Result<TracingConfiguration, String> {
    TracingConfiguration::parse(&format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: TracingConfiguration, {more}}}"
    ))
}

fn parts(traceparent: Option<&str>) -> Parts {
    let mut request = Request::get("/api/v1/pods").header("user-agent", "test");
    if let Some(text) = traceparent {
        request = request.header("traceparent", text);
    }
    request.body(()).expect("request").into_parts().0
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn spans_reach_a_collector() {
    let (address, got) = collector().await;
    let all = config(&format!("endpoint: \"{address}\", samplingRatePerMillion: 1000000"));
    let traces = Traces::open(Some(&all.expect("good")));
    traces.begin(&parts(None)).expect("on").end("id-1", 200);
    traces.begin(&parts(Some(PARENT))).expect("on").end("id-2", 503);
    // The last handle's end sends what waits.
    drop(traces);
    let come = async {
        while got.lock().expect("lock").len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), come).await.expect("two spans");
    let got = got.lock().expect("lock");
    assert_eq!((got[0].trace_id.len(), got[0].span_id.len(), got[0].kind), (16, 8, 2));
    assert!(got[0].attributes.contains(&KeyValue::text("audit-id", "id-1")));
    assert!(got[0].attributes.contains(&KeyValue::number("http.response.status_code", 200)));
    assert_eq!(got[1].parent_span_id, bytes("b7ad6b7169203331").expect("hex"));
    assert_eq!(got[1].status, Some(SpanStatus { code: 2 }));
    assert!(got[1].end_time_unix_nano >= got[1].start_time_unix_nano);
}

#[tokio::test]
async fn strangers_do_not_decide_what_is_sampled() {
    let traces = Traces::open(Some(&config("samplingRatePerMillion: 0").expect("good")));
    let mut trace = traces.begin(&parts(Some(PARENT))).expect("on");
    assert!(!trace.sampled);
    trace.trust();
    assert!(trace.sampled);
    let mut own = traces.begin(&parts(None)).expect("on");
    own.trust();
    assert!(!own.sampled);
    assert!(Traces::open(None).begin(&parts(None)).is_none());
}

#[test]
fn configurations_and_headers_are_read_or_refused() {
    assert!(config("endpoint: 'localhost:4317'").is_ok());
    assert!(config("samplingRatePerMillion: 1000001").is_err());
    assert!(config("endpoint: 'no good'").is_err() && config("endpoints: x").is_err());
    let read = |text: &str| parent(&parts(Some(text)).headers);
    assert!(read(PARENT).is_some_and(|(.., sampled)| sampled));
    assert!(read(&PARENT.replace("-01", "-00")).is_some_and(|(.., sampled)| !sampled));
    for wrong in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7-b7ad-01",
        "00-é-b7ad6b7169203331-01",
    ] {
        let header = HeaderValue::from_bytes(wrong.as_bytes()).expect("header");
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), header)]);
        assert_eq!(parent(&headers), None, "{wrong}");
    }
}
