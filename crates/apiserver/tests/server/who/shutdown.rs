//! The server's end: requests under way are answered, watches end, nothing new begins.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use pki::Profile;

use super::https_connector;
use crate::support::{Cluster, until};

#[tokio::test]
async fn requests_are_finished_and_watches_closed() {
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    let admin = Profile::client("admin", Some("system:masters"));
    let admin = cluster.authority.issue(&admin).expect("issued");
    let connector = https_connector(&cluster, Some(&admin));
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    let path = format!("https://{address}/api/v1/namespaces/default/configmaps");
    let (mut body, chunks) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let request = Request::post(&path).header("content-type", "application/json");
    let request = request.body(StreamBody::new(chunks)).expect("request");
    let half = Bytes::from_static(br#"{"apiVersion":"v1","kind":"ConfigMap","#);
    body.send(Ok(Frame::data(half))).await.expect("taken");
    let answer = tokio::spawn(client.request(request));
    let (_, nothing) = mpsc::channel(0);
    let watch =
        Request::get(format!("{path}?watch=1")).body(StreamBody::new(nothing)).expect("request");
    let mut watch = client.request(watch).await.expect("a watch");
    assert_eq!(watch.status(), StatusCode::OK);
    until("the write's arrival", async || {
        let metrics = cluster.admin().get("/metrics").await.text();
        metrics.contains("apiserver_current_inflight_requests{request_kind=\"mutating\"} 1")
    })
    .await;
    cluster.shutdown.cancel();
    let end = async { while watch.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    tokio::time::timeout(Duration::from_secs(60), end).await.expect("the watch ends");
    let rest = Bytes::from_static(br#""metadata":{"name":"late"}}"#);
    body.send(Ok(Frame::data(rest))).await.expect("taken");
    drop(body);
    let answer = answer.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    let ready = cluster.admin().get("/readyz").await;
    assert_eq!(ready.code, StatusCode::INTERNAL_SERVER_ERROR);
}
