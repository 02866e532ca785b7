//! Decoders of what clients send, on anything: an error or a value, never a panic, and within bounds of time
//! and memory that the inputs which aim at them do not leave.

use crate::support::Cluster;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fuzz::{campaign, mutate};
use http::{Method, StatusCode};
use meta::{FieldSelector, GroupVersionKind, Selector};
use proptest::prelude::*;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use registry::{Params, Verb};
use schema::FieldValidation;
use serde_json::{Value, json};
use skiff_apiserver::request::{Query, RequestInfo};

/// Any JSON, some of it with names that mean something.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("1e999")),
    ];
    let name = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("name"),
        Just("containers"),
        Just("$patch"),
        Just("template"),
        Just("$retainKeys"),
        Just("$deleteFromPrimitiveList/finalizers"),
        Just("$setElementOrder/containers"),
        Just("labels"),
        Just("ports"),
        Just("env"),
        Just("volumes"),
        Just("status"),
        Just("ownerReferences"),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// One operation of a JSON patch, nearly right.
fn operation() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        Just(""),
        Just("/a"),
        Just("/metadata/name"),
        Just("/spec/-"),
        Just("/spec/0"),
        Just("~"),
        Just("/~2/x")
    ];
    let op = prop_oneof![
        Just("add"),
        Just("remove"),
        Just("replace"),
        Just("move"),
        Just("copy"),
        Just("test"),
        Just("x")
    ];
    (op, path.clone(), path, anything()).prop_map(
        |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
    )
}

fn pod() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies(bytes in prop::collection::vec(any::<u8>(), 0..200), value in anything()) {
        let _ = codec::yaml::to_json(&bytes);
        let _ = codec::protobuf::to_json(&bytes);
        let _ = codec::protobuf::to_json(&[b"k8s\0".as_slice(), &bytes].concat());
        let _ = schema::decode(&pod(), &bytes, FieldValidation::Strict);
        let text = value.to_string();
        let _ = schema::decode(&pod(), text.as_bytes(), FieldValidation::Warn);
        let yaml = codec::yaml::from_json(text.as_bytes()).expect("what is JSON is YAML");
        let back = codec::yaml::to_json(yaml.as_bytes()).expect("and comes back");
        let back: Value = serde_json::from_slice(&back).expect("JSON");
        prop_assert_eq!(back, value);
    }

    #[test]
    fn damaged_messages(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        // A pod's metadata with a name and a label, as a client would encode it.
        let mut message = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x1a\x0a\x18\x0a\x03web\x12\x00\x1a\x07default\x5a\x06\x0a\x01a\x12\x01b".to_vec();
        let index = at.index(message.len());
        message[index] = byte;
        message.truncate(cut.index(message.len() + 1));
        let _ = codec::protobuf::to_json(&message);
    }

    #[test]
    fn patches(object in anything(), patch in anything(), operations in prop::collection::vec(operation(), 0..5)) {
        let mut target = object.clone();
        schema::merge_patch(&mut target, &patch);
        let of = schema::types::by_kind("", "v1", "Pod").expect("a kind");
        let _ = schema::strategic_merge_patch(of, &mut object.clone(), patch);
        let _ = schema::json_patch(&mut object.clone(), Value::from(operations).to_string().as_bytes());
    }

    #[test]
    fn selectors_and_queries(text in "[a-z!=,()<> /.\"\\\\-]{0,24}", noise in "\\PC{0,24}") {
        for text in [&text, &noise] {
            if let Ok(selector) = Selector::parse(text) {
                let again = Selector::parse(&selector.to_string()).expect("what is printed is read");
                prop_assert_eq!(again.to_string(), selector.to_string());
            }
            if let Ok(selector) = FieldSelector::parse(text) {
                prop_assert!(FieldSelector::parse(&selector.to_string()).is_ok());
            }
            let _ = text.parse::<meta::Quantity>();
            let query = Query::parse(text);
            for verb in Verb::ALL {
                let _ = Params::parse(verb, query.pairs());
                let _ = Params::parse(verb, [("limit", text.as_str()), ("timeoutSeconds", text), ("dryRun", text)]);
            }
            for prefix in ["", "/", "/api/v1/", "/apis/", "/api/v1/watch/", "/api/v1/namespaces/"] {
                let _ = RequestInfo::parse(&Method::GET, &format!("{prefix}{text}"), &query);
            }
            for watch in [false, true] {
                let offer = codec::Offer { protobuf: true, forms: true, watch };
                let _ = codec::media::accept(Some(text), offer);
            }
            let _ = codec::media::body_format(Some(text));
            let _ = codec::media::patch_type(Some(text));
        }
    }
}

/// Inputs that are small and would become large, or deep.
#[test]
fn bombs_are_defused() {
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    for body in [deep("[", "]"), deep("{\"a\":", "}"), "[".repeat(1 << 20)] {
        assert!(schema::decode(&pod(), body.as_bytes(), FieldValidation::Warn).is_err());
        assert!(codec::yaml::to_json(body.as_bytes()).is_err());
    }
    let deep = format!("{}x", "- ".repeat(100_000));
    assert!(codec::yaml::to_json(deep.as_bytes()).is_err());
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let above = level - 1;
        laughs.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{above}"); 9].join(", ")
        ));
    }
    assert!(codec::yaml::to_json(laughs.as_bytes()).is_err());
    // Nested messages, each inside the other.
    let mut message = Vec::new();
    for _ in 0..2000 {
        let mut outer = vec![0x12];
        let mut length = message.len();
        while length > 0x7f {
            outer.push(u8::try_from(length & 0x7f).expect("small") | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).expect("small"));
        outer.append(&mut message);
        message = outer;
    }
    let body = [b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod".as_slice(), &message].concat();
    let _ = codec::protobuf::to_json(&body);
    let huge = format!("{{\"spec\":{{\"priority\":1{}}}}}", "0".repeat(1 << 20));
    assert!(schema::decode(&pod(), huge.as_bytes(), FieldValidation::Warn).is_err());
    assert!("9".repeat(1 << 20).parse::<meta::Quantity>().is_err());
    // A patch that doubles with every step ends at a bound.
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["x".repeat(1024)]})];
    operations.extend((0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
    let patch = Value::from(operations).to_string();
    assert!(schema::json_patch(&mut json!({}), patch.as_bytes()).is_err());
}

/// Tokens of pages and of users, in all stages of decay.
#[tokio::test]
async fn damaged_tokens_are_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    assert_eq!(admin.post(accounts, &account).await.code, StatusCode::CREATED);
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = admin.post(&format!("{accounts}/robot/token"), &request).await.json();
    let token = made["status"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(cluster.token(Some(&token)).get("/version").await.code, StatusCode::OK);
    for (at, _) in token.char_indices().step_by(7) {
        let other = if token[at..].starts_with('A') { 'B' } else { 'A' };
        let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        // The last character of a signature holds bits that mean nothing.
        if at + 1 < token.len() {
            let answer = cluster.token(Some(&changed)).get("/version").await;
            assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{at}");
        }
        let cut = cluster.token(Some(&token[..at])).get("/version").await;
        assert_ne!(cut.code.as_u16() / 100, 5, "{at}");
    }
    for rubbish in ["a.b.c", "..", "e30.e30.e30", "e30..", &"x".repeat(60_000)] {
        let answer = cluster.token(Some(rubbish)).get("/version").await;
        assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{rubbish}");
    }
    let list = "/api/v1/namespaces/default/configmaps?limit=1&continue=";
    for rubbish in [
        "x",
        "%00",
        "e30",
        "bnVsbA",
        "W10",
        "eyJ2IjoxfQ",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTksInN0YXJ0IjoiLi4vc2VjcmV0cyJ9",
    ] {
        assert_eq!(
            admin.get(&format!("{list}{rubbish}")).await.code,
            StatusCode::BAD_REQUEST,
            "{rubbish}"
        );
    }
}

/// Bearer tokens that are nearly one, and requests that are nearly right, from a real object on: no answer is the
/// server's failure.
#[test]
fn damaged_requests_are_the_clients_fault() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = runtime.block_on(Cluster::start());
    let admin = cluster.admin();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"a": "b"}}, "data": {"k": "v"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = runtime.block_on(admin.post(maps, &map));
    assert_eq!(made.code, StatusCode::CREATED);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    runtime.block_on(admin.post(accounts, &account));
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = runtime.block_on(admin.post(&format!("{accounts}/robot/token"), &request)).json();
    let token = token["status"]["token"].as_str().expect("a token").to_owned();
    let parts: Vec<Vec<u8>> =
        token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64")).collect();
    let one = format!("{maps}/a");
    let queries = [
        "dryRun=All",
        "fieldManager=m&force=true",
        "limit=1&continue=x",
        "fieldValidation=Strict&pretty=1",
        "labelSelector=a%3Db&fieldSelector=metadata.name%3Da",
        "resourceVersion=1&resourceVersionMatch=Exact",
        "watch=1&timeoutSeconds=1&sendInitialEvents=true",
        "propagationPolicy=Orphan&gracePeriodSeconds=0",
        "timeout=1s",
    ];
    let media = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let stored = made.json();
    let wire = codec::protobuf::object(&made.body).expect("protobuf");
    campaign("requests to the server", 1500, |rng| {
        let claims: Vec<_> = parts
            .iter()
            .map(|part| match rng.random_range(0..3) {
                0 => URL_SAFE_NO_PAD.encode(mutate::bytes(rng, std::slice::from_ref(part))),
                _ => URL_SAFE_NO_PAD.encode(part),
            })
            .collect();
        let bearer = if rng.random() { claims.join(".") } else { mutate::text(rng, &[&token]) };
        // The last character of a signature holds bits that mean nothing.
        let same = bearer.trim().get(..token.len() - 1) == token.get(..token.len() - 1);
        if !same && http::HeaderValue::from_str(&format!("Bearer {bearer}")).is_ok() {
            let answer = runtime.block_on(cluster.token(Some(&bearer)).get("/version"));
            // Nothing at all is nobody, whom this path is open to.
            let nobody = bearer.trim().is_empty() && answer.code == StatusCode::OK;
            assert!(
                answer.code == StatusCode::UNAUTHORIZED || nobody,
                "{bearer:?}: {}",
                answer.text()
            );
        }
        let body = match rng.random_range(0..4) {
            0 => mutate::bytes(rng, &[wire.clone(), stored.to_string().into_bytes()]),
            1 => mutate::bytes(rng, &[stored.to_string().into_bytes()]),
            _ => mutate::json(rng, &stored).to_string().into_bytes(),
        };
        let method = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET]
            .choose(rng)
            .cloned();
        let query = mutate::text(rng, &queries);
        let query: String = query.chars().filter(|c| c.is_ascii_graphic() && *c != '#').collect();
        let path = if rng.random() { &one } else { maps };
        let (sent, wanted) =
            (media.choose(rng).copied().unwrap_or_default(), mutate::text(rng, &media));
        let mut headers = vec![("content-type", sent)];
        if http::HeaderValue::from_str(&wanted).is_ok() {
            headers.push(("accept", wanted.as_str()));
        }
        let uri = format!("{path}?{query}&dryRun=All");
        if uri.parse::<http::Uri>().is_err() || query.contains("watch") {
            return;
        }
        let answer =
            runtime.block_on(admin.call(method.unwrap_or_default(), &uri, &headers, body.clone()));
        let code = answer.code.as_u16();
        assert!(
            code < 500,
            "{uri} {headers:?} {:?}: {code} {}",
            String::from_utf8_lossy(&body),
            answer.text()
        );
    });
}
