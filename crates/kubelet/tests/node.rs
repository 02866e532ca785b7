//! The kubelet against a real containerd and a real API server: what pods see, how they start, fail, restart and end.
//! Needs root, containerd, runc and busybox-static.

mod shutdown;
mod streams;
mod support;

use std::time::Instant;

use k8s_openapi::api::core::v1 as api;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use support::{
    Node, condition, container_id, is_ready, object, phase, status, until, waiting_reason,
};

fn sleeper() -> serde_json::Value {
    json!({"containers": [{"name": "c"}], "terminationGracePeriodSeconds": 1})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_is_left_alone_by_restarts_and_goes() {
    let mut node = Node::start("life").await;
    let nodes: Api<api::Node> = Api::all(node.client.clone());
    let since = Instant::now();
    until("the node is ready", async || {
        nodes.get_opt(support::NODE).await.unwrap().and_then(|n| n.status).is_some_and(|s| {
            s.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
        })
    })
    .await;
    println!("node ready after {:?}", since.elapsed());

    // The first pod warms caches up; the second is what a user sees.
    for name in ["first", "second"] {
        let since = Instant::now();
        node.run(name, sleeper()).await;
        let pod = node.wait(name, "became ready", is_ready).await;
        println!("{name}: ready after {:?}", since.elapsed());
        let known = pod.status.clone().unwrap();
        assert_eq!(known.pod_ip.as_deref(), Some("192.0.2.77"));
        assert_eq!(known.qos_class.as_deref(), Some("BestEffort"));
        assert_eq!(condition(&pod, "PodReadyToStartContainers"), Some("True"));
        assert_eq!(status(&pod, "c").unwrap().restart_count, 0);
    }
    let before = node.get("first").await.unwrap();

    node.stop_kubelet().await;
    let running = node.runtime.list_containers(Default::default()).await.unwrap().len();
    assert_eq!(running, 2);
    // While no kubelet runs, one pod is removed from the API altogether.
    node.pods().delete("second", &DeleteParams::default().grace_period(0)).await.unwrap();
    node.start_kubelet();
    // What is left of it goes.
    until("one sandbox is left", async || {
        node.runtime.list_pod_sandboxes(Default::default()).await.unwrap().len() == 1
    })
    .await;
    assert_eq!(node.runtime.list_containers(Default::default()).await.unwrap().len(), 1);
    let after = node.wait("first", "stayed ready", is_ready).await;
    assert_eq!(container_id(&before, "c"), container_id(&after, "c"));
    assert_eq!(status(&after, "c").unwrap().restart_count, 0);

    let since = Instant::now();
    node.pods().delete("first", &DeleteParams::default()).await.unwrap();
    node.wait_gone("first").await;
    println!("gone after {:?}", since.elapsed());
    assert!(node.runtime.list_pod_sandboxes(Default::default()).await.unwrap().is_empty());
    let uid = before.metadata.uid.unwrap();
    assert!(!node.options.root_dir.join("pods").join(uid).exists());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_sees() {
    let node = Node::start("sees").await;
    let maps: Api<api::ConfigMap> = node.api();
    let secrets: Api<api::Secret> = node.api();
    let map: api::ConfigMap =
        object(json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}}));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let secret: api::Secret =
        object(json!({"metadata": {"name": "s"}, "stringData": {"token": "t0p"}}));
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    node.run_object(json!({"metadata": {"name": "p", "labels": {"app": "x"}}, "spec": {
        "hostname": "me", "terminationGracePeriodSeconds": 1,
        "securityContext": {"fsGroup": 4242},
        "volumes": [
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "all", "projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "token", "path": "deep/token"}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"serviceAccountToken": {"path": "jwt", "expirationSeconds": 600}}]}},
            {"name": "ram", "emptyDir": {"medium": "Memory"}},
            {"name": "disk", "emptyDir": {}}],
        "containers": [{"name": "c",
            "env": [
                {"name": "PLAIN", "value": "x-$(FROM)"},
                {"name": "FROM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
                {"name": "AGAIN", "value": "$(FROM)$(FROM)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
            "envFrom": [{"prefix": "S_", "secretRef": {"name": "s"}}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
            "volumeMounts": [
                {"name": "cm", "mountPath": "/cm"}, {"name": "all", "mountPath": "/all"},
                {"name": "ram", "mountPath": "/ram"}, {"name": "disk", "mountPath": "/disk"},
                {"name": "cm", "mountPath": "/one", "subPath": "b"},
                {"name": "disk", "mountPath": "/part", "subPath": "x/y"}]}]}}))
        .await;
    let pod = node.wait("p", "became ready", is_ready).await;
    let sh = |script: &'static str| {
        let (node, pod) = (&node, &pod);
        async move { node.exec(pod, "c", &["/bin/busybox", "sh", "-c", script]).await }
    };
    assert_eq!(
        sh("echo $PLAIN $FROM $AGAIN $S_token $IP $CPU").await,
        "x-$(FROM) 1 11 t0p 192.0.2.77 500\n"
    );
    assert_eq!(sh("echo $KUBERNETES_SERVICE_PORT_HTTPS").await, "443\n");
    assert_eq!(sh("busybox cat /cm/a /cm/b /all/deep/token /one").await, "12t0p2");
    assert_eq!(sh("busybox cat /all/labels").await, "app=\"x\"");
    assert_eq!(
        sh("busybox cut -d. -f1-3 /all/jwt | busybox tr -d -c . | busybox wc -c").await.trim(),
        "2"
    );
    assert_eq!(sh("busybox hostname").await, "me\n");
    assert!(sh("busybox cat /etc/hosts").await.contains("192.0.2.77\tme"));
    assert!(
        sh("busybox cat /etc/resolv.conf")
            .await
            .contains("search default.svc.cluster.local svc.cluster.local")
    );
    assert!(sh("busybox mount").await.contains("tmpfs on /ram type tmpfs"));
    assert_eq!(
        sh("echo hi > /part/f; busybox cat /disk/x/y/f; busybox stat -c %g /disk").await,
        "hi\n4242\n"
    );
    let limit =
        sh("busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max")
            .await;
    assert!(limit.contains("67108864"), "{limit}");

    // A changed source shows up by itself.
    let patch = json!({"data": {"a": "changed"}});
    maps.patch("cm", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    until("the volume changes", async || sh("busybox cat /cm/a").await == "changed").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_and_mistakes_are_told_and_recovered_from() {
    let node = Node::start("crash").await;
    let once = |command: &str| json!(["/bin/busybox", "sh", "-c", command]);
    node.run("crash", json!({"containers": [{"name": "c", "command": once("echo bye > /dev/termination-log; exit 3")}]}))
        .await;
    node.run("missing", json!({"containers": [{"name": "c", "image": "skiff.local/none:1", "imagePullPolicy": "Never"}]}))
        .await;
    node.run("unpullable", json!({"containers": [{"name": "c", "image": "127.0.0.1:1/none:1"}]}))
        .await;
    node.run("badname", json!({"containers": [{"name": "c", "image": "skiff.local/Bad Name"}]}))
        .await;
    node.run("nocommand", json!({"containers": [{"name": "c", "command": ["/no/such"]}]})).await;
    node.run(
        "nokey",
        json!({"containers": [{"name": "c",
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "k"}}}]}]}),
    )
    .await;
    node.run(
        "novolume",
        json!({"volumes": [{"name": "v", "secret": {"secretName": "later"}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
    )
    .await;
    node.run(
        "job",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": once("exit 0")}]}),
    )
    .await;
    node.run(
        "failed",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": once("exit 1")}]}),
    )
    .await;

    let looping = |p: &api::Pod| waiting_reason(p, "c").as_deref() == Some("CrashLoopBackOff");
    let pod = node.wait("crash", "looped", looping).await;
    let known = status(&pod, "c").unwrap();
    let last = known.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref(), last.message.as_deref()),
        (3, Some("Error"), Some("bye\n"))
    );
    assert_eq!(known.restart_count, 1);
    let message = known.state.clone().unwrap().waiting.unwrap().message.unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=crash_default("),
        "{message}"
    );
    node.wait_event(
        "crash",
        "BackOff: Back-off restarting failed container c in pod crash_default(",
    )
    .await;

    let waits = |name: &'static str, reason: &'static str| {
        let node = &node;
        async move {
            node.wait(name, reason, |p| waiting_reason(p, "c").as_deref() == Some(reason)).await;
        }
    };
    waits("missing", "ErrImageNeverPull").await;
    waits("badname", "InvalidImageName").await;
    waits("unpullable", "ImagePullBackOff").await;
    node.wait_event("unpullable", "Failed: Failed to pull image \"127.0.0.1:1/none:1\"").await;
    waits("nokey", "CreateContainerConfigError").await;
    waits("nocommand", "CrashLoopBackOff").await;
    node.wait_event(
        "novolume",
        "FailedMount: MountVolume.SetUp failed for volume \"v\" : secret \"later\" not found",
    )
    .await;
    waits("novolume", "ContainerCreating").await;
    let done = node.wait("job", "succeeded", |p| phase(p) == "Succeeded").await;
    assert_eq!(condition(&done, "Ready"), Some("False"));
    node.wait("failed", "failed", |p| phase(p) == "Failed").await;

    // The causes go, and so do the troubles.
    let map: api::ConfigMap = object(json!({"metadata": {"name": "later"}, "data": {"k": "1"}}));
    node.api::<api::ConfigMap>().create(&PostParams::default(), &map).await.unwrap();
    let secret: api::Secret =
        object(json!({"metadata": {"name": "later"}, "stringData": {"k": "1"}}));
    node.api::<api::Secret>().create(&PostParams::default(), &secret).await.unwrap();
    node.wait("nokey", "became ready", is_ready).await;
    node.wait("novolume", "became ready", is_ready).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_probes_hooks_and_endings() {
    let node = Node::start("order").await;
    let sh = |command: &str| json!(["/bin/busybox", "sh", "-c", command]);
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    node.run(
        "order",
        json!({"terminationGracePeriodSeconds": 5, "volumes": volume,
        "initContainers": [
            {"name": "one", "command": sh("echo one >> /v/log"), "volumeMounts": mounts},
            {"name": "side", "restartPolicy": "Always", "volumeMounts": mounts,
             "command": sh("echo side >> /v/log; busybox sleep 1000000"),
             "startupProbe": {"exec": {"command": sh("busybox test -e /v/go || { echo go > /v/go; exit 1; }")}, "periodSeconds": 1, "timeoutSeconds": 60}},
            {"name": "two", "command": sh("echo two >> /v/log"), "volumeMounts": mounts}],
        "containers": [{"name": "c", "volumeMounts": mounts,
            "command": sh("echo main >> /v/log; trap 'exit 0' TERM; while :; do busybox sleep 0.1; done"),
            "readinessProbe": {"exec": {"command": sh("busybox test -e /v/ready")}, "periodSeconds": 1, "timeoutSeconds": 60},
            "livenessProbe": {"exec": {"command": sh("busybox test ! -e /tmp/dead")}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60},
            "lifecycle": {"postStart": {"exec": {"command": sh("until busybox grep -q main /v/log; do busybox sleep 0.1; done; echo hook >> /v/log")}},
                          "preStop": {"exec": {"command": sh("echo bye >> /v/log")}}}}]}),
    )
    .await;
    let pod = node
        .wait("order", "ran", |p| status(p, "c").is_some_and(|s| s.started == Some(true)))
        .await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(condition(&pod, "Initialized"), Some("True"));
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    let log = node.exec(&pod, "c", &["/bin/busybox", "cat", "/v/log"]).await;
    assert_eq!(log, "one\nside\ntwo\nmain\nhook\n");

    node.exec(&pod, "c", &["/bin/busybox", "touch", "/v/ready"]).await;
    let pod = node.wait("order", "became ready", is_ready).await;
    let first = container_id(&pod, "c");
    // Gone with the container, so that the next one lives.
    node.exec(&pod, "c", &["/bin/busybox", "touch", "/tmp/dead"]).await;
    node.wait_event("order", "Killing: Container c failed liveness probe, will be restarted").await;
    let pod =
        node.wait("order", "restarted", |p| is_ready(p) && container_id(p, "c") != first).await;
    let known = status(&pod, "c").unwrap();
    assert_eq!(known.restart_count, 1);
    assert_eq!(status(&pod, "side").unwrap().restart_count, 0);

    node.pods().delete("order", &DeleteParams::default()).await.unwrap();
    node.wait_gone("order").await;
    node.wait_event("order", "Killing: Stopping container side").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_through_the_api_server() {
    use futures::io::AsyncReadExt;
    use kube::api::LogParams;

    let node = Node::start("logs").await;
    let script = "for i in 1 2 3 4 5; do echo line $i; done; busybox sleep 0.5; echo oops >&2; busybox sleep 0.5; echo last; exit 1";
    node.run(
        "talk",
        json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "command": ["/bin/busybox", "sh", "-c", script]}]}),
    )
    .await;
    node.run("silent", json!({"containers": [{"name": "c", "image": "skiff.local/none:1", "imagePullPolicy": "Never"}]}))
        .await;
    node.wait("talk", "ran", |p| status(p, "c").is_some_and(|s| s.started == Some(true))).await;

    // Followed to the end of the container.
    let follow = LogParams { follow: true, ..Default::default() };
    let mut stream = node.pods().log_stream("talk", &follow).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "line 1\nline 2\nline 3\nline 4\nline 5\noops\nlast\n");

    node.wait("talk", "restarted", |p| status(p, "c").is_some_and(|s| s.restart_count >= 1)).await;
    let previous = LogParams { previous: true, tail_lines: Some(2), ..Default::default() };
    assert_eq!(node.pods().logs("talk", &previous).await.unwrap(), "oops\nlast\n");
    let limited = LogParams { limit_bytes: Some(9), previous: true, ..Default::default() };
    assert_eq!(node.pods().logs("talk", &limited).await.unwrap(), "line 1\nli");
    let stamped =
        LogParams { timestamps: true, previous: true, tail_lines: Some(1), ..Default::default() };
    let line = node.pods().logs("talk", &stamped).await.unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && rest == "last\n", "{line}");

    node.wait("silent", "waited", |p| {
        waiting_reason(p, "c").is_some_and(|r| r == "ErrImageNeverPull")
    })
    .await;
    let error = node.pods().logs("silent", &LogParams::default()).await.unwrap_err().to_string();
    assert!(
        error.contains("container \"c\" in pod \"silent\" is waiting to start: ErrImageNeverPull"),
        "{error}"
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_memory_network_probes_and_sandboxes() {
    let node = Node::start("more").await;
    let sh = |command: &str| json!(["/bin/busybox", "sh", "-c", command]);
    let grace = json!(1);
    node.run(
        "user",
        json!({"terminationGracePeriodSeconds": grace, "shareProcessNamespace": true,
        "securityContext": {"runAsUser": 1234, "runAsGroup": 5678, "supplementalGroups": [99], "runAsNonRoot": true},
        "containers": [{"name": "c", "securityContext":
            {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
             "seccompProfile": {"type": "RuntimeDefault"}}}]}),
    )
    .await;
    node.run(
        "root",
        json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}),
    )
    .await;
    // Only its child is killed: the runtime hears of that and of the end apart, in whatever order they come.
    node.run(
        "greedy",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "resources": {"limits": {"memory": "8Mi"}},
        "command": sh("busybox dd if=/dev/zero of=/dev/null bs=200M count=1; echo survived; busybox sleep 5; exit 9")}]}),
    )
    .await;
    let server = "busybox mkdir /tmp/w; echo fine > /tmp/w/ok; exec busybox httpd -f -p 127.0.0.1:18471 -h /tmp/w";
    node.run(
        "web",
        json!({"hostNetwork": true, "terminationGracePeriodSeconds": grace, "containers": [{"name": "c",
        "command": sh(server), "ports": [{"name": "http", "containerPort": 18471}],
        "startupProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1, "timeoutSeconds": 60},
        "readinessProbe": {"httpGet": {"path": "/ok", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 60},
        "livenessProbe": {"httpGet": {"path": "/ok", "port": 18471}, "periodSeconds": 1, "timeoutSeconds": 60}}]}),
    )
    .await;
    node.run(
        "huge",
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1000"}}}]}),
    )
    .await;
    node.run("box", json!({"terminationGracePeriodSeconds": grace, "containers": [{"name": "c"}]}))
        .await;

    let pod = node.wait("user", "became ready", is_ready).await;
    let shown = node
        .exec(
            &pod,
            "c",
            &["/bin/busybox", "sh", "-c", "busybox id -u; busybox id -g; busybox id -G"],
        )
        .await;
    assert_eq!(shown, "1234\n5678\n5678 99\n");
    let status_file = node.exec(&pod, "c", &["/bin/busybox", "cat", "/proc/self/status"]).await;
    for expected in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status_file.contains(expected), "{expected} is missing in\n{status_file}");
    }
    let written = node
        .exec(&pod, "c", &["/bin/busybox", "sh", "-c", "echo > /file 2>&1 || echo refused"])
        .await;
    assert!(written.contains("refused"), "{written}");
    let first = node.exec(&pod, "c", &["/bin/busybox", "cat", "/proc/1/cmdline"]).await;
    assert!(first.starts_with("/pause"), "{first}");

    node.wait("root", "was refused", |p| {
        waiting_reason(p, "c").as_deref() == Some("CreateContainerConfigError")
    })
    .await;
    node.wait_event("root", "Failed: Error: container has runAsNonRoot and image will run as root")
        .await;
    let greedy = node.wait("greedy", "ended", |p| phase(p) == "Failed").await;
    let ended = status(&greedy, "c").unwrap().state.clone().unwrap().terminated.unwrap();
    // The runtime may tell of the memory after it has told of the end.
    let reason = ended.reason.as_deref().unwrap_or_default();
    assert!(["OOMKilled", "Error"].contains(&reason) && ended.exit_code != 0, "{ended:?}");
    let huge = node.wait("huge", "was refused", |p| phase(p) == "Failed").await;
    assert_eq!(huge.status.unwrap().reason.as_deref(), Some("OutOfcpu"));

    let web = node.wait("web", "became ready", is_ready).await;
    assert_eq!(web.status.as_ref().unwrap().pod_ip.as_deref(), Some("127.0.0.1"));
    node.exec(&web, "c", &["/bin/busybox", "rm", "/tmp/w/ok"]).await;
    node.wait_event(
        "web",
        "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 404",
    )
    .await;
    let again = node
        .wait("web", "was restarted", |p| is_ready(p) && status(p, "c").unwrap().restart_count == 1)
        .await;
    // In between it was not ready, however short.
    assert!(ready_since(&again) > ready_since(&web), "{again:?}");

    // Somebody kills the pod's sandbox: it is made anew, and the container with it.
    let pod = node.wait("box", "became ready", is_ready).await;
    let sandboxes = node.runtime.list_pod_sandboxes(Default::default()).await.unwrap();
    let mine = sandboxes.iter().find(|s| s.metadata.as_ref().unwrap().name == "box").unwrap();
    let detail = node.runtime.pod_sandbox_status(mine.id.clone(), true).await.unwrap();
    let info: serde_json::Value = serde_json::from_str(&detail.info["info"]).unwrap();
    let pause = i32::try_from(info["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pause), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    node.wait_event(
        "box",
        "SandboxChanged: Pod sandbox changed, it will be killed and re-created.",
    )
    .await;
    let before = container_id(&pod, "c");
    let pod =
        node.wait("box", "came back", |p| is_ready(p) && container_id(p, "c") != before).await;
    assert_eq!(status(&pod, "c").unwrap().restart_count, 1);
    node.finish().await;
}

fn ready_since(pod: &api::Pod) -> Option<jiff::Timestamp> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|one| one.type_ == "Ready")?.last_transition_time.as_ref().map(|time| time.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_rotated_and_still_read() {
    let node = Node::start_with("rotate", |options| {
        options.log_max_bytes = 2000;
        options.log_max_files = 2;
    })
    .await;
    let script = "i=0; while :; do i=$((i+1)); echo number $i of many; busybox sleep 0.05; done";
    let command = json!(["/bin/busybox", "sh", "-c", script]);
    node.run(
        "chatty",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "command": command}]}),
    )
    .await;
    let pod = node.wait("chatty", "became ready", is_ready).await;
    let uid = pod.metadata.uid.clone().unwrap();
    let dir = node.options.log_dir.join(format!("default_chatty_{uid}")).join("c");
    let files = || std::fs::read_dir(&dir).map(|entries| entries.flatten().count()).unwrap_or(0);
    until("the log is rotated", async || files() >= 2).await;
    // The new file is written to, and read from.
    let tail = kube::api::LogParams { tail_lines: Some(1), ..Default::default() };
    until("something is written after rotation", async || {
        node.pods().logs("chatty", &tail).await.unwrap().starts_with("number ")
    })
    .await;
    node.finish().await;
}
