//! Input that nobody sends by mistake: the server answers or hangs up, stays small, and goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use testkit::Cluster;

use super::assert_calm;
use super::http::request;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVER: &str = "127.0.0.1:6443";
/// Resident memory that a server under attack must stay below, in MiB; a development build is larger.
const MOST_MEMORY: u64 = 400;

#[test]
fn hostile_input_is_refused_and_forgotten() {
    let cluster = Cluster::start(crate::SKIFF);
    bodies(&cluster);
    connections(&cluster);
    paths(&cluster);
    let memory = resident(cluster.pid().expect("it runs"));
    assert!(memory < MOST_MEMORY, "{memory} MiB");
    cluster.kubectl(&["create", "configmap", "alive", "--from-literal=a=b"]);
    assert_calm(&cluster);
}

/// Bodies that are small on the wire and large, or deep, when understood.
fn bodies(cluster: &Cluster) {
    let deep = |depth: usize| {
        format!(
            "{{\"metadata\":{{\"name\":\"deep\"}},\"data\":{}1{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    // Nine levels of nine references: 387 million strings once expanded.
    let mut laughs = String::from("a0: &a0 lol\n");
    for level in 1..=9 {
        let previous = format!("*a{}", level - 1);
        let row = [previous.as_str(); 9].join(", ");
        laughs += &format!("a{level}: &a{level} [{row}]\n");
    }
    let patch =
        format!("[{}]", [r#"{"op":"copy","from":"/data","path":"/data/x"}"#; 10_001].join(","));
    let cases: [(&str, &str, String); 7] = [
        ("POST", "application/json", deep(100_000)),
        ("POST", "application/json", "[".repeat(1 << 20)),
        ("POST", "application/yaml", laughs),
        ("POST", "application/yaml", "[".repeat(100_000)),
        ("POST", "application/json", "\u{0}\u{1}\u{2}".to_owned()),
        ("PATCH", "application/json-patch+json", patch),
        ("PATCH", "application/merge-patch+json", deep(100_000)),
    ];
    for (method, content_type, body) in cases {
        let path = if method == "POST" {
            CONFIG_MAPS.to_owned()
        } else {
            format!("{CONFIG_MAPS}/kube-root-ca.crt")
        };
        let answer = request(cluster, method, &path, content_type, body.as_bytes());
        let start: String = body.chars().take(40).collect();
        assert!((400..500).contains(&answer.code), "{content_type} {start}: {}", answer.code);
        assert_eq!(answer.body["kind"], "Status", "{content_type} {start}");
    }
}

/// Connections that speak no TLS, say nothing, or stop in the middle.
fn connections(cluster: &Cluster) {
    let held = cluster
        .namespace()
        .run(|| {
            let mut held = Vec::new();
            for _ in 0..200 {
                let mut stream = TcpStream::connect(SERVER).expect("the server listens");
                stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
                // Half of them say something that is not TLS, half nothing at all.
                if held.len() % 2 == 0 {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                }
                held.push(stream);
            }
            // What is not TLS is told off or hung up on.
            let mut answer = Vec::new();
            let _ = held[0].read_to_end(&mut answer);
            assert!(answer.len() < 1024, "{} bytes", answer.len());
            held
        })
        .join()
        .expect("the server hangs up");
    cluster.kubectl(&["get", "--raw", "/readyz"]);
    drop(held);
}

/// Paths and headers beyond what anybody needs.
fn paths(cluster: &Cluster) {
    for path in [
        format!("/api/v1/{}", "x/".repeat(4_000)),
        format!("{CONFIG_MAPS}?labelSelector={}", "a,".repeat(20_000)),
        format!("{CONFIG_MAPS}?fieldSelector={}", "%2c".repeat(10_000)),
        format!("{CONFIG_MAPS}/%00"),
        format!("{CONFIG_MAPS}/..%2f..%2fsecrets"),
        "/api/v1/namespaces/%e2%28%a1/pods".to_owned(),
        format!("{CONFIG_MAPS}?limit=-1&continue=%ff"),
        format!("{CONFIG_MAPS}?limit=99999999999999999999"),
    ] {
        let answer = request(cluster, "GET", &path, "", b"");
        let start: String = path.chars().take(60).collect();
        assert!((200..500).contains(&answer.code), "{start}: {answer:?}");
    }
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
