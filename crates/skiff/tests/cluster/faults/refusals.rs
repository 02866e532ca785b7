//! Containers that cannot be made or started, and pods that a node does not take: the reason, the event,
//! and where there can be one, the recovery.

use testkit::{Cluster, website_images};

use super::{
    assert_calm, await_event, await_field, await_output, await_ready, await_waiting, field, pod,
};

const FIRST: &str = "{.status.containerStatuses[0]";

#[test]
fn refused_containers_say_why() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images()[..1]);
    await_output(&cluster, &["get", "serviceaccount", "default", "-o", "name"], |_| true);
    begin(&cluster);
    commands(&cluster);
    hooks(&cluster);
    users(&cluster);
    volumes(&cluster);
    init_containers(&cluster);
    deadlines(&cluster);
    places(&cluster);
    assert_calm(&cluster);
}

/// All at once, so that their back-offs pass side by side.
fn begin(cluster: &Cluster) {
    let hook = ", lifecycle: {postStart: {exec: {command: [/testapp, cat, /tmp/absent]}}}";
    let root = ", securityContext: {runAsNonRoot: true, runAsUser: 0}";
    let mounts = ", volumeMounts: [{name: v, mountPath: /v}]";
    let host = ", volumes: [{name: v, hostPath: {path: /nowhere-at-all, type: Directory}}]";
    let items = ", volumes: [{name: v, configMap: {name: kube-root-ca.crt, \
                 items: [{key: nothing, path: file}]}}]";
    let init = |policy: &str| {
        format!(
            ", restartPolicy: {policy}, initContainers: [{{name: i, image: \
             'skiff.local/website:1.0.0', args: [cat, /shared/go], volumeMounts: \
             [{{name: shared, mountPath: /shared}}]}}], volumes: [{{name: shared, configMap: \
             {{name: shared, optional: true}}}}]"
        )
    };
    let manifests = [
        pod("absent", "[x]", ", command: [/nothing/here]", ""),
        pod("hooked", "[serve]", hook, ""),
        pod("root", "[serve]", root, ""),
        pod("settings", "[serve]", ", envFrom: [{configMapRef: {name: several}}]", ""),
        pod("host", "[serve]", mounts, host),
        pod("items", "[serve]", mounts, items),
        pod("init", "[serve]", "", &init("Always")),
        pod("init-once", "[serve]", "", &init("Never")),
        pod("late", "[serve]", "", ", activeDeadlineSeconds: 2"),
    ];
    cluster.apply(&manifests.join("\n")).expect("the pods are accepted");
}

/// A program that the image does not have.
fn commands(cluster: &Cluster) {
    await_event(cluster, "absent", "Warning", "Failed", "exec: \"/nothing/here\": stat");
    await_waiting(cluster, "absent", "CrashLoopBackOff");
    let last = format!("{FIRST}.lastState.terminated");
    await_field(cluster, "pod/absent", &format!("{last}.reason}}"), "StartError");
    assert_eq!(field(cluster, "pod/absent", &format!("{last}.exitCode}}")), "128");
}

/// A hook that fails takes its container with it.
fn hooks(cluster: &Cluster) {
    await_event(cluster, "hooked", "Warning", "FailedPostStartHook", "PostStartHook failed");
    await_event(cluster, "hooked", "Normal", "Killing", "FailedPostStartHook");
    await_waiting(cluster, "hooked", "CrashLoopBackOff");
}

/// A user that the pod itself forbids; settings that are not there as a whole.
fn users(cluster: &Cluster) {
    let uid = field(cluster, "pod/root", "{.metadata.uid}");
    let message = format!(
        "container's runAsUser breaks non-root policy (pod: \"root_default({uid})\", container: c)"
    );
    assert_eq!(await_waiting(cluster, "root", "CreateContainerConfigError"), message);
    await_event(cluster, "root", "Warning", "Failed", &format!("Error: {message}"));

    let message = "configmap \"several\" not found";
    assert_eq!(await_waiting(cluster, "settings", "CreateContainerConfigError"), message);
    cluster.kubectl(&["create", "configmap", "several", "--from-literal=A=b"]);
    await_ready(cluster, "settings");
}

/// Volumes that cannot be made.
fn volumes(cluster: &Cluster) {
    let failed = "MountVolume.SetUp failed for volume \"v\" : ";
    for (pod, message) in [
        ("host", "hostPath type check failed: /nowhere-at-all is not a directory"),
        ("items", "references non-existent config key: nothing"),
    ] {
        await_event(cluster, pod, "Warning", "FailedMount", &format!("{failed}{message}"));
        await_waiting(cluster, pod, "ContainerCreating");
    }
}

/// The first container of a pod fails: the others wait, or the pod is over.
fn init_containers(cluster: &Cluster) {
    let path = "jsonpath={.status.initContainerStatuses[0].state.waiting.reason}";
    await_output(cluster, &["get", "pod", "init", "-o", path], |output| {
        output == "CrashLoopBackOff"
    });
    await_waiting(cluster, "init", "PodInitializing");
    let condition = r#"{.status.conditions[?(@.type=="Initialized")]"#;
    let of = |name: &str| field(cluster, "pod/init", &format!("{condition}.{name}}}"));
    assert_eq!(of("status"), "False");
    assert_eq!(of("reason"), "ContainersNotInitialized");
    assert_eq!(of("message"), "containers with incomplete status: [i]");
    assert_eq!(field(cluster, "pod/init", "{.status.phase}"), "Pending");
    // In between it runs again for a moment.
    await_output(cluster, &["get", "pod", "init"], |shown| shown.contains("Init:CrashLoopBackOff"));

    await_field(cluster, "pod/init-once", "{.status.phase}", "Failed");
    assert!(cluster.kubectl(&["get", "pod", "init-once"]).contains("Init:Error"));

    // The cause goes: the file comes into the running pod's volume.
    cluster.kubectl(&["create", "configmap", "shared", "--from-literal=go=yes"]);
    await_ready(cluster, "init");
}

/// A pod that may only live so long.
fn deadlines(cluster: &Cluster) {
    await_field(cluster, "pod/late", "{.status.phase}", "Failed");
    assert_eq!(field(cluster, "pod/late", "{.status.reason}"), "DeadlineExceeded");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(field(cluster, "pod/late", "{.status.message}"), message);
}

/// Pods that were put on the node, or want a port of it, and find no room.
fn places(cluster: &Cluster) {
    let node = field(cluster, "nodes", "{.items[0].metadata.name}");
    let port = ", ports: [{containerPort: 8080, hostPort: 18080}]";
    cluster.apply(&pod("holder", "[serve]", port, "")).expect("accepted");
    await_ready(cluster, "holder");
    cluster.apply(&pod("second", "[serve]", port, "")).expect("accepted");
    let message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod \
                   ports.";
    await_event(cluster, "second", "Warning", "FailedScheduling", message);
    cluster.kubectl(&["delete", "pod", "holder", "--wait=false"]);
    await_ready(cluster, "second");

    let huge = ", resources: {requests: {cpu: '1000'}}";
    let placed = format!(", nodeName: {node}");
    cluster.apply(&pod("huge", "[serve]", huge, &placed)).expect("accepted");
    await_field(cluster, "pod/huge", "{.status.phase}", "Failed");
    assert_eq!(field(cluster, "pod/huge", "{.status.reason}"), "OutOfcpu");
    let said = field(cluster, "pod/huge", "{.status.message}");
    assert!(
        said.contains("Node didn't have enough resource: cpu, requested: 1000000, used: "),
        "{said}"
    );
}
