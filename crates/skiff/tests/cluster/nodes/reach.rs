//! Who reaches whom, by what: pods, nodes and strangers; addresses, Services and names; both families.

use std::collections::BTreeSet;

use testkit::{Cluster, ClusterOptions, Families, eventually_ok};

use super::{get_from, pod_on, three};
use crate::tool::{PATIENCE, Tool};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const PODS: [&str; 3] = ["on-1", "on-2", "on-3"];
const SERVICES: &str = "---
{apiVersion: v1, kind: Service, metadata: {name: all}, spec: {type: NodePort, ipFamilyPolicy: PreferDualStack,
 selector: {app: net}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30081}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: local}, spec: {type: NodePort, ipFamilyPolicy: PreferDualStack,
 externalTrafficPolicy: Local, selector: {app: net, one: 'yes'},
 ports: [{name: http, port: 80, targetPort: http, nodePort: 30082}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack,
 selector: {app: net}, ports: [{name: http, port: 8080, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: elsewhere}, spec: {externalIPs: [10.77.0.200], ipFamilyPolicy: PreferDualStack,
 selector: {app: net}, ports: [{name: http, port: 8088, targetPort: http}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on-host, labels: {app: host}}, spec: {nodeName: node-2, hostNetwork: true,
 containers: [{name: c, image: 'skiff.local/website:1.0.0', env: [{name: PORT, value: '8089'}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on-port, labels: {app: port}}, spec: {nodeName: node-3,
 containers: [{name: c, image: 'skiff.local/website:1.0.0', ports: [{containerPort: 8080, hostPort: 8090}]}]}}
";

/// Where a request starts.
#[derive(Clone, Copy)]
enum Origin {
    Pod(&'static str),
    Node(usize),
    Outside,
}

const INSIDE: [Origin; 6] = [
    Origin::Pod("on-1"),
    Origin::Pod("on-2"),
    Origin::Pod("on-3"),
    Origin::Node(0),
    Origin::Node(1),
    Origin::Node(2),
];

fn get(tool: &Tool<'_>, from: Origin, url: &str) -> Result<String, String> {
    match from {
        Origin::Pod(pod) => {
            let outcome = tool.run(&format!("exec {pod}"), &["--", "/testapp", "get", url], "");
            match outcome.code {
                Some(0) => Ok(outcome.out),
                _ => Err(format!("{pod}: GET {url}: {outcome:?}")),
            }
        }
        Origin::Node(index) => get_from(tool.cluster.node(index), url),
        Origin::Outside => get_from(tool.cluster.outside(), url),
    }
}

/// Fails unless this is answered: Services take a moment to be programmed everywhere.
fn reached(tool: &Tool<'_>, from: Origin, url: &str) -> String {
    eventually_ok(url, PATIENCE, || get(tool, from, url))
}

/// The client's address in an answer of `/clientip`.
fn client(seen: &str) -> String {
    let client: std::net::SocketAddr = seen.trim().parse().expect("an address");
    client.ip().to_canonical().to_string()
}

/// Every address of each pod.
fn addresses(tool: &Tool<'_>, object: &str, path: &str) -> Vec<String> {
    tool.field(object, path).split_whitespace().map(str::to_owned).collect()
}

fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

#[test]
fn everything_reaches_everything_in_both_families() {
    let flags =
        ["--cluster-cidr=10.244.0.0/16,fd00:244::/56", "--service-cidr=10.96.0.0/12,fd00:96::/112"];
    let cluster = three(ClusterOptions {
        families: Families::Both,
        arguments: flags.map(str::to_owned).into(),
        ..ClusterOptions::default()
    });
    let tool = Tool::new(&cluster, "default");
    let labels = ["{app: net, one: 'yes'}", "{app: net}", "{app: net}"];
    let pods = (0..3).map(|index| pod_on(PODS[index], NODES[index], labels[index]));
    tool.until("get serviceaccount default", &[], |_| true);
    tool.apply(&(pods.collect::<String>() + SERVICES));
    tool.ready("pod/on-1 pod/on-2 pod/on-3 pod/on-host pod/on-port");

    pods_and_nodes(&tool);
    services(&tool);
    names(&tool);
    strangers(&tool);
    streams(&tool);
}

/// Pods by their own addresses, which arrive as they are; nodes and ports of hosts.
fn pods_and_nodes(tool: &Tool<'_>) {
    let all: Vec<Vec<String>> = PODS
        .iter()
        .map(|pod| addresses(tool, &format!("pod/{pod}"), "{.status.podIPs[*].ip}"))
        .collect();
    for (pod, own) in PODS.iter().zip(&all) {
        assert_eq!(own.len(), 2, "{pod} has an address of each family: {own:?}");
    }
    for from in INSIDE {
        for (target, pod) in all.iter().zip(PODS) {
            for address in target {
                let url = format!("http://{}:8080/hostname", host(address));
                assert_eq!(reached(tool, from, &url).trim(), pod);
            }
        }
        reached(tool, from, "http://10.77.0.3:8089/hostname");
        assert_eq!(reached(tool, from, "http://10.77.0.4:8090/hostname").trim(), "on-port");
    }
    for (index, pod) in PODS.into_iter().enumerate() {
        for (target, own) in all[(index + 1) % 3].iter().zip(&all[index]) {
            let url = format!("http://{}:8080/clientip", host(target));
            let seen = reached(tool, Origin::Pod(pod), &url);
            assert_eq!(client(&seen), *own);
        }
    }
}

fn services(tool: &Tool<'_>) {
    let all = addresses(tool, "service/all", "{.spec.clusterIPs[*]}");
    assert_eq!(all.len(), 2, "{all:?}");
    for from in INSIDE {
        for address in &all {
            everyone(tool, from, &format!("http://{}/hostname", host(address)));
        }
    }
    for from in INSIDE.into_iter().chain([Origin::Outside]) {
        for index in 0..3 {
            let node = tool.cluster.node(index);
            let v6 = node.address_v6().expect("the site has IPv6");
            for address in [node.address(), v6].map(|address| host(&address.to_string())) {
                reached(tool, from, &format!("http://{address}:30081/hostname"));
            }
        }
    }
    // The node of the only endpoint answers and shows who asks; the others do not answer strangers.
    for (stranger, node) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "[fd77::2]")] {
        let seen = reached(tool, Origin::Outside, &format!("http://{node}:30082/clientip"));
        assert_eq!(client(&seen), stranger);
    }
    for node in ["10.77.0.3", "10.77.0.4", "[fd77::3]"] {
        let answer = get(tool, Origin::Outside, &format!("http://{node}:30082/hostname"));
        assert!(answer.is_err(), "{node} answers without an endpoint: {answer:?}");
    }
    for from in INSIDE {
        reached(tool, from, "http://10.77.0.200:8088/hostname");
    }
}

/// Waits until every pod has answered at the URL.
fn everyone(tool: &Tool<'_>, from: Origin, url: &str) {
    let mut seen = BTreeSet::new();
    eventually_ok(&format!("every pod behind {url}"), PATIENCE, || {
        seen.insert(get(tool, from, url)?.trim().to_owned());
        if seen.len() == PODS.len() { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn names(tool: &Tool<'_>) {
    for pod in PODS {
        everyone(tool, Origin::Pod(pod), "http://all/hostname");
        let resolve = |name: &str, kind: &str| -> BTreeSet<String> {
            tool.inside(pod, &["resolve", name, kind]).lines().map(str::to_owned).collect()
        };
        for kind in ["A", "AAAA"] {
            let found = resolve("headless.default.svc.cluster.local", kind);
            assert_eq!(found.len(), 3, "{pod} resolves headless {kind} as {found:?}");
            assert_eq!(resolve("all", kind).len(), 1, "{pod}: all {kind}");
        }
        assert!(
            reached(tool, Origin::Pod(pod), "http://headless:8080/hostname").starts_with("on-")
        );
    }
}

/// What leaves the cluster does so in the node's name: nobody outside knows the way to pods.
fn strangers(tool: &Tool<'_>) {
    use std::io::{Read, Write};
    for bind in ["203.0.113.1:8000", "[2001:db8::1]:8000"] {
        let listening = tool.cluster.outside().run(move || std::net::TcpListener::bind(bind));
        let listener = listening.join().expect("no panic").expect("bind outside");
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = stream.read(&mut [0; 1024]);
                let body = peer.ip().to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        for (index, pod) in PODS.into_iter().enumerate() {
            let seen = reached(tool, Origin::Pod(pod), &format!("http://{bind}/"));
            let node = tool.cluster.node(index);
            let own = [node.address(), node.address_v6().expect("the site has IPv6")];
            assert!(own.iter().any(|own| own.to_string() == seen), "{pod} is seen as {seen}");
        }
    }
}

/// The server reaches every kubelet and pod, wherever it is.
fn streams(tool: &Tool<'_>) {
    for pod in PODS {
        assert!(tool.ok(&format!("logs {pod}")).contains("website"), "logs of {pod}");
        let raw = format!("get --raw /api/v1/namespaces/default/pods/{pod}:8080/proxy/hostname");
        assert_eq!(tool.ok(&raw).trim(), pod);
    }
    tool.ok("get --raw /api/v1/namespaces/default/services/all:80/proxy/hostname");
    for node in NODES {
        tool.ok(&format!("get --raw /api/v1/nodes/{node}/proxy/healthz"));
    }
    assert_calm(tool.cluster);
}

/// Fails where a log tells of a panic.
fn assert_calm(cluster: &Cluster) {
    let logs = (1..cluster.nodes()).map(|index| cluster.agent_log(index)).chain([cluster.log()]);
    for log in logs {
        let panic = log.lines().find(|line| line.contains("panicked"));
        assert_eq!(panic, None, "no part of a cluster panics");
    }
}
