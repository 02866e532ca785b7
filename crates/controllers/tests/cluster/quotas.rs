//! Quotas that are counted anew, and claims that stay while they are used.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use super::support::{Cluster, object};

fn used(quota: &ResourceQuota, name: &str) -> String {
    let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
    used.and_then(|used| used.get(name)).map(|amount| amount.0.clone()).unwrap_or_default()
}

async fn wait_used(cluster: &Cluster, name: &str, amount: &str) {
    let what = format!("{name} at {amount}");
    cluster.wait::<ResourceQuota>("q", &what, |quota| used(quota, name) == amount).await;
}

fn quota(hard: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
}

fn map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name}}))
}

fn pod(name: &str, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": image, "resources": {"requests": {"cpu": "1"}}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_makes_room_for_others() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = cluster.api();
    let there = cluster
        .until("the CA's map", || async {
            let maps = maps.list(&Default::default()).await?.items.len();
            Ok((maps > 0).then_some(maps))
        })
        .await;
    let hard = json!({"configmaps": (there + 1).to_string(), "requests.cpu": "1500m", "pods": "9"});
    cluster.create::<ResourceQuota>(quota(hard)).await;
    wait_used(&cluster, "configmaps", &there.to_string()).await;
    wait_used(&cluster, "requests.cpu", "0").await;

    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let full = maps.create(&PostParams::default(), &map("b")).await.unwrap_err();
    assert!(full.to_string().contains("exceeded quota: q, requested: configmaps=1"), "{full}");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    wait_used(&cluster, "configmaps", &there.to_string()).await;
    maps.create(&PostParams::default(), &map("b")).await.unwrap();

    let pods: Api<Pod> = cluster.api();
    cluster.create::<Pod>(pod("one", "1.0.0")).await;
    let full = pods.create(&PostParams::default(), &object(pod("two", "1.0.0"))).await.unwrap_err();
    assert!(
        full.to_string().contains("used: requests.cpu=1, limited: requests.cpu=1500m"),
        "{full}"
    );
    // A pod that has ended takes no room, though it is there.
    let ended = kube::api::Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("one", &Default::default(), &ended).await.unwrap();
    wait_used(&cluster, "requests.cpu", "0").await;
    wait_used(&cluster, "pods", "0").await;
    cluster.create::<Pod>(pod("two", "1.0.0")).await;

    // New limits are counted at once.
    cluster.patch::<ResourceQuota>("q", json!({"spec": {"hard": {"count/pods": "5"}}})).await;
    wait_used(&cluster, "count/pods", "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_stays_while_a_pod_uses_it() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    let claims: Api<PersistentVolumeClaim> = cluster.api();
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create::<PersistentVolumeClaim>(claim).await;
    let mut user = pod("user", "1.0.0");
    user["spec"]["volumes"] =
        json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    cluster.create::<Pod>(user).await;
    let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    cluster.wait::<Pod>("user", "on a node", is_bound).await;
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    let kept = claims.get("data").await.unwrap();
    assert_eq!(kept.metadata.finalizers.unwrap(), ["kubernetes.io/pvc-protection"]);
    cluster.api::<Pod>().delete("user", &DeleteParams::default()).await.unwrap();
    cluster.wait_count::<PersistentVolumeClaim>(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_devices_take_of_extended_resources() {
    let cluster = Cluster::start().await;
    let classes: Api<DeviceClass> = Api::all(cluster.client.clone());
    let class =
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    classes.create(&PostParams::default(), &object(class)).await.unwrap();
    let name = "requests.example.com/gpu";
    cluster.create::<ResourceQuota>(quota(json!({name: "4"}))).await;
    wait_used(&cluster, name, "0").await;
    let claim = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 3}}]}}})
    };
    cluster.create::<ResourceClaim>(claim("a")).await;
    wait_used(&cluster, name, "3").await;
    let claims: Api<ResourceClaim> = cluster.api();
    let full = claims.create(&PostParams::default(), &object(claim("b"))).await.unwrap_err();
    let why = "requested: requests.example.com/gpu=3, used: requests.example.com/gpu=3";
    assert!(full.to_string().contains(why), "{full}");
    // Pods take of the same.
    let requests = json!({"example.com/gpu": "1"});
    let container = json!({"name": "c", "image": "1.0.0", "resources": {"requests": requests, "limits": requests}});
    cluster
        .create::<Pod>(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}}))
        .await;
    wait_used(&cluster, name, "4").await;
    claims.delete("a", &DeleteParams::default()).await.unwrap();
    wait_used(&cluster, name, "1").await;
}
