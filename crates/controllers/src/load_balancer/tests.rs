//! Services and nodes in, addresses out.

use super::*;
use crate::testing::{from_yaml, told};

fn service(name: &str, more: &str) -> (ObjectKey, Arc<Service>) {
    let service: Service = from_yaml(&format!(
        "{{metadata: {{name: {name}, namespace: shop, uid: {name}, annotations: {{skiff.dev/announce-addresses: 'true'}},
           finalizers: [service.kubernetes.io/load-balancer-cleanup]}},
          spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}, {more}}}"
    ));
    (ObjectKey::of(&service), Arc::new(service))
}

fn changed(
    (key, mut service): (ObjectKey, Arc<Service>),
    change: impl FnOnce(&mut Service),
) -> (ObjectKey, Arc<Service>) {
    change(Arc::make_mut(&mut service));
    (key, service)
}

fn pool(ranges: &[&str], services: Vec<(ObjectKey, Arc<Service>)>) -> Snapshot {
    Snapshot {
        ranges: ranges.iter().map(|range| range.parse().expect("range")).collect(),
        services: services.into_iter().collect(),
        ..Snapshot::default()
    }
}

/// `name: addresses [trouble]` of every Service.
fn given(snapshot: &Snapshot) -> Vec<String> {
    assign(snapshot)
        .into_iter()
        .map(|(key, assigned)| {
            let addresses: Vec<String> =
                assigned.addresses.iter().map(ToString::to_string).collect();
            let trouble = assigned.trouble.map(|trouble| format!(" [{trouble}]"));
            format!("{}: {}{}", key.name, addresses.join(","), trouble.unwrap_or_default())
        })
        .collect()
}

#[test]
fn addresses_are_kept_wished_for_and_exhausted() {
    let has =
        |ip: &str| format!("status: {{loadBalancer: {{ingress: [{{ip: {ip}, ipMode: VIP}}]}}}}");
    let wish = |(key, service), ip: &str| {
        let ip = ip.to_owned();
        changed((key, service), |service: &mut Service| {
            service.spec.as_mut().expect("spec").load_balancer_ip = Some(ip);
        })
    };
    let snapshot = pool(
        &["192.0.2.10-192.0.2.12"],
        vec![
            service("a", ""),
            service("b", &has("192.0.2.10")),
            wish(service("c", ""), "192.0.2.12"),
            service("d", ""),
            wish(service("e", ""), "192.0.2.99"),
            wish(service("f", ""), "192.0.2.10"),
        ],
    );
    assert_eq!(
        given(&snapshot),
        [
            "a: 192.0.2.11",
            "b: 192.0.2.10",
            "c: 192.0.2.12",
            "d:  [no IPv4 address is left in --load-balancer-pool]",
            "e:  [192.0.2.99 is not in --load-balancer-pool]",
            "f:  [192.0.2.10 is used by Service shop/b]",
        ]
    );
}

#[test]
fn each_family_comes_from_its_ranges() {
    let both = |name: &str, policy: &str| {
        let policy = policy.to_owned();
        changed(service(name, ""), |service| {
            let spec = service.spec.as_mut().expect("spec");
            spec.ip_families = Some(vec!["IPv6".to_owned(), "IPv4".to_owned()]);
            spec.ip_family_policy = Some(policy);
        })
    };
    let services = || vec![both("a", "RequireDualStack"), both("b", "PreferDualStack")];
    assert_eq!(
        given(&pool(&["192.0.2.8/29", "2001:db8::10-2001:db8::11"], services())),
        ["a: 2001:db8::10,192.0.2.9", "b: 2001:db8::11,192.0.2.10"]
    );
    assert_eq!(
        given(&pool(&["2001:db8::10-2001:db8::11"], services())),
        ["a: 2001:db8::10 [no IPv4 address is left in --load-balancer-pool]", "b: 2001:db8::11"]
    );
}

#[test]
fn without_a_pool_nodes_lend_their_addresses() {
    let local = |name: &str, port: i32| {
        changed(service(name, ""), |service| {
            let spec = service.spec.as_mut().expect("spec");
            spec.external_traffic_policy = Some("Local".to_owned());
            spec.ports.as_mut().expect("ports")[0].port = port;
        })
    };
    let mut snapshot = pool(
        &[],
        vec![service("a", ""), local("b", 81), service("c", ""), local("d", 82), local("e", 6443)],
    );
    for (node, internal) in [("n1", "192.0.2.1"), ("n2", "192.0.2.2")] {
        let carrier = Carrier { internal: vec![internal.to_owned()], ..Carrier::default() };
        snapshot.carriers.insert(node.to_owned(), carrier);
    }
    let b = ObjectKey::namespaced("shop", "b");
    snapshot.local.insert(b, ["n2".to_owned()].into());
    assert_eq!(
        given(&snapshot),
        [
            "a: 192.0.2.1,192.0.2.2",
            "b: 192.0.2.2",
            "c:  [port 80 of the nodes' addresses is used by Service shop/a]",
            "d:  [no ready node may carry the Service's traffic]",
            "e:  [port 6443 is used by the nodes themselves]",
        ]
    );
    snapshot.carriers.get_mut("n1").expect("there").external = vec!["198.51.100.1".to_owned()];
    assert_eq!(given(&snapshot)[0], "a: 198.51.100.1");
}

#[test]
fn the_finalizer_comes_first_and_goes_last() {
    let now = Timestamp::UNIX_EPOCH;
    let bare = changed(service("a", ""), |service| {
        service.metadata.finalizers = None;
        service.metadata.annotations = None;
    });
    let first = plan(&pool(&["192.0.2.8/29"], vec![bare]), now);
    let [Action::Patch { patch, subresource: None, .. }] = &first.actions[..] else { panic!() };
    assert_eq!(patch["metadata"]["finalizers"][0], FINALIZER);
    assert_eq!(patch["metadata"]["annotations"][ANNOUNCE], "true");

    let second = plan(&pool(&["192.0.2.8/29"], vec![service("a", "")]), now);
    let [Action::Patch { patch, subresource: Some("status"), .. }] = &second.actions[..] else {
        panic!("{:?}", told(&second))
    };
    assert_eq!(patch["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.9");
    assert_eq!(second.notes[0].reason, "EnsuredLoadBalancer");

    let has = "status: {loadBalancer: {ingress: [{ip: 192.0.2.9, ipMode: VIP}]}}";
    assert!(plan(&pool(&["192.0.2.8/29"], vec![service("a", has)]), now).is_empty());
    let other = |service: &mut Service| {
        service.spec.as_mut().expect("spec").type_ = Some("ClusterIP".to_owned());
    };
    let third = plan(&pool(&["192.0.2.8/29"], vec![changed(service("a", has), other)]), now);
    let [Action::Patch { patch, subresource: Some("status"), .. }] = &third.actions[..] else {
        panic!("{:?}", told(&third))
    };
    assert!(patch["status"]["loadBalancer"]["ingress"].is_null());
    let fourth = plan(&pool(&["192.0.2.8/29"], vec![changed(service("a", ""), other)]), now);
    let [Action::Patch { patch, subresource: None, .. }] = &fourth.actions[..] else { panic!() };
    assert_eq!(patch["metadata"]["finalizers"], json!([]));
}

#[test]
fn trouble_is_told_once() {
    let now = Timestamp::UNIX_EPOCH;
    let (_, full) = service("a", "");
    let snapshot = pool(&["2001:db8::1"], vec![service("a", "")]);
    let first = plan(&snapshot, now);
    assert_eq!(first.notes[0].reason, "AddressPoolExhausted");
    let [Action::Patch { patch, .. }] = &first.actions[..] else { panic!() };
    let mut told: Service = (*full).clone();
    told.status = serde_json::from_value(patch["status"].clone()).expect("status");
    let key = ObjectKey::of(&told);
    let again = plan(&pool(&["2001:db8::1"], vec![(key, Arc::new(told))]), now);
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn a_class_leaves_a_service_to_others() {
    let (_, service) = changed(service("a", ""), |service| {
        service.spec.as_mut().expect("spec").load_balancer_class = Some("example.com/x".to_owned());
    });
    assert!(!is_balanced(&service) && !has_finalizer(&service));
}
