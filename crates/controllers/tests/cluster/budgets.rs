//! Disruption budgets, and evictions that respect them.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams},
};
use serde_json::{Value, json};

use super::{deployment, is_complete, support::Cluster};

fn budget(name: &str, spec: Value) -> Value {
    let mut budget = json!({ "metadata": { "name": name },
        "spec": { "selector": { "matchLabels": { "app": "web" } } } });
    for (key, value) in spec.as_object().unwrap() {
        budget["spec"][key] = value.clone();
    }
    budget
}

fn allows(budget: &PodDisruptionBudget, number: i32) -> bool {
    budget.status.as_ref().is_some_and(|status| {
        status.disruptions_allowed.unwrap_or(0) == number
            && status.observed_generation == budget.metadata.generation
    })
}

async fn wait_allows(cluster: &Cluster, number: i32) -> PodDisruptionBudget {
    let what = format!("{number} disruptions allowed");
    cluster.wait::<PodDisruptionBudget>("web", &what, |one| allows(one, number)).await
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let there = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    there.map(ResourceExt::name_any).collect()
}

/// Tries to evict; code, causes and retry time of the answer.
async fn evict(cluster: &Cluster, name: &str) -> Result<(), (u16, String)> {
    let evicted = cluster.api::<Pod>().evict(name, &EvictParams::default()).await;
    evicted.map(drop).map_err(|error| match error {
        kube::Error::Api(status) => (status.code, format!("{status:?}")),
        error => panic!("{error}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_take_from_the_budget_until_it_is_empty() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    cluster.create::<Deployment>(deployment(3, "1.0.0")).await;
    cluster.wait::<Deployment>("web", "complete", is_complete).await;
    cluster.create::<PodDisruptionBudget>(budget("web", json!({ "maxUnavailable": 1 }))).await;
    let status = wait_allows(&cluster, 1).await.status.unwrap();
    assert_eq!((status.current_healthy, status.desired_healthy), (Some(3), Some(2)));
    assert_eq!(status.expected_pods, Some(3));
    let conditions = status.conditions.unwrap();
    assert_eq!(conditions[0].reason, "SufficientPods");

    // No pod gets ready any more, so the first eviction uses the budget up.
    cluster.set_broken("1.0.0");
    let pods = names(&cluster).await;
    evict(&cluster, &pods[0]).await.unwrap();
    let (code, answer) = evict(&cluster, &pods[1]).await.unwrap_err();
    assert_eq!(code, 429, "{answer}");
    assert!(answer.contains("Cannot evict pod as it would violate"), "{answer}");
    assert!(answer.contains("DisruptionBudget"), "{answer}");
    let status = wait_allows(&cluster, 0).await.status.unwrap();
    assert_eq!(status.conditions.unwrap()[0].reason, "InsufficientPods");
    let gone = &pods[0];
    cluster
        .until("the eviction is settled", || async {
            let budget: PodDisruptionBudget = cluster.api().get("web").await?;
            let status = budget.status.unwrap_or_default();
            let waiting = status.disrupted_pods.is_some_and(|pods| pods.contains_key(gone));
            Ok((!waiting && status.current_healthy == Some(2)).then_some(()))
        })
        .await;

    // With a ready successor there is something to take again.
    cluster.heal("1.0.0").await;
    wait_allows(&cluster, 1).await;
    evict(&cluster, &pods[1]).await.unwrap();
    cluster.wait::<Deployment>("web", "complete again", is_complete).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_that_are_unclear_and_pods_that_do_not_count() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    cluster.create::<Deployment>(deployment(2, "1.0.0")).await;
    cluster.wait::<Deployment>("web", "complete", is_complete).await;
    cluster.create::<PodDisruptionBudget>(budget("web", json!({ "minAvailable": "100%" }))).await;
    wait_allows(&cluster, 0).await;
    let pods = names(&cluster).await;
    let (code, answer) = evict(&cluster, &pods[0]).await.unwrap_err();
    assert_eq!(code, 429, "{answer}");
    assert!(answer.contains("needs 2 healthy pods and has 2 currently"), "{answer}");

    cluster.create::<PodDisruptionBudget>(budget("also", json!({ "minAvailable": 0 }))).await;
    let (code, answer) = evict(&cluster, &pods[0]).await.unwrap_err();
    assert_eq!(code, 500, "{answer}");
    assert!(answer.contains("more than one PodDisruptionBudget"), "{answer}");
    let budgets: Api<PodDisruptionBudget> = cluster.api();
    budgets.delete("also", &Default::default()).await.unwrap();

    // A pod that never worked is in nobody's way, whatever the budget.
    cluster.set_broken("9.9.9");
    let idle = json!({ "metadata": { "name": "idle", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "image": "9.9.9" }] } });
    cluster.create::<Pod>(idle).await;
    evict(&cluster, "idle").await.unwrap();

    // An owner that cannot be scaled cannot be counted.
    let owned = json!({ "metadata": { "name": "worker", "labels": { "app": "job" },
        "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "controller": true,
            "name": "node-1", "uid": node_uid(&cluster).await }] },
        "spec": { "containers": [{ "name": "web", "image": "1" }] } });
    cluster.create::<Pod>(owned).await;
    let of_worker = json!({ "metadata": { "name": "job" }, "spec": { "maxUnavailable": 1,
        "selector": { "matchLabels": { "app": "job" } } } });
    cluster.create::<PodDisruptionBudget>(of_worker).await;
    cluster
        .wait::<PodDisruptionBudget>("job", "failed", |budget| {
            let conditions = budget.status.iter().flat_map(|one| one.conditions.iter().flatten());
            conditions.into_iter().any(|one| {
                one.reason == "SyncFailed"
                    && one.message == "nodes does not implement the scale subresource"
            })
        })
        .await;
}

async fn node_uid(cluster: &Cluster) -> String {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.get("node-1").await.unwrap().uid().unwrap()
}
