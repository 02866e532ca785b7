//! Plans for nodes told as text, with the seconds of their silence.

use super::*;
use crate::testing::{from_yaml, time, told};

const NOW: &str = "2026-01-01T00:10:00Z";

/// What is done about a node that has been silent for so long, and may be emptied since then.
fn check(node: &str, silent: i64, evict: Option<i64>, pods: Vec<Arc<Pod>>) -> Vec<String> {
    told(&plan(&snapshot(node, silent, evict, pods), time(NOW)))
}

fn snapshot(node: &str, silent: i64, evict: Option<i64>, pods: Vec<Arc<Pod>>) -> Snapshot {
    let now = time(NOW);
    Snapshot {
        node: Arc::new(from_yaml(node)),
        new: false,
        last_sign: now - SignedDuration::from_secs(silent),
        grace: SignedDuration::from_secs(10),
        evict_from: evict.map(|ago| now - SignedDuration::from_secs(ago)),
        pace: None,
        pods,
    }
}

fn pod() -> Arc<Pod> {
    Arc::new(from_yaml(
        "{metadata: {name: p, namespace: default}, spec: {nodeName: n, containers: []},
          status: {conditions: [{type: Ready, status: 'True'}]}}",
    ))
}

const READY: &str = "{metadata: {name: n}, status: {conditions: [
    {type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T00:00:00Z'}]}}";

#[test]
fn a_node_that_reports_is_left_alone() {
    assert!(check(READY, 9, None, vec![pod()]).is_empty());
    let plan = plan(&snapshot(READY, 9, None, vec![]), time(NOW));
    assert_eq!(plan.requeue_at, Some(time("2026-01-01T00:10:01Z")));
}

const UNKNOWN: &str = "{metadata: {name: n}, status: {conditions: [{type: Ready, status: Unknown},
    {type: MemoryPressure, status: Unknown}, {type: DiskPressure, status: Unknown},
    {type: PIDPressure, status: Unknown}]}}";

#[test]
fn a_silent_node_is_unknown_and_its_pods_not_ready_and_then_it_is_tainted() {
    let told = check(READY, 10, Some(0), vec![pod()]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("patch Node n/status"), "{told:?}");
    assert!(told[0].contains("Kubelet stopped posting node status."), "{told:?}");
    assert!(told[1].starts_with("patch Pod p/status"), "{told:?}");
    assert!(told[1].contains("\"status\":\"False\""), "{told:?}");
    let told = check(UNKNOWN, 10, Some(0), vec![]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("node.kubernetes.io/unreachable"), "{told:?}");
    assert!(told[0].contains("NoExecute") && told[0].contains("NoSchedule"), "{told:?}");
    let plan = plan(&snapshot(READY, 10, None, vec![pod()]), time(NOW));
    let notes: Vec<_> = plan.notes.iter().map(|note| (note.reason, &*note.note)).collect();
    let expected = [
        ("NodeNotReady", "Node n status is now: NodeNotReady"),
        ("NodeNotReady", "Node is not ready"),
    ];
    assert_eq!(notes, expected);
}

#[test]
fn pods_are_evicted_only_when_that_is_allowed() {
    for evict in [None, Some(-5)] {
        let told = check(UNKNOWN, 10, evict, vec![]);
        assert!(told[0].contains("NoSchedule") && !told[0].contains("NoExecute"), "{told:?}");
    }
    let later = plan(&snapshot(UNKNOWN, 10, Some(-5), vec![]), time(NOW));
    assert_eq!(later.requeue_at, Some(time("2026-01-01T00:10:05Z")));
    let held = UNKNOWN.replace(
        "status: {",
        "spec: {taints: [
        {key: node.kubernetes.io/unreachable, effect: NoExecute},
        {key: node.kubernetes.io/unreachable, effect: NoSchedule}]}, status: {",
    );
    let told = check(&held, 20, None, vec![]);
    let write = told.iter().find(|line| line.contains("taints")).expect("evictions stop");
    assert!(!write.contains("NoExecute"), "{told:?}");
}

#[test]
fn taints_follow_conditions_and_go_with_them() {
    let not_ready = "{metadata: {name: n}, status: {conditions: [
        {type: Ready, status: 'False'}, {type: DiskPressure, status: 'True'}]},
        spec: {unschedulable: true, taints: [{key: mine, effect: NoSchedule}]}}";
    let told = check(not_ready, 0, Some(0), vec![]);
    assert_eq!(told.len(), 1);
    for part in ["\"mine\"", "not-ready", "disk-pressure", "unschedulable"] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
    let recovered = "{metadata: {name: n}, status: {conditions: [{type: Ready, status: 'True'}]},
        spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoExecute},
            {key: node.kubernetes.io/not-ready, effect: NoSchedule}]}}";
    assert_eq!(check(recovered, 0, None, vec![]), ["patch Node n {\"spec\":{\"taints\":null}}"]);
}

#[test]
fn a_node_that_never_reported_says_so() {
    let never = "{metadata: {name: n, creationTimestamp: '2026-01-01T00:00:00Z'}}";
    let told = check(never, 60, None, vec![]);
    assert!(told[0].contains("Kubelet never posted node status."), "{told:?}");
}

#[test]
fn a_node_that_fences_itself_is_marked_when_its_time_is_over() {
    let node = |more: &str| {
        format!(
            "{{metadata: {{name: n, annotations: {{skiff.dev/self-fence: '20'{more}}}}},
              status: {{conditions: [{{type: Ready, status: Unknown}},
                {{type: MemoryPressure, status: Unknown}}, {{type: DiskPressure, status: Unknown}},
                {{type: PIDPressure, status: Unknown}}]}},
              spec: {{taints: [{{key: node.kubernetes.io/unreachable, effect: NoSchedule}}]}}}}"
        )
    };
    assert!(check(&node(""), 22, None, vec![]).is_empty(), "it may still be at it");
    let marked =
        "patch Node n {\"metadata\":{\"annotations\":{\"skiff.dev/self-fenced\":\"true\"}}}";
    assert_eq!(check(&node(""), 23, None, vec![]), [marked]);
    let fenced = node(", skiff.dev/self-fenced: 'true'");
    assert!(check(&fenced, 30, None, vec![]).is_empty());
    assert!(check(&fenced, 1, None, vec![]).is_empty(), "nobody has heard of it yet");
    let back = "{metadata: {name: n, annotations: {skiff.dev/self-fence: '20', skiff.dev/self-fenced: 'true'}},
        status: {conditions: [{type: Ready, status: 'True'}]}}";
    assert_eq!(check(back, 1, None, vec![]), [marked.replace("\"true\"", "null")]);
}

#[test]
fn large_clusters_renew_slowly() {
    let node: Node = from_yaml("{metadata: {name: n}}");
    let told: Node =
        from_yaml("{metadata: {name: n, annotations: {skiff.dev/lease-duration-seconds: '40'}}}");
    assert_eq!(pace::wanted(None, 100, &node), None);
    assert_eq!(pace::wanted(None, 101, &node), Some(40));
    assert_eq!(pace::wanted(None, 95, &told), Some(40), "not to and fro");
    assert_eq!(pace::wanted(None, 90, &told), None);
    assert_eq!(pace::wanted(Some(Duration::from_secs(20)), 3, &node), Some(20));
    let mut snapshot = snapshot(READY, 1, None, vec![]);
    snapshot.pace = Some(40);
    assert_eq!(
        crate::testing::told(&plan(&snapshot, time(NOW))),
        [
            "patch Node n {\"metadata\":{\"annotations\":{\"skiff.dev/lease-duration-seconds\":\"40\"}}}"
        ]
    );
}
