//! Answers in other encodings and forms than JSON as it is stored: what typed clients ask for.

use crate::support::{Answer, Client, Cluster};
use codec::protobuf;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use serve::Body;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What client-go asks for: protobuf, or else JSON.
const CLIENT_GO: [(&str, &str); 2] = [
    ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ("content-type", PROTOBUF),
];
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn written(value: &Value) -> Vec<u8> {
    protobuf::object(value.to_string().as_bytes()).expect("protobuf")
}

fn read(bytes: &[u8]) -> Value {
    let json = protobuf::to_json(bytes).expect("protobuf");
    serde_json::from_slice(&json).expect("JSON")
}

impl Client<'_> {
    /// A request as client-go makes it, answered in protobuf.
    async fn typed(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let body = body.map(written).unwrap_or_default();
        let answer = self.call(method, path, &CLIENT_GO, body).await;
        assert_eq!(answer.headers["content-type"], PROTOBUF, "{}", answer.text());
        (answer.code, read(&answer.body))
    }

    async fn accepting(&self, path: &str, accept: &str) -> Answer {
        self.call(Method::GET, path, &[("accept", accept)], "").await
    }
}

#[tokio::test]
async fn typed_clients_write_and_read_protobuf() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let one = format!("{MAPS}/a");
    let (code, made) = admin.typed(Method::POST, MAPS, Some(&map("a"))).await;
    assert_eq!((code, &made["data"]), (StatusCode::CREATED, &json!({"k": "v"})));
    let (_, found) = admin.typed(Method::GET, &one, None).await;
    assert_eq!(found, made);
    assert_eq!(admin.get(&one).await.json(), made, "JSON says the same");
    let mut changed = made.clone();
    changed["data"] = json!({"b": "2", "a": "1"});
    let (code, changed) = admin.typed(Method::PUT, &one, Some(&changed)).await;
    assert_eq!((code, &changed["data"]["a"]), (StatusCode::OK, &json!("1")));
    let (_, again) = admin.typed(Method::GET, &one, None).await;
    assert_eq!(again, changed, "what is kept of the old version is not shown");
    let patch = [("content-type", "application/merge-patch+json"), CLIENT_GO[0]];
    let patched = admin.call(Method::PATCH, &one, &patch, r#"{"data":{"a":null}}"#).await;
    assert_eq!(read(&patched.body)["data"], json!({"b": "2"}));
    let (_, list) = admin.typed(Method::GET, &format!("{MAPS}?limit=1"), None).await;
    let kinds = (&list["kind"], &list["apiVersion"], list["items"].as_array().map(Vec::len));
    assert_eq!(kinds, (&json!("ConfigMapList"), &json!("v1"), Some(1)));
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    let options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    let (code, refused) = admin.typed(Method::DELETE, &one, Some(&options)).await;
    assert_eq!((code, &refused["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    let (code, deleted) = admin.typed(Method::DELETE, &one, None).await;
    assert_eq!((code, &deleted["status"]), (StatusCode::OK, &json!("Success")));
    let (code, gone) = admin.typed(Method::GET, &one, None).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(gone["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn lists_in_protobuf_say_what_lists_in_json_say() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for number in 0..150 {
        let mut map = map(&format!("map-{number:03}"));
        map["data"]["long"] = "x".repeat(2000).into();
        admin.post(MAPS, &map).await;
    }
    for path in [
        MAPS,
        "/api/v1/namespaces",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/api/v1/services",
    ] {
        let (_, found) = admin.typed(Method::GET, path, None).await;
        let (_, again) = admin.typed(Method::GET, path, None).await;
        let mut expected = admin.get(path).await.json();
        // What JSON shows as null is what protobuf cannot say.
        prune(&mut expected);
        assert_eq!(found, again);
        for (found, expected) in found["items"]
            .as_array()
            .expect("items")
            .iter()
            .zip(expected["items"].as_array().expect("items"))
        {
            assert_eq!(found["metadata"], expected["metadata"], "{path}");
            assert_eq!(found["data"], expected["data"], "{path}");
            assert_eq!(found["rules"], expected["rules"], "{path}");
        }
        assert_eq!(found["metadata"], expected["metadata"], "{path}");
    }
    let zipped = [CLIENT_GO[0], ("accept-encoding", "gzip")];
    let zipped = admin.call(Method::GET, MAPS, &zipped, "").await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert_eq!(zipped.headers["vary"], "Accept-Encoding");
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut whole)
        .expect("gzip");
    assert_eq!(read(&whole)["items"].as_array().map(Vec::len), Some(150));
    let short = [CLIENT_GO[0], ("accept-encoding", "gzip")];
    let short = admin.call(Method::GET, &format!("{MAPS}?limit=5"), &short, "").await;
    assert!(!short.headers.contains_key("content-encoding"));
}

/// Removes empty lists and maps, which protobuf does not tell from absent ones.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !value.is_null() && *value != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Cuts a stream into frames by their lengths and reads them: type and object.
fn events(bytes: &[u8]) -> Vec<(String, Value)> {
    let (mut rest, mut events) = (bytes, Vec::new());
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((event, more)) = more.split_at_checked(length) else { break };
        rest = more;
        let name = &event[2..2 + usize::from(event[1])];
        // The object is the last that is in an event, whole.
        let at = event.windows(4).position(|window| window == b"k8s\0").expect("an object");
        events.push((String::from_utf8_lossy(name).into_owned(), read(&event[at..])));
    }
    events
}

async fn frames(
    client: &Client<'_>,
    path: &str,
    accept: &str,
    enough: impl Fn(&[u8]) -> bool,
) -> (String, Vec<u8>) {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("request");
    let response = client.send(request).await;
    let media = response.headers()["content-type"].to_str().expect("text").to_owned();
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while !enough(&bytes) {
        let Some(frame) = body.frame().await else { break };
        bytes.extend_from_slice(&frame.expect("no error").into_data().expect("data"));
    }
    (media, bytes)
}

#[tokio::test]
async fn watches_stream_protobuf() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let first = admin.post(MAPS, &map("a")).await.json();
    let revision = first["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let mut second = first.clone();
    second["data"] = json!({"k": "w"});
    let second = admin.put(&format!("{MAPS}/a"), &second).await.json();
    admin.delete(&format!("{MAPS}/a")).await;
    let path = format!("{MAPS}?watch=true&resourceVersion={revision}");
    for accept in [CLIENT_GO[0].1, "application/vnd.kubernetes.protobuf;stream=watch"] {
        let (media, bytes) = frames(&admin, &path, accept, |bytes| events(bytes).len() == 2).await;
        assert_eq!(media, "application/vnd.kubernetes.protobuf;stream=watch");
        let seen = events(&bytes);
        assert_eq!(seen[0], ("MODIFIED".to_owned(), second.clone()));
        assert_eq!((seen[1].0.as_str(), &seen[1].1["data"]["k"]), ("DELETED", &json!("w")));
    }
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (_, bytes) = frames(&admin, &path, partial, |bytes| !events(bytes).is_empty()).await;
    let (_, object) = events(&bytes).remove(0);
    assert_eq!(
        (&object["kind"], &object["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!((&object["metadata"], &object["data"]), (&second["metadata"], &Value::Null));
    let initial = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let (_, bytes) = frames(&admin, &initial, PROTOBUF, |bytes| !events(bytes).is_empty()).await;
    let (name, object) = events(&bytes).remove(0);
    assert_eq!(
        (name.as_str(), &object["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        ("BOOKMARK", &json!("true"))
    );
    let future = format!("{MAPS}?watch=true&resourceVersion=9999999&timeoutSeconds=1");
    let (_, bytes) = frames(&admin, &future, PROTOBUF, |bytes| !events(bytes).is_empty()).await;
    let (name, object) = events(&bytes).remove(0);
    assert_eq!((name.as_str(), &object["kind"]), ("ERROR", &json!("Status")), "{object}");
}

#[tokio::test]
async fn metadata_alone_comes_in_every_encoding() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(MAPS, &map("a")).await;
    let one = format!("{MAPS}/a");
    for version in ["v1", "v1beta1"] {
        let form =
            |encoding: &str, kind: &str| format!("{encoding};as={kind};g=meta.k8s.io;v={version}");
        let json =
            admin.accepting(&one, &form("application/json", "PartialObjectMetadata")).await.json();
        let bytes = admin.accepting(&one, &form(PROTOBUF, "PartialObjectMetadata")).await;
        assert_eq!(bytes.headers["content-type"], PROTOBUF);
        assert_eq!(read(&bytes.body), json);
        assert_eq!(json["apiVersion"], format!("meta.k8s.io/{version}"));
        let json = admin
            .accepting(MAPS, &form("application/json", "PartialObjectMetadataList"))
            .await
            .json();
        let list =
            read(&admin.accepting(MAPS, &form(PROTOBUF, "PartialObjectMetadataList")).await.body);
        assert_eq!(list["metadata"], json["metadata"]);
        assert_eq!(list["items"][0]["metadata"], json["items"][0]["metadata"]);
    }
    let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let refused = admin.accepting(&one, list).await;
    assert_eq!(refused.code, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(
        refused.json()["message"],
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"
    );
    let refused =
        admin.accepting(MAPS, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await;
    assert_eq!(
        refused.json()["message"],
        "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"
    );
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_known_words() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    // CBOR is off unless a feature gate turns it on.
    for accept in
        ["application/cbor", "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1"]
    {
        let refused = admin.accepting(MAPS, accept).await;
        assert_eq!(refused.code, StatusCode::NOT_ACCEPTABLE);
        assert_eq!(
            refused.message(),
            format!("only the following media types are accepted: {all}")
        );
        assert!(refused.text().contains("{\n  \"kind\": \"Status\""), "{}", refused.text());
    }
    let watched = admin.accepting(&format!("{MAPS}?watch=1"), "application/yaml").await;
    assert_eq!(watched.code, StatusCode::NOT_ACCEPTABLE);
    assert!(watched.text().contains("application/json;stream=watch, "), "{}", watched.text());
    let cbor = [("content-type", "application/cbor")];
    let refused = admin.call(Method::POST, MAPS, &cbor, vec![0xa0]).await;
    assert_eq!(refused.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(
        refused.message(),
        format!(
            "the body of the request was in an unknown format - accepted media types include: {all}"
        )
    );
    let damaged =
        [&b"k8s\0"[..], &[0x0a, 15, 0x0a, 2], b"v1", &[0x12, 9], b"ConfigMap", &[0x12, 9, 1]]
            .concat();
    let refused = admin.call(Method::POST, MAPS, &CLIENT_GO[1..], damaged).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            StatusCode::BAD_REQUEST,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: unexpected EOF"
        )
    );
    let none = admin.call(Method::POST, MAPS, &CLIENT_GO[1..], "{}").await;
    assert_eq!(
        none.message(),
        "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107, 56, 115, 0] (7b7d)"
    );
    let included = format!("{MAPS}?includeObject=Everything");
    let refused = admin.accepting(&included, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(refused.code, StatusCode::BAD_REQUEST, "{}", refused.text());
}

#[tokio::test]
async fn people_get_indented_answers() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(MAPS, &map("a")).await;
    let plain = admin.get(&format!("{MAPS}/a")).await;
    assert!(!plain.text().contains('\n'));
    let expected = serde_json::to_string_pretty(&plain.json()).expect("JSON");
    let curl = [("user-agent", "curl/8.5.0")];
    let asked = [
        admin.get(&format!("{MAPS}/a?pretty=true")).await,
        admin.accepting(&format!("{MAPS}/a"), "application/json;pretty=1").await,
        admin.call(Method::GET, &format!("{MAPS}/a"), &curl, "").await,
    ];
    for answer in asked {
        let (found, lines): (Value, _) = (answer.json(), answer.text().lines().count());
        assert_eq!((found, lines), (plain.json(), expected.lines().count()));
    }
    let refused = admin.call(Method::GET, &format!("{MAPS}/a?pretty=0"), &curl, "").await;
    assert!(!refused.text().contains('\n'));
    let list = admin.call(Method::GET, MAPS, &curl, "").await;
    assert!(list.text().starts_with("{\n  \"kind\": \"ConfigMapList\","), "{}", list.text());
    let missing = admin.call(Method::GET, &format!("{MAPS}/none"), &curl, "").await;
    assert!(missing.text().starts_with("{\n  \"kind\": \"Status\","), "{}", missing.text());
}

#[tokio::test]
async fn questions_are_asked_and_answered_in_protobuf() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {}, "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, answered) = admin.typed(Method::POST, path, Some(&review)).await;
    assert_eq!((code, &answered["status"]["allowed"]), (StatusCode::CREATED, &json!(true)));
    let account =
        json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "robot"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}, "status": {}});
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let (code, answered) = admin.typed(Method::POST, path, Some(&request)).await;
    assert_eq!(code, StatusCode::CREATED, "{answered}");
    assert!(answered["status"]["token"].as_str().is_some_and(|token| !token.is_empty()));
    let workload = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let (code, made) = admin.typed(Method::POST, deployments, Some(&workload)).await;
    assert_eq!((code, &made["spec"]["replicas"]), (StatusCode::CREATED, &json!(0)), "{made}");
    let scale = format!("{deployments}/web/scale");
    let (_, mut found) = admin.typed(Method::GET, &scale, None).await;
    assert_eq!((&found["kind"], &found["spec"]), (&json!("Scale"), &json!({})));
    found["spec"]["replicas"] = 3.into();
    let (_, scaled) = admin.typed(Method::PUT, &scale, Some(&found)).await;
    assert_eq!(scaled["spec"]["replicas"], 3, "{scaled}");
    let (code, refused) = cluster.user("jane", &[]).typed(Method::GET, deployments, None).await;
    assert_eq!((code, &refused["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")));
}

/// Many watchers in both encodings see every change, and each change is written once an encoding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_share_what_is_written_for_them() {
    const WATCHERS: usize = 200;
    const CHANGES: usize = 40;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let revision = admin.get(MAPS).await.json()["metadata"]["resourceVersion"].clone();
    let path =
        format!("{MAPS}?watch=true&resourceVersion={}", revision.as_str().expect("a revision"));
    let mut watchers = tokio::task::JoinSet::new();
    for number in 0..WATCHERS {
        let accept = if number % 2 == 0 { "application/json" } else { PROTOBUF };
        let request = Request::get(&path).header("accept", accept).body(Body::empty());
        let mut body = admin.send(request.expect("request")).await.into_body();
        watchers.spawn(async move {
            let mut places = Vec::new();
            // What is kept stays at its place, so that another's place is never taken for it.
            let mut kept = Vec::new();
            while places.len() < CHANGES {
                let frame = body.frame().await.expect("a frame").expect("no error");
                let data = frame.into_data().expect("data");
                places.push(data.as_ptr().addr());
                kept.push(data);
            }
            (number % 2, places)
        });
    }
    for number in 0..CHANGES {
        admin.post(MAPS, &map(&format!("map-{number}"))).await;
    }
    let mut seen = [std::collections::BTreeSet::new(), std::collections::BTreeSet::new()];
    let mut finished = 0;
    while let Some(watcher) = watchers.join_next().await {
        let (encoding, places) = watcher.expect("a watcher");
        seen[encoding].extend(places);
        finished += 1;
    }
    assert_eq!(finished, WATCHERS);
    for seen in seen {
        assert_eq!(seen.len(), CHANGES, "each change is in one place, whoever looks at it");
    }
}
