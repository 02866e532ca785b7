//! `skiff up --nodes 3`: three nodes on one machine with one command, gone with another.

use std::time::Instant;

use testkit::{Cluster, ClusterOptions, eventually, website_images};

use crate::faults::assert_nothing_left;
use crate::tool::{PATIENCE, Tool, get};

#[test]
fn one_command_makes_three_nodes() {
    let options = ClusterOptions {
        arguments: ["--node-name", "box"].map(str::to_owned).into(),
        local_nodes: 3,
        ..ClusterOptions::default()
    };
    let began = Instant::now();
    let mut cluster = Cluster::start_with(crate::SKIFF, options);
    println!("three nodes Ready after {:.1} s", began.elapsed().as_secs_f64());
    let names = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    assert_eq!(names, "box box-2 box-3");
    cluster.import(&website_images()[..1]);
    let status = cluster.skiff(&["status"]).output().expect("start skiff status");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for name in ["box", "box-2", "box-3"] {
        assert!(status.lines().any(|line| line.contains(&format!("{name} Ready"))), "{status}");
    }

    let tool = Tool::new(&cluster, "default");
    tool.until("get serviceaccount default", &[], |_| true);
    let pods = ["box", "box-2", "box-3"]
        .map(|node| super::pod_on(&format!("on-{node}"), node, "{app: web}"));
    tool.apply(&pods.concat());
    tool.ok("create service nodeport web --tcp=80:8080 --node-port=30090");
    tool.ready("pod/on-box pod/on-box-2 pod/on-box-3");
    let mut seen = std::collections::BTreeSet::new();
    eventually("all three pods to answer at the node port", PATIENCE, || {
        seen.extend(get(&cluster, "http://127.0.0.1:30090/hostname"));
        seen.len() == 3
    });
    // The way out leads through the machine itself.
    let clusterip = tool.field("service/web", "{.spec.clusterIP}");
    for pod in ["on-box-2", "on-box-3"] {
        tool.inside(pod, &["get", &format!("http://{clusterip}/hostname")]);
        assert!(tool.ok(&format!("logs {pod}")).contains("website"));
    }

    // Killed, it leaves its nodes running, and the next one finds them.
    let before = cluster.local_agents();
    assert_eq!(before.len(), 2, "two agents: {before:?}");
    cluster.kill();
    assert_eq!(cluster.local_agents(), before, "agents go on");
    get(&cluster, "http://127.0.0.1:30090/hostname").expect("Services go on");
    cluster.restart();
    assert_eq!(cluster.local_agents(), before, "agents are adopted");
    let restarts = cluster.kubectl(&[
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ]);
    assert_eq!(restarts, "0 0 0");

    // An agent that dies is started again.
    let pid = nix::unistd::Pid::from_raw(before[0].cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill an agent");
    eventually("the agent to be started again", PATIENCE, || {
        let now = cluster.local_agents();
        now.len() == 2 && now != before
    });
    cluster.wait_ready();

    cluster.down(&[]).expect("skiff down");
    assert_nothing_left(cluster.namespace(), cluster.directory(), cluster.cgroup());
}
