//! Objects in, nftables text out.

use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::{Value, json};

use super::{
    endpoints::choose,
    plan::{Surroundings, plan},
    state::{Delta, State},
};

fn around() -> Surroundings {
    Surroundings {
        node: "here".to_owned(),
        cluster_network: "10.244.0.0/16".parse().expect("network"),
        masquerade_mark: 0x4000,
    }
}

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "web"}, "spec": spec,
    }))
    .expect("service")
}

/// Endpoints written as `address[@node][!condition…]`, conditions `unready`, `draining`.
fn slice(port: u16, protocol: &str, endpoints: &[&str]) -> Arc<EndpointSlice> {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|text| {
            let mut parts = text.split('!');
            let place = parts.next().unwrap_or_default();
            let (address, node) = place.split_once('@').unwrap_or((place, "here"));
            let conditions: Vec<&str> = parts.collect();
            let draining = conditions.contains(&"draining");
            let unready = conditions.contains(&"unready");
            json!({
                "addresses": [address],
                "nodeName": node,
                "conditions": {
                    "ready": !unready && !draining, "serving": !unready, "terminating": draining,
                },
            })
        })
        .collect();
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "web-1"},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "", "port": port, "protocol": protocol}],
        }))
        .expect("slice"),
    )
}

fn cluster_ip(more: Value) -> Value {
    let mut spec = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"],
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
    });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// Steps of one Service; the text is the last step's transaction.
fn check_steps(steps: &[(&Service, &[Arc<EndpointSlice>])], expected: &str) {
    let key = ObjectKey::namespaced("shop", "web");
    let mut state = State::default();
    let mut script = String::new();
    for (service, slices) in steps {
        let mut delta = Delta::default();
        state.replace(&key, plan(&around(), service, slices), &mut delta);
        script = delta.script("t");
    }
    let trim = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(trim(&script), trim(expected));
}

#[test]
fn a_cluster_ip_is_spread_over_ready_endpoints() {
    check_steps(
        &[(
            &service(cluster_ip(json!({}))),
            &[slice(8080, "TCP", &["10.244.0.6", "10.244.0.5", "10.244.0.7!unready", "10.244.1.8@far", "10.244.0.9!draining"])],
        )],
        "add chain ip t svc/shop/web/tcp/80
         add rule ip t svc/shop/web/tcp/80 numgen random mod 3 < 1 meta l4proto tcp dnat to 10.244.0.5:8080
         add rule ip t svc/shop/web/tcp/80 numgen random mod 2 < 1 meta l4proto tcp dnat to 10.244.0.6:8080
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.1.8:8080
         add element ip t services { 10.96.0.20 . tcp . 80 : goto svc/shop/web/tcp/80 }
         add element ip t service-addresses { 10.96.0.20 }
         add element ip t hairpin { 10.244.0.5 . 10.244.0.5, 10.244.0.6 . 10.244.0.6 }",
    );
}

#[test]
fn a_change_of_endpoints_is_one_small_transaction() {
    let service = service(cluster_ip(json!({})));
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &["10.244.0.5", "10.244.0.6"])]),
            (&service, &[slice(8080, "TCP", &["10.244.0.5!draining", "10.244.0.6"])]),
        ],
        "flush chain ip t svc/shop/web/tcp/80
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.0.6:8080
         delete element ip t hairpin { 10.244.0.5 . 10.244.0.5 }",
    );
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &["10.244.0.5", "10.244.0.6"])]),
            (&service, &[slice(8080, "TCP", &["10.244.0.6", "10.244.0.5"])]),
        ],
        "",
    );
}

#[test]
fn terminating_endpoints_serve_when_nothing_else_does() {
    check_steps(
        &[(
            &service(cluster_ip(json!({}))),
            &[slice(
                8080,
                "TCP",
                &["10.244.0.5!draining", "10.244.0.6!unready", "10.244.0.7!draining!unready"],
            )],
        )],
        "add chain ip t svc/shop/web/tcp/80
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.0.5:8080
         add element ip t services { 10.96.0.20 . tcp . 80 : goto svc/shop/web/tcp/80 }
         add element ip t service-addresses { 10.96.0.20 }
         add element ip t hairpin { 10.244.0.5 . 10.244.0.5 }",
    );
}

#[test]
fn a_service_without_endpoints_refuses() {
    let service = service(cluster_ip(json!({
        "type": "NodePort",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        "externalIPs": ["198.51.100.7"],
    })));
    check_steps(
        &[(&service, &[])],
        "add element ip t unserved { 198.51.100.7 . tcp . 80 : goto refuse }
         add element ip t unserved-node-ports { tcp . 30080 : goto refuse }
         add element ip t service-addresses { 10.96.0.20 }",
    );
    check_steps(
        &[(&service, &[]), (&service, &[slice(8080, "TCP", &["10.244.0.5"])])],
        "add chain ip t ext/shop/web/tcp/80
         add chain ip t svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 meta mark set meta mark | 0x4000
         add rule ip t ext/shop/web/tcp/80 goto svc/shop/web/tcp/80
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.0.5:8080
         delete element ip t unserved { 198.51.100.7 . tcp . 80 : goto refuse }
         delete element ip t unserved-node-ports { tcp . 30080 : goto refuse }
         add element ip t services { 10.96.0.20 . tcp . 80 : goto svc/shop/web/tcp/80, 198.51.100.7 . tcp . 80 : goto ext/shop/web/tcp/80 }
         add element ip t node-ports { tcp . 30080 : goto ext/shop/web/tcp/80 }
         add element ip t hairpin { 10.244.0.5 . 10.244.0.5 }",
    );
}

#[test]
fn affinity_remembers_clients_per_endpoint() {
    let service = service(cluster_ip(json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    })));
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &["10.244.0.5", "10.244.0.6"])]),
            (&service, &[slice(8080, "TCP", &["10.244.0.6"])]),
        ],
        "flush chain ip t ep/shop/web/tcp/80/10.244.0.5/8080
         flush chain ip t svc/shop/web/tcp/80
         add rule ip t svc/shop/web/tcp/80 ip saddr @seen-60s/shop/web/tcp/80/10.244.0.6/8080 goto ep/shop/web/tcp/80/10.244.0.6/8080
         add rule ip t svc/shop/web/tcp/80 goto ep/shop/web/tcp/80/10.244.0.6/8080
         delete element ip t hairpin { 10.244.0.5 . 10.244.0.5 }
         delete chain ip t ep/shop/web/tcp/80/10.244.0.5/8080
         delete set ip t seen-60s/shop/web/tcp/80/10.244.0.5/8080",
    );
}

#[test]
fn external_policy_local_keeps_to_this_node() {
    let service = service(cluster_ip(json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
    })));
    check_steps(
        &[(&service, &[slice(8080, "TCP", &["10.244.0.5", "10.244.1.6@far"])])],
        "add chain ip t ext/shop/web/tcp/80
         add chain ip t local/shop/web/tcp/80
         add chain ip t svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 ip saddr 10.244.0.0/16 goto svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 fib saddr type local meta mark set meta mark | 0x4000 goto svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 goto local/shop/web/tcp/80
         add rule ip t local/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.0.5:8080
         add rule ip t svc/shop/web/tcp/80 numgen random mod 2 < 1 meta l4proto tcp dnat to 10.244.0.5:8080
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.1.6:8080
         add element ip t services { 10.96.0.20 . tcp . 80 : goto svc/shop/web/tcp/80 }
         add element ip t node-ports { tcp . 30080 : goto ext/shop/web/tcp/80 }
         add element ip t service-addresses { 10.96.0.20 }
         add element ip t hairpin { 10.244.0.5 . 10.244.0.5 }",
    );
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &["10.244.0.5", "10.244.1.6@far"])]),
            (&service, &[slice(8080, "TCP", &["10.244.1.6@far"])]),
        ],
        "flush chain ip t ext/shop/web/tcp/80
         flush chain ip t local/shop/web/tcp/80
         flush chain ip t svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 ip saddr 10.244.0.0/16 goto svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 fib saddr type local meta mark set meta mark | 0x4000 goto svc/shop/web/tcp/80
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.1.6:8080
         delete element ip t hairpin { 10.244.0.5 . 10.244.0.5 }
         add element ip t unserved-node-ports { tcp . 30080 : drop }
         delete chain ip t local/shop/web/tcp/80",
    );
}

#[test]
fn internal_policy_local_waits_while_endpoints_are_elsewhere() {
    let service = service(cluster_ip(json!({"internalTrafficPolicy": "Local"})));
    check_steps(
        &[(&service, &[slice(8080, "TCP", &["10.244.1.6@far"])])],
        "add element ip t unserved { 10.96.0.20 . tcp . 80 : drop }
         add element ip t service-addresses { 10.96.0.20 }",
    );
}

#[test]
fn balancer_addresses_obey_source_ranges_and_mode() {
    let mut service = service(cluster_ip(json!({
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["192.0.2.0/24", "192.0.2.128/25", "2001:db8::/32"],
    })));
    service.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.8"}, {"ip": "198.51.100.9", "ipMode": "Proxy"}, {"hostname": "lb"},
    ]}}))
    .expect("status");
    check_steps(
        &[(&service, &[slice(8080, "TCP", &["10.244.0.5"])])],
        "add chain ip t ext/shop/web/tcp/80
         add chain ip t fw/shop/web/tcp/80
         add chain ip t svc/shop/web/tcp/80
         add rule ip t ext/shop/web/tcp/80 meta mark set meta mark | 0x4000
         add rule ip t ext/shop/web/tcp/80 goto svc/shop/web/tcp/80
         add rule ip t fw/shop/web/tcp/80 ip saddr 192.0.2.0/24 goto ext/shop/web/tcp/80
         add rule ip t fw/shop/web/tcp/80 drop
         add rule ip t svc/shop/web/tcp/80 meta l4proto tcp dnat to 10.244.0.5:8080
         add element ip t services { 10.96.0.20 . tcp . 80 : goto svc/shop/web/tcp/80, 198.51.100.8 . tcp . 80 : goto fw/shop/web/tcp/80 }
         add element ip t service-addresses { 10.96.0.20 }
         add element ip t hairpin { 10.244.0.5 . 10.244.0.5 }",
    );
}

#[test]
fn headless_external_and_foreign_services_have_no_part() {
    let slices = [slice(8080, "TCP", &["10.244.0.5"])];
    let headless =
        service(json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}));
    let external = service(json!({"type": "ExternalName", "externalName": "example.com"}));
    let mut foreign = service(cluster_ip(json!({})));
    foreign.metadata.labels =
        Some([("service.kubernetes.io/service-proxy-name".to_owned(), "x".to_owned())].into());
    for service in [&headless, &external, &foreign] {
        check_steps(&[(service, &slices)], "");
    }
}

#[test]
fn udp_and_sctp_keep_apart_from_tcp() {
    let service = service(cluster_ip(json!({"ports": [
        {"name": "", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "t", "port": 53, "protocol": "TCP"},
    ]})));
    let mut delta = Delta::default();
    let fragment = plan(&around(), &service, &[slice(5353, "UDP", &["10.244.0.5"])]);
    State::default().replace(&ObjectKey::namespaced("shop", "web"), fragment, &mut delta);
    let script = delta.script("t");
    assert!(script.contains("meta l4proto udp dnat to 10.244.0.5:5353"), "{script}");
    assert!(!script.contains("tcp"), "{script}");
    let mut ports: Vec<_> = delta.datagrams.keys().copied().collect();
    ports.sort();
    assert_eq!(ports, [(None, 30053), (Some("10.96.0.20".parse().expect("address")), 53)]);
}

#[test]
fn an_address_claimed_twice_passes_to_the_next() {
    let spec = |ip: &str| {
        cluster_ip(json!({"clusterIP": ip, "clusterIPs": [ip], "externalIPs": ["198.51.100.7"]}))
    };
    let (first, second) = (service(spec("10.96.0.20")), service(spec("10.96.0.21")));
    let slices = [slice(8080, "TCP", &["10.244.0.5"])];
    let (a, b) = (ObjectKey::namespaced("shop", "a"), ObjectKey::namespaced("shop", "b"));
    let mut state = State::default();
    let mut delta = Delta::default();
    let mut other = plan(&around(), &second, &slices);
    for value in other.elements.values_mut().filter(|value| !value.is_empty()) {
        *value = value.replace("/web/", "/b/");
    }
    state.replace(&b, other, &mut delta);
    let mut delta = Delta::default();
    state.replace(&a, plan(&around(), &first, &slices), &mut delta);
    let script = delta.script("t");
    assert!(
        script.contains(
            "delete element ip t services { 198.51.100.7 . tcp . 80 : goto ext/shop/b/tcp/80 }"
        ),
        "{script}"
    );
    let mut delta = Delta::default();
    state.replace(&a, Default::default(), &mut delta);
    let script = delta.script("t");
    assert!(
        script.contains(
            "add element ip t services { 198.51.100.7 . tcp . 80 : goto ext/shop/b/tcp/80 }"
        ),
        "{script}"
    );
    assert!(!script.contains("hairpin"), "still needed by the other: {script}");
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_at_its_best() {
    let slices = [
        slice(8080, "TCP", &["10.244.0.5!unready", "10.244.0.6"]),
        slice(8080, "TCP", &["10.244.0.5", "10.244.0.6!draining"]),
    ];
    let chosen = choose(&slices, "", "TCP", "here");
    assert_eq!(chosen.cluster.len(), 2);
    assert_eq!(chosen.local, chosen.cluster);
}

#[test]
fn many_endpoints_are_spread_evenly_in_few_steps() {
    let addresses: Vec<String> = (0..100).map(|n| format!("10.244.1.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let fragment =
        plan(&around(), &service(cluster_ip(json!({}))), &[slice(8080, "TCP", &addresses)]);
    let chain = |name: &str| fragment.chains[&format!("svc/shop/web/tcp/80{name}")].clone();
    assert_eq!(
        chain(""),
        [
            "numgen random mod 100 < 32 goto svc/shop/web/tcp/80/0",
            "numgen random mod 68 < 32 goto svc/shop/web/tcp/80/1",
            "numgen random mod 36 < 32 goto svc/shop/web/tcp/80/2",
            "goto svc/shop/web/tcp/80/3",
        ]
    );
    assert_eq!(chain("/0").len(), 32);
    assert_eq!(chain("/0")[0], "numgen random mod 32 < 1 meta l4proto tcp dnat to 10.244.1.0:8080");
    assert_eq!(chain("/3").len(), 4);
    assert_eq!(chain("/3")[3], "meta l4proto tcp dnat to 10.244.1.99:8080");
}
