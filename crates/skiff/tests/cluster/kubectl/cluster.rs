//! What administrators do: cordon, drain, taint, health, metrics, the proxy, namespaces.

use crate::tool::{Tool, get};

pub(super) fn all(tool: &Tool<'_>) {
    endpoints(tool);
    proxy(tool);
    node(tool);
    tool.refused("delete namespace default", "this namespace may not be deleted");
    tool.refused("top pods", "Metrics API not available");
    tool.ok("top --help");
}

fn endpoints(tool: &Tool<'_>) {
    for path in ["/livez", "/readyz", "/healthz", "/livez/ping"] {
        assert_eq!(tool.ok(&format!("get --raw {path}")), "ok", "{path}");
    }
    tool.shows("get --raw /readyz?verbose", &["[+]ping ok", "readyz check passed"]);
    tool.shows("get --raw /metrics", &["# TYPE apiserver_request_total counter"]);
    tool.shows("get --raw /version", &["\"major\": \"1\"", "\"minor\": \"36\""]);
    tool.shows("get --raw /openapi/v3", &["apis/apps/v1"]);
    tool.shows("get --raw /.well-known/openid-configuration", &["jwks_uri"]);
    let node = tool.field("nodes", "{.items[0].metadata.name}");
    let at_node = format!("get --raw /api/v1/nodes/{node}/proxy");
    tool.shows(&format!("{at_node}/healthz"), &["ok"]);
    tool.shows(&format!("{at_node}/stats/summary"), &["podRef"]);
    tool.shows(&format!("{at_node}/pods"), &["web-"]);
    tool.refused("get --raw /nosuch", "NotFound");
}

fn proxy(tool: &Tool<'_>) {
    tool.ok("expose deploy/web --port=80 --target-port=8080 --name=front");
    let pod = tool.field("pods", "{.items[0].metadata.name}");
    let mut proxy = tool.background("proxy --port=0", "Starting to serve on 127.0.0.1:");
    // The line that names the port has been read: a second proxy takes a fixed one.
    let _ = &mut proxy;
    let _fixed = tool.background("proxy --port=18001", "Starting to serve on 127.0.0.1:18001");
    let base = "http://127.0.0.1:18001/api/v1/namespaces/default";
    let version = |path: &str| get(tool.cluster, &format!("{base}/{path}/proxy/version"));
    assert_eq!(version(&format!("pods/{pod}:8080")).as_deref(), Ok("1.0.0\n"));
    testkit::eventually_ok(
        "the service to answer through the proxy",
        crate::tool::PATIENCE,
        || version("services/front:80"),
    );
    let mut head = tool.cluster.namespace().command("curl");
    head.args(["--silent", "--head", "http://127.0.0.1:18001/api/v1/namespaces"]);
    let answer = crate::tool::finish(head, "");
    assert!(answer.out.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert!(version("services/nosuch").is_err_and(|error| error.contains("404")));
}

fn node(tool: &Tool<'_>) {
    let node = tool.field("nodes", "{.items[0].metadata.name}");
    tool.shows(&format!("cordon {node}"), &["cordoned"]);
    tool.shows("get nodes", &["Ready,SchedulingDisabled"]);
    tool.ok(&format!("run waiting --image={}", super::IMAGE));
    let reason = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    tool.until_field("pod/waiting", reason, "Unschedulable");
    tool.until("get events", &[], |out| {
        out.contains("0/1 nodes are available: 1 node(s) were unschedulable")
    });
    tool.ok(&format!("uncordon {node}"));
    tool.ready("pod/waiting");
    tool.ok(&format!("taint node {node} purpose=tests:NoSchedule"));
    tool.refused(&format!("taint node {node} purpose=tests:NoSchedule"), "already has");
    tool.ok(&format!("run tainted --image={}", super::IMAGE));
    tool.until("get events", &[], |out| out.contains("had untolerated taint"));
    tool.ok(&format!("taint node {node} purpose-"));
    tool.ready("pod/tainted");
    let range = r#"{"spec":{"podCIDR":"10.1.0.0/24"}}"#;
    tool.refused_with(&format!("patch node {node} -p"), &[range], "may not change podCIDR");
    tool.refused(&format!("drain {node} --ignore-daemonsets"), "declare no controller");
    let drained = tool.ok(&format!("drain {node} --ignore-daemonsets --force --timeout=200s"));
    assert!(drained.contains(&format!("node/{node} drained")), "{drained}");
    let web = tool.ok("get pods -l app=web --field-selector=status.phase=Pending -o name");
    assert_eq!(web.lines().count(), 2, "replacements wait for the node");
    tool.ok(&format!("uncordon {node}"));
    tool.ok("rollout status deploy/web --timeout=200s");
}
