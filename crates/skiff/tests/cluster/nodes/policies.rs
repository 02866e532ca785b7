//! The policies of examples/policies, step by step on three nodes.

use std::io::{Read, Write};
use std::path::Path;

use testkit::ClusterOptions;

use super::three;
use crate::tool::Tool;

fn example(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../../examples/policies").join(file);
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// Whether a pod of a deployment gets an answer; asked until it is as wanted.
fn expect(tool: &Tool<'_>, from: &str, url: &str, wanted: bool) {
    let words = ["--", "/testapp", "get", url];
    testkit::eventually_ok(&format!("{from} to {url}: {wanted}"), crate::tool::PATIENCE, || {
        let outcome = tool.run(&format!("exec deploy/{from}"), &words, "");
        if (outcome.code == Some(0)) == wanted { Ok(()) } else { Err(format!("{outcome:?}")) }
    });
}

/// Whoever connects is answered, at an address of the internet and at one of a private network.
fn listen_outside(tool: &Tool<'_>, address: &'static str) {
    let listening = tool.cluster.outside().run(move || std::net::TcpListener::bind(address));
    let listener = listening.join().expect("no panic").expect("bind outside");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
}

#[test]
fn the_examples_do_what_they_say() {
    let cluster = three(ClusterOptions::default());
    let shop = Tool::new(&cluster, "shop");
    let monitoring = Tool::new(&cluster, "monitoring");
    let (internet, private) = ("http://203.0.113.1:8000/", "http://10.77.0.1:8000/");
    listen_outside(&shop, "203.0.113.1:8000");
    listen_outside(&shop, "10.77.0.1:8000");
    let apply = |file: &str| cluster.kubectl(&["apply", "-f", &example(file)]);
    let db = "http://db:5432/hostname";
    let web = "http://web.shop/hostname";

    apply("1-shop.yaml");
    shop.ok("rollout status deploy/web --timeout=90s");
    shop.ok("rollout status deploy/db --timeout=90s");
    monitoring.ok("rollout status deploy/watcher --timeout=90s");
    for (url, tool, from) in [(db, &shop, "web"), (web, &shop, "db"), (web, &monitoring, "watcher")]
    {
        expect(tool, from, url, true);
    }
    expect(&shop, "web", internet, true);
    expect(&shop, "web", private, true);

    apply("2-default-deny.yaml");
    for (url, tool, from) in [(db, &shop, "web"), (web, &shop, "db"), (web, &monitoring, "watcher")]
    {
        expect(tool, from, url, false);
    }
    expect(&shop, "web", internet, false);
    assert!(!shop.inside("deploy/web", &["resolve", "db", "A"]).is_empty(), "names are resolved");
    // Probes always pass.
    shop.ok("rollout restart deploy/web");
    shop.ok("rollout status deploy/web --timeout=90s");

    apply("3-web-to-db.yaml");
    expect(&shop, "web", db, true);
    expect(&shop, "db", web, false);
    expect(&monitoring, "watcher", "http://db.shop:5432/", false);

    apply("4-from-namespace.yaml");
    expect(&monitoring, "watcher", web, true);
    expect(&shop, "db", web, false);

    apply("5-cidr-except.yaml");
    expect(&shop, "web", internet, true);
    expect(&shop, "web", private, false);
    expect(&shop, "db", internet, false);

    shop.ok("delete networkpolicies --all");
    expect(&shop, "db", web, true);
    expect(&shop, "web", private, true);
}
