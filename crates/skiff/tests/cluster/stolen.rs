//! What a machine's credentials are good for in the wrong hands, on a real cluster of two nodes: with the files of
//! node-2 nobody gets further than node-2. And what listens on a node, and to whom.
//!
//! The whole table of objects is the API server's own test; this one is about the real files, the join token, kubelets'
//! APIs, and sockets.

use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::{Cluster, ClusterOptions, eventually_ok};

use crate::tool::{PATIENCE, finish};

const OBJECTS: &str = "---
{apiVersion: v1, kind: Secret, metadata: {name: of-node-1}}
---
{apiVersion: v1, kind: Secret, metadata: {name: of-node-2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on-node-1}, spec: {nodeName: node-1, containers: [{name: c, image: none,
  imagePullPolicy: Never}], volumes: [{name: s, secret: {secretName: of-node-1}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on-node-2}, spec: {nodeName: node-2, containers: [{name: c, image: none,
  imagePullPolicy: Never}], volumes: [{name: s, secret: {secretName: of-node-2}}]}}
";

/// What the thief shows.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// A file of the node's keys.
    File(&'static str),
    /// The token the node joined with.
    Token,
    Nothing,
}

use Shown::{File, Nothing, Token};

const KUBELET: Shown = File("kubelet-client.pem");
const NETWORK: Shown = File("network-client.pem");
const SERVING: Shown = File("kubelet-serving.pem");

/// Somebody on node-2 who has all its files.
struct Thief<'a> {
    cluster: &'a Cluster,
    keys: PathBuf,
    token: String,
}

impl Thief<'_> {
    /// The status code of `METHOD url`; what is not a URL is a path of the API server.
    fn code(&self, shown: Shown, request: &str, body: &Value) -> String {
        let (method, path) = request.split_once(' ').expect("method and path");
        let server = self.cluster.node(0).address();
        let url = match path.strip_prefix('/') {
            Some(path) => format!("https://{server}:6443/{path}"),
            None => path.to_owned(),
        };
        let mut curl = self.cluster.node(1).command("curl");
        curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "-g"]);
        curl.args(["-X", method, &url]);
        match shown {
            File(name) => drop(curl.arg("--cert").arg(self.keys.join(name))),
            Token => drop(curl.args(["-H", &format!("Authorization: Bearer {}", self.token)])),
            Nothing => {}
        }
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        curl.args(["-H", &format!("Content-Type: application/{kind}")]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        finish(curl, "").out
    }
}

#[test]
fn the_files_of_a_node_lead_to_that_node_and_no_further() {
    let cluster =
        Cluster::start_with(crate::SKIFF, ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    eventually_ok("the default account", PATIENCE, || cluster.apply(OBJECTS));
    // What follows the last dot is the hash of the authority.
    let token = cluster.join_token();
    let token = token.rsplit_once('.').map_or(token.clone(), |(bearer, _)| bearer.to_owned());
    let thief = Thief { cluster: &cluster, keys: cluster.node_directory(1).join("pki"), token };
    let mut wrong = Vec::new();
    for (shown, request, body, expected) in attempts(&cluster) {
        let code = thief.code(shown, &request, &body);
        if code != expected {
            wrong.push(format!("{shown:?} {request}: {code} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    listening(&cluster);
}

fn attempts(cluster: &Cluster) -> Vec<(Shown, String, Value, &'static str)> {
    let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tier": "x"}}});
    let cordon = json!({"spec": {"unschedulable": true}});
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let none = Value::Null;
    let [first, second] =
        [0, 1].map(|index| format!("https://{}:10250", cluster.node(index).address()));
    let csr = cluster.kubectl(&["get", "csr", "-o", "jsonpath={.items[0].metadata.name}"]);
    let api = [
        (KUBELET, "GET /api/v1/namespaces/default/secrets/of-node-2", &none, "200"),
        (KUBELET, "GET /api/v1/namespaces/default/secrets/of-node-1", &none, "403"),
        (KUBELET, "GET /api/v1/secrets", &none, "403"),
        (KUBELET, "GET /api/v1/namespaces/kube-system/secrets", &none, "403"),
        (KUBELET, "GET /api/v1/namespaces/kube-system/configmaps/skiff-cluster", &none, "200"),
        (KUBELET, "GET /api/v1/nodes", &none, "403"),
        (KUBELET, "GET /api/v1/nodes/node-1", &none, "403"),
        (KUBELET, "PATCH /api/v1/nodes/node-1", &cordon, "403"),
        (KUBELET, "PATCH /api/v1/nodes/node-2", &label, "403"),
        (KUBELET, "DELETE /api/v1/nodes/node-1", &none, "403"),
        (KUBELET, "DELETE /api/v1/namespaces/default/pods/on-node-1", &none, "403"),
        (KUBELET, "POST /api/v1/namespaces/default/pods/on-node-1/exec?command=sh", &none, "403"),
        (KUBELET, "GET /api/v1/nodes/node-1/proxy/pods", &none, "403"),
        (NETWORK, "GET /api/v1/services", &none, "200"),
        (NETWORK, "GET /api/v1/nodes", &none, "200"),
        (NETWORK, "GET /api/v1/namespaces/default/secrets/of-node-2", &none, "403"),
        (NETWORK, "GET /api/v1/configmaps", &none, "403"),
        (NETWORK, "PATCH /api/v1/namespaces/kube-system/services/kube-dns", &label, "403"),
        (NETWORK, "DELETE /api/v1/nodes/node-2", &none, "403"),
        (NETWORK, "GET /skiff/v1/tunnel", &none, "403"),
        // A certificate to serve with names nobody who asks.
        (SERVING, "GET /api/v1/services", &none, "401"),
        (Token, "GET /api/v1/nodes", &none, "403"),
        (Token, "GET /api/v1/namespaces/kube-system/secrets", &none, "403"),
        (Token, "GET /api/v1/namespaces/default/secrets/of-node-2", &none, "403"),
        (Token, "POST /api/v1/nodes", &json!({"metadata": {"name": "node-9"}}), "403"),
        (Token, "GET /skiff/v1/tunnel", &none, "403"),
        (Nothing, "GET /api/v1/nodes", &none, "403"),
        (Nothing, "GET /skiff/v1/tunnel", &none, "403"),
    ];
    let mut rows: Vec<_> = api
        .into_iter()
        .map(|(shown, request, body, code)| (shown, request.to_owned(), body.clone(), code))
        .collect();
    for shown in [KUBELET, NETWORK, Token] {
        let path =
            format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{csr}/approval");
        rows.push((shown, format!("PATCH {path}"), approve.clone(), "403"));
    }
    // Kubelets take orders from nobody on a node, their own included.
    for kubelet in [first, second] {
        for path in
            ["pods", "exec/default/on-node-1/c?command=sh", "metrics", "healthz", "stats/summary"]
        {
            for (shown, code) in [
                (KUBELET, "403"),
                (NETWORK, "403"),
                (SERVING, "401"),
                (Token, "403"),
                (Nothing, "401"),
            ] {
                rows.push((shown, format!("GET {kubelet}/{path}"), Value::Null, code));
            }
        }
    }
    rows
}

/// What listens on a node beyond loopback asks who is there, or is the DNS.
fn listening(cluster: &Cluster) {
    let mut ss = cluster.node(1).command("ss");
    ss.args(["-Htuln"]);
    let found = finish(ss, "");
    assert!(found.code == Some(0) && found.out.contains(":10250"), "{found:?}");
    let sockets = found.out;
    let strangers: Vec<&str> = sockets
        .lines()
        .filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [protocol, _, _, _, local, ..] = words.as_slice() else { return true };
            let (address, port) = local.rsplit_once(':').unwrap_or((local, ""));
            let loopback = address.starts_with("127.") || address == "[::1]";
            let known = match (*protocol, port) {
                ("tcp", "10250") => true,
                // Pods' DNS, at the bridge's address alone.
                ("tcp" | "udp", "53") => address.starts_with("10.244."),
                // Other nodes' packets; the kernel reads them.
                ("udp", "8472") => true,
                _ => false,
            };
            !loopback && !known
        })
        .collect();
    assert!(strangers.is_empty(), "{}", strangers.join("\n"));
}
