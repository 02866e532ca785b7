//! What kube-rs does with a running pod over TLS: commands, the first process, ports and the log.

use std::time::Duration;

use k8s_openapi::api::core::v1 as api;
use kube::{
    Api,
    api::{AttachParams, LogParams},
};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::support::{Node, status};

/// What a stream says until it ends.
async fn all(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = String::new();
    let mut stream = stream.expect("a stream");
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut text));
    read.await.expect("an end").expect("text");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_runs_attaches_and_forwards() {
    let node = Node::start("streams").await;
    let pods: Api<api::Pod> = Api::namespaced(node.over_tls().await, "default");
    let sh = |script: &str| json!(["/bin/busybox", "sh", "-c", script]);
    let ticking = "while :; do echo tick; busybox sleep 0.1; done";
    let asking = "read word; echo said $word";
    let spec = json!({
        "hostNetwork": true, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [
            {"name": "plain", "command": sh(ticking)},
            {"name": "terminal", "command": sh(asking), "tty": true, "stdin": true},
        ],
    });
    node.run("talk", spec).await;
    let started = |pod: &api::Pod, name| status(pod, name).is_some_and(|s| s.started == Some(true));
    node.wait("talk", "runs", |pod| started(pod, "plain") && started(pod, "terminal")).await;

    let plain = AttachParams::default().container("plain").stdin(true).stderr(true);
    let command = ["/bin/busybox", "sh", "-c", "busybox cat; echo oops >&2; exit 7"];
    let mut running = pods.exec("talk", command, &plain).await.expect("runs");
    let ended = running.take_status().expect("a status");
    let mut stdin = running.stdin().expect("an input");
    stdin.write_all(b"through and back\n").await.expect("taken");
    stdin.shutdown().await.expect("ends");
    drop(stdin);
    assert_eq!(all(running.stdout()).await, "through and back\n");
    assert_eq!(all(running.stderr()).await, "oops\n");
    let ended = ended.await.expect("a status");
    assert_eq!(ended.reason.as_deref(), Some("NonZeroExitCode"), "{ended:?}");

    // A client without a terminal of its own, and a process that has one: it ends with the process.
    let terminal = AttachParams::default().container("terminal").stdin(true).stderr(true);
    let mut attached = pods.attach("talk", &terminal).await.expect("attaches");
    attached.stdin().expect("an input").write_all(b"hello\n").await.expect("taken");
    let heard = all(attached.stdout()).await;
    assert!(heard.contains("said hello"), "{heard:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut read, mut write) = socket.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let mut forward = pods.portforward("talk", &[port, 1]).await.expect("forwards");
    let mut stream = forward.take_stream(port).expect("a stream");
    let large = vec![7; 300_000];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut back = vec![0; large.len()];
    let (sent, came) = tokio::join!(write.write_all(&large), read.read_exact(&mut back));
    assert!(sent.is_ok() && came.is_ok() && back == large, "{sent:?} {came:?}");
    let refused = forward.take_error(1).expect("errors").await.unwrap_or_default();
    assert!(refused.contains("failed to connect to localhost:1 inside the pod"), "{refused:?}");
    drop(forward);

    let last =
        LogParams { container: Some("plain".into()), tail_lines: Some(1), ..Default::default() };
    assert_eq!(pods.logs("talk", &last).await.expect("a log"), "tick\n");
    node.finish().await;
}
