//! Walks every row that is served: each verb in each encoding, each kind of patch, each subresource; and each
//! verb that a row does not have. What deviates stands in the lists below.

use std::time::Duration;

use crate::minimal::{content, name};
use crate::support::{Answer, Client, Cluster};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use registry::{Row, Verb};
use serde_json::{Value, json};

/// Subresources that need a kubelet or pods that run; they have tests of their own.
const ELSEWHERE: &[&str] = &["attach", "exec", "log", "portforward", "proxy"];

/// Kinds whose objects wait, when deleted, until a controller knows that nobody uses them.
const PROTECTED: &[&str] = &["PersistentVolume", "PersistentVolumeClaim", "VolumeAttributesClass"];

/// How bodies are sent and answers asked for.
const SYNTAXES: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Other forms of answers, and the kinds that they come as.
const FORMS: &[(&str, &str)] = &[
    ("application/json;as=Table;v=v1;g=meta.k8s.io", "Table"),
    ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "PartialObjectMetadata"),
    (
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        "PartialObjectMetadataList",
    ),
];

struct Walk<'a> {
    admin: &'a Client<'a>,
    row: &'a Row,
    collection: String,
    one: String,
    surprises: Vec<String>,
}

fn encoded(syntax: &str, value: &Value) -> Vec<u8> {
    let json = value.to_string().into_bytes();
    match syntax {
        "application/yaml" => codec::yaml::from_json(&json).expect("YAML").into(),
        "application/vnd.kubernetes.protobuf" => {
            codec::protobuf::object(&json).unwrap_or_else(|error| panic!("{error}: {value}"))
        }
        _ => json,
    }
}

fn decoded(syntax: &str, answer: &Answer) -> Value {
    let json = match syntax {
        "application/yaml" => codec::yaml::to_json(&answer.body).expect("YAML"),
        "application/vnd.kubernetes.protobuf" => {
            codec::protobuf::to_json(&answer.body).expect("protobuf")
        }
        _ => return answer.json(),
    };
    serde_json::from_slice(&json).expect("JSON")
}

impl Walk<'_> {
    /// One request; its answer is noted unless it has `code` and is of `kind`.
    async fn ask(
        &mut self,
        what: &str,
        request: (Method, &str),
        headers: (&str, &str),
        body: Vec<u8>,
        expected: (u16, &str),
    ) -> Value {
        let (method, path) = request;
        let sent = [("content-type", headers.0), ("accept", headers.1)];
        let answer = self.admin.call(method, path, &sent, body).await;
        let place = format!("{what} {path} as {} for {}", headers.0, headers.1);
        if answer.code.as_u16() != expected.0 {
            self.surprises.push(format!("{place}: {} {}", answer.code, answer.text()));
            return Value::Null;
        }
        let media = headers.1.split(';').next().unwrap_or_default();
        if answer.headers["content-type"] != media {
            self.surprises.push(format!("{place}: {:?}", answer.headers["content-type"]));
        }
        let value = decoded(media, &answer);
        if !expected.1.is_empty() && value["kind"] != expected.1 {
            self.surprises.push(format!("{place}: kind {}", value["kind"]));
        }
        value
    }

    /// The first event of a watch.
    async fn first(&self, path: &str, accept: &str) -> Value {
        let request = http::Request::get(path).header("accept", accept).body(serve::Body::empty());
        let response = self.admin.send(request.expect("request")).await;
        let mut body = response.into_body();
        // What is not there is never told of.
        let frame =
            tokio::time::timeout(Duration::from_secs(60), body.frame()).await.ok().flatten();
        let data = frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        serde_json::from_slice(&data.unwrap_or_default()).unwrap_or_default()
    }

    fn object(&self) -> Value {
        let kind = &self.row.kind;
        let mut object = content(&kind.group, &kind.kind);
        object["apiVersion"] = self.row.api_version().into();
        object["kind"] = kind.kind.as_str().into();
        object["metadata"] = json!({"name": name(&kind.kind), "labels": {"walk": "a"}});
        object
    }

    async fn creates(&mut self) {
        let (object, kind) = (self.object(), self.row.kind.kind.clone());
        let dry = format!("{}?dryRun=All&fieldValidation=Strict", self.collection);
        for syntax in SYNTAXES {
            for accept in SYNTAXES {
                let body = encoded(syntax, &object);
                let post = (Method::POST, dry.as_str());
                let headers = (*syntax, *accept);
                self.ask("dry create", post, headers, body, (201, &kind)).await;
            }
        }
        let post = (Method::POST, self.collection.clone());
        let headers = (SYNTAXES[0], SYNTAXES[0]);
        let body = encoded(SYNTAXES[0], &object);
        self.ask("create", (post.0, &post.1), headers, body, (201, &kind)).await;
    }

    async fn reads(&mut self) {
        let (kind, list) = (self.row.kind.kind.clone(), self.row.list_kind.clone());
        let (one, all) = (self.one.clone(), self.collection.clone());
        let everywhere = all.replace("/namespaces/default", "");
        let get = || Method::GET;
        let json = SYNTAXES[0];
        for accept in SYNTAXES {
            self.ask("get", (get(), &one), (json, accept), vec![], (200, &kind)).await;
            for path in [&all, &everywhere] {
                let found =
                    self.ask("list", (get(), path), (json, accept), vec![], (200, &list)).await;
                if found["items"].as_array().is_none_or(Vec::is_empty) {
                    self.surprises.push(format!("list {path}: nothing"));
                }
            }
        }
        for (accept, kind) in FORMS {
            let path = if *kind == "PartialObjectMetadataList" { &all } else { &one };
            self.ask("get", (get(), path), (json, accept), vec![], (200, kind)).await;
        }
        let selected =
            format!("{all}?labelSelector=walk%3Da&fieldSelector=metadata.name%3D{}", name(&kind));
        let found = self.ask("list", (get(), &selected), (json, json), vec![], (200, &list)).await;
        if found["items"].as_array().map(Vec::len) != Some(1) {
            self.surprises.push(format!("list {selected}: {found}"));
        }
        let watch = format!("{all}?watch=true&labelSelector=walk%3Da&resourceVersion=0");
        for (accept, kind) in [(json, kind.as_str()), FORMS[0], FORMS[1]] {
            let event = self.first(&watch, accept).await;
            if event["type"] != "ADDED" || event["object"]["kind"] != kind {
                self.surprises.push(format!("watch {watch} for {accept}: {event}"));
            }
        }
    }

    async fn changes(&mut self) {
        let (kind, one) = (self.row.kind.kind.clone(), self.one.clone());
        let json = SYNTAXES[0];
        let patches = [
            ("json-patch", r#"[{"op":"add","path":"/metadata/labels/walk","value":"b"}]"#),
            ("merge-patch", r#"{"metadata":{"labels":{"walk":"c"}}}"#),
            ("strategic-merge-patch", r#"{"metadata":{"labels":{"walk":"d"}}}"#),
        ];
        for (patch, body) in patches {
            let media = format!("application/{patch}+json");
            for (query, accept) in [("?dryRun=All", SYNTAXES[1]), ("", json)] {
                let path = format!("{one}{query}");
                let request = (Method::PATCH, path.as_str());
                let headers = (media.as_str(), accept);
                let got = self.ask("patch", request, headers, body.into(), (200, &kind)).await;
                if !body.contains(&got["metadata"]["labels"]["walk"].to_string()) {
                    self.surprises.push(format!("{patch} {path}: {got}"));
                }
            }
        }
        let labels = json!({"name": name(&kind), "labels": {"walk": "e"}});
        let got = self.apply(&one, (&self.row.api_version(), &kind), &labels).await;
        if got["metadata"]["labels"]["walk"] != "e" {
            self.surprises.push(format!("apply {one}: {got}"));
        }
        let mut object =
            self.ask("get", (Method::GET, &one), (json, json), vec![], (200, &kind)).await;
        if object.is_null() {
            return;
        }
        object["metadata"]["labels"]["walk"] = "e".into();
        for syntax in SYNTAXES {
            let path = format!("{one}?dryRun=All&fieldValidation=Strict");
            let put = (Method::PUT, path.as_str());
            let body = encoded(syntax, &object);
            self.ask("update", put, (syntax, syntax), body, (200, &kind)).await;
        }
        let stale = json!({"resourceVersion": "1"});
        object["metadata"]["resourceVersion"] = stale["resourceVersion"].clone();
        let put = (Method::PUT, one.as_str());
        self.ask("stale update", put, (json, json), encoded(json, &object), (409, "Status")).await;
    }

    /// Applies metadata, without storing the outcome.
    async fn apply(&mut self, path: &str, kind: (&str, &str), metadata: &Value) -> Value {
        let body = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": metadata});
        let path = format!("{path}?dryRun=All&fieldManager=walker&force=true");
        let headers = ("application/apply-patch+yaml", SYNTAXES[0]);
        let patch = (Method::PATCH, path.as_str());
        self.ask("apply", patch, headers, body.to_string().into(), (200, kind.1)).await
    }

    async fn parts(&mut self) {
        let json = SYNTAXES[0];
        for part in self.row.subresources.clone() {
            if ELSEWHERE.contains(&part.name.as_str()) || !part.verbs.contains(&Verb::Get) {
                continue;
            }
            let (path, kind) = (format!("{}/{}", self.one, part.name), part.kind.kind.clone());
            let dry = format!("{path}?dryRun=All");
            for accept in SYNTAXES {
                let get = (Method::GET, path.as_str());
                let got = self.ask("get", get, (json, accept), vec![], (200, &kind)).await;
                let put = (Method::PUT, dry.as_str());
                self.ask("update", put, (json, accept), encoded(json, &got), (200, &kind)).await;
            }
            let empty = [
                ("application/json-patch+json", "[]"),
                ("application/merge-patch+json", "{}"),
                ("application/strategic-merge-patch+json", "{}"),
            ];
            for (media, body) in empty {
                let patch = (Method::PATCH, dry.as_str());
                self.ask("patch", patch, (media, json), body.into(), (200, &kind)).await;
            }
            let nothing = json!({"name": name(&self.row.kind.kind)});
            self.apply(&path, (&part.kind.api_version(), &kind), &nothing).await;
        }
    }

    async fn deletes(&mut self) {
        let json = SYNTAXES[0];
        let answered =
            if self.row.returned { self.row.kind.kind.clone() } else { "Status".to_owned() };
        for (query, accept) in [("?dryRun=All", SYNTAXES[1]), ("?gracePeriodSeconds=0", json)] {
            let path = format!("{}{query}", self.one);
            let request = (Method::DELETE, path.as_str());
            self.ask("delete", request, (json, accept), vec![], (200, &answered)).await;
        }
        if self.row.kind.kind == "Namespace" {
            let finalize = format!("{}/finalize", self.one);
            let body = encoded(json, &self.object());
            let put = (Method::PUT, finalize.as_str());
            self.ask("finalize", put, (json, json), body, (200, "Namespace")).await;
        }
        if PROTECTED.contains(&self.row.kind.kind.as_str()) {
            let body = r#"{"metadata":{"finalizers":null}}"#;
            let (path, kind) = (self.one.clone(), self.row.kind.kind.clone());
            let headers = ("application/merge-patch+json", json);
            self.ask("release", (Method::PATCH, &path), headers, body.into(), (200, &kind)).await;
        }
        let get = (Method::GET, self.one.clone());
        self.ask("get", (get.0, &get.1), (json, json), vec![], (404, "Status")).await;
        if self.row.verbs.contains(&Verb::DeleteCollection) {
            let path = format!("{}?labelSelector=walk%3Dnone", self.collection);
            let list = self.row.list_kind.clone();
            let request = (Method::DELETE, path.as_str());
            self.ask("delete", request, (json, json), vec![], (200, &list)).await;
        }
    }

    /// What the row has no verb for is refused in the right words.
    async fn refusals(&mut self) {
        let resource = self.row.group_resource().to_string();
        let all = [
            (Verb::Create, Method::POST, false),
            (Verb::List, Method::GET, false),
            (Verb::DeleteCollection, Method::DELETE, false),
            (Verb::Get, Method::GET, true),
            (Verb::Update, Method::PUT, true),
            (Verb::Patch, Method::PATCH, true),
            (Verb::Delete, Method::DELETE, true),
        ];
        for (verb, method, named) in all {
            if self.row.verbs.contains(&verb) {
                continue;
            }
            let path = if named { &self.one } else { &self.collection };
            let media = match verb {
                Verb::Patch => "application/merge-patch+json",
                _ => "application/json",
            };
            let answer = self.admin.call(method, path, &[("content-type", media)], "{}").await;
            let message = answer.message();
            if answer.code != StatusCode::METHOD_NOT_ALLOWED
                || message != "the server does not allow this method on the requested resource"
            {
                self.surprises
                    .push(format!("{verb} {path} of {resource}: {} {message}", answer.code));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_answers_every_verb_in_every_encoding() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let (mut walked, mut surprises) = (0, Vec::new());
    for row in cluster.server.registry().rows().iter() {
        let prefix = if row.kind.group.is_empty() { "/api" } else { "/apis" };
        let scope = if row.namespaced() { "/namespaces/default" } else { "" };
        let collection = format!("{prefix}/{}{scope}/{}", row.api_version(), row.resource.resource);
        let one = format!("{collection}/{}", name(&row.kind.kind));
        let mut walk = Walk { admin: &admin, row, collection, one, surprises: Vec::new() };
        walk.refusals().await;
        if row.storage.is_some() {
            walk.creates().await;
            walk.reads().await;
            walk.changes().await;
            walk.parts().await;
            walk.deletes().await;
            walked += 1;
        }
        surprises.append(&mut walk.surprises);
    }
    assert!(walked > 55, "{walked}");
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}
