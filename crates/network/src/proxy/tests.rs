//! Objects in, nftables text out.

use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::{Value, json};

use super::{
    element::{Entry, Key, Value as Element, text},
    endpoints::{Chooser, Target, choose},
    plan::{Fragment, Surroundings, plan},
    state::{Delta, State},
};
use crate::ruleset::{Container, Family, Protocol};

fn around() -> Surroundings {
    Surroundings { node: "here".to_owned(), ..Surroundings::default() }
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

/// A change as text: commands before, elements, commands after.
fn told(delta: &Delta) -> String {
    let mut lines = vec![delta.before("t", &delta.pickers)];
    let told = |verb: &str, container: Container, key: &Key, value: &Element| {
        format!("{verb} {} {{ {} }}", container.name(key.family()), text(key, value))
    };
    let edits: Vec<_> = delta.elements().collect();
    for ((container, key), edit) in &edits {
        lines.extend(edit.before.as_ref().map(|value| told("delete", *container, key, value)));
    }
    for ((container, key), edit) in &edits {
        lines.extend(edit.after.as_ref().map(|value| told("add", *container, key, value)));
    }
    lines.push(delta.after("t"));
    lines.join("\n")
}

/// Steps of one Service; the text is the last step's change.
fn check_steps(steps: &[(&Service, &[Arc<EndpointSlice>])], expected: &str) {
    let key = ObjectKey::namespaced("shop", "web");
    let mut state = State::default();
    let mut script = String::new();
    for (service, slices) in steps {
        let mut delta = Delta::default();
        state.replace(&key, plan(&around(), service, slices), &mut delta);
        script = told(&delta);
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
            &[slice(
                8080,
                "TCP",
                &[
                    "10.244.0.6",
                    "10.244.0.5",
                    "10.244.0.7!unready",
                    "10.244.1.8@far",
                    "10.244.0.9!draining",
                ],
            )],
        )],
        "add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-4 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 1 : 10.244.0.6 . 8080 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 2 : 10.244.1.8 . 8080 }
         add service-addresses-4 { 10.96.0.20 }
         add hairpin-4 { 10.244.0.5 . 10.244.0.5 }
         add hairpin-4 { 10.244.0.6 . 10.244.0.6 }",
    );
}

#[test]
fn a_change_of_endpoints_is_one_small_transaction() {
    let service = service(cluster_ip(json!({})));
    let four = ["10.244.1.5@far", "10.244.1.6@far", "10.244.1.7@far", "10.244.1.8@far"];
    // The last takes the place of the one that goes.
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &four)]),
            (
                &service,
                &[slice(8080, "TCP", &["10.244.1.5@far!draining", four[1], four[2], four[3]])],
            ),
        ],
        "delete endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.1.5 . 8080 }
         delete endpoints-4 { 10.96.0.20 . tcp . 80 . 3 : 10.244.1.8 . 8080 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.1.8 . 8080 }",
    );
    // One that comes is one element.
    check_steps(
        &[(&service, &[slice(8080, "TCP", &four[..3])]), (&service, &[slice(8080, "TCP", &four)])],
        "add endpoints-4 { 10.96.0.20 . tcp . 80 . 3 : 10.244.1.8 . 8080 }",
    );
    // Beyond a power of two, so is the chain that picks.
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &four[..2])]),
            (&service, &[slice(8080, "TCP", &four[..3])]),
        ],
        "delete services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-2 }
         add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-4 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 2 : 10.244.1.7 . 8080 }",
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
        "add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-1 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add service-addresses-4 { 10.96.0.20 }
         add hairpin-4 { 10.244.0.5 . 10.244.0.5 }",
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
        "add unserved-4 { 198.51.100.7 . tcp . 80 : goto refuse }
         add node-unserved-4 { tcp . 30080 : goto refuse }
         add service-addresses-4 { 10.96.0.20 }",
    );
    check_steps(
        &[(&service, &[]), (&service, &[slice(8080, "TCP", &["10.244.0.5"])])],
        "delete unserved-4 { 198.51.100.7 . tcp . 80 : goto refuse }
         delete node-unserved-4 { tcp . 30080 : goto refuse }
         add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-1 }
         add services-4 { 198.51.100.7 . tcp . 80 : goto pick-endpoints-4-1 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add endpoints-4 { 198.51.100.7 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add marks-4 { 198.51.100.7 . tcp . 80 : jump ask-masquerade }
         add node-ports-4 { tcp . 30080 : goto pick-node-endpoints-4-1 }
         add node-endpoints-4 { tcp . 30080 . 0 : 10.244.0.5 . 8080 }
         add node-marks-4 { tcp . 30080 : jump ask-masquerade }
         add hairpin-4 { 10.244.0.5 . 10.244.0.5 }",
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
        "flush chain inet t sticky-4/shop/web/tcp/80
         add rule inet t sticky-4/shop/web/tcp/80 ip saddr @seen-60s/shop/web/tcp/80/10.244.0.6/8080 goto ep/shop/web/tcp/80/10.244.0.6/8080
         add rule inet t sticky-4/shop/web/tcp/80 goto ep/shop/web/tcp/80/10.244.0.6/8080
         delete hairpin-4 { 10.244.0.5 . 10.244.0.5 }
         flush chain inet t ep/shop/web/tcp/80/10.244.0.5/8080
         delete chain inet t ep/shop/web/tcp/80/10.244.0.5/8080
         delete set inet t seen-60s/shop/web/tcp/80/10.244.0.5/8080",
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
        "add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-2 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 1 : 10.244.1.6 . 8080 }
         add node-ports-4 { tcp . 30080 : goto pick-node-endpoints-4-2 }
         add node-outside-4 { tcp . 30080 : goto pick-node-local-endpoints-4-1 }
         add node-endpoints-4 { tcp . 30080 . 0 : 10.244.0.5 . 8080 }
         add node-endpoints-4 { tcp . 30080 . 1 : 10.244.1.6 . 8080 }
         add node-local-endpoints-4 { tcp . 30080 . 0 : 10.244.0.5 . 8080 }
         add node-marks-4 { tcp . 30080 : jump ask-masquerade-own }
         add service-addresses-4 { 10.96.0.20 }
         add hairpin-4 { 10.244.0.5 . 10.244.0.5 }",
    );
    check_steps(
        &[
            (&service, &[slice(8080, "TCP", &["10.244.0.5", "10.244.1.6@far"])]),
            (&service, &[slice(8080, "TCP", &["10.244.1.6@far"])]),
        ],
        "delete services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-2 }
         delete endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         delete endpoints-4 { 10.96.0.20 . tcp . 80 . 1 : 10.244.1.6 . 8080 }
         delete node-ports-4 { tcp . 30080 : goto pick-node-endpoints-4-2 }
         delete node-outside-4 { tcp . 30080 : goto pick-node-local-endpoints-4-1 }
         delete node-endpoints-4 { tcp . 30080 . 0 : 10.244.0.5 . 8080 }
         delete node-endpoints-4 { tcp . 30080 . 1 : 10.244.1.6 . 8080 }
         delete node-local-endpoints-4 { tcp . 30080 . 0 : 10.244.0.5 . 8080 }
         delete hairpin-4 { 10.244.0.5 . 10.244.0.5 }
         add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-1 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.1.6 . 8080 }
         add node-ports-4 { tcp . 30080 : goto pick-node-endpoints-4-1 }
         add node-outside-4 { tcp . 30080 : drop }
         add node-endpoints-4 { tcp . 30080 . 0 : 10.244.1.6 . 8080 }",
    );
}

#[test]
fn internal_policy_local_waits_while_endpoints_are_elsewhere() {
    let service = service(cluster_ip(json!({"internalTrafficPolicy": "Local"})));
    check_steps(
        &[(&service, &[slice(8080, "TCP", &["10.244.1.6@far"])])],
        "add unserved-4 { 10.96.0.20 . tcp . 80 : drop }
         add service-addresses-4 { 10.96.0.20 }",
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
        "add services-4 { 10.96.0.20 . tcp . 80 : goto pick-endpoints-4-1 }
         add services-4 { 198.51.100.8 . tcp . 80 : goto pick-endpoints-4-1 }
         add endpoints-4 { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add endpoints-4 { 198.51.100.8 . tcp . 80 . 0 : 10.244.0.5 . 8080 }
         add marks-4 { 198.51.100.8 . tcp . 80 : jump ask-masquerade }
         add walled-4 { 198.51.100.8 . tcp . 80 }
         add allowed-4 { 198.51.100.8 . tcp . 80 . 192.0.2.0/24 }
         add service-addresses-4 { 10.96.0.20 }
         add hairpin-4 { 10.244.0.5 . 10.244.0.5 }",
    );
    // A node that may use the address may do so where the address is its own.
    let mut around = around();
    around.addresses = ["192.0.2.7".parse().expect("address")].into();
    let fragment = plan(&around, &service, &[slice(8080, "TCP", &["10.244.0.5"])]);
    let allowed = fragment.elements.keys().filter(|(at, _)| *at == Container::Allowed);
    assert_eq!(allowed.count(), 2);
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
    let service = service(cluster_ip(json!({"type": "NodePort", "ports": [
        {"name": "", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "t", "port": 53, "protocol": "TCP"},
        {"name": "s", "port": 53, "protocol": "SCTP"},
    ]})));
    let mut delta = Delta::default();
    let slices = [slice(5353, "UDP", &["10.244.0.5"])];
    let fragment = plan(&around(), &service, &slices);
    State::default().replace(&ObjectKey::namespaced("shop", "web"), fragment, &mut delta);
    let script = told(&delta);
    assert!(script.contains("10.96.0.20 . udp . 53 . 0 : 10.244.0.5 . 5353"), "{script}");
    assert!(!script.contains("tcp") && !script.contains("sctp"), "{script}");
    let mut entries: Vec<_> = delta.datagrams.keys().copied().collect();
    entries.sort();
    let cluster_ip = "10.96.0.20".parse().expect("address");
    assert_eq!(
        entries,
        [
            Entry::Address(cluster_ip, Protocol::Udp, 53),
            Entry::Node(Family::V4, Protocol::Udp, 30053)
        ]
    );
}

#[test]
fn an_address_claimed_twice_passes_to_the_next() {
    let spec = |ip: &str| {
        cluster_ip(json!({"clusterIP": ip, "clusterIPs": [ip], "externalIPs": ["198.51.100.7"]}))
    };
    let (first, second) = (service(spec("10.96.0.20")), service(spec("10.96.0.21")));
    let (one, other) = (
        [slice(8080, "TCP", &["10.244.0.5"])],
        [slice(8080, "TCP", &["10.244.0.5", "10.244.0.6"])],
    );
    let (a, b) = (ObjectKey::namespaced("shop", "a"), ObjectKey::namespaced("shop", "b"));
    let mut state = State::default();
    let mut delta = Delta::default();
    state.replace(&b, plan(&around(), &second, &other), &mut delta);
    let mut delta = Delta::default();
    state.replace(&a, plan(&around(), &first, &one), &mut delta);
    let script = told(&delta);
    let moved = "delete endpoints-4 { 198.51.100.7 . tcp . 80 . 1 : 10.244.0.6 . 8080 }";
    assert!(script.contains(moved), "{script}");
    assert!(
        script.contains("delete services-4 { 198.51.100.7 . tcp . 80 : goto pick-endpoints-4-2 }"),
        "{script}"
    );
    let mut delta = Delta::default();
    state.replace(&a, Fragment::default(), &mut delta);
    let script = told(&delta);
    assert!(
        script.contains("add services-4 { 198.51.100.7 . tcp . 80 : goto pick-endpoints-4-2 }"),
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
    let chosen = choose(&slices, Family::V4, "", "TCP", Chooser { node: "here", zone: None });
    assert_eq!(chosen.cluster.len(), 2);
    assert_eq!(chosen.local, chosen.cluster);
}

#[test]
fn many_endpoints_are_spread_evenly_in_few_steps() {
    let addresses: Vec<String> = (0..100).map(|n| format!("10.244.1.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let sticky = service(cluster_ip(json!({"sessionAffinity": "ClientIP"})));
    let fragment = plan(&around(), &sticky, &[slice(8080, "TCP", &addresses)]);
    let chain = |name: &str| fragment.chains[&format!("sticky-4/shop/web/tcp/80{name}")].clone();
    assert_eq!(
        chain("")[100..],
        [
            "numgen random mod 100 < 32 goto sticky-4/shop/web/tcp/80/0",
            "numgen random mod 68 < 32 goto sticky-4/shop/web/tcp/80/1",
            "numgen random mod 36 < 32 goto sticky-4/shop/web/tcp/80/2",
            "goto sticky-4/shop/web/tcp/80/3",
        ]
    );
    assert_eq!(chain("/0").len(), 32);
    assert_eq!(chain("/3")[3], "goto ep/shop/web/tcp/80/10.244.1.99/8080");
}

/// Whatever comes and goes, an entry's slots are full from the first on.
#[test]
fn slots_have_no_gaps() {
    let service = service(cluster_ip(json!({})));
    let key = ObjectKey::namespaced("shop", "web");
    let mut state = State::default();
    let mut there: std::collections::BTreeMap<u32, Target> = Default::default();
    let mut seed = 7_u32;
    for _ in 0..200 {
        let mut chance = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let wanted: Vec<String> =
            (0..12).filter(|_| chance() % 2 == 0).map(|n| format!("10.244.1.{n}@far")).collect();
        let words: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let mut delta = Delta::default();
        state.replace(&key, plan(&around(), &service, &[slice(80, "TCP", &words)]), &mut delta);
        for ((_, at), edit) in delta.elements() {
            let Key::Slot(_, slot) = at else { continue };
            let target = |value: &Option<Element>| match value {
                Some(Element::Target(target)) => Some(*target),
                _ => None,
            };
            assert_eq!(there.remove(slot), target(&edit.before));
            there.extend(target(&edit.after).map(|target| (*slot, target)));
        }
        assert!(there.keys().copied().eq(0..wanted.len() as u32), "{there:?}");
        let targets: std::collections::BTreeSet<_> = there.values().collect();
        assert_eq!(targets.len(), wanted.len());
    }
}

#[test]
fn hints_are_obeyed_when_all_endpoints_have_them_and_some_are_for_here() {
    let hinted = |hints: &[Value], node: &str, zone: Option<&str>| {
        let endpoints: Vec<Value> = hints
            .iter()
            .enumerate()
            .map(|(n, hints)| json!({"addresses": [format!("10.244.1.{n}")], "hints": hints}))
            .collect();
        let slice = Arc::new(
            serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": "web-1"}, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            }))
            .expect("slice"),
        );
        let chosen = choose(&[slice], Family::V4, "", "TCP", Chooser { node, zone });
        chosen.cluster.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>()
    };
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    let both = |node: &str, name: &str| json!({"forZones": [{"name": name}], "forNodes": [{"name": node}]});
    assert_eq!(hinted(&[zone("a"), zone("b")], "n", Some("b")), ["10.244.1.1"]);
    assert_eq!(hinted(&[zone("a"), zone("b")], "n", Some("c")).len(), 2, "none for here");
    assert_eq!(hinted(&[zone("a"), zone("b")], "n", None).len(), 2, "no zone");
    assert_eq!(hinted(&[zone("a"), json!({})], "n", Some("a")).len(), 2, "one without");
    let all = [both("m", "b"), both("n", "b"), both("o", "b")];
    assert_eq!(hinted(&all, "n", Some("b")), ["10.244.1.1"]);
    assert_eq!(hinted(&all, "z", Some("b")).len(), 3);
}

#[test]
fn families_have_their_own_ways() {
    let service = service(cluster_ip(json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.20", "fd00::20"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
    })));
    let mut six: EndpointSlice = (*slice(8080, "TCP", &["fd01::5@far"])).clone();
    six.address_type = "IPv6".to_owned();
    check_steps(
        &[(&service, &[Arc::new(six)])],
        "add services-6 { fd00::20 . tcp . 80 : goto pick-endpoints-6-1 }
         add endpoints-6 { fd00::20 . tcp . 80 . 0 : fd01::5 . 8080 }
         add node-ports-6 { tcp . 30080 : goto pick-node-endpoints-6-1 }
         add node-endpoints-6 { tcp . 30080 . 0 : fd01::5 . 8080 }
         add node-marks-6 { tcp . 30080 : jump ask-masquerade }
         add node-unserved-4 { tcp . 30080 : goto refuse }
         add service-addresses-4 { 10.96.0.20 }
         add service-addresses-6 { fd00::20 }",
    );
}

/// What ten thousand Services of ten endpoints cost, in a network namespace of its own. Asserts no
/// times: `cargo test -p skiff-network --lib -- --ignored --nocapture ten_thousand`.
#[test]
#[ignore = "measures; needs root"]
fn ten_thousand_services() {
    const SERVICES: u32 = 10_000;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("new network namespace");
    let directory = tempfile::tempdir().expect("directory");
    let options = crate::NetworkOptions::new("here", directory.path().join("network"));
    crate::setup(&options).expect("setup");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let mut state = State::default();
    let part = |state: &mut State, n: u32, ends: u32| {
        let ip = std::net::Ipv4Addr::from(0x0a64_0000 + n).to_string();
        let service = service(cluster_ip(json!({"clusterIP": ip, "clusterIPs": [ip]})));
        let ends: Vec<String> =
            (0..ends).map(|e| format!("10.{}.{}.{e}@far", n >> 8, n & 255)).collect();
        let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
        let mut delta = Delta::default();
        let key = ObjectKey::namespaced("shop", format!("s{n}"));
        state.replace(&key, plan(&around(), &service, &[slice(8080, "TCP", &ends)]), &mut delta);
        delta
    };
    let began = std::time::Instant::now();
    for n in 0..SERVICES {
        part(&mut state, n, 10);
    }
    println!("planned in {:.1?}", began.elapsed());
    let mut table = super::table::Table::new(Arc::new(options));
    runtime.block_on(async {
        for what in ["programmed", "adopted"] {
            let began = std::time::Instant::now();
            state =
                table.replace(std::mem::take(&mut state)).await.map_err(|(_, e)| e).expect("made");
            println!("{what} in {:.1?}", began.elapsed());
        }
        for (what, ends) in
            [("an endpoint goes", 9), ("an endpoint comes", 10), ("class changes", 8)]
        {
            let began = std::time::Instant::now();
            for n in 0..20 {
                let delta = part(&mut state, n, ends);
                table.change(&delta).await.expect("made");
            }
            println!("{what} in {:.1?}", began.elapsed() / 20);
        }
    });
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    println!(
        "{}",
        status.lines().filter(|line| line.starts_with("Vm")).collect::<Vec<_>>().join("\n")
    );
}
