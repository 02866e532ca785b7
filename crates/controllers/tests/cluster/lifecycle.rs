//! Nodes that fall silent, and what becomes of their pods.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    coordination::v1::Lease,
    core::v1::{Event, Node, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{deployment, is_complete, is_serving, support::Cluster};

fn taints(node: &Node, effect: &str) -> usize {
    let all = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    all.filter(|taint| taint.effect == effect && taint.key.ends_with("unreachable")).count()
}

/// Waits until the node is tainted with that effect, or no more.
async fn wait_tainted(cluster: &Cluster, node: &str, effect: &str, tainted: bool) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let what = format!("{node} tainted with {effect}: {tainted}");
    cluster
        .until(&what, || async {
            Ok(((taints(&nodes.get(node).await?, effect) == 1) == tainted).then_some(()))
        })
        .await;
}

/// Waits until a node has renewed its lease several times: long enough for others to be judged.
async fn wait_renewals(cluster: &Cluster, node: &str, times: usize) {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let mut last = None;
    for _ in 0..times {
        let renewed = cluster.until("the lease is renewed", || async {
            let time = leases.get_opt(node).await?.and_then(|lease| lease.spec?.renew_time);
            Ok(time.map(|time| time.0).filter(|time| Some(*time) != last))
        });
        last = Some(renewed.await);
    }
}

async fn pods_on(cluster: &Cluster, node: &str) -> Vec<Pod> {
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    cluster.api::<Pod>().list(&on_node).await.unwrap().items
}

async fn taint(cluster: &Cluster, node: &str, taints: Value) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = Patch::Strategic(json!({ "spec": { "taints": taints } }));
    nodes.patch(node, &PatchParams::default(), &patch).await.unwrap();
}

fn stateful_set(replicas: i32) -> Value {
    let mut set = deployment(replicas, "1.0.0");
    set["metadata"]["name"] = json!("db");
    set["spec"].as_object_mut().unwrap().remove("strategy");
    set["spec"]["serviceName"] = json!("db");
    set
}

fn is_running(set: &StatefulSet) -> bool {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
    set.status.as_ref().is_some_and(|status| status.available_replicas == wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_evicted_while_most_of_the_cluster_is_silent() {
    let cluster = Cluster::watchful().await;
    let first = cluster.add_node("node-1").await;
    cluster.create::<Deployment>(deployment(2, "1.0.0")).await;
    cluster.wait::<Deployment>("web", "complete", is_complete).await;
    let before = pods_on(&cluster, "node-1").await;
    let second = cluster.add_node("node-2").await;
    let _third = cluster.add_node("node-3").await;
    wait_renewals(&cluster, "node-3", 2).await;
    first.cancel();
    second.cancel();
    for node in ["node-1", "node-2"] {
        wait_tainted(&cluster, node, "NoSchedule", true).await;
    }
    wait_renewals(&cluster, "node-3", 12).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for node in ["node-1", "node-2"] {
        assert_eq!(taints(&nodes.get(node).await.unwrap(), "NoExecute"), 0, "{node}");
    }
    let _first = cluster.resume_node("node-1");
    wait_tainted(&cluster, "node-1", "NoSchedule", false).await;
    cluster.wait::<Deployment>("web", "complete again", is_complete).await;
    let after = pods_on(&cluster, "node-1").await;
    let uids = |pods: &[Pod]| pods.iter().map(|pod| pod.uid()).collect::<Vec<_>>();
    assert_eq!(uids(&before), uids(&after), "all have stayed");
    // Now that most nodes work, the one that does not is emptied.
    wait_tainted(&cluster, "node-2", "NoExecute", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_in_time_keeps_its_pods() {
    let cluster = Cluster::watchful().await;
    let first = cluster.add_node("node-1").await;
    let mut patient = deployment(1, "1.0.0");
    patient["spec"]["template"]["spec"]["tolerations"][0]["tolerationSeconds"] = json!(300);
    cluster.create::<Deployment>(patient).await;
    cluster.wait::<Deployment>("web", "complete", is_complete).await;
    let before = pods_on(&cluster, "node-1").await;
    cluster.create::<Pod>(hasty()).await;
    let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    cluster.wait::<Pod>("hasty", "on a node", is_bound).await;
    let _second = cluster.add_node("node-2").await;
    first.cancel();
    wait_tainted(&cluster, "node-1", "NoExecute", true).await;
    // Whoever evicts has seen the taint, and so that others may have to go.
    let is_evicted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    cluster.wait::<Pod>("hasty", "evicted", is_evicted).await;
    cluster
        .wait::<Deployment>("web", "not ready", |one| {
            one.status.as_ref().is_some_and(|status| status.ready_replicas.is_none())
        })
        .await;
    let _first = cluster.resume_node("node-1");
    wait_tainted(&cluster, "node-1", "NoExecute", false).await;
    let events: Api<Event> = cluster.api();
    for (reason, message) in [
        ("NodeNotReady", "Node is not ready"),
        ("TaintManagerEviction", "Cancelling deletion of Pod default/"),
    ] {
        cluster
            .until(message, || async {
                let events = events.list(&ListParams::default()).await?.items;
                let found = events.into_iter().find(|event| {
                    event.reason.as_deref() == Some(reason)
                        && event.message.as_deref().unwrap_or_default().starts_with(message)
                });
                Ok(found)
            })
            .await;
    }
    cluster.wait::<Deployment>("web", "complete again", is_complete).await;
    let after = pods_on(&cluster, "node-1").await;
    assert!(after.iter().any(|pod| pod.uid() == before[0].uid()), "it has stayed");
}

/// A pod that leaves a silent node at once.
fn hasty() -> Value {
    json!({ "metadata": { "name": "hasty" }, "spec": {
        "tolerations": [{ "key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 0 }],
        "containers": [{ "name": "c", "image": "1.0.0" }] } })
}

/// A StatefulSet with one pod on node-1, which falls silent, and a node-2 that works.
async fn stateful_pod_on_a_lost_node(cluster: &Cluster, annotations: Value) -> Pod {
    let first = cluster.add_node("node-1").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    nodes.patch("node-1", &PatchParams::default(), &patch).await.unwrap();
    cluster.create::<StatefulSet>(stateful_set(1)).await;
    cluster.wait::<StatefulSet>("db", "running", is_running).await;
    let pod = cluster.api::<Pod>().get("db-0").await.unwrap();
    let _ = cluster.add_node("node-2").await;
    wait_renewals(cluster, "node-2", 2).await;
    first.cancel();
    wait_tainted(cluster, "node-1", "NoExecute", true).await;
    // Whoever is fenced by then is gone as soon as it is evicted: its successor counts too.
    let evicted = |now: &Pod| now.metadata.deletion_timestamp.is_some() || now.uid() != pod.uid();
    cluster.wait::<Pod>("db-0", "evicted", evicted).await;
    pod
}

async fn wait_moved(cluster: &Cluster, before: &Pod) {
    let moved = |pod: &Pod| pod.uid() != before.uid() && is_serving(pod);
    let pod = cluster.wait::<Pod>("db-0", "moved", moved).await;
    assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("node-2"));
    let set = cluster.wait::<StatefulSet>("db", "running again", is_running).await;
    assert_eq!(set.status.unwrap().replicas, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_pod_moves_when_its_node_is_out_of_service() {
    let cluster = Cluster::watchful().await;
    let pod = stateful_pod_on_a_lost_node(&cluster, json!({})).await;
    wait_renewals(&cluster, "node-2", 8).await;
    let still = cluster.api::<Pod>().get("db-0").await.unwrap();
    assert_eq!(still.uid(), pod.uid(), "it may still run");
    let out = json!([{ "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown",
        "effect": "NoExecute" }]);
    taint(&cluster, "node-1", out).await;
    wait_moved(&cluster, &pod).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_pod_moves_when_its_node_has_fenced_itself() {
    let cluster = Cluster::watchful().await;
    let fences = json!({ "skiff.dev/self-fence": "12" });
    let pod = stateful_pod_on_a_lost_node(&cluster, fences).await;
    wait_moved(&cluster, &pod).await;
    let _first = cluster.resume_node("node-1");
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    cluster
        .until("the mark is gone", || async {
            let marked =
                nodes.get("node-1").await?.annotations().contains_key("skiff.dev/self-fenced");
            Ok((!marked).then_some(()))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_is_updated_from_the_top_and_scaled_in_order() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    cluster.create::<StatefulSet>(stateful_set(3)).await;
    let set = cluster.wait::<StatefulSet>("db", "running", is_running).await;
    let first = set.status.unwrap().current_revision.unwrap();
    let pods: Api<Pod> = cluster.api();
    // Addresses are numbered in the order in which pods become ready.
    let turn = |name: &'static str| {
        let pods = pods.clone();
        async move {
            let ip = pods.get(name).await.unwrap().status.unwrap().pod_ip.unwrap();
            ip.rsplit('.').next().unwrap().parse::<u32>().unwrap()
        }
    };
    assert!(turn("db-0").await < turn("db-1").await);
    let image = json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "web", "image": "1.1.0" }] } } } });
    cluster.patch::<StatefulSet>("db", image).await;
    let set = cluster
        .wait::<StatefulSet>("db", "updated", |set| {
            let status = set.status.as_ref().unwrap();
            status.current_revision == status.update_revision
                && status.updated_replicas == Some(3)
                && status.current_revision.as_deref() != Some(&first)
        })
        .await;
    assert_eq!(set.status.unwrap().ready_replicas, Some(3));
    assert!(turn("db-2").await < turn("db-0").await, "from the top");
    cluster.patch::<StatefulSet>("db", json!({ "spec": { "replicas": 1 } })).await;
    cluster.wait_count::<Pod>(1).await;
    assert!(pods.get_opt("db-0").await.unwrap().is_some());
    cluster.patch::<StatefulSet>("db", json!({ "spec": { "replicas": 0 } })).await;
    cluster.wait_count::<Pod>(0).await;
}
