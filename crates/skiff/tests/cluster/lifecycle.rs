//! Nodes that die, are cut off and come back, and what becomes of their pods: three real nodes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Cluster, ClusterOptions, eventually, eventually_ok, website_images};

use crate::SKIFF;

const PATIENCE: Duration = Duration::from_secs(240);
const IMAGE: &str = "skiff.local/website:1.0.0";

fn start(agent_arguments: &[&str]) -> Cluster {
    let options = ClusterOptions {
        nodes: 3,
        agent_arguments: agent_arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start_with(SKIFF, options);
    cluster.import(&website_images()[..1]);
    cluster
}

/// A workload of the website whose pods leave a silent node after so many seconds.
fn workload(kind: &str, replicas: usize, seconds: u32) -> Value {
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "tolerations": [{ "key": "node.kubernetes.io/unreachable", "operator": "Exists",
                        "effect": "NoExecute", "tolerationSeconds": seconds }],
                    "containers": [{ "name": "web", "image": IMAGE,
                        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 },
                            "periodSeconds": 1, "timeoutSeconds": 20 } }],
                },
            },
        },
    });
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = json!("web");
    }
    workload
}

fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let list = cluster.try_kubectl(&["get", "pods", "-l", "app=web", "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    object["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|all| {
            all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Waits until so many pods are ready on these nodes.
fn wait_ready(cluster: &Cluster, wanted: usize, nodes: &[&str]) -> Vec<Value> {
    let what = format!("{wanted} pods to be ready on {nodes:?}");
    eventually_ok(&what, PATIENCE, || {
        let all = pods(cluster)?;
        let ready =
            all.iter().filter(|pod| is_ready(pod) && nodes.contains(&text(pod, "/spec/nodeName")));
        let ready: Vec<Value> = ready.cloned().collect();
        anyhow::ensure!(ready.len() == wanted, "{} are", ready.len());
        Ok(ready)
    })
}

/// Places a workload on node-3 alone.
fn place(cluster: &Cluster, workload: &Value, replicas: usize) -> Vec<Value> {
    cluster.kubectl(&["cordon", "node-1", "node-2"]);
    cluster.apply(&workload.to_string()).expect("apply");
    let placed = wait_ready(cluster, replicas, &["node-3"]);
    cluster.kubectl(&["uncordon", "node-1", "node-2"]);
    placed
}

fn taints(cluster: &Cluster, node: &str) -> String {
    cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.taints[*].effect}"])
}

fn wait_taints(cluster: &Cluster, node: &str, wanted: &str) {
    eventually(&format!("{node} to be tainted {wanted:?}"), PATIENCE, || {
        let found = taints(cluster, node);
        found.split(' ').collect::<Vec<_>>().contains(&wanted)
            || (wanted.is_empty() && found.is_empty())
    });
}

/// Waits until a node has renewed its lease so often.
fn wait_renewals(cluster: &Cluster, node: &str, times: usize) {
    let mut seen = std::collections::BTreeSet::new();
    eventually(&format!("{node} to renew its lease"), PATIENCE, || {
        let path = "jsonpath={.spec.renewTime}";
        let lease = ["get", "lease", "-n", "kube-node-lease", node, "-o", path];
        seen.extend(cluster.try_kubectl(&lease).ok());
        seen.len() > times
    });
}

/// Whether any process runs in the control groups of a pod, on whatever node.
fn runs(pod: &Value) -> bool {
    let uid = text(pod, "/metadata/uid");
    let processes = std::fs::read_dir("/proc").expect("read /proc").flatten();
    let mut groups =
        processes.filter_map(|process| std::fs::read_to_string(process.path().join("cgroup")).ok());
    groups.any(|groups| groups.contains(uid) || groups.contains(&uid.replace('-', "_")))
}

#[test]
fn pods_of_a_node_that_dies_run_elsewhere_and_stay_there_when_it_returns() {
    let mut cluster = start(&[]);
    place(&cluster, &workload("Deployment", 4, 1), 4);
    let died = Instant::now();
    cluster.switch_off(2);
    wait_taints(&cluster, "node-3", "NoSchedule");
    println!("noticed after {:?}", died.elapsed());
    let moved = wait_ready(&cluster, 4, &["node-1", "node-2"]);
    println!("replaced after {:?}", died.elapsed());
    cluster.switch_on(2);
    cluster.wait_ready();
    eventually("only the new pods to be left", PATIENCE, || {
        pods(&cluster).is_ok_and(|all| all.len() == 4)
    });
    let names = |pods: &[Value]| {
        let mut names: Vec<_> =
            pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&moved), names(&wait_ready(&cluster, 4, &["node-1", "node-2"])));
    wait_taints(&cluster, "node-3", "");
}

#[test]
fn a_node_that_was_cut_off_stops_what_was_moved_and_nothing_before() {
    let cluster = start(&[]);
    let before = place(&cluster, &workload("Deployment", 2, 1), 2);
    cluster.cut("node-3", "node-1");
    let cut = Instant::now();
    wait_ready(&cluster, 2, &["node-1", "node-2"]);
    println!("replaced after {:?}", cut.elapsed());
    wait_renewals(&cluster, "node-1", 3);
    assert!(before.iter().all(runs), "a node stops nothing because it hears nothing");
    cluster.heal();
    let healed = Instant::now();
    eventually("the old pods to end", PATIENCE, || !before.iter().any(runs));
    eventually("the old pods to be gone", PATIENCE, || {
        pods(&cluster).is_ok_and(|all| all.len() == 2)
    });
    println!("cleaned up after {:?}", healed.elapsed());
    wait_taints(&cluster, "node-3", "");
}

#[test]
fn nothing_is_evicted_while_two_of_three_nodes_are_silent() {
    let cluster = start(&[]);
    let before = place(&cluster, &workload("Deployment", 2, 0), 2);
    cluster.cut("node-3", "node-1");
    cluster.cut("node-2", "node-1");
    for node in ["node-2", "node-3"] {
        wait_taints(&cluster, node, "NoSchedule");
    }
    // Long enough for evictions to begin, if they did.
    wait_renewals(&cluster, "node-1", 4);
    for node in ["node-2", "node-3"] {
        assert_eq!(taints(&cluster, node), "NoSchedule", "{node}");
    }
    cluster.heal();
    let after = wait_ready(&cluster, 2, &["node-3"]);
    let uids = |pods: &[Value]| {
        let mut uids: Vec<_> =
            pods.iter().map(|pod| text(pod, "/metadata/uid").to_owned()).collect();
        uids.sort();
        uids
    };
    assert_eq!(uids(&before), uids(&after));
}

#[test]
fn a_stateful_pod_moves_when_its_node_is_out_of_service_or_fences_itself() {
    let mut cluster = start(&["--self-fence"]);
    let first = place(&cluster, &workload("StatefulSet", 1, 1), 1).remove(0);
    cluster.cut("node-3", "node-1");
    let cut = Instant::now();
    let second = eventually_ok("the pod to move", PATIENCE, || {
        let all = pods(&cluster)?;
        let moved =
            all.into_iter().find(|pod| text(pod, "/metadata/uid") != text(&first, "/metadata/uid"));
        let moved = moved.ok_or_else(|| anyhow::anyhow!("it does not"))?;
        assert!(!runs(&first), "its old self must be gone before");
        anyhow::Ok(moved)
    });
    println!("moved from a node that fenced itself after {:?}", cut.elapsed());
    assert_eq!(text(&first, "/metadata/name"), text(&second, "/metadata/name"));
    cluster.heal();
    wait_taints(&cluster, "node-3", "");

    // A node that is switched off cannot say anything: somebody has to.
    let second = wait_ready(&cluster, 1, &["node-1", "node-2"]).remove(0);
    cluster.kubectl(&["delete", "statefulset", "web"]);
    eventually("the set to be gone", PATIENCE, || pods(&cluster).is_ok_and(|all| all.is_empty()));
    drop(second);
    cluster.kubectl(&["annotate", "node", "node-3", "skiff.dev/self-fence-"]);
    let first = place(&cluster, &workload("StatefulSet", 1, 1), 1).remove(0);
    cluster.switch_off(2);
    wait_taints(&cluster, "node-3", "NoExecute");
    eventually("the pod to be deleted", PATIENCE, || {
        pods(&cluster).is_ok_and(|all| all.iter().all(|pod| !is_ready(pod)) && all.len() == 1)
    });
    wait_renewals(&cluster, "node-1", 3);
    let still = pods(&cluster).expect("pods").remove(0);
    assert_eq!(text(&still, "/metadata/uid"), text(&first, "/metadata/uid"), "it may still run");
    let out = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    cluster.kubectl(&["taint", "node", "node-3", out]);
    wait_ready(&cluster, 1, &["node-1", "node-2"]);
    cluster.switch_on(2);
    cluster.wait_ready();
    cluster.kubectl(&["taint", "node", "node-3", &format!("{out}-")]);
}

#[test]
fn draining_waits_for_the_budget() {
    let cluster = start(&[]);
    place(&cluster, &workload("Deployment", 3, 300), 3);
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "web" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
    cluster.apply(&budget.to_string()).expect("apply");
    eventually("the budget to be counted", PATIENCE, || {
        let path = "jsonpath={.status.disruptionsAllowed}";
        cluster.try_kubectl(&["get", "pdb", "web", "-o", path]).is_ok_and(|allowed| allowed == "1")
    });
    let mut drain = cluster
        .kubectl_command(&["drain", "node-3", "--ignore-daemonsets", "--timeout=200s"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start kubectl drain");
    let mut least = usize::MAX;
    while drain.try_wait().expect("watch kubectl drain").is_none() {
        if let Ok(all) = pods(&cluster) {
            least = least.min(all.iter().filter(|pod| is_ready(pod)).count());
        }
    }
    let output = drain.wait_with_output().expect("kubectl drain ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("Cannot evict pod as it would violate the pod's disruption budget"),
        "{said}"
    );
    assert!(least >= 2, "{least} pods were ready at one time");
    wait_ready(&cluster, 3, &["node-1", "node-2"]);
    cluster.kubectl(&["uncordon", "node-3"]);
    wait_taints(&cluster, "node-3", "");
}

#[test]
fn going_down_gracefully_ends_pods_and_the_next_start_replaces_them() {
    let mut cluster = Cluster::start(SKIFF);
    cluster.import(&website_images()[..1]);
    cluster.apply(&workload("Deployment", 2, 300).to_string()).expect("apply");
    let before = eventually_ok("2 pods to be ready", PATIENCE, || {
        let ready: Vec<Value> = pods(&cluster)?.into_iter().filter(is_ready).collect();
        anyhow::ensure!(ready.len() == 2, "{} are", ready.len());
        Ok(ready)
    });
    cluster.down(&["--graceful"]).expect("skiff down");
    assert!(!before.iter().any(runs));
    cluster.restart();
    eventually("two others to be ready", PATIENCE, || {
        pods(&cluster).is_ok_and(|all| all.iter().filter(|pod| is_ready(pod)).count() == 2)
    });
    let all = pods(&cluster).expect("pods");
    for old in &before {
        let uid = text(old, "/metadata/uid");
        let now = all.iter().find(|pod| text(pod, "/metadata/uid") == uid).expect("it is kept");
        assert_eq!(text(now, "/status/phase"), "Failed");
        assert_eq!(text(now, "/status/reason"), "Terminated");
    }
}
