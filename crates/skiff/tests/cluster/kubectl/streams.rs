//! Commands that hold a connection: logs, exec, attach, run, port-forward, debug.

use testkit::eventually_ok;

use super::IMAGE;
use crate::tool::{PATIENCE, Tool, finish, get};

pub(crate) fn all(tool: &Tool<'_>) {
    let pod = tool.field("pods", "{.items[0].metadata.name}");
    logs(tool, &pod);
    exec(tool, &pod);
    run_and_attach(tool);
    forward(tool, &pod);
    debug(tool, &pod);
}

/// What goes over SPDY with one version and over WebSockets with another.
pub(super) fn carried_differently(tool: &Tool<'_>) {
    let pod = tool.field("pods", "{.items[0].metadata.name}");
    exec(tool, &pod);
    forward(tool, &pod);
}

fn logs(tool: &Tool<'_>, pod: &str) {
    tool.shows(&format!("logs {pod}"), &["listening on port 8080"]);
    tool.shows(&format!("logs {pod} --timestamps --tail=1"), &["Z website 1.0.0 listening"]);
    assert_eq!(tool.ok(&format!("logs {pod} --limit-bytes=7")), "website");
    assert_eq!(tool.ok(&format!("logs {pod} --tail=0")), "");
    tool.shows("logs -l app=web --prefix", &["[pod/web-", "/website]"]);
    tool.shows("logs deploy/web --since=1h -c website", &["listening"]);
    let complaint = format!("previous terminated container \"website\" in pod \"{pod}\" not found");
    tool.refused(&format!("logs {pod} --previous"), &complaint);
    tool.refused(&format!("logs {pod} -c nosuch"), "container nosuch is not valid for pod");
    // Ends by itself with its container, and starts again: both logs are there.
    tool.ok(&format!("run crashing --image={IMAGE} -- crash 3 500"));
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    tool.until("get pod crashing -o", &[restarts], |out| out.parse().is_ok_and(|n: u32| n > 0));
    tool.until("logs crashing --previous", &[], |out| out.contains("crashing with 3"));
    tool.ok("delete pod crashing --now");
    tool.ok(&format!("run counting --image={IMAGE} --restart=Never -- print 5 200"));
    tool.until("get pod counting -o jsonpath={.status.phase}", &[], |phase| phase != "Pending");
    let followed = tool.ok("logs -f counting");
    assert_eq!(followed, "line 1\nline 2\nline 3\nline 4\nline 5\n");
    tool.until_field("pod/counting", "{.status.phase}", "Succeeded");
    tool.refused("exec counting -- /testapp env", "completed pod; current phase is Succeeded");
    tool.ok("delete pod counting --now");
}

fn exec(tool: &Tool<'_>, pod: &str) {
    assert_eq!(tool.inside(pod, &["print", "2"]), "line 1\nline 2\n");
    assert_eq!(tool.inside("deploy/web", &["cat", "/proc/sys/kernel/domainname"]), "(none)\n");
    let failed = tool.run(&format!("exec {pod} -- /testapp crash 7"), &[], "");
    assert_eq!(failed.code, Some(7), "{failed:?}");
    assert!(failed.err.contains("crashing with 7") && failed.out.is_empty(), "{failed:?}");
    let echoed = tool.ok_with(&format!("exec -i {pod} -- /testapp cat"), &[], "through and back");
    assert_eq!(echoed, "through and back");
    let large = "0123456789abcdef".repeat(20_000);
    let echoed = tool.ok_with(&format!("exec -i {pod} -- /testapp cat"), &[], &large);
    assert!(echoed == large, "{} of {} bytes came back", echoed.len(), large.len());
    tool.refused(&format!("exec {pod} -- /nosuch"), "no such file or directory");
    tool.refused(&format!("exec {pod} -c nosuch -- /x"), "container nosuch is not valid for pod");
    let line = format!(
        "{} --namespace {} exec -it {pod} -- /testapp terminal",
        tool.program, tool.namespace
    );
    let script = ["-qec", &format!("stty rows 33 cols 99; {line}"), "/dev/null"];
    let shown = finish(tool.cluster.kubectl_of("script", &script), "");
    assert!(shown.out.contains("terminal of"), "{shown:?}");
}

fn run_and_attach(tool: &Tool<'_>) {
    let run = |name: &str, rest: &str, input: &str| {
        let line = format!("run {name} --rm -i --restart=Never --image={IMAGE} -- {rest}");
        tool.run(&line, &[], input)
    };
    let echoed = run("echo", "echo-stdin", "hello\nexit\n");
    assert_eq!(echoed.code, Some(0), "{echoed:?}");
    assert!(echoed.out.contains("you said: hello"), "{echoed:?}");
    assert_eq!(run("failing", "crash 3 1000", "").code, Some(3));
    tool.until("get pods -o name", &[], |out| {
        !out.contains("pod/echo") && !out.contains("failing")
    });
    tool.ok(&format!("run talking --image={IMAGE} -- print 500 100"));
    tool.ready("pod/talking");
    drop(tool.background("attach talking", "line "));
    tool.ok("delete pod talking --grace-period=1");
    tool.refused("attach nosuch", "pods \"nosuch\" not found");
}

fn forward(tool: &Tool<'_>, pod: &str) {
    for target in [format!("pod/{pod} :8080"), "deploy/web :8080".to_owned()] {
        let line = format!("port-forward {target}");
        // It says which port it chose: `Forwarding from 127.0.0.1:PORT -> 8080`.
        let mut forward = tool.background(&line, "");
        let port = forwarded(&mut forward);
        for _ in 0..3 {
            let url = format!("http://127.0.0.1:{port}/version");
            assert_eq!(get(tool.cluster, &url).as_deref(), Ok("1.0.0\n"));
        }
    }
}

/// The port in `Forwarding from 127.0.0.1:PORT -> 8080`; that line has been read, the one for `[::1]` follows.
fn forwarded(forward: &mut crate::tool::Background) -> u16 {
    let line = forward.until("Forwarding from [::1]:");
    let port = line.split("]:").nth(1).and_then(|rest| rest.split(' ').next());
    port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line:?} names no port"))
}

fn debug(tool: &Tool<'_>, pod: &str) {
    let line = format!("debug {pod} --image={IMAGE} --target=website -c looking");
    tool.ok_with(&line, &["--arguments-only", "--", "cat", "/proc/1/cmdline"], "");
    let exit = "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}";
    tool.until_field(&format!("pod/{pod}"), exit, "0");
    let seen = eventually_ok("the log of the ephemeral container", PATIENCE, || {
        let outcome = tool.run(&format!("logs {pod} -c looking"), &[], "");
        if outcome.out.is_empty() { Err(format!("{outcome:?}")) } else { Ok(outcome.out) }
    });
    assert!(seen.starts_with("/testapp"), "it sees the processes of its target: {seen:?}");
    assert_eq!(
        tool.field(&format!("pod/{pod}"), "{.status.containerStatuses[0].restartCount}"),
        "0"
    );
}
