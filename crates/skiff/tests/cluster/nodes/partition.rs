//! Machines that do not hear each other: a node and the server, two nodes, the server and everybody; for
//! moments, and for longer than a node may be silent.

use std::time::Instant;

use testkit::{Cluster, ClusterOptions, Fault};

use super::{
    assert_no_failure, cluster_ip, converges, endpoints, goes_on, load_from, pod_on, ready, spread,
    three, website,
};

/// Where a load of the partition tests goes: a node's port for strangers.
fn port(cluster: &Cluster, node: usize) -> String {
    format!("{}:30080", cluster.node(node).address())
}

/// Names of pods with their nodes and the ids of their containers: who was moved or restarted differs.
fn running(cluster: &Cluster) -> String {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} \
                {.status.containerStatuses[0].containerID}{\"\\n\"}{end}";
    cluster.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=website", "-o", path])
}

/// A pod that is told to run on a node does: the node hears the server and is heard.
fn works(cluster: &Cluster, node: &str, since: Instant, what: &str) {
    cluster.apply(&pod_on("proof", node, "{}")).expect("apply a pod");
    converges(what, since, || {
        let path = "jsonpath={.status.phase}";
        cluster.try_kubectl(&["get", "pod", "proof", "-o", path]).is_ok_and(|out| out == "Running")
    });
    cluster.kubectl(&["delete", "pod", "proof", "--force", "--grace-period=0"]);
}

#[test]
fn partitions_cost_nothing_that_is_reachable() {
    let cluster = three(ClusterOptions::default());
    cluster.apply(&website(3)).expect("apply the website");
    cluster.kubectl(&["rollout", "status", "deploy/website", "--timeout=120s"]);
    spread(&cluster, &["node-1", "node-2", "node-3"]);

    node_and_server_for_a_moment(&cluster);
    node_and_node(&cluster);
    lossy(&cluster);
    server_and_everybody(&cluster);
    node_and_server_for_long(&cluster);
}

/// Shorter than a node may be silent: nobody notices.
fn node_and_server_for_a_moment(cluster: &Cluster) {
    let before = running(cluster);
    // Only node-1, which is the server's machine, and node-2 do not hear each other: node-3 hears both.
    cluster.cut("node-1", "node-2");
    let load = load_from(cluster.outside(), &[port(cluster, 2)], 2);
    goes_on(&load, 100);
    assert_no_failure("node-1 and node-2 apart, by node-3", &load.finish());
    let since = Instant::now();
    cluster.heal();
    works(cluster, "node-2", since, "healed after a moment: node-2 works");
    assert_eq!(ready(cluster, "node-2"), "True");
    assert_eq!(running(cluster), before, "nothing was moved or restarted");
}

/// Two nodes that do not hear each other, while the server hears both: nothing is moved, and what does
/// not need the wire between them is answered.
fn node_and_node(cluster: &Cluster) {
    let before = running(cluster);
    cluster.cut("node-2", "node-3");
    let strangers = load_from(cluster.outside(), &[port(cluster, 0)], 3);
    let first = load_from(cluster.node(0), &[cluster_ip(cluster)], 2);
    goes_on(&strangers, 300);
    goes_on(&first, 200);
    assert_eq!(
        (ready(cluster, "node-2"), ready(cluster, "node-3")),
        ("True".into(), "True".into())
    );
    assert_no_failure("node-2 and node-3 apart, by node-1", &strangers.finish());
    assert_no_failure("node-2 and node-3 apart, from node-1", &first.finish());
    let since = Instant::now();
    cluster.heal();
    let load = load_from(cluster.node(1), &[cluster_ip(cluster)], 2);
    goes_on(&load, 100);
    assert_no_failure("healed: from node-2", &load.finish());
    println!("healed: every pod answers node-2 after {:.1} s", since.elapsed().as_secs_f64());
    assert_eq!(running(cluster), before, "nothing was moved or restarted");
}

/// A bad wire between the server and a node: it works, only not as fast.
fn lossy(cluster: &Cluster) {
    cluster.site().fault("node-1", "node-3", Fault::Lossy(10));
    let since = Instant::now();
    works(cluster, "node-3", since, "with a tenth of all packets lost: node-3 works");
    assert_eq!(ready(cluster, "node-3"), "True");
    cluster.heal();
}

/// The server alone hears nobody, for longer than nodes may be silent. It evicts nothing, because it is
/// the one that is cut off; every other node goes on answering.
fn server_and_everybody(cluster: &Cluster) {
    let before = running(cluster);
    cluster.cut("node-1", "node-2");
    cluster.cut("node-1", "node-3");
    let since = Instant::now();
    converges("server alone: node-2 is unknown", since, || ready(cluster, "node-2") == "Unknown");
    converges("server alone: node-3 is unknown", since, || ready(cluster, "node-3") == "Unknown");
    assert_eq!(running(cluster), before, "nothing was evicted");
    let since = Instant::now();
    cluster.heal();
    for node in ["node-2", "node-3"] {
        converges(&format!("healed: {node} is Ready"), since, || ready(cluster, node) == "True");
    }
    converges("healed: three endpoints", since, || endpoints(cluster).len() == 3);
    assert_eq!(running(cluster), before, "nothing was moved or restarted");
    let all = load_from(cluster.outside(), &[0, 1, 2].map(|index| port(cluster, index)), 3);
    goes_on(&all, 200);
    assert_no_failure("healed: by all nodes", &all.finish());
}

/// A node is silent for longer than it may: the rest goes on without it, it goes on by itself, and takes
/// part again when it is heard.
fn node_and_server_for_long(cluster: &Cluster) {
    let before = running(cluster);
    let since = Instant::now();
    cluster.cut("node-1", "node-3");
    cluster.cut("node-2", "node-3");
    converges("node-3 alone: it is unknown", since, || ready(cluster, "node-3") == "Unknown");
    converges("node-3 alone: its endpoints are withdrawn", since, || {
        endpoints(cluster).iter().all(|(_, node)| node != "node-3")
    });
    let rest = load_from(cluster.outside(), &[port(cluster, 0), port(cluster, 1)], 3);
    goes_on(&rest, 200);
    // Its own pod answers on its own side.
    let path = "jsonpath={.items[?(@.spec.nodeName==\"node-3\")].status.podIP}";
    let own = cluster.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=website", "-o", path]);
    let alone = load_from(cluster.node(2), &[format!("{own}:8080")], 1);
    goes_on(&alone, 50);
    assert_no_failure("node-3 alone: its own pod", &alone.finish());
    let since = Instant::now();
    cluster.heal();
    converges("healed: node-3 is Ready", since, || ready(cluster, "node-3") == "True");
    converges("healed: three endpoints", since, || endpoints(cluster).len() == 3);
    goes_on(&rest, 200);
    assert_no_failure("node-3 alone: by the others", &rest.finish());
    assert_eq!(running(cluster), before, "its pod was away for less than it is tolerated");
}
