//! How machines become nodes and stay it: tokens, identities, their renewal, and what a node does while
//! no server answers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::{Cluster, ClusterOptions, Machine, eventually, eventually_ok, website_images};

use crate::tool::{Outcome, PATIENCE, finish};

fn two(arguments: &[&str]) -> Cluster {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Cluster::start_with(
        crate::SKIFF,
        ClusterOptions { nodes: 2, arguments, ..ClusterOptions::default() },
    )
}

fn token(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut command = cluster.skiff(&["token", "create", "--token-only"]);
    command.args(arguments);
    let outcome = finish(command, "");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.out.trim().to_owned()
}

/// `skiff agent` on a machine.
fn agent(machine: &Machine, server: &str, token: &str, name: &str, data: &Path) -> Command {
    let mut command = machine.command(crate::SKIFF);
    command.args(["agent", "--server", server, "--token", token, "--node-name", name]);
    command.args(["--cgroup", &format!("skiff-test-{}-{}", std::process::id(), machine.name())]);
    command.arg("--data-dir").arg(data);
    command
}

/// `skiff agent` on a machine of its own, which fails.
fn refused(machine: &Machine, server: &str, token: &str, name: &str) -> String {
    let directory = tempfile::Builder::new().prefix("skiff-").tempdir().expect("a directory");
    let command = agent(machine, server, token, name, directory.path());
    let Outcome { code, err, .. } = finish(command, "");
    assert_eq!(code, Some(1), "{err}");
    let last = err.lines().last().unwrap_or_default();
    last.strip_prefix("skiff: ").unwrap_or_else(|| panic!("no reason: {err}")).to_owned()
}

/// A server that does not answer may answer later: the agent says so once, and ends when told to.
fn tries_on(machine: &Machine, server: &str, token: &str) {
    let directory = tempfile::Builder::new().prefix("skiff-").tempdir().expect("a directory");
    let log = directory.path().join("log");
    let mut command = agent(machine, server, token, "stranger", directory.path());
    command.stderr(std::fs::File::create(&log).expect("a log"));
    let mut process = command.spawn().expect("start an agent");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the agent to try on", PATIENCE, || {
        said().contains(&format!("trying on: no server answers at {server}"))
    });
    let pid = Pid::from_raw(process.id().cast_signed());
    kill(pid, Signal::SIGTERM).expect("stop the agent");
    let mut ended = None;
    eventually("the agent to end", PATIENCE, || {
        ended = process.try_wait().expect("watch the agent");
        ended.is_some()
    });
    assert!(ended.is_some_and(|status| status.success()), "{}", said());
}

#[test]
fn who_may_not_join_is_told_why() {
    let cluster = Cluster::start(crate::SKIFF);
    let site = cluster.namespace().site();
    let machine = site.machine("stranger", 9).expect("make a machine");
    let server = format!("https://{}:6443", cluster.namespace().address());
    let good = token(&cluster, &[]);
    let [id, secret, hash] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };

    let flipped = if secret.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{id}.{flipped}{}.{hash}", &secret[1..]);
    let said = refused(&machine, &server, &wrong, "stranger");
    assert!(said.contains(&format!("does not accept the token {id}")), "{said}");

    let said =
        refused(&machine, &server, &format!("{id}.{secret}.{}", "ab".repeat(32)), "stranger");
    assert!(said.contains("not the one the token was made for"), "{said}");

    let first = cluster.kubectl(&["get", "nodes", "-o", "name"]);
    let name = first.trim_start_matches("node/");
    let said = refused(&machine, &server, &good, name);
    assert!(said.contains(&format!("a node named {name} exists")), "{said}");
    assert!(said.contains(&format!("kubectl delete node {name}")), "{said}");

    tries_on(&machine, "https://10.77.0.2:7", &good);

    let short = token(&cluster, &["--ttl", "1s", "--description", "short"]);
    eventually("an expired token to be removed", PATIENCE, || {
        !finish(cluster.skiff(&["token", "list"]), "").out.contains(&short[..6])
    });
    let said = refused(&machine, &server, &short, "stranger");
    assert!(said.contains("has expired"), "{said}");

    let deleted = finish(cluster.skiff(&["token", "delete", id]), "");
    assert_eq!(deleted.code, Some(0), "{deleted:?}");
    let said = refused(&machine, &server, &good, "stranger");
    assert!(said.contains("was deleted"), "{said}");
    assert_eq!(cluster.kubectl(&["get", "nodes", "-o", "name"]), first);
}

#[test]
fn a_machine_joins_with_what_it_was_told() {
    let options = ClusterOptions {
        agent_arguments: [
            "--node-label",
            "example.com/disk=fast,topology.kubernetes.io/zone=a",
            "--node-taint",
            "dedicated=db:NoSchedule",
            "--node-external-ip",
            "203.0.113.7",
        ]
        .map(str::to_owned)
        .into(),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(crate::SKIFF, options);
    let started = Instant::now();
    cluster.add_node();
    cluster.wait_ready();
    eprintln!("joined in {:?}", started.elapsed());
    let node: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "node", "node-2", "-o", "json"]))
            .expect("a node");
    assert_eq!(node["metadata"]["labels"]["example.com/disk"], "fast");
    assert_eq!(node["metadata"]["labels"]["topology.kubernetes.io/zone"], "a");
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let taint = serde_json::json!({"key": "dedicated", "value": "db", "effect": "NoSchedule"});
    assert!(taints.contains(&taint), "{taints:?}");
    let addresses = node["status"]["addresses"].to_string();
    assert!(addresses.contains("203.0.113.7") && addresses.contains("ExternalIP"), "{addresses}");

    // Everything the node has, it has by requests that were approved and signed.
    let requests = cluster.kubectl(&["get", "csr", "--no-headers"]);
    for signer in ["kube-apiserver-client-kubelet", "kubelet-serving", "kube-apiserver-client "] {
        let found = requests.lines().find(|line| line.contains(signer));
        assert!(found.is_some_and(|line| line.contains("Approved,Issued")), "{signer}: {requests}");
    }
    let info = cluster.kubectl(&["get", "cm", "-n", "kube-public", "cluster-info", "-o", "yaml"]);
    assert!(info.contains("jws-kubeconfig-"), "{info}");
    let status = machine_skiff(&cluster, 1, &["status"]);
    assert!(status.code == Some(0) && status.out.contains("node-2"), "{status:?}");
}

fn machine_skiff(cluster: &Cluster, index: usize, arguments: &[&str]) -> Outcome {
    let mut command = cluster.node(index).command(crate::SKIFF);
    command.args(arguments).env("SKIFF_DATA_DIR", cluster.node_directory(index));
    finish(command, "")
}

#[test]
fn certificates_are_renewed_while_the_node_serves() {
    let cluster = two(&["--cluster-signing-duration", "40s"]);
    cluster.import(&website_images()[..1]);
    cluster.apply(&pod("web", "node-2")).expect("make a pod");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=200s"]);
    let since = || {
        cluster.kubectl(&[
            "get",
            "node",
            "node-2",
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].lastTransitionTime}"#,
        ])
    };
    let before = since();
    for round in 1..=2 {
        for certificate in ["kubelet-client", "network-client", "kubelet-serving"] {
            eventually("a node's certificate to be renewed", PATIENCE, || {
                count(&cluster.agent_log(1), certificate) > round
            });
        }
        for certificate in ["apiserver", "apiserver-kubelet-client", "admin"] {
            eventually("a server's certificate to be renewed", PATIENCE, || {
                count(&cluster.log(), certificate) >= round
            });
        }
        // Logs take the kubelet's new certificate and the server's new one; kubectl the new kubeconfig.
        eventually_ok("logs", PATIENCE, || cluster.try_kubectl(&["logs", "web", "--tail=1"]));
    }
    assert_eq!(since(), before, "the node was not Ready all the time");
    cluster.kubectl(&["delete", "pod", "web", "--wait=true", "--timeout=200s"]);
}

/// How often a log tells that a certificate was renewed.
fn count(log: &str, certificate: &str) -> usize {
    let renewed = format!("certificate=\"{certificate}\"");
    log.lines()
        .filter(|line| line.contains("certificate renewed") && line.contains(&renewed))
        .count()
}

#[test]
fn a_node_serves_and_starts_without_its_server() {
    let mut cluster = two(&[]);
    cluster.import(&website_images()[..1]);
    cluster.apply(&pod("web", "node-2")).expect("make a pod");
    cluster.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=200s"]);
    let ip = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let started = "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    let before = cluster.kubectl(&["get", "pod", "web", "-o", started]);
    let url = format!("http://{ip}/");
    let answers = |cluster: &Cluster| {
        let mut command = cluster.node(1).command("curl");
        command.args(["--silent", "--fail", "--max-time", "5", &url]).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    eventually("the Service to answer", PATIENCE, || answers(&cluster));

    cluster.kill();
    assert!(answers(&cluster), "without the server");
    cluster.kill_agent(1);
    assert!(answers(&cluster), "without server and agent");
    let told = cluster.agent_log(1).len();
    cluster.start_agent(1);
    eventually("the agent to start without a server", PATIENCE, || {
        cluster.agent_log(1)[told..].contains("step: the container runtime answers")
    });
    assert!(answers(&cluster), "with a new agent and no server");

    cluster.restart();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=200s"]);
    assert_eq!(cluster.kubectl(&["get", "pod", "web", "-o", started]), before);
    assert!(answers(&cluster), "with everything back");
}

fn pod(name: &str, node: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{nodeName: {node}, \
         terminationGracePeriodSeconds: 2, containers: [{{name: c, image: 'skiff.local/website:1.0.0', \
         readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}}}]}}}}\n"
    )
}
