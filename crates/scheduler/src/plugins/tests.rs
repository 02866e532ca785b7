//! Scenarios as text: nodes, pods on them, a pod to place, and what becomes of it.
//!
//! A file of `fixtures/` holds scenarios separated by lines of `===`: a name, YAML-like JSON
//! documents of nodes and pods one a line, and after `->` the expected node or message.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::ALL;
use crate::algorithm::{Algorithm, Decision};
use crate::cluster::Cluster;
use crate::event::Event;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugin::PluginSet;
use crate::pod::PodInfo;

/// A node from a short form: name, labels, taints (`key=value:Effect`), size.
fn node(short: &Value) -> NodeFacts {
    let taints: Vec<Value> = short["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|text| {
            let (pair, effect) = text.as_str().unwrap().split_once(':').unwrap();
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            json!({"key": key, "value": value, "effect": effect})
        })
        .collect();
    let mut size = json!({"cpu": "2", "memory": "2Gi", "pods": "10"});
    for (name, amount) in short["size"].as_object().into_iter().flatten() {
        size[name] = amount.clone();
    }
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": short["node"], "labels": short["labels"].as_object()},
        "spec": {"taints": taints, "unschedulable": short["cordoned"] == true},
        "status": {"allocatable": size},
    }))
    .unwrap();
    NodeFacts::new(&node)
}

/// A pod from a short form: name, the node it is on, requests, host port, and parts of its spec.
fn pod(short: &Value) -> PodInfo {
    let mut container =
        json!({"name": "c", "resources": {"requests": short["requests"].as_object()}});
    if let Some(port) = short["hostPort"].as_i64() {
        container["ports"] = json!([{"containerPort": 80, "hostPort": port}]);
    }
    let mut spec = json!({"containers": [container], "nodeName": short["on"].as_str()});
    for (name, part) in short["spec"].as_object().into_iter().flatten() {
        spec[name] = part.clone();
    }
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": short["pod"], "uid": short["pod"]},
        "spec": spec,
    }))
    .unwrap();
    PodInfo::new(&pod)
}

/// Runs one scenario and says what becomes of its last pod.
fn run(lines: &str) -> String {
    let mut cluster = Cluster::default();
    let mut waiting = None;
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let short: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        if short.get("node").is_some() {
            cluster.set_node(node(&short));
            continue;
        }
        let pod = Arc::new(pod(&short));
        match pod.node.clone().filter(|_| short["pending"] != true) {
            Some(node) => drop(cluster.place(pod, &node, false)),
            None => waiting = Some(pod),
        }
    }
    let waiting = waiting.expect("a pod that waits");
    let mut algorithm = Algorithm::new(&ALL, 1);
    if let Some((reason, _)) = algorithm.held(&waiting) {
        return reason.into_owned();
    }
    match algorithm.decide(&waiting, cluster.snapshot()) {
        Decision::Node(at) => cluster.snapshot().nodes()[at].facts.name.to_string(),
        Decision::Nowhere(diagnosis) => diagnosis.message(),
    }
}

#[test]
fn scenarios() {
    let fixtures =
        [include_str!("../../fixtures/filter.txt"), include_str!("../../fixtures/score.txt")];
    let mut failures = String::new();
    for scenario in fixtures.iter().flat_map(|file| file.split("===\n")) {
        let (name, rest) = scenario.trim().split_once('\n').expect("a name");
        let (lines, expected) = rest.split_once("->").expect("an expectation");
        let found = run(lines);
        if found != expected.trim() {
            failures
                .push_str(&format!("{name}\n  expected {}\n  found    {found}\n", expected.trim()));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn wakes(plugin: &str, waiting: Value, event: &Event<'_>) -> bool {
    let mut set = PluginSet::default();
    set.insert(ALL.iter().position(|one| one.name == plugin).unwrap());
    set.woken(&ALL, &pod(&waiting), event)
}

#[test]
fn hints_let_only_helpful_events_through() {
    let info = |short: Value| NodeInfo::new(node(&short));
    let small = json!({"pod": "p", "requests": {"cpu": "1"}});
    let large = json!({"pod": "p", "requests": {"cpu": "3"}});
    let fresh = info(json!({"node": "a"}));
    assert!(wakes("NodeResourcesFit", small.clone(), &Event::NodeAdded(&fresh)));
    assert!(!wakes("NodeResourcesFit", large.clone(), &Event::NodeAdded(&fresh)));
    let before = node(&json!({"node": "a", "size": {"cpu": "1"}}));
    let grown = info(json!({"node": "a", "size": {"cpu": "4"}}));
    let change = Event::NodeChanged { before: &before, after: &grown };
    assert!(wakes("NodeResourcesFit", large, &change));
    assert!(!wakes("TaintToleration", small.clone(), &change));

    let tainted = node(&json!({"node": "a", "taints": ["x:NoSchedule"]}));
    let change = Event::NodeChanged { before: &tainted, after: &fresh };
    assert!(wakes("TaintToleration", small.clone(), &change));
    assert!(!wakes("NodeResourcesFit", small.clone(), &change));

    let cordoned = node(&json!({"node": "a", "cordoned": true}));
    let change = Event::NodeChanged { before: &cordoned, after: &fresh };
    assert!(wakes("NodeUnschedulable", small.clone(), &change));

    let picky = json!({"pod": "p", "spec": {"nodeSelector": {"disk": "ssd"}}});
    assert!(!wakes("NodeAffinity", picky.clone(), &Event::NodeAdded(&fresh)));
    let labelled = info(json!({"node": "a", "labels": {"disk": "ssd"}}));
    assert!(wakes("NodeAffinity", picky, &Event::NodeAdded(&labelled)));

    let wants_port = json!({"pod": "p", "hostPort": 80});
    let other = pod(&json!({"pod": "q", "hostPort": 81}));
    let same = pod(&json!({"pod": "q", "hostPort": 80}));
    assert!(!wakes("NodePorts", wants_port.clone(), &Event::PodFreed(&other)));
    assert!(wakes("NodePorts", wants_port, &Event::PodFreed(&same)));
}
