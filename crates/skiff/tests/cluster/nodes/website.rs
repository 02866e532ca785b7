//! The website on three nodes under load from everywhere, while nodes are drained, agents and servers
//! are killed, and a machine loses power.

use std::time::Instant;

use testkit::load::Load;
use testkit::{Cluster, ClusterOptions, eventually};

use super::{
    assert_no_failure, cluster_ip, converges, endpoints, goes_on, load_from, ready, spread, three,
    website,
};
use crate::tool::PATIENCE;

const BUDGET: &str = "---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: website}, spec: {minAvailable: 3,
 selector: {matchLabels: {app.kubernetes.io/name: website}}}}
";

fn rollout(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deploy/website", "--timeout=120s"]);
}

fn set_version(cluster: &Cluster, version: &str) {
    let image = format!("website=skiff.local/website:{version}");
    cluster.kubectl(&["set", "image", "deploy/website", &image]);
}

/// From outside by every node's port, and from a node by the cluster address.
fn loads(cluster: &Cluster, service: &str, ports_of: &[usize], from: usize) -> [Load; 2] {
    let ports: Vec<String> =
        ports_of.iter().map(|index| format!("{}:30080", cluster.node(*index).address())).collect();
    [
        load_from(cluster.outside(), &ports, 3),
        load_from(cluster.node(from), &[service.to_owned()], 2),
    ]
}

fn finish(what: &str, loads: [Load; 2]) {
    for (load, from) in loads.into_iter().zip(["outside", "a node"]) {
        assert_no_failure(&format!("{what}, from {from}"), &load.finish());
    }
}

#[test]
fn no_request_is_lost_when_nodes_are_drained_and_processes_killed() {
    let mut cluster = three(ClusterOptions::default());
    cluster.apply(&(website(4) + BUDGET)).expect("apply the website");
    rollout(&cluster);
    spread(&cluster, &["node-1", "node-2", "node-3"]);

    let service = cluster_ip(&cluster);
    let all = loads(&cluster, &service, &[0, 1, 2], 1);
    all.iter().for_each(|load| goes_on(load, 100));
    drained(&cluster);
    goes_on(&all[0], 100);
    finish("drain and rollout", all);

    let all = loads(&cluster, &service, &[0, 1, 2], 1);
    server_killed(&mut cluster, &service);
    agent_killed(&mut cluster, &service);
    finish("server and agent killed", all);

    switched_off(&mut cluster, &service);
}

/// A node is drained while a new version rolls out, and taken back.
fn drained(cluster: &Cluster) {
    set_version(cluster, "1.1.0");
    let flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"];
    cluster.kubectl(&[&["drain", "node-2"], &flags[..]].concat());
    rollout(cluster);
    let left = endpoints(cluster);
    assert!(left.iter().all(|(_, node)| node != "node-2"), "{left:?}");
    cluster.kubectl(&["uncordon", "node-2"]);
    set_version(cluster, "1.0.0");
    rollout(cluster);
    fill(cluster, 6);
}

/// Adds pods until every node has one: where those of a rollout go depends on which leave first.
fn fill(cluster: &Cluster, replicas: u32) {
    cluster.kubectl(&["scale", "deploy/website", &format!("--replicas={replicas}")]);
    rollout(cluster);
    spread(cluster, &["node-1", "node-2", "node-3"]);
}

/// Killed in the middle of a rollout, which ends when the next one is there. All nodes go on answering.
fn server_killed(cluster: &mut Cluster, service: &str) {
    set_version(cluster, "1.1.0");
    eventually("the rollout to have begun", PATIENCE, || {
        let path = "jsonpath={.status.updatedReplicas}";
        let updated = cluster.try_kubectl(&["get", "deploy", "website", "-o", path]);
        updated.is_ok_and(|count| count.parse().is_ok_and(|count: u32| count > 0))
    });
    cluster.kill();
    let meanwhile = loads(cluster, service, &[0, 1, 2], 2);
    meanwhile.iter().for_each(|load| goes_on(load, 200));
    let since = Instant::now();
    cluster.restart();
    rollout(cluster);
    println!("server killed: rollout over after {:.1} s", since.elapsed().as_secs_f64());
    finish("without a server", meanwhile);
}

/// An agent is killed: its pods run on and are asked on, under the same process afterwards.
fn agent_killed(cluster: &mut Cluster, service: &str) {
    let started = |cluster: &Cluster| {
        let path = "jsonpath={range .items[?(@.spec.nodeName==\"node-3\")]}{.metadata.name} \
                    {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
        cluster.kubectl(&["get", "pods", "-o", path])
    };
    fill(cluster, 9);
    let before = started(cluster);
    cluster.kill_agent(2);
    let meanwhile = loads(cluster, service, &[0, 1, 2], 2);
    meanwhile.iter().for_each(|load| goes_on(load, 100));
    let since = Instant::now();
    cluster.start_agent(2);
    // A new pod there shows that the agent works; nothing but its own word would show otherwise.
    cluster.apply(&super::pod_on("proof", "node-3", "{}")).expect("apply a pod");
    converges("agent started: a new pod runs", since, || {
        let path = "jsonpath={.status.phase}";
        cluster.try_kubectl(&["get", "pod", "proof", "-o", path]).is_ok_and(|out| out == "Running")
    });
    finish("without an agent", meanwhile);
    cluster.kubectl(&["delete", "pod", "proof"]);
    assert_eq!(started(cluster), before, "containers went on");
}

/// A machine loses power. Until that is noticed requests to it are lost; afterwards none is.
fn switched_off(cluster: &mut Cluster, service: &str) {
    cluster.kubectl(&["delete", "pdb", "website"]);
    spread(cluster, &["node-1", "node-2", "node-3"]);
    let since = Instant::now();
    cluster.switch_off(2);
    converges("switched off: its endpoints are withdrawn", since, || {
        endpoints(cluster).iter().all(|(_, node)| node != "node-3")
    });
    assert_eq!(ready(cluster, "node-3"), "Unknown");
    let after = loads(cluster, service, &[0, 1], 1);
    after.iter().for_each(|load| goes_on(load, 200));
    let since = Instant::now();
    cluster.switch_on(2);
    cluster.wait_ready();
    println!("switched on: Ready after {:.1} s", since.elapsed().as_secs_f64());
    converges("switched on: its pods answer again or have been replaced", since, || {
        endpoints(cluster).len() == 9
    });
    after.iter().for_each(|load| goes_on(load, 200));
    finish("after a machine has gone", after);
    eventually("pods of the machine to be gone or well", PATIENCE, || {
        let path = "jsonpath={range .items[*]}{.status.phase}{\"\\n\"}{end}";
        cluster
            .try_kubectl(&["get", "pods", "-o", path])
            .is_ok_and(|out| out.lines().filter(|phase| *phase == "Running").count() >= 9)
    });
}
