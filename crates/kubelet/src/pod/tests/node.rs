//! What the node does to pods: ends them when it goes down or is cut off, and counts on after it
//! has lost its containers.

use super::*;

fn end(grace: u64) -> Event {
    let grace = Duration::from_secs(grace);
    Event::End { reason: "Terminated", message: "The machine goes down.", grace }
}

#[test]
fn a_node_that_goes_down_ends_pods_within_its_time_or_theirs() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    script.start(0, "a");
    assert_eq!(script.send(end(20)), "stop c 20s drain");
    assert_eq!(script.exit(0, "a", 0), "stop sandbox s0");
    assert_eq!(script.phase(), "Running", "nothing is final before the end");
    assert_eq!(script.send(Event::SandboxStopped(Ok(()))), "");
    assert_eq!(script.phase(), "Failed");
    assert_eq!(script.status.reason.as_deref(), Some("Terminated"));
    assert_eq!(script.condition("DisruptionTarget"), "True TerminationByKubelet");
    // The object stays until somebody deletes it.
    let deleted = script.deleted(0);
    assert_eq!(script.send(deleted), "clean up");

    let mut spec = one("Always");
    spec["terminationGracePeriodSeconds"] = json!(5);
    let mut script = Script::new(spec);
    script.up_to_containers();
    script.start(0, "a");
    assert_eq!(script.send(end(20)), "stop c 5s drain");
}

#[test]
fn a_pod_that_is_ending_already_is_only_hurried() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    script.start(0, "a");
    let deleted = script.deleted(30);
    assert_eq!(script.send(deleted), "stop c 30s drain");
    script.pass(Duration::from_secs(10));
    assert_eq!(script.send(end(25)), "", "it has only 20 s left");
    assert_eq!(script.send(end(5)), "hasten c 5s");
    script.exit(0, "a", 0);
    assert_eq!(script.send(Event::SandboxStopped(Ok(()))), "clean up");
}

#[test]
fn restarts_are_counted_on_when_the_runtime_has_lost_the_containers() {
    let spec = json!({"initContainers": [{"name": "one", "image": "i"}],
        "containers": [{"name": "c", "image": "i"}]});
    let status = json!({"phase": "Running",
        "initContainerStatuses": [{"name": "one", "containerID": "test://x", "restartCount": 0,
            "image": "i", "imageID": "", "ready": true}],
        "containerStatuses": [{"name": "c", "containerID": "test://y", "restartCount": 4,
            "image": "i", "imageID": "", "ready": true}]});
    let now = Timestamp::from_second(1_000_000).unwrap();
    let status_object: api::PodStatus = serde_json::from_value(status.clone()).unwrap();
    let mut script = Script { state: new(pod(spec, &status), now), now, status: status_object };
    script.up_to_containers();
    assert_eq!(script.start(0, "a"), "");
    assert_eq!(script.exit(0, "a", 0), "pull c", "init containers run again");
    script.start(1, "b");
    assert_eq!(script.status.container_statuses.as_ref().unwrap()[0].restart_count, 5);
}
