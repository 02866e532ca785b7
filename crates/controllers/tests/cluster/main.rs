//! The controllers on a real API server in this process, with nodes that only claim to run pods.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod budgets;
mod lifecycle;
mod quotas;
mod support;
mod tokens;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Instant,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use support::{Cluster, PATIENCE, object};

fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": [{ "key": "node.kubernetes.io/unreachable",
                        "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1 }],
                    "containers": [{ "name": "web", "image": image,
                        "ports": [{ "name": "http", "containerPort": 8080 }] }],
                },
            },
        },
    })
}

fn image(version: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "web", "image": version,
        "ports": [{ "name": "http", "containerPort": 8080 }] }] } } } })
}

fn is_complete(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation == deployment.metadata.generation
            && status.updated_replicas == wanted
            && status.replicas == wanted
            && status.available_replicas == wanted
    })
}

fn reason(deployment: &Deployment, kind: &str) -> String {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == kind)
        .find_map(|condition| condition.reason.clone())
        .unwrap_or_default()
}

/// The number of ready pods never falls below what it is compared with.
fn watch_least_ready(cluster: &Cluster) -> Arc<AtomicI32> {
    let least = Arc::new(AtomicI32::new(i32::MAX));
    let pods = cluster.caches.cache::<Pod>();
    let mut changes = pods.subscribe();
    let seen = least.clone();
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            let ready = pods.list().iter().filter(|pod| is_serving(pod)).count();
            seen.fetch_min(i32::try_from(ready).unwrap(), Ordering::SeqCst);
        }
    });
    least
}

/// Deletes a pod and prints how long its endpoint stays ready after others could know.
async fn print_withdrawal(cluster: &Cluster) {
    let pods = cluster.caches.cache::<Pod>();
    let slices = cluster.caches.cache::<EndpointSlice>();
    slices.ready().await;
    let pod = pods.list().first().unwrap().clone();
    let (mut pod_changes, mut slice_changes) = (pods.subscribe(), slices.subscribe());
    let name = pod.name_any();
    cluster.api::<Pod>().delete(&name, &DeleteParams::default()).await.unwrap();
    let told = async {
        loop {
            let change = pod_changes.next().await.unwrap();
            let going = change.after.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
            if change.key.name == name && going {
                return Instant::now();
            }
        }
    };
    let withdrawn = async {
        loop {
            let Some(slice) = slice_changes.next().await.unwrap().after else { continue };
            let ready = slice.endpoints.iter().flatten().any(|one| {
                one.target_ref.as_ref().and_then(|one| one.name.as_ref()) == Some(&name)
                    && one.conditions.as_ref().and_then(|one| one.ready) == Some(true)
            });
            if slice.name_any().starts_with("web-") && !ready {
                return Instant::now();
            }
        }
    };
    let both = async { tokio::join!(told, withdrawn) };
    let both = tokio::time::timeout(PATIENCE, both).await;
    let (told, withdrawn) = both.expect("the endpoint is withdrawn");
    println!("endpoint withdrawn after {:?}", withdrawn.saturating_duration_since(told));
}

fn is_serving(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.clone().any(|one| one.type_ == "Ready" && one.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_website_is_deployed_updated_broken_undone_and_scaled() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" },
        "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] } });
    cluster.create::<Service>(service).await;
    cluster.create::<Deployment>(deployment(3, "1.0.0")).await;
    let first = cluster.wait::<Deployment>("web", "complete", is_complete).await;
    assert_eq!(reason(&first, "Progressing"), "NewReplicaSetAvailable");
    let least = watch_least_ready(&cluster);

    cluster.patch::<Deployment>("web", image("1.1.0")).await;
    let second = cluster.wait::<Deployment>("web", "updated", is_complete).await;
    assert_eq!(second.annotations()["deployment.kubernetes.io/revision"], "2");

    cluster.set_broken("1.2.0");
    cluster.patch::<Deployment>("web", image("1.2.0")).await;
    cluster
        .wait::<Deployment>("web", "stuck", |one| {
            let status = one.status.as_ref().unwrap();
            status.updated_replicas == Some(1) && status.unavailable_replicas == Some(1)
        })
        .await;
    cluster.patch::<Deployment>("web", image("1.1.0")).await;
    cluster.wait::<Deployment>("web", "undone", is_complete).await;
    assert!(least.load(Ordering::SeqCst) >= 3, "{least:?}");

    let began = Instant::now();
    cluster.patch::<Deployment>("web", json!({ "spec": { "replicas": 30 } })).await;
    cluster.wait::<Deployment>("web", "scaled up", is_complete).await;
    println!("from 3 to 30 available: {:?}", began.elapsed());
    cluster.patch::<Deployment>("web", json!({ "spec": { "replicas": 2 } })).await;
    cluster.wait::<Deployment>("web", "scaled down", is_complete).await;
    cluster.wait_count::<Pod>(2).await;

    let slices: Api<EndpointSlice> = cluster.api();
    let ours = ListParams::default().labels("kubernetes.io/service-name=web");
    cluster
        .until("two endpoints", || async {
            let slices = slices.list(&ours).await?.items;
            let endpoints: Vec<_> =
                slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).collect();
            Ok((endpoints.len() == 2 && slices.len() == 1).then_some(()))
        })
        .await;
    print_withdrawal(&cluster).await;
    cluster
        .wait::<Endpoints>("web", "two addresses", |endpoints| {
            let subsets = endpoints.subsets.iter().flatten();
            subsets.flat_map(|subset| subset.addresses.iter().flatten()).count() == 2
        })
        .await;
    let events: Api<Event> = cluster.api();
    cluster
        .until("an event", || async {
            let events = events.list(&ListParams::default()).await?.items;
            Ok(events
                .into_iter()
                .find(|event| event.reason.as_deref() == Some("ScalingReplicaSet")))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_go_before_after_or_not_at_all() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    let deployments: Api<Deployment> = cluster.api();
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        cluster.create::<Deployment>(deployment(2, "1.0.0")).await;
        cluster.wait::<Deployment>("web", "complete", is_complete).await;
        let foreground = params == DeleteParams::foreground();
        deployments.delete("web", &params).await.unwrap();
        if foreground {
            let gone = || async { Ok(deployments.get_opt("web").await?.is_none().then_some(())) };
            cluster.until("the deployment is gone", gone).await;
            let left = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap();
            assert!(left.items.is_empty(), "dependents first");
        }
        cluster.wait_count::<ReplicaSet>(0).await;
        cluster.wait_count::<Pod>(0).await;
    }

    cluster.create::<Deployment>(deployment(2, "1.0.0")).await;
    cluster.wait::<Deployment>("web", "complete", is_complete).await;
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    cluster
        .until("the deployment is gone", || async {
            Ok(deployments.get_opt("web").await?.is_none().then_some(()))
        })
        .await;
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1);
    assert!(sets[0].owner_references().is_empty());
    // A new Deployment of the same selector and template takes it over.
    cluster.create::<Deployment>(deployment(2, "1.0.0")).await;
    cluster.wait::<Deployment>("web", "complete again", is_complete).await;
    let adopted = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0].uid(), sets[0].uid());
    assert_eq!(adopted[0].owner_references().len(), 1);

    // What names an owner that never was goes as well.
    let stray = json!({ "metadata": { "name": "stray", "ownerReferences": [{ "apiVersion": "v1",
        "kind": "ConfigMap", "name": "nothing", "uid": "00000000-0000-4000-8000-000000000000" }] } });
    cluster.create::<ConfigMap>(stray).await;
    let maps: Api<ConfigMap> = cluster.api();
    cluster
        .until("the stray is gone", || async {
            Ok(maps.get_opt("stray").await?.is_none().then_some(()))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let cluster = Cluster::start().await;
    let _node = cluster.add_node("node-1").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = object(json!({ "metadata": { "name": "shop" } }));
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    let published =
        cluster.until("the CA", || async { maps.get_opt("kube-root-ca.crt").await }).await;
    assert_eq!(published.data.unwrap()["ca.crt"], "the CA");
    maps.delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    cluster.until("the CA again", || async { maps.get_opt("kube-root-ca.crt").await }).await;

    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "shop");
    deployments.create(&PostParams::default(), &object(deployment(2, "1.0.0"))).await.unwrap();
    cluster
        .until("complete", || async { Ok(deployments.get_opt("web").await?.filter(is_complete)) })
        .await;
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    maps.create(&PostParams::default(), &object(held)).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    cluster
        .until("what holds it is told", || async {
            let namespace = namespaces.get("shop").await?;
            let conditions = namespace.status.into_iter().flat_map(|status| status.conditions);
            Ok(conditions
                .flatten()
                .find(|one| one.type_ == "NamespaceFinalizersRemaining" && one.status == "True"))
        })
        .await;
    let free = kube::api::Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("held", &Default::default(), &free).await.unwrap();
    cluster
        .until("the namespace is gone", || async {
            Ok(namespaces.get_opt("shop").await?.is_none().then_some(()))
        })
        .await;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "shop");
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_lost_node_are_withdrawn_and_replaced() {
    let cluster = Cluster::watchful().await;
    let lost = cluster.add_node("node-1").await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" },
        "ports": [{ "port": 80, "targetPort": 8080 }] } });
    cluster.create::<Service>(service).await;
    cluster.create::<Deployment>(deployment(2, "1.0.0")).await;
    cluster.wait::<Deployment>("web", "complete", is_complete).await;
    let _other = cluster.add_node("node-2").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    cluster
        .until("node-2 is ready", || async {
            let node = nodes.get("node-2").await?;
            let conditions = node.status.into_iter().flat_map(|status| status.conditions).flatten();
            Ok(conditions.into_iter().find(|one| one.type_ == "Ready" && one.status == "True"))
        })
        .await;
    lost.cancel();
    let node = cluster
        .until("node-1 is tainted", || async {
            let node = nodes.get("node-1").await?;
            let taints = node.spec.clone().and_then(|spec| spec.taints).unwrap_or_default();
            Ok((taints.len() == 2).then_some(node))
        })
        .await;
    let conditions = node.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().all(|one| one.status == "Unknown"), "{conditions:?}");
    let slices: Api<EndpointSlice> = cluster.api();
    let ours = ListParams::default().labels("kubernetes.io/service-name=web");
    cluster
        .until("only pods on node-2 are endpoints that are ready", || async {
            let slices = slices.list(&ours).await?.items;
            let ready: Vec<_> = slices
                .into_iter()
                .flat_map(|slice| slice.endpoints.unwrap_or_default())
                .filter(|one| one.conditions.as_ref().and_then(|one| one.ready) == Some(true))
                .map(|one| one.node_name.unwrap_or_default())
                .collect();
            Ok((ready == ["node-2", "node-2"]).then_some(()))
        })
        .await;
    let pods: Api<Pod> = cluster.api();
    let evicted = pods.list(&ListParams::default().fields("spec.nodeName=node-1")).await.unwrap();
    assert!(evicted.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()));
}
