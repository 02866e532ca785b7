//! Events of whole requests, as they reach a file.

use http::{Method, Request};
use serve::Body;

use super::{sink::MOST_BYTES, *};
use crate::{
    identity,
    request::{Query, RequestInfo},
};

struct World {
    audit: Audit,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

async fn world(rules: &str) -> World {
    world_with(rules, SinkOptions::default()).await
}

async fn world_with(rules: &str, sink: SinkOptions) -> World {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("audit.log");
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}");
    let policy = Some(Policy::parse(&text).expect("a policy"));
    let log = Some(LogOptions { sink, ..LogOptions::new(&path) });
    let audit = Audit::open(AuditOptions { policy, log, webhook: None }).await.expect("opens");
    World { audit, path, _directory: directory }
}

impl World {
    fn begin(&self, method: Method, uri: &str) -> Option<Record> {
        let request =
            Request::builder().method(method.clone()).uri(uri).header("user-agent", "test");
        let (parts, ()) = request.body(()).expect("request").into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&method, parts.uri.path(), &query).expect("parses");
        let asked = Attributes {
            verb: info.verb(),
            resource_request: info.is_resource(),
            group: info.group(),
            version: info.version(),
            resource: info.resource(),
            subresource: info.subresource(),
            namespace: info.namespace(),
            name: info.name(),
            path: info.path(),
            ..Attributes::default()
        };
        let user = identity::authenticated("jane", ["team"]);
        self.audit.begin(("id-1", info.long_running()), &parts, &user, &asked)
    }

    /// The events in the file, once there are so many.
    async fn events(&self, count: usize) -> Vec<Value> {
        let come = async {
            loop {
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                if text.matches('\n').count() >= count {
                    return text;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let text = tokio::time::timeout(std::time::Duration::from_secs(60), come).await;
        let text = text.unwrap_or_else(|_| panic!("{count} events did not come"));
        // The last line may be half written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn answer(body: Body) -> http::Response<Body> {
    http::Response::new(body)
}

#[tokio::test]
async fn a_write_is_noted_with_what_was_sent_and_answered() {
    let world = world("[{level: RequestResponse, omitManagedFields: true}]").await;
    let uri = "/api/v1/namespaces/d/configmaps?dryRun=All";
    let mut record = world.begin(Method::POST, uri).expect("noted");
    record.received().await.expect("noted");
    assert!(record.wants_body(&Method::POST));
    let sent =
        Bytes::from_static(br#"{"metadata":{"name":"c","managedFields":[1]},"data":{"a":"b"}}"#);
    record.sent(&http::HeaderMap::new(), &sent);
    record.annotate("authorization.k8s.io/decision", "allow");
    let response = record.answer(answer(Body::full(r#"{"kind":"ConfigMap"}"#)), None).await;
    assert_eq!(response.into_body().read(100).await.expect("body"), r#"{"kind":"ConfigMap"}"#);
    let [received, complete] = &world.events(2).await[..] else { panic!("two events") };
    assert_eq!(
        (&received["stage"], &received["kind"]),
        (&"RequestReceived".into(), &"Event".into())
    );
    assert!(received["responseStatus"].is_null());
    assert_eq!(complete["stage"], "ResponseComplete");
    assert_eq!(complete["requestURI"], uri);
    assert_eq!(complete["verb"], "create");
    assert_eq!(complete["user"]["username"], "jane");
    assert_eq!(
        complete["objectRef"],
        serde_json::json!({"resource": "configmaps", "namespace": "d", "name": "c", "apiVersion": "v1"})
    );
    assert_eq!(
        complete["requestObject"],
        serde_json::json!({"metadata": {"name": "c"}, "data": {"a": "b"}})
    );
    assert_eq!(complete["responseObject"]["kind"], "ConfigMap");
    assert_eq!(complete["responseStatus"]["code"], 200);
    assert_eq!(complete["annotations"]["authorization.k8s.io/decision"], "allow");
    let mut text = String::new();
    world.audit.write(&mut text);
    assert!(text.contains("apiserver_audit_level_total{level=\"RequestResponse\"} 1"), "{text}");
}

#[test]
fn what_waits_is_bounded_in_bytes_too() {
    let (sink, mut waiting) = Sink::new("test", SinkOptions::default());
    let large = Bytes::from(vec![b'x'; MOST_BYTES / 2]);
    let lost = |text: &Bytes| {
        let before = sink.dropped.load(Relaxed);
        sink.offer(&Map::new(), text);
        sink.dropped.load(Relaxed) > before
    };
    assert!(!lost(&large) && !lost(&large));
    assert!(lost(&Bytes::from_static(b"x")), "it is full");
    waiting.try_recv().expect("an event").done(true);
    assert!(!lost(&large) && lost(&large));
}

#[tokio::test]
async fn metadata_holds_no_bodies_and_failures_say_why() {
    let world = world("[{level: Metadata, omitStages: [RequestReceived]}]").await;
    let mut record = world.begin(Method::PUT, "/api/v1/namespaces/d/secrets/s").expect("noted");
    record.received().await.expect("noted");
    record.sent(
        &http::HeaderMap::new(),
        &Bytes::from_static(br#"{"metadata":{"uid":"u"},"data":{"p":"x"}}"#),
    );
    let failure = meta::Status::not_found(&meta::GroupResource::new("", "secrets"), "s");
    record.answer(answer(Body::empty()), Some(&failure)).await;
    let events = world.events(1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["objectRef"]["uid"], "u");
    assert!(events[0]["requestObject"].is_null() && events[0]["responseObject"].is_null());
    assert_eq!(events[0]["responseStatus"]["reason"], "NotFound");
    assert_eq!(events[0]["responseStatus"]["message"], "secrets \"s\" not found");
}

#[tokio::test]
async fn a_watch_starts_and_completes() {
    let world = world("[{level: Request}]").await;
    let record = world.begin(Method::GET, "/api/v1/pods?watch=1").expect("noted");
    let response = record.answer(answer(Body::full("x")), None).await;
    assert_eq!(world.events(1).await[0]["stage"], "ResponseStarted");
    drop(response);
    assert_eq!(world.events(2).await[1]["stage"], "ResponseComplete");
}

#[tokio::test]
async fn clients_that_leave_are_noted_and_what_the_policy_leaves_out_is_not() {
    let world = world("[{level: None, verbs: [list]}, {level: Metadata}]").await;
    assert!(world.begin(Method::GET, "/api/v1/pods").is_none());
    drop(world.begin(Method::GET, "/api/v1/namespaces/d/pods/p"));
    let events = world.events(1).await;
    assert_eq!(events[0]["responseStatus"]["message"], "Connection closed early");
}

#[tokio::test]
async fn a_large_event_loses_its_bodies() {
    let truncate = Some(Truncate { max_event: 800, max_batch: 10_000 });
    let options = SinkOptions { truncate, ..SinkOptions::default() };
    let world = world_with("[{level: Request, omitStages: [RequestReceived]}]", options).await;
    for size in [10, 1000] {
        let uri = "/api/v1/namespaces/d/configmaps";
        let mut record = world.begin(Method::POST, uri).expect("noted");
        let body = serde_json::json!({"metadata": {"name": "c"}, "data": {"a": "x".repeat(size)}});
        record.sent(&http::HeaderMap::new(), &Bytes::from(body.to_string()));
        record.answer(answer(Body::empty()), None).await;
    }
    let mut huge = world.begin(Method::GET, "/api/v1/namespaces/d/pods/p").expect("noted");
    huge.annotate("large", &"x".repeat(2000));
    huge.answer(answer(Body::empty()), None).await;
    let events = world.events(2).await;
    assert_eq!(events[0]["requestObject"]["metadata"]["name"], "c");
    assert!(events[1]["requestObject"].is_null());
    assert_eq!(events[1]["annotations"]["audit.k8s.io/truncated"], "true");
    let mut text = String::new();
    world.audit.write(&mut text);
    assert!(text.contains("apiserver_audit_error_total{plugin=\"log\"} 1\n"), "{text}");
}

#[tokio::test]
async fn an_answer_waits_for_its_event_where_that_is_wished() {
    let options = SinkOptions { mode: Mode::Blocking, ..SinkOptions::default() };
    let world = world_with("[{level: Metadata}]", options).await;
    let record = world.begin(Method::GET, "/api/v1/namespaces/d/pods/p").expect("noted");
    record.received().await.expect("noted");
    record.answer(answer(Body::empty()), None).await;
    let text = std::fs::read_to_string(&world.path).expect("read");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[tokio::test]
async fn what_cannot_be_noted_is_refused_where_that_is_wished() {
    for (mode, refused) in [(Mode::Blocking, false), (Mode::BlockingStrict, true)] {
        let truncate = Some(Truncate { max_event: 10, max_batch: 10 });
        let world = world_with("[{level: Metadata}]", SinkOptions { mode, truncate }).await;
        let record = world.begin(Method::GET, "/api/v1/namespaces/d/pods/p").expect("noted");
        let told = record.received().await.err().map(|status| (status.code, status.message));
        assert_eq!(told.is_some(), refused, "{told:?}");
        assert!(
            told.is_none_or(
                |(code, why)| code == 500 && why.contains("failed to store audit event")
            )
        );
    }
}

#[tokio::test]
async fn slow_requests_say_what_took_long() {
    use std::time::Duration;
    let world = world("[{level: Metadata, omitStages: [RequestReceived]}]").await;
    for total in [400, 700] {
        let mut record = world.begin(Method::GET, "/api/v1/namespaces/d/pods/p").expect("noted");
        let layers =
            [("authentication", Duration::ZERO), ("apf-queue-wait", Duration::from_millis(600))];
        record.latencies(Duration::from_millis(total), &layers);
        record.answer(answer(Body::empty()), None).await;
    }
    let events = world.events(2).await;
    assert!(events[0]["annotations"].is_null());
    assert_eq!(
        events[1]["annotations"],
        serde_json::json!({"apiserver.latency.k8s.io/total": "700ms", "apiserver.latency.k8s.io/apf-queue-wait": "600ms"})
    );
}
