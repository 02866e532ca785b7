//! Lists and watches: of which revision, in which pages, with which selectors, and how they are refused.

use crate::support::{Client, Cluster};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(admin: &Client<'_>, name: &str, value: &str) -> u64 {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": value},
        "metadata": {"name": name, "labels": {"test": "reads"}}});
    let path = format!("{MAPS}/{name}");
    let mut answer = admin.put(&path, &map).await;
    if answer.code == StatusCode::NOT_FOUND {
        answer = admin.post(MAPS, &map).await;
    }
    assert!(answer.code.is_success(), "{}", answer.text());
    answer.json()["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .parse()
        .expect("a number")
}

/// Names and values of the maps of a list.
async fn listed(admin: &Client<'_>, query: &str) -> (Vec<String>, Value) {
    let answer = admin.get(&format!("{MAPS}?labelSelector=test%3Dreads&{query}")).await;
    assert_eq!(answer.code, StatusCode::OK, "{query}: {}", answer.text());
    let list = answer.json();
    let items = list["items"].as_array().expect("items");
    let shown = |item: &Value| {
        format!(
            "{}={}",
            item["metadata"]["name"].as_str().unwrap_or_default(),
            item["data"]["k"].as_str().unwrap_or_default()
        )
    };
    (items.iter().map(shown).collect(), list["metadata"].clone())
}

/// The events of a watch until `enough` or its end.
async fn watched(admin: &Client<'_>, path: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let request = http::Request::get(path).body(serve::Body::empty()).expect("request");
    let response = admin.send(request).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let (mut body, mut text, mut events) = (response.into_body(), String::new(), Vec::new());
    while !enough(&events) {
        let Some(frame) = body.frame().await else { break };
        let data = frame.expect("no error").into_data().unwrap_or_default();
        text.push_str(std::str::from_utf8(&data).expect("text"));
        while let Some((line, rest)) = text.split_once('\n') {
            events.push(serde_json::from_str(line).expect("JSON"));
            text = rest.to_owned();
        }
    }
    events
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["type"].as_str()).collect()
}

const INITIAL_END: &str = "k8s.io/initial-events-end";

#[tokio::test]
async fn a_list_shows_the_revision_it_is_asked_for() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let first = make(&admin, "a", "1").await;
    make(&admin, "a", "2").await;
    let newest = make(&admin, "b", "1").await;
    let check = async |query: String, expected: &[&str]| {
        assert_eq!(listed(&admin, &query).await.0, expected, "{query}");
    };
    check(String::new(), &["a=2", "b=1"]).await;
    check("resourceVersion=0".into(), &["a=2", "b=1"]).await;
    check(format!("resourceVersion={first}"), &["a=2", "b=1"]).await;
    check(
        format!("resourceVersion={first}&resourceVersionMatch=NotOlderThan&limit=9"),
        &["a=2", "b=1"],
    )
    .await;
    check(format!("resourceVersion={first}&resourceVersionMatch=Exact"), &["a=1"]).await;
    check(format!("resourceVersion={first}&limit=5"), &["a=1"]).await;
    check(format!("resourceVersion={newest}&limit=1"), &["a=2"]).await;
    // Whatever is at hand comes whole.
    check("resourceVersion=0&limit=1".into(), &["a=2", "b=1"]).await;
    let (_, exact) =
        listed(&admin, &format!("resourceVersion={first}&resourceVersionMatch=Exact")).await;
    assert_eq!(exact["resourceVersion"], first.to_string());
    let future = admin.get(&format!("{MAPS}?resourceVersion={}", newest + 1_000_000)).await;
    assert_eq!(future.code, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        future.message().starts_with("Timeout: Too large resource version: "),
        "{}",
        future.text()
    );
    assert_eq!(future.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(future.headers["retry-after"], "1");
}

#[tokio::test]
async fn pages_agree_until_their_revision_is_forgotten_and_then_say_how_to_go_on() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["a", "b", "c", "d"] {
        make(&admin, name, "1").await;
    }
    let (shown, page) = listed(&admin, "limit=1").await;
    assert_eq!(shown, ["a=1"]);
    let token = page["continue"].as_str().expect("a token").to_owned();
    let newest = make(&admin, "c", "2").await;
    let (shown, next) = listed(&admin, &format!("limit=2&continue={token}")).await;
    assert_eq!(shown, ["b=1", "c=1"]);
    assert_eq!(next["resourceVersion"], page["resourceVersion"]);
    let plain = admin.get(&format!("{MAPS}?limit=1")).await.json();
    assert!(
        plain["metadata"]["remainingItemCount"].as_u64().is_some_and(|rest| rest >= 3),
        "{plain}"
    );

    let store = cluster.server.registry().store();
    store.compact(meta::Revision(newest)).await.expect("compaction");
    let gone =
        admin.get(&format!("{MAPS}?labelSelector=test%3Dreads&limit=2&continue={token}")).await;
    assert_eq!((gone.code, gone.json()["reason"].as_str()), (StatusCode::GONE, Some("Expired")));
    assert!(gone.message().starts_with("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response"), "{}", gone.text());
    let fresh = gone.json()["metadata"]["continue"].as_str().expect("another token").to_owned();
    let (shown, page) = listed(&admin, &format!("limit=2&continue={fresh}")).await;
    assert_eq!(shown, ["b=1", "c=2"]);
    let token = page["continue"].as_str().expect("a token").to_owned();
    assert_eq!(listed(&admin, &format!("continue={token}")).await.0, ["d=1"]);

    let old = format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact");
    let expired = admin.get(&old).await;
    assert_eq!(expired.code, StatusCode::GONE, "{}", expired.text());
    assert_eq!(expired.message(), "The resourceVersion for the provided list is too old.");
    let events = watched(&admin, &format!("{MAPS}?watch=true&resourceVersion=1"), |_| false).await;
    assert_eq!(types(&events), ["ERROR"]);
    assert_eq!(events[0]["object"]["code"], 410);
    let message = events[0]["object"]["message"].as_str().expect("a message");
    assert!(message.starts_with("too old resource version: 1 ("), "{message}");
}

#[tokio::test]
async fn a_watch_begins_with_what_there_is_and_says_when_that_was_all() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    make(&admin, "a", "1").await;
    make(&admin, "b", "1").await;
    let watch = format!("{MAPS}?watch=true&labelSelector=test%3Dreads&allowWatchBookmarks=true");
    for query in [
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=1",
        "resourceVersion=0",
        "",
    ] {
        let path = format!("{watch}&{query}");
        let events = watched(&admin, &path, |events| events.len() == 3).await;
        assert_eq!(types(&events), ["ADDED", "ADDED", "BOOKMARK"], "{query}");
        let bookmark = &events[2]["object"];
        assert_eq!(bookmark["metadata"]["annotations"][INITIAL_END], "true", "{query}: {bookmark}");
        assert_eq!(
            (&bookmark["kind"], &bookmark["apiVersion"]),
            (&json!("ConfigMap"), &json!("v1"))
        );
    }
    // Without bookmarks there is none; from a revision on, no state.
    let plain = format!("{MAPS}?watch=true&labelSelector=test%3Dreads&timeoutSeconds=1");
    assert_eq!(types(&watched(&admin, &plain, |_| false).await), ["ADDED", "ADDED"]);
    let now = listed(&admin, "").await.1["resourceVersion"].as_str().expect("a version").to_owned();
    for query in [
        format!("resourceVersion={now}"),
        "sendInitialEvents=false&resourceVersionMatch=NotOlderThan".into(),
    ] {
        let events = watched(&admin, &format!("{plain}&{query}"), |_| false).await;
        assert!(events.is_empty(), "{query}: {events:?}");
    }
    let last =
        watched(&admin, &format!("{watch}&timeoutSeconds=1&resourceVersion={now}"), |_| false)
            .await;
    assert_eq!(types(&last), ["BOOKMARK"], "a bookmark before the end");
    assert!(last[0]["object"]["metadata"]["annotations"].is_null());
}

#[tokio::test]
async fn one_object_is_watched_by_name_and_what_ceases_to_match_is_gone() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    make(&admin, "a", "1").await;
    make(&admin, "b", "1").await;
    let now = listed(&admin, "").await.1["resourceVersion"].as_str().expect("a version").to_owned();
    make(&admin, "b", "2").await;
    make(&admin, "a", "2").await;
    let label = r#"{"metadata":{"labels":{"test":"other"}}}"#;
    let media = [("content-type", "application/merge-patch+json")];
    let changed = admin.call(Method::PATCH, &format!("{MAPS}/a"), &media, label).await;
    assert_eq!(changed.code, StatusCode::OK);
    admin.delete(&format!("{MAPS}/a")).await;
    let by_name =
        format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da&resourceVersion={now}");
    let events = watched(&admin, &by_name, |events| events.len() == 3).await;
    assert_eq!(types(&events), ["MODIFIED", "MODIFIED", "DELETED"]);
    let by_label = format!("{MAPS}?watch=true&labelSelector=test%3Dreads&resourceVersion={now}");
    let events = watched(&admin, &by_label, |events| events.len() == 3).await;
    assert_eq!(types(&events), ["MODIFIED", "MODIFIED", "DELETED"]);
    // As it was when it still matched, at the revision at which it ceased to.
    let gone = &events[2]["object"]["metadata"];
    assert_eq!(gone["labels"]["test"], "reads");
    assert_eq!(gone["resourceVersion"], changed.json()["metadata"]["resourceVersion"]);
    let old = format!("/api/v1/watch/namespaces/default/configmaps/b?resourceVersion={now}");
    let events = watched(&admin, &old, |events| !events.is_empty()).await;
    assert_eq!(events[0]["object"]["metadata"]["name"], "b");
    let other = admin.get(&format!("{old}&fieldSelector=metadata.name%3Dc")).await;
    assert_eq!(
        (other.code, other.message().as_str()),
        (StatusCode::BAD_REQUEST, "fieldSelector metadata.name doesn't match requested name")
    );
}

#[tokio::test]
async fn selectors_choose_across_namespaces() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (name, labels) in
        [("a", json!({"tier": "web", "v": "1"})), ("b", json!({"tier": "db"})), ("c", json!({}))]
    {
        let mut labels = labels;
        labels["test"] = "selectors".into();
        for namespace in ["default", "kube-public"] {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            assert_eq!(admin.post(&path, &map).await.code, StatusCode::CREATED);
        }
    }
    let check = async |labels: &str, fields: &str, expected: &str| {
        let encode = skiff_apiserver::request::query::percent_encode;
        let query = format!(
            "labelSelector={}&fieldSelector={}",
            encode(&format!("test=selectors,{labels}")),
            encode(fields)
        );
        let list = admin.get(&format!("/api/v1/configmaps?{query}")).await.json();
        let name = |item: &Value| {
            let (namespace, name) = (&item["metadata"]["namespace"], &item["metadata"]["name"]);
            format!(
                "{}{}",
                &namespace.as_str().unwrap_or_default()[..1],
                name.as_str().unwrap_or_default()
            )
        };
        let found: Vec<String> =
            list["items"].as_array().expect("items").iter().map(name).collect();
        assert_eq!(found.join(" "), expected, "{labels} {fields}");
    };
    check("tier", "", "da db ka kb").await;
    check("!tier", "", "dc kc").await;
    check("tier=web", "", "da ka").await;
    check("tier==web", "metadata.namespace=default", "da").await;
    check("tier!=web", "", "db dc kb kc").await;
    check("tier in (web, db),v", "", "da ka").await;
    check("tier notin (web)", "metadata.namespace!=default", "kb kc").await;
    check("v>0", "", "da ka").await;
    check("v<1", "", "").await;
    check("tier", "metadata.name=b", "db kb").await;
    check("tier", "metadata.name!=b,metadata.namespace==kube-public", "ka").await;
}

#[tokio::test]
async fn bad_reads_are_refused_with_upstreams_words() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let check = async |query: &str, code: u16, message: &str| {
        let answer = admin.get(&format!("{MAPS}?{query}")).await;
        assert_eq!((answer.code.as_u16(), answer.message().as_str()), (code, message), "{query}");
    };
    check("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax").await;
    check("resourceVersion=x", 400, "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax").await;
    check("continue=e30", 400, "invalid continue token: continue key is not valid: server does not recognize this encoded version ").await;
    check("resourceVersionMatch=Exact", 422, "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided").await;
    check("watch=1&sendInitialEvents=true", 422, "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan").await;
    check(
        "fieldSelector=spec.x%3D1",
        400,
        "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    )
    .await;
    check("fieldSelector=spec", 400, "invalid selector: 'spec'; can't understand 'spec'").await;
    check(
        "labelSelector=a%3D%3D%3Db",
        400,
        "unable to parse requirement: found '=', expected: identifier",
    )
    .await;
    check(
        "labelSelector=a%20b",
        400,
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
    )
    .await;
    check("labelSelector=-a", 400, "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')").await;
}
