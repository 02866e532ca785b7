//! Tables: one line a case, object in, cells out.

use meta::GroupVersionKind;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-02T00:00:00Z";

fn cells(group: &str, kind: &str, object: Value) -> Vec<String> {
    let now = meta::time::parse(NOW).expect("a time");
    let kind = GroupVersionKind::new(group, "v1", kind);
    let bytes = object.to_string();
    let rendered = table(
        &kind,
        &ListMeta::default(),
        [bytes.as_bytes()],
        Include::None,
        MetaVersion::V1,
        true,
        now,
    );
    let table: Value = serde_json::from_slice(&rendered.expect("JSON")).expect("a table");
    let cells = table["rows"][0]["cells"].as_array().expect("cells").clone();
    assert_eq!(cells.len(), table["columnDefinitions"].as_array().expect("columns").len());
    cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect()
}

fn pod(status: Value) -> Value {
    json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T23:55:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n"},
        "status": status
    })
}

#[track_caller]
fn check_pod(object: Value, ready: &str, status: &str, restarts: &str) {
    let cells = cells("", "Pod", object);
    assert_eq!(cells[..5], ["p", ready, status, restarts, "5m"]);
}

#[test]
fn pods() {
    let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
    check_pod(pod(json!({"phase": "Pending"})), "0/2", "Pending", "0");
    check_pod(
        pod(json!({"phase": "Running", "containerStatuses": [running.clone(), running.clone()]})),
        "2/2",
        "Running",
        "0",
    );
    let crashing = json!({"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:30Z", "exitCode": 1}}});
    check_pod(
        pod(json!({"phase": "Running", "containerStatuses": [running.clone(), crashing]})),
        "1/2",
        "CrashLoopBackOff",
        "3 (30s ago)",
    );
    let ended =
        json!({"restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    check_pod(
        pod(json!({"phase": "Succeeded", "containerStatuses": [ended.clone(), ended.clone()]})),
        "0/2",
        "Completed",
        "0",
    );
    let failed =
        json!({"restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}});
    check_pod(
        pod(json!({"phase": "Failed", "containerStatuses": [failed, ended]})),
        "0/2",
        "Signal:9",
        "0",
    );
    let mut leaving =
        pod(json!({"phase": "Running", "containerStatuses": [running.clone(), running]}));
    leaving["metadata"]["deletionTimestamp"] = json!(NOW);
    check_pod(leaving, "2/2", "Terminating", "0");
}

#[test]
fn pods_that_initialize() {
    let with_init = |init: Value, statuses: Value| {
        let mut object = pod(json!({"phase": "Pending", "initContainerStatuses": statuses}));
        object["spec"]["initContainers"] = init;
        object
    };
    let two = json!([{"name": "x"}, {"name": "y"}]);
    let done = json!({"name": "x", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}});
    let waiting = json!({"name": "y", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}});
    check_pod(with_init(two.clone(), json!([done, waiting])), "0/2", "Init:1/2", "0");
    let backoff = json!({"name": "x", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
    check_pod(with_init(two.clone(), json!([backoff])), "0/2", "Init:CrashLoopBackOff", "2");
    let failed = json!({"name": "x", "restartCount": 0, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}});
    check_pod(with_init(two, json!([failed])), "0/2", "Init:Error", "0");
    let sidecar = json!([{"name": "x", "restartPolicy": "Always"}]);
    let started = json!({"name": "x", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}});
    check_pod(with_init(sidecar, json!([started])), "1/3", "Pending", "1");
}

#[test]
fn workloads_and_services() {
    let deployment = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:2"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}
    });
    assert_eq!(
        cells("apps", "Deployment", deployment),
        ["web", "2/3", "3", "2", "24h", "a,b", "i:1,i:2", "app=web"]
    );
    let service = json!({
        "metadata": {"name": "web", "creationTimestamp": "2025-12-20T00:00:00Z"},
        "spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}
    });
    assert_eq!(
        cells("", "Service", service),
        ["web", "NodePort", "10.96.0.9", "<none>", "80:30080/TCP,53/UDP", "13d", "<none>"]
    );
}

#[test]
fn nodes_and_events() {
    let node = json!({
        "metadata": {"name": "n", "creationTimestamp": NOW, "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "amd64"}}
    });
    assert_eq!(
        cells("", "Node", node),
        [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "0s",
            "v1.36.0",
            "<none>",
            "<none>",
            "<unknown>",
            "6.1 (amd64)",
            "<unknown>"
        ]
    );
    let event = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "hello ", "count": 2,
        "firstTimestamp": "2026-01-01T23:58:00Z", "lastTimestamp": "2026-01-01T23:59:00Z",
        "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"}
    });
    assert_eq!(
        cells("", "Event", event),
        ["60s", "Normal", "Started", "pod/p", "", "kubelet, n", "hello", "2m", "2", "e"]
    );
}

#[test]
fn other_kinds_have_a_name_and_a_date() {
    let role = json!({"metadata": {"name": "r", "creationTimestamp": NOW}});
    assert_eq!(cells("rbac.authorization.k8s.io", "ClusterRole", role), ["r", NOW]);
}

#[test]
fn every_table_of_the_facts_has_a_kind() {
    let unserved = [
        "clusterTrustBundle",
        "podCertificateRequest",
        "leaseCandidate",
        "storageVersion",
        "resourcePoolStatusRequest",
        "deviceTaint",
        "storageVersionMigration",
        "workload",
        "podGroup",
    ];
    let kinds = schema::types::all().iter().filter_map(schema::types::kind_of);
    let served: Vec<&str> = kinds
        .filter_map(|(group, _, kind)| {
            let key = (group, kind);
            pod::printer(key)
                .or_else(|| core::printer(key))
                .or_else(|| workloads::printer(key))
                .or_else(|| others::printer(key))
        })
        .map(|(table, _)| table)
        .collect();
    for table in COLUMNS.keys().filter(|table| !unserved.contains(table)) {
        assert!(served.contains(table), "{table}");
    }
}

#[test]
fn durations() {
    let check = |seconds, text: &str| assert_eq!(format::duration(seconds), text);
    check(-5, "<invalid>");
    check(-1, "0s");
    check(119, "119s");
    check(120, "2m");
    check(325, "5m25s");
    check(601, "10m");
    check(3 * 3600 + 60, "3h1m");
    check(9 * 3600, "9h");
    check(50 * 3600, "2d2h");
    check(9 * 86400, "9d");
    check(3 * 365 * 86400 + 86400, "3y1d");
    check(10 * 365 * 86400, "10y");
}

#[test]
fn a_selector_that_is_not_there_selects_nothing() {
    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}});
    let object =
        json!({"metadata": {"name": "n"}, "spec": {"schedule": "@daily", "jobTemplate": template}});
    let cells = cells("batch", "CronJob", object);
    assert_eq!(cells[cells.len() - 3..], ["a", "i", "<none>"]);
}
