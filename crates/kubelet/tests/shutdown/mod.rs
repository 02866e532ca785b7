//! A machine that goes down: pods end in the order of their priorities, and say why.

use std::time::Duration;

use k8s_openapi::api::{core::v1 as api, scheduling::v1::PriorityClass};
use kube::{Api, api::PostParams};
use serde_json::json;
use skiff_kubelet::ShutdownGrace;

use crate::support::{self, Node, condition, is_ready, object, phase, status, until};

/// A pod that takes its whole time to end, unless a file lets it go.
fn stubborn(class: &str) -> serde_json::Value {
    let script = "trap '' TERM; until busybox test -e /tmp/go; do busybox sleep 0.1; done; exit 1";
    json!({"priorityClassName": class, "terminationGracePeriodSeconds": 600, "containers": [{"name": "c",
        "command": ["/bin/busybox", "sh", "-c", script]}]})
}

fn finished_at(pod: &api::Pod) -> jiff::Timestamp {
    let state = status(pod, "c").and_then(|status| status.state.clone()).expect("a state");
    state.terminated.and_then(|ended| ended.finished_at).expect("an end").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_end_by_priority_when_the_machine_goes_down() {
    let seconds = Duration::from_secs;
    let mut node = Node::start_with("down", |options| {
        options.shutdown_grace = vec![
            ShutdownGrace { priority: 0, grace: seconds(300) },
            ShutdownGrace { priority: 1000, grace: seconds(2) },
        ];
    })
    .await;
    let classes: Api<PriorityClass> = Api::all(node.client.clone());
    for (name, value) in [("cheap", -10), ("dear", 5000)] {
        let class: PriorityClass = object(json!({"metadata": {"name": name}, "value": value}));
        classes.create(&PostParams::default(), &class).await.unwrap();
    }
    for name in ["cheap", "dear"] {
        node.run(name, stubborn(name)).await;
        node.wait(name, "became ready", is_ready).await;
    }
    node.going_down.cancel();
    let nodes: Api<api::Node> = Api::all(node.client.clone());
    until("the node says that it goes down", async || {
        let status = nodes.get(support::NODE).await.unwrap().status.unwrap();
        let ready = status.conditions.iter().flatten().find(|one| one.type_ == "Ready").unwrap();
        ready.status == "False" && ready.message.as_deref() == Some("node is shutting down")
    })
    .await;
    node.run("late", json!({"containers": [{"name": "c"}]})).await;
    let late = node.wait("late", "was refused", |pod| phase(pod) == "Failed").await;
    assert_eq!(late.status.unwrap().reason.as_deref(), Some("NodeShutdown"));
    // The first has its long time until it goes; the other does not go by itself.
    let cheap = node.get("cheap").await.unwrap();
    node.exec(&cheap, "c", &["/bin/busybox", "touch", "/tmp/go"]).await;
    node.ended().await;
    let cheap = node.get("cheap").await.unwrap();
    let dear = node.get("dear").await.unwrap();
    for pod in [&cheap, &dear] {
        assert_eq!(phase(pod), "Failed");
        let status = pod.status.as_ref().unwrap();
        assert_eq!(status.reason.as_deref(), Some("Terminated"));
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(status.message.as_deref(), Some(message));
        assert_eq!(condition(pod, "DisruptionTarget"), Some("True"));
    }
    assert!(finished_at(&cheap) < finished_at(&dear), "{cheap:?} {dear:?}");
    // The next kubelet leaves them as they are.
    node.going_down = tokio_util::sync::CancellationToken::new();
    node.start_kubelet();
    node.run("after", json!({"containers": [{"name": "c"}], "terminationGracePeriodSeconds": 1}))
        .await;
    node.wait("after", "became ready", is_ready).await;
    assert_eq!(phase(&node.get("dear").await.unwrap()), "Failed");
    node.finish().await;
}
