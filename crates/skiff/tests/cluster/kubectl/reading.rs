//! Commands that only look: get in all its forms, describe, explain, events, wait.

use serde_json::Value;

use crate::tool::Tool;

pub(super) fn all(tool: &Tool<'_>) {
    formats(tool);
    selections(tool);
    descriptions(tool);
    explanations(tool);
    watching(tool);
}

pub(super) fn formats(tool: &Tool<'_>) {
    tool.shows("get pods -o wide", &["NOMINATED NODE", "READINESS GATES", "10.244.", "1/1"]);
    tool.shows("get deploy,rs,pods", &["deployment.apps/web", "replicaset.apps/web-", "pod/web-"]);
    tool.shows("get all -o wide", &["CONTAINERS", "SELECTOR", "app=web"]);
    tool.shows("get pods -A --show-labels", &["NAMESPACE", "pod-template-hash="]);
    tool.shows("get pods -L app", &["APP", "web"]);
    tool.shows("get deploy web -o yaml", &["apiVersion: apps/v1", "kind: Deployment"]);
    let list: Value = serde_json::from_str(&tool.ok("get pods -o json")).expect("JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["items"][0]["kind"], "Pod", "kubectl adds the kind to items");
    assert_eq!(tool.ok("get deploy -o jsonpath={.items[*].status.readyReplicas}"), "2");
    tool.shows("get pods -o custom-columns=N:.metadata.name,P:.status.phase", &["N ", "Running"]);
    assert_eq!(tool.ok("get pods -o name").lines().count(), 2);
    tool.shows("get deploy web -o go-template={{.spec.replicas}}", &["2"]);
    let sorted = tool.ok("get namespaces --sort-by=.metadata.name -o name");
    assert!(sorted.lines().is_sorted(), "{sorted}");
    tool.shows("get deploy web --subresource=scale", &["DESIRED", "AVAILABLE"]);
    tool.refused("get pod nosuch", "Error from server (NotFound): pods \"nosuch\" not found");
    tool.refused("get nosuch", "the server doesn't have a resource type \"nosuch\"");
    assert_eq!(tool.ok("get pod nosuch --ignore-not-found"), "");
}

fn selections(tool: &Tool<'_>) {
    let count = |line: &str| tool.ok(&format!("get pods -o name {line}")).lines().count();
    assert_eq!(count("-l app=web"), 2);
    assert_eq!(count("-l app!=web"), 0);
    assert_eq!(
        tool.ok_with("get pods -o name -l", &["app in (web,x),!gone"], "").lines().count(),
        2
    );
    assert_eq!(count("--field-selector=status.phase=Running"), 2);
    assert_eq!(count("--field-selector=status.phase!=Running"), 0);
    assert_eq!(count("--field-selector=metadata.name=nosuch"), 0);
    assert_eq!(count("--chunk-size=1"), 2);
    tool.refused(
        "get pods --field-selector=spec.nosuch=x",
        "field label not supported: spec.nosuch",
    );
}

fn descriptions(tool: &Tool<'_>) {
    let pod = tool.field("pods", "{.items[0].metadata.name}");
    tool.shows(
        &format!("describe pod {pod}"),
        &[
            "Controlled By:  ReplicaSet/web-",
            "Ready: ",
            "Successfully assigned",
            "kube-api-access-",
        ],
    );
    tool.shows(
        "describe deploy web",
        &["2 desired | 2 updated | 2 total | 2 available", "MinimumReplicasAvailable", "Scaled up"],
    );
    tool.shows("describe rs", &["2 Running / 0 Waiting", "SuccessfulCreate"]);
    tool.ok("expose deploy/web --port=80 --target-port=8080");
    tool.until("describe svc web", &[], |out| out.matches(":8080").count() >= 2);
    tool.shows("describe endpointslices", &["TargetRef:", "Pod/web-"]);
    tool.ok("create configmap settings --from-literal=colour=blue");
    tool.ok("create secret generic hidden --from-literal=password=secret");
    tool.shows("describe configmap settings", &["colour:", "blue"]);
    let secret = tool.shows("describe secret hidden", &["password:  6 bytes"]);
    assert!(!secret.contains("secret\n"), "{secret}");
    tool.shows("describe sa default", &["Name:                default"]);
    tool.shows(&format!("describe namespace {}", tool.namespace), &["Active"]);
    tool.shows(
        "describe nodes",
        &["Non-terminated Pods", "Allocated resources", "kubelet is posting"],
    );
    tool.shows(
        "get events --sort-by=.lastTimestamp",
        &["Scheduled", "Started", "ScalingReplicaSet"],
    );
    tool.shows(&format!("events --for pod/{pod}"), &["Scheduled", "Started"]);
}

fn explanations(tool: &Tool<'_>) {
    tool.shows("explain deployment.spec.strategy", &["rollingUpdate", "DESCRIPTION"]);
    tool.shows("explain pod.spec.containers --recursive", &["livenessProbe", "<Probe>"]);
    tool.shows("api-resources --api-group=apps", &["deploy", "ReplicaSet", "apps/v1"]);
    tool.shows("api-versions", &["apps/v1", "v1"]);
    tool.shows("version", &["v1.36."]);
    tool.shows("cluster-info", &["control plane", "is running at"]);
}

fn watching(tool: &Tool<'_>) {
    tool.ok("wait deploy/web --for=condition=Available --timeout=200s");
    tool.ok("wait deploy/web --for=jsonpath={.status.readyReplicas}=2 --timeout=200s");
    tool.refused("wait pod -l app=web --for=condition=Never --timeout=1s", "timed out waiting");
    let mut watch = tool.background("get configmaps -w --output-watch-events", "ADDED");
    tool.ok("create configmap watched --from-literal=a=b");
    watch.until("watched");
    tool.ok("label configmap watched seen=yes");
    assert!(watch.until("watched").starts_with("MODIFIED"));
    tool.ok("delete configmap watched");
    assert!(watch.until("watched").starts_with("DELETED"));
}
