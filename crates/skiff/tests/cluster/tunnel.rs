//! A node that nobody can dial: whatever the API server wants of it goes through the tunnel that the node has opened.

use std::process::Stdio;

use testkit::{Cluster, ClusterOptions, eventually_ok, website_images};

use crate::kubectl::{IMAGE, streams};
use crate::tool::{PATIENCE, Tool};

/// Lets a node answer, and nobody begin to talk to it: what NAT does to those outside.
const NAT: &str = "table inet nat-of-test {
    chain input {
        type filter hook input priority -10; policy accept;
        iifname \"eth0\" ct state established,related accept
        iifname \"eth0\" drop
    }
}";

#[test]
fn a_node_behind_nat_is_reached_through_its_tunnel() {
    let mut cluster =
        Cluster::start_with(crate::SKIFF, ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    cluster.import(&website_images());
    hide(&cluster, 1);
    {
        let tool = Tool::new(&cluster, "default");
        tool.ok("cordon node-1");
        tool.ok(&format!("create deployment web --image={IMAGE} --replicas=2 --port=8080"));
        tool.ok("rollout status deploy/web --timeout=200s");
        tool.ok("expose deployment web --port=80 --target-port=8080");
        reached(&tool);
        streams::all(&tool);
    }
    // The next server finds the node again, because the node finds the server.
    cluster.kill();
    cluster.spawn().expect("start skiff up");
    cluster.wait_ready();
    reached(&Tool::new(&cluster, "default"));
}

/// Puts node `index` behind NAT.
fn hide(cluster: &Cluster, index: usize) {
    let mut nft = cluster.node(index).command("nft");
    let status = nft.arg(NAT).stdin(Stdio::null()).status().expect("run nft");
    assert!(status.success(), "nft: {status}");
    let url = format!("https://{}:10250/healthz", cluster.node(index).address());
    let mut curl = cluster.node(0).command("curl");
    let dialled = curl.args(["-sk", "--connect-timeout", "2", &url]).status().expect("run curl");
    assert_eq!(dialled.code(), Some(28), "the node can still be dialled");
}

/// What asks once and is answered once.
fn reached(tool: &Tool<'_>) {
    let pod = tool.field("pods", "{.items[0].metadata.name}");
    let raw = |path: &str, wanted: &str| {
        eventually_ok(path, PATIENCE, || {
            let outcome = tool.run(&format!("get --raw {path}"), &[], "");
            if outcome.out.contains(wanted) { Ok(()) } else { Err(format!("{outcome:?}")) }
        });
    };
    raw("/api/v1/nodes/node-2/proxy/stats/summary", "\"nodeName\"");
    raw("/api/v1/nodes/node-2/proxy/metrics/resource", "node_cpu_usage_seconds_total");
    raw(&format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/version"), "1.0.0");
    raw("/api/v1/namespaces/default/services/web:80/proxy/version", "1.0.0");
    tool.shows(&format!("logs {pod}"), &["listening on port 8080"]);
    assert_eq!(tool.inside(&pod, &["print", "1"]), "line 1\n");
    // The node's own services stay its own.
    let refused = tool.run("get --raw /api/v1/nodes/node-2:22/proxy/", &[], "");
    assert!(refused.err.contains("nor one of its pods"), "{refused:?}");
}
