//! What happens to pods while skiff is gone, or as it goes, is seen when it is back.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Cluster, eventually, website_images};

use super::{
    PATIENCE, assert_calm, await_field, await_output, await_ready, field, pod, processes_with,
};

const FIRST: &str = "{.status.containerStatuses[0]";

fn count(cluster: &Cluster, pod: &str) -> String {
    field(cluster, &format!("pod/{pod}"), &format!("{FIRST}.restartCount}}"))
}

/// Says which of the processes in control groups of a pod one is.
fn of_pod(uid: &str) -> impl Fn(&String) -> Option<i32> {
    let names = [uid.to_owned(), uid.replace('-', "_")];
    move |process| {
        let pid: i32 = process.split(':').next()?.parse().ok()?;
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        names.iter().any(|name| groups.contains(name)).then_some(pid)
    }
}

fn gone(cluster: &Cluster, pod: &str) {
    await_output(cluster, &["get", "pod", pod, "--ignore-not-found", "-o", "name"], str::is_empty);
}

#[test]
fn what_happens_while_skiff_is_gone_is_seen_afterwards() {
    let mut cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images()[..1]);
    await_output(&cluster, &["get", "serviceaccount", "default", "-o", "name"], |_| true);
    let apply = |cluster: &Cluster, manifest: &str| {
        cluster.apply(manifest).expect("the pod is accepted");
    };
    let name = format!("/{}/", cluster.cgroup());
    apply(&cluster, &pod("killed", "[sleep, '876543']", "", ""));
    apply(&cluster, &pod("ending", "[wait]", "", ", restartPolicy: Never"));
    apply(&cluster, &pod("crashing", "[crash, '3']", "", ""));
    apply(&cluster, &pod("calm", "[serve]", "", ""));
    // It takes SIGTERM without ending, so that it is still ending when skiff is killed.
    let stubborn = pod("stubborn", "[wait, --ignore-term]", "", "")
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 6");
    apply(&cluster, &stubborn);
    for pod in ["killed", "ending", "calm", "stubborn"] {
        await_ready(&cluster, pod);
    }
    let identity = field(&cluster, "pod/calm", &format!("{FIRST}.containerID}}"));
    let path = format!("jsonpath={FIRST}.restartCount}}");
    let is_counted = |count: &str| count.parse().is_ok_and(|count: u32| count >= 1);
    let crashed = await_output(&cluster, &["get", "pod", "crashing", "-o", &path], is_counted);
    let crashed: u32 = crashed.parse().expect("a count");
    let other = field(&cluster, "pod/ending", "{.metadata.uid}");

    // The last word before the end: a deletion, and many new pods.
    cluster.kubectl(&["delete", "pod", "stubborn", "--wait=false"]);
    let many: String =
        (1..=8).map(|number| pod(&format!("new-{number}"), "[serve]", "", "") + "\n").collect();
    apply(&cluster, &many);
    cluster.kill();

    let of_cluster = |process: &String| {
        let pid: i32 = process.split(':').next()?.parse().ok()?;
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        cgroups.contains(&name).then_some(pid)
    };
    let victim: Vec<i32> =
        processes_with("/testapp sleep 876543").iter().filter_map(of_cluster).collect();
    assert_eq!(victim.len(), 1);
    kill(Pid::from_raw(victim[0]), Signal::SIGKILL).expect("kill a container's process");
    // The other ends by itself, in good order.
    let waiting = || processes_with("/testapp wait").iter().filter_map(of_pod(&other)).next();
    let waiter = waiting().expect("it waits");
    kill(Pid::from_raw(waiter), Signal::SIGTERM).expect("tell a container's process to end");
    eventually("the other container to end", PATIENCE, || waiting().is_none());
    cluster.restart();

    await_field(&cluster, "pod/ending", "{.status.phase}", "Succeeded");
    assert_eq!(field(&cluster, "pod/ending", &format!("{FIRST}.state.terminated.exitCode}}")), "0");
    await_field(&cluster, "pod/killed", &format!("{FIRST}.restartCount}}"), "1");
    await_ready(&cluster, "killed");
    let ended = field(&cluster, "pod/killed", &format!("{FIRST}.lastState.terminated.exitCode}}"));
    assert_eq!(ended, "137");
    gone(&cluster, "stubborn");
    for number in 1..=8 {
        let pod = format!("new-{number}");
        await_ready(&cluster, &pod);
        assert_eq!(count(&cluster, &pod), "0", "{pod} was started once");
    }
    await_ready(&cluster, "calm");
    assert_eq!(field(&cluster, "pod/calm", &format!("{FIRST}.containerID}}")), identity);
    let restarts: u32 = count(&cluster, "crashing").parse().expect("a count");
    assert!(restarts >= crashed, "counted on, not anew: {restarts}");
    eventually("one process a container", PATIENCE, || {
        processes_with("/testapp sleep 876543").iter().filter_map(of_cluster).count() == 1
    });
    assert_calm(&cluster);
}
