//! Services of type LoadBalancer: addresses from a pool, reached from outside, moved when the node
//! that has them dies, freed when the Service goes; and the nodes' own where there is no pool.

use std::time::Instant;

use testkit::{Cluster, ClusterOptions, Families, eventually_ok};

use super::{get_from, pod_on, three};
use crate::tool::{PATIENCE, Tool};

fn service(name: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: LoadBalancer,
         selector: {{app: net}}, ports: [{{name: http, port: 80, targetPort: http}}]{more}}}}}\n"
    )
}

fn until_reached(cluster: &Cluster, url: &str) -> String {
    eventually_ok(url, PATIENCE, || get_from(cluster.outside(), url))
}

const ADDRESSES: &str = "{.status.loadBalancer.ingress[*].ip}";

#[test]
fn addresses_of_a_pool_move_with_the_node_that_announces_them() {
    let flags = [
        "--cluster-cidr=10.244.0.0/16,fd00:244::/56",
        "--service-cidr=10.96.0.0/12,fd00:96::/112",
        "--load-balancer-pool=10.77.0.200-10.77.0.201,fd77::200-fd77::2ff",
    ];
    let mut cluster = three(ClusterOptions {
        families: Families::Both,
        arguments: flags.map(str::to_owned).into(),
        ..ClusterOptions::default()
    });
    let holder = {
        let tool = Tool::new(&cluster, "default");
        tool.until("get serviceaccount default", &[], |_| true);
        // The API server's node shall live.
        let excluded = "node.kubernetes.io/exclude-from-external-load-balancers=true";
        tool.run("label node/node-1", &[excluded], "");
        let pods = ["node-1", "node-2", "node-3"].map(|node| pod_on(node, node, "{app: net}"));
        let services = service("both", ", ipFamilyPolicy: RequireDualStack")
            + &service("second", "")
            + &service("third", "")
            + &service("others", ", loadBalancerClass: example.com/other");
        tool.apply(&(pods.concat() + &services));
        tool.ready("pod/node-1 pod/node-2 pod/node-3");

        tool.until(
            "get service both -o",
            &["jsonpath={.status.loadBalancer.ingress[*].ip}"],
            |text| text.split_whitespace().count() == 2,
        );
        let both = tool.field("service/both", ADDRESSES);
        for address in both.split_whitespace() {
            let host = if address.contains(':') { format!("[{address}]") } else { address.into() };
            until_reached(&cluster, &format!("http://{host}/"));
        }
        // Two addresses for three Services: one waits, and says why.
        tool.until("get events -o", &["jsonpath={.items[*].reason}"], |text| {
            text.contains("AddressPoolExhausted")
        });
        assert_eq!(tool.field("service/others", ADDRESSES), "");
        let leases = "get lease --namespace=kube-node-lease --selector=skiff.dev/announces -o";
        let holders = tool
            .until(leases, &["jsonpath={.items[*].spec.holderIdentity}"], |text| !text.is_empty());
        assert!(!holders.contains("node-1"), "excluded: {holders}");
        let v4 = both
            .split_whitespace()
            .find(|address| !address.contains(':'))
            .expect("IPv4")
            .to_owned();
        let has = |index: usize| {
            let output = cluster.node(index).command("ip").args(["-br", "addr"]).output();
            String::from_utf8_lossy(&output.expect("run ip").stdout).contains(&format!("{v4}/32"))
        };
        let holder = (1..3).find(|index| has(*index)).expect("a node has the address");
        (holder, v4)
    };
    let (index, address) = holder;
    let url = format!("http://{address}/");
    // Endpoints on the dead node fail until it is known to be dead, so that only the way is asked.
    let began = Instant::now();
    cluster.switch_off(index);
    until_reached(&cluster, &url);
    println!("{address} answers {:.1?} after its node died", began.elapsed());

    let tool = Tool::new(&cluster, "default");
    tool.run("delete service", &["both"], "");
    let waiting = ["second", "third"];
    for name in waiting {
        tool.until(
            &format!("get service {name} -o"),
            &["jsonpath={.status.loadBalancer.ingress[*].ip}"],
            |text| !text.is_empty(),
        );
        let address = tool.field(&format!("service/{name}"), ADDRESSES);
        until_reached(&cluster, &format!("http://{address}/"));
    }
}

#[test]
fn nodes_lend_their_addresses_where_there_is_no_pool() {
    let cluster = three(ClusterOptions::default());
    let tool = Tool::new(&cluster, "default");
    tool.until("get serviceaccount default", &[], |_| true);
    let local = service("local", ", externalTrafficPolicy: Local").replace("port: 80", "port: 81");
    tool.apply(&(pod_on("one", "node-2", "{app: net}") + &service("all", "") + &local));
    tool.ready("pod/one");
    let path = &["jsonpath={.status.loadBalancer.ingress[*].ip}"];
    tool.until("get service all -o", path, |text| text.split_whitespace().count() == 3);
    tool.until("get service local -o", path, |text| text.split_whitespace().count() == 1);
    for address in tool.field("service/all", ADDRESSES).split_whitespace() {
        until_reached(&cluster, &format!("http://{address}/"));
    }
    let address = tool.field("service/local", ADDRESSES);
    until_reached(&cluster, &format!("http://{address}:81/"));
    // The node says to load balancers that it has one.
    let port = tool.field("service/local", "{.spec.healthCheckNodePort}");
    let answer = until_reached(&cluster, &format!("http://{address}:{port}/healthz"));
    assert!(answer.contains("\"localEndpoints\": 1"), "{answer}");
}
