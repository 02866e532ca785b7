//! How pods live and end: order, restarts, probes, hooks, deadlines, messages.

use std::path::Path;
use std::time::Instant;

use super::ended;
use crate::tool::Tool;

pub(super) fn all(tool: &Tool<'_>, host: &Path) {
    order(tool);
    messages(tool);
    restarts(tool);
    probes(tool);
    ends(tool, host);
}

fn order(tool: &Tool<'_>) {
    tool.until_field("pod/order", "{.status.phase}", "Succeeded");
    assert_eq!(tool.ok("logs order -c main"), "one\n");
    assert_eq!(tool.ok("logs order -c two"), "1\n");
    assert_eq!(tool.ok("logs order -c side"), "waiting for SIGTERM\nterminated\n");
    let init = "{range .status.initContainerStatuses[*]}{.name}={.state.terminated.exitCode} {end}";
    assert_eq!(tool.field("pod/order", init), "one=0 side=0 two=0 ");
    let at = |list: &str, name: &str, field: &str| {
        let path = format!("{{.status.{list}[?(@.name==\"{name}\")].state.terminated.{field}}}");
        tool.field("pod/order", &path)
    };
    let main_end = at("containerStatuses", "main", "finishedAt");
    assert!(at("initContainerStatuses", "side", "finishedAt") >= main_end, "sidecars end last");
    assert!(
        at("initContainerStatuses", "one", "finishedAt")
            <= at("initContainerStatuses", "two", "startedAt")
    );

    tool.until_field("pod/badinit", "{.status.phase}", "Failed");
    let main = "{.status.containerStatuses[0].state.waiting.reason}";
    assert_eq!(tool.field("pod/badinit", main), "PodInitializing");
    tool.shows("get pod badinit", &["Init:Error"]);
}

fn messages(tool: &Tool<'_>) {
    tool.until_field("pod/message", "{.status.phase}", "Failed");
    for (container, message) in
        [("file", "DONE\n"), ("path", "OTHER\n"), ("log", "crashing with 3\n"), ("well", "")]
    {
        assert_eq!(tool.field("pod/message", &ended(container, "message")), message, "{container}");
    }
    assert_eq!(tool.field("pod/message", &ended("log", "exitCode")), "3");
    assert_eq!(tool.field("pod/message", &ended("log", "reason")), "Error");
    tool.until_field("pod/nosuch", "{.status.phase}", "Failed");
    assert_eq!(tool.field("pod/nosuch", &ended("main", "reason")), "StartError");
    assert_eq!(tool.field("pod/nosuch", &ended("main", "exitCode")), "128");
}

fn restarts(tool: &Tool<'_>) {
    let waiting = "{.status.containerStatuses[?(@.name==\"badly\")].state.waiting}";
    tool.until("get pod onfailure -o", &[&format!("jsonpath={waiting}")], |out| {
        out.contains("CrashLoopBackOff")
            && out.contains("restarting failed container=badly pod=onfailure_pods(")
    });
    assert_eq!(tool.field("pod/onfailure", &ended("well", "reason")), "Completed");
    tool.until("get events", &[], |out| {
        out.contains("Back-off restarting failed container badly in pod onfailure_pods(")
    });
    tool.until_field("pod/deadline", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
    let restarts = "{.status.containerStatuses[0].restartCount}";
    tool.until("get pod unhealthy -o", &[&format!("jsonpath={restarts}")], |out| {
        out.parse::<u32>().is_ok_and(|count| count >= 1)
    });
    tool.until("get events", &[], |out| {
        out.contains("Liveness probe failed: HTTP probe failed with statuscode: 503")
            && out.contains("Container main failed liveness probe, will be restarted")
    });
    tool.until("get pod badhook -o", &[&format!("jsonpath={restarts}")], |out| out != "0");
    tool.until("get events", &[], |out| out.contains("FailedPostStartHook"));
}

fn probes(tool: &Tool<'_>) {
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    let containers = "{.status.conditions[?(@.type==\"ContainersReady\")].status}";
    tool.until_field("pod/probes", containers, "True");
    assert_eq!(tool.field("pod/probes", ready), "False", "the gate is closed");
    tool.shows("get pod probes -o wide", &["0/1"]);
    let gate = r#"{"status":{"conditions":[{"type":"example.com/ok","status":"True"}]}}"#;
    tool.ok_with("patch pod probes --subresource=status -p", &[gate], "");
    tool.until_field("pod/probes", ready, "True");
    let restarts = "{.status.containerStatuses[*].restartCount}";
    assert_eq!(tool.field("pod/probes", restarts), "0 0 0 0");
    tool.inside("probes -c exec", &["get", "http://127.0.0.1:8080/fail?readyz=true"]);
    tool.until_field("pod/probes", ready, "False");
    tool.until("describe pod probes", &[], |out| {
        out.contains("Readiness probe failed: HTTP probe failed with statuscode: 503")
    });
    tool.inside("probes -c exec", &["get", "http://127.0.0.1:8080/fail?readyz=false"]);
    tool.until_field("pod/probes", ready, "True");
    tool.until("describe pod unready", &[], |out| {
        out.contains("NOT_SERVING") && out.contains("Readiness probe failed: crashing with 1")
    });
    assert_eq!(tool.field("pod/unready", containers), "False");
}

fn ends(tool: &Tool<'_>, host: &Path) {
    tool.ready("pod/hooks pod/deaf");
    assert!(host.join("hooks/started").exists(), "postStart ran before the pod was ready");
    assert!(!host.join("hooks/stopped").exists());
    tool.ok("delete pod hooks");
    assert!(host.join("hooks/stopped").exists(), "preStop ran");
    let begun = Instant::now();
    tool.ok("delete pod deaf");
    assert!(begun.elapsed().as_secs_f32() >= 1.5, "it was killed before its grace period was over");
    tool.refused("get pod deaf", "not found");
    tool.ok("run forced --image=skiff.local/website:1.0.0 -- wait --ignore-term");
    tool.ready("pod/forced");
    tool.ok("delete pod forced --grace-period=0 --force");
    tool.refused("get pod forced", "not found");
    tool.ok("delete pod --all --grace-period=1");
}
