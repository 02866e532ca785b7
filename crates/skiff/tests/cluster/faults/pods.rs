//! Pods that cannot run: they wait with the reason Kubernetes gives and an event, and recover when the
//! cause is gone. The cases share a cluster and wait for their back-offs side by side.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Cluster, website_images};

use super::{
    PATIENCE, await_event, await_field, await_output, await_ready, await_waiting, field, pod,
    processes_with,
};

const RESTARTS: &str = "{.status.containerStatuses[0].restartCount}";

#[test]
fn broken_pods_say_why_and_recover() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images()[..1]);
    await_output(&cluster, &["get", "serviceaccount", "default", "-o", "name"], |_| true);
    // What takes longest is begun first.
    crash::begin(&cluster);
    memory::begin(&cluster);
    killed::begin(&cluster);
    probes::begin(&cluster);
    probes::startup(&cluster);
    crash::first(&cluster);
    configuration::check(&cluster);
    scheduling::check(&cluster);
    probes::check(&cluster);
    memory::check(&cluster);
    killed::sandbox(&cluster);
    killed::check(&cluster);
    crash::check(&cluster);
    super::assert_calm(&cluster);
}

fn apply(cluster: &Cluster, manifest: &str) {
    cluster.apply(manifest).expect("the pod is accepted");
}

fn restarts(cluster: &Cluster, pod: &str) -> u32 {
    field(cluster, &format!("pod/{pod}"), RESTARTS).parse().unwrap_or(0)
}

fn await_restarts(cluster: &Cluster, pod: &str, least: u32) {
    let path = format!("jsonpath={RESTARTS}");
    await_output(cluster, &["get", "pod", pod, "-o", &path], |output| {
        output.parse().is_ok_and(|count: u32| count >= least)
    });
}

/// A container that ends: restarted, counted, ever later.
mod crash {
    use super::*;

    pub(super) fn begin(cluster: &Cluster) {
        apply(cluster, &pod("crashing", "[crash, '3']", "", ""));
        apply(cluster, &pod("once", "[crash, '4']", "", ", restartPolicy: Never"));
    }

    /// The back-off doubles with every restart.
    fn back_off(cluster: &Cluster, least: usize) {
        let uid = field(cluster, "pod/crashing", "{.metadata.uid}");
        let path = "jsonpath={.status.containerStatuses[0].restartCount}: \
                    {.status.containerStatuses[0].state.waiting.message}";
        let message = |delay: &str| {
            format!("back-off {delay} restarting failed container=c pod=crashing_default({uid})")
        };
        let delays = ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s"];
        await_output(cluster, &["get", "pod", "crashing", "-o", path], |output| {
            let Some((count, said)) = output.split_once(": ") else { return false };
            let count: usize = count.parse().expect("a count");
            let delay = delays[count.saturating_sub(1).min(delays.len() - 1)];
            assert!(said.is_empty() || said == message(delay), "{count} restarts: {said}");
            !said.is_empty() && count >= least
        });
    }

    /// The first restart comes at once, the second after a back-off.
    pub(super) fn first(cluster: &Cluster) {
        back_off(cluster, 1);
    }

    pub(super) fn check(cluster: &Cluster) {
        back_off(cluster, 2);
        await_waiting(cluster, "crashing", "CrashLoopBackOff");
        let last = "{.status.containerStatuses[0].lastState.terminated";
        assert_eq!(field(cluster, "pod/crashing", &format!("{last}.exitCode}}")), "3");
        assert_eq!(field(cluster, "pod/crashing", &format!("{last}.reason}}")), "Error");
        assert_eq!(field(cluster, "pod/crashing", "{.status.phase}"), "Running");
        await_event(
            cluster,
            "crashing",
            "Warning",
            "BackOff",
            "Back-off restarting failed container c in pod crashing_default(",
        );
        let logs = cluster.kubectl(&["logs", "crashing", "--previous"]);
        assert_eq!(logs, "crashing with 3");
        await_field(cluster, "pod/once", "{.status.phase}", "Failed");
        let ended = "{.status.containerStatuses[0].state.terminated.exitCode}";
        assert_eq!(field(cluster, "pod/once", ended), "4");
        assert_eq!(restarts(cluster, "once"), 0);
    }
}

/// A container that takes more memory than it may.
mod memory {
    use super::*;

    pub(super) fn begin(cluster: &Cluster) {
        let limits = ", resources: {limits: {memory: 32Mi}}";
        apply(cluster, &pod("greedy", "[allocate, '400']", limits, ""));
    }

    pub(super) fn check(cluster: &Cluster) {
        await_restarts(cluster, "greedy", 1);
        let last = "{.status.containerStatuses[0].lastState.terminated";
        await_field(cluster, "pod/greedy", &format!("{last}.reason}}"), "OOMKilled");
        assert_eq!(field(cluster, "pod/greedy", &format!("{last}.exitCode}}")), "137");
        await_waiting(cluster, "greedy", "CrashLoopBackOff");
    }
}

/// A container whose process somebody kills.
mod killed {
    use super::*;

    const SLEEP: &str = "987654";

    pub(super) fn begin(cluster: &Cluster) {
        apply(cluster, &pod("victim", &format!("[sleep, '{SLEEP}']"), "", ""));
        await_ready(cluster, "victim");
        kill_it(cluster);
    }

    /// The first restart comes at once, the second after a back-off.
    pub(super) fn check(cluster: &Cluster) {
        await_restarts(cluster, "victim", 1);
        let last = "{.status.containerStatuses[0].lastState.terminated";
        assert_eq!(field(cluster, "pod/victim", &format!("{last}.exitCode}}")), "137");
        assert_eq!(field(cluster, "pod/victim", &format!("{last}.reason}}")), "Error");
        await_ready(cluster, "victim");
        kill_it(cluster);
        assert!(
            await_waiting(cluster, "victim", "CrashLoopBackOff").starts_with("back-off 10s "),
            "the first back-off"
        );
        await_restarts(cluster, "victim", 2);
        await_ready(cluster, "victim");
    }

    fn kill_it(cluster: &Cluster) {
        kill_in(&format!("/{}/", cluster.cgroup()), &format!("/testapp sleep {SLEEP}"));
    }

    /// Not a container's process, but the one that holds the pod together: the pod is made anew.
    pub(super) fn sandbox(cluster: &Cluster) {
        apply(cluster, &pod("boxed", "[serve]", "", ""));
        await_ready(cluster, "boxed");
        kill_in(&format!("pod{}", field(cluster, "pod/boxed", "{.metadata.uid}")), "/pause");
        let changed = "Pod sandbox changed, it will be killed and re-created.";
        await_event(cluster, "boxed", "Normal", "SandboxChanged", changed);
        await_restarts(cluster, "boxed", 1);
        await_ready(cluster, "boxed");
        assert_eq!(restarts(cluster, "boxed"), 1);
    }

    /// Kills the one process with this command line in a cgroup whose path has `name`. A container
    /// that has just been started is the runtime's own process for a moment: wait for the command.
    fn kill_in(name: &str, command: &str) {
        let pid = testkit::eventually_ok(&format!("one process in {name}"), PATIENCE, || {
            let processes = processes_with(command);
            let own: Vec<i32> = processes
                .iter()
                .filter_map(|process| process.split(':').next()?.parse().ok())
                .filter(|pid| {
                    std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                        .is_ok_and(|cgroups| cgroups.contains(name))
                })
                .collect();
            match own.as_slice() {
                [one] => Ok(*one),
                _ => Err(format!("{} of {processes:?}", own.len())),
            }
        });
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill the container's process");
    }
}

/// Probes that fail, of all three kinds.
mod probes {
    use super::*;

    pub(super) fn begin(cluster: &Cluster) {
        let environment = ", env: [{name: FAIL_HEALTHZ_AFTER_MS, value: '2500'}]";
        let probe = ", livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, \
                     failureThreshold: 2}";
        apply(cluster, &pod("unhealthy", "[serve]", &format!("{environment}{probe}"), ""));
        let probe = ", readinessProbe: {exec: {command: [/testapp, cat, /tmp/ready]}, periodSeconds: 1, \
             timeoutSeconds: 30}";
        apply(cluster, &pod("unready", "[serve]", probe, ""));
        let probe = ", startupProbe: {exec: {command: [/testapp, cat, /shared/started]}, \
                     periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 30}, \
                     volumeMounts: [{name: shared, mountPath: /shared}]";
        // A second container writes what the first one's probe reads.
        let helper = ", {name: helper, image: 'skiff.local/website:1.0.0', args: [wait], \
                      volumeMounts: [{name: shared, mountPath: /shared}]";
        let volume = ", volumes: [{name: shared, emptyDir: {}}]";
        apply(cluster, &pod("unstarted", "[serve]", &format!("{probe}}}{helper}"), volume));
    }

    pub(super) fn check(cluster: &Cluster) {
        readiness(cluster);
        liveness(cluster);
    }

    fn liveness(cluster: &Cluster) {
        let failed = "Liveness probe failed: HTTP probe failed with statuscode: 503";
        await_event(cluster, "unhealthy", "Warning", "Unhealthy", failed);
        let killing = "Container c failed liveness probe, will be restarted";
        await_event(cluster, "unhealthy", "Normal", "Killing", killing);
        await_restarts(cluster, "unhealthy", 1);
    }

    fn readiness(cluster: &Cluster) {
        let failed = "Readiness probe failed: ";
        await_event(cluster, "unready", "Warning", "Unhealthy", failed);
        let condition = r#"{.status.conditions[?(@.type=="Ready")]"#;
        await_field(cluster, "pod/unready", &format!("{condition}.reason}}"), "ContainersNotReady");
        let message = field(cluster, "pod/unready", &format!("{condition}.message}}"));
        assert_eq!(message, "containers with unready status: [c]");
        assert_eq!(field(cluster, "pod/unready", "{.status.phase}"), "Running");
        assert_eq!(restarts(cluster, "unready"), 0, "an unready container is left alone");
        cluster.kubectl(&["exec", "unready", "--", "/testapp", "write", "/tmp/ready", "yes"]);
        await_ready(cluster, "unready");
    }

    pub(super) fn startup(cluster: &Cluster) {
        let failed = "Startup probe failed: ";
        await_event(cluster, "unstarted", "Warning", "Unhealthy", failed);
        let killing = "Container c failed startup probe, will be restarted";
        await_event(cluster, "unstarted", "Normal", "Killing", killing);
        await_restarts(cluster, "unstarted", 1);
        assert_eq!(
            field(cluster, "pod/unstarted", "{.status.containerStatuses[0].started}"),
            "false"
        );
        let write = ["exec", "unstarted", "-c", "helper", "--", "/testapp", "write"];
        cluster.kubectl(&[&write[..], &["/shared/started", "yes"]].concat());
        await_ready(cluster, "unstarted");
    }
}

/// Configuration that a container refers to and that is not there.
mod configuration {
    use super::*;

    pub(super) fn check(cluster: &Cluster) {
        let from = |kind: &str, name: &str, key: &str| {
            format!(", env: [{{name: VALUE, valueFrom: {{{kind}: {{name: {name}, key: {key}}}}}}}]")
        };
        let plain = from("configMapKeyRef", "settings", "colour");
        apply(cluster, &pod("unset", "[serve]", &plain, ""));
        let secret = from("secretKeyRef", "hidden", "password");
        apply(cluster, &pod("unknown", "[serve]", &secret, ""));
        let mounts = ", volumeMounts: [{name: v, mountPath: /v}]";
        let volumes = ", volumes: [{name: v, configMap: {name: files}}]";
        apply(cluster, &pod("unmounted", "[serve]", mounts, volumes));

        let absent = "configmap \"settings\" not found";
        assert_eq!(await_waiting(cluster, "unset", "CreateContainerConfigError"), absent);
        await_event(cluster, "unset", "Warning", "Failed", &format!("Error: {absent}"));
        let absent = "secret \"hidden\" not found";
        assert_eq!(await_waiting(cluster, "unknown", "CreateContainerConfigError"), absent);
        await_event(cluster, "unknown", "Warning", "Failed", &format!("Error: {absent}"));
        await_waiting(cluster, "unmounted", "ContainerCreating");
        let absent = "MountVolume.SetUp failed for volume \"v\" : configmap \"files\" not found";
        await_event(cluster, "unmounted", "Warning", "FailedMount", absent);

        cluster.kubectl(&["create", "configmap", "settings", "--from-literal=color=red"]);
        cluster.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=word=x"]);
        cluster.kubectl(&["create", "configmap", "files", "--from-literal=a=b"]);
        for (pod, message) in [
            ("unset", "couldn't find key colour in ConfigMap default/settings"),
            ("unknown", "couldn't find key password in Secret default/hidden"),
        ] {
            let expected = format!("CreateContainerConfigError: {message}");
            let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}: \
                        {.status.containerStatuses[0].state.waiting.message}";
            await_output(cluster, &["get", "pod", pod, "-o", path], |output| output == expected);
            await_event(cluster, pod, "Warning", "Failed", &format!("Error: {message}"));
        }

        apply(
            cluster,
            "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: red}}",
        );
        apply(
            cluster,
            "---\n{apiVersion: v1, kind: Secret, metadata: {name: hidden}, stringData: {password: x}}",
        );
        for pod in ["unset", "unknown", "unmounted"] {
            await_ready(cluster, pod);
            assert_eq!(restarts(cluster, pod), 0, "{pod} never ran before");
        }
    }
}

/// Pods for which there is no node.
mod scheduling {
    use super::*;

    pub(super) fn check(cluster: &Cluster) {
        let node = field(cluster, "nodes", "{.items[0].metadata.name}");
        let cpus: u64 =
            field(cluster, "nodes", "{.items[0].status.allocatable.cpu}").parse().expect("CPUs");
        let most = format!(", resources: {{requests: {{cpu: {}m}}}}", cpus * 1000 - 300);
        apply(cluster, &pod("large", "[serve]", &most, ""));
        await_ready(cluster, "large");
        apply(cluster, &pod("crowded", "[serve]", &most, ""));
        apply(cluster, &pod("choosy", "[serve]", "", ", nodeSelector: {disk: fast}"));
        cluster.kubectl(&["taint", "node", &node, "reserved=yes:NoSchedule"]);
        apply(cluster, &pod("intolerant", "[serve]", "", ""));

        refused(cluster, "crowded", "0/1 nodes are available: 1 Insufficient cpu.");
        refused(
            cluster,
            "choosy",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        );
        refused(cluster, "intolerant", "0/1 nodes are available: 1 node(s) had untolerated taint");

        cluster.kubectl(&["taint", "node", &node, "reserved-"]);
        await_ready(cluster, "intolerant");
        cluster.kubectl(&["label", "node", &node, "disk=fast"]);
        await_ready(cluster, "choosy");
        cluster.kubectl(&["delete", "pod", "large", "--wait=false"]);
        await_ready(cluster, "crowded");
    }

    fn refused(cluster: &Cluster, pod: &str, message: &str) {
        let object = format!("pod/{pod}");
        let condition = r#"{.status.conditions[?(@.type=="PodScheduled")]"#;
        await_field(cluster, &object, &format!("{condition}.reason}}"), "Unschedulable");
        let said = field(cluster, &object, &format!("{condition}.message}}"));
        assert!(said.starts_with(message), "{pod}: {said}");
        assert_eq!(field(cluster, &object, "{.status.phase}"), "Pending");
        await_event(cluster, pod, "Warning", "FailedScheduling", message);
    }
}
