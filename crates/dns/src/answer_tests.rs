//! Objects and a question in, the answer as text out.

use std::sync::Arc;

use client::{Change, ObjectKey};
use serde_json::{Value, json};

use super::*;

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.take_namespace(Change {
        key: ObjectKey::cluster("shop"),
        before: None,
        after: Some(Arc::default()),
    });
    let services = [
        (
            "web",
            json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "metrics", "port": 90}]}),
        ),
        (
            "db",
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [
            {"name": "sql", "port": 5432, "protocol": "TCP"}]}),
        ),
        (
            "both",
            json!({"clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21", "fd00:96::21"], "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}]}),
        ),
        ("empty", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        ("out", json!({"type": "ExternalName", "externalName": "db.example.com"})),
        ("in", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local."})),
        (
            "circle",
            json!({"type": "ExternalName", "externalName": "circle.shop.svc.cluster.local"}),
        ),
    ];
    for (name, spec) in services {
        put_service(&mut catalog, name, spec);
    }
    put_slice(
        &mut catalog,
        None,
        json!([
            {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}},
        ]),
    );
    catalog
}

fn put_service(catalog: &mut Catalog, name: &str, spec: Value) {
    let service = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name}, "spec": spec,
    }));
    catalog.take_service(Change {
        key: ObjectKey::namespaced("shop", name),
        before: None,
        after: Some(Arc::new(service.expect("service"))),
    });
}

type Slice = k8s_openapi::api::discovery::v1::EndpointSlice;

fn put_slice(catalog: &mut Catalog, before: Option<Arc<Slice>>, endpoints: Value) -> Arc<Slice> {
    let slice: Slice = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "db-1",
            "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "sql", "port": 15432, "protocol": "TCP"}],
    }))
    .expect("slice");
    let slice = Arc::new(slice);
    let key = ObjectKey::namespaced("shop", "db-1");
    catalog.take_slice(Change { key, before, after: Some(slice.clone()) });
    slice
}

fn check_in(catalog: &Catalog, question: &str, expected: &str) {
    let (name, kind) = question.split_once(' ').expect("name and type");
    let own =
        vec!["10.244.0.0/16".parse().expect("network"), "10.96.0.0/12".parse().expect("network")];
    let zone = Zone::new("cluster.local", vec!["10.96.0.10".parse().expect("address")], own)
        .expect("zone");
    let name = Name::from_ascii(name).expect("name");
    let kind = kind.parse().expect("type");
    let text = match zone.answer(catalog, &name, kind, 0) {
        None => "outside".to_owned(),
        Some(answer) => {
            let mut parts = vec![format!("{:?}", answer.code)];
            let short = |record: &Record| {
                format!("{} {} {}", record.name, record.record_type(), record.data)
            };
            parts.extend(answer.answers.iter().map(short));
            parts.extend(answer.additionals.iter().map(|record| format!("+{}", short(record))));
            parts.extend(answer.follow.iter().map(|name| format!("follow {name}")));
            if answer.authorities.iter().any(|record| record.record_type() == RecordType::SOA) {
                parts.push("SOA".to_owned());
            }
            parts.join("; ")
        }
    };
    assert_eq!(text, expected, "{question}");
}

fn check(question: &str, expected: &str) {
    check_in(&catalog(), question, expected);
}

#[test]
fn services_with_an_address() {
    check("web.shop.svc.cluster.local. A", "NoError; web.shop.svc.cluster.local. A 10.96.0.20");
    check("WEB.Shop.svc.CLUSTER.local. A", "NoError; WEB.Shop.svc.CLUSTER.local. A 10.96.0.20");
    check("web.shop.svc.cluster.local. AAAA", "NoError; SOA");
    check("web.shop.svc.cluster.local. MX", "NoError; SOA");
    check("nope.shop.svc.cluster.local. A", "NXDomain; SOA");
    check("web.nope.svc.cluster.local. A", "NXDomain; SOA");
    check(
        "_http._tcp.web.shop.svc.cluster.local. SRV",
        "NoError; _http._tcp.web.shop.svc.cluster.local. SRV 0 100 80 web.shop.svc.cluster.local.; \
         +web.shop.svc.cluster.local. A 10.96.0.20",
    );
    check("_http._udp.web.shop.svc.cluster.local. SRV", "NXDomain; SOA");
    check("_http._tcp.web.shop.svc.cluster.local. A", "NoError; SOA");
    check("_tcp.web.shop.svc.cluster.local. SRV", "NoError; SOA");
    check(
        "20.0.96.10.in-addr.arpa. PTR",
        "NoError; 20.0.96.10.in-addr.arpa. PTR web.shop.svc.cluster.local.",
    );
}

#[test]
fn headless_services() {
    check(
        "db.shop.svc.cluster.local. A",
        "NoError; db.shop.svc.cluster.local. A 10.244.0.5; db.shop.svc.cluster.local. A 10.244.0.6",
    );
    check(
        "db-0.db.shop.svc.cluster.local. A",
        "NoError; db-0.db.shop.svc.cluster.local. A 10.244.0.5",
    );
    check(
        "10-244-0-6.db.shop.svc.cluster.local. A",
        "NoError; 10-244-0-6.db.shop.svc.cluster.local. A 10.244.0.6",
    );
    check("db-0.db.shop.svc.cluster.local. AAAA", "NoError; SOA");
    check("db-2.db.shop.svc.cluster.local. A", "NXDomain; SOA");
    check("empty.shop.svc.cluster.local. A", "NXDomain; SOA");
    check(
        "_sql._tcp.db.shop.svc.cluster.local. SRV",
        "NoError; _sql._tcp.db.shop.svc.cluster.local. SRV 0 50 15432 db-0.db.shop.svc.cluster.local.; \
         _sql._tcp.db.shop.svc.cluster.local. SRV 0 50 15432 10-244-0-6.db.shop.svc.cluster.local.; \
         +db-0.db.shop.svc.cluster.local. A 10.244.0.5; \
         +10-244-0-6.db.shop.svc.cluster.local. A 10.244.0.6",
    );
    check(
        "5.0.244.10.in-addr.arpa. PTR",
        "NoError; 5.0.244.10.in-addr.arpa. PTR db-0.db.shop.svc.cluster.local.",
    );
}

#[test]
fn aliases() {
    check(
        "out.shop.svc.cluster.local. A",
        "NoError; out.shop.svc.cluster.local. CNAME db.example.com.; follow db.example.com.",
    );
    check(
        "out.shop.svc.cluster.local. CNAME",
        "NoError; out.shop.svc.cluster.local. CNAME db.example.com.",
    );
    check(
        "in.shop.svc.cluster.local. A",
        "NoError; in.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local.; \
         web.shop.svc.cluster.local. A 10.96.0.20",
    );
}

#[test]
fn pods_zone_and_outside() {
    check(
        "10-244-0-9.shop.pod.cluster.local. A",
        "NoError; 10-244-0-9.shop.pod.cluster.local. A 10.244.0.9",
    );
    check("10-244-0-9.nope.pod.cluster.local. A", "NXDomain; SOA");
    check("dns-version.cluster.local. TXT", "NoError; dns-version.cluster.local. TXT 1.1.0");
    check("shop.svc.cluster.local. A", "NoError; SOA");
    check("nope.svc.cluster.local. A", "NXDomain; SOA");
    check(
        "cluster.local. NS",
        "NoError; cluster.local. NS ns.dns.cluster.local.; +ns.dns.cluster.local. A 10.96.0.10",
    );
    check("example.com.shop.svc.cluster.local. A", "NXDomain; SOA");
    check("example.com. A", "outside");
    check("9.9.244.10.in-addr.arpa. PTR", "NXDomain; SOA");
    check("8.8.8.8.in-addr.arpa. PTR", "outside");
}

#[test]
fn changes_show_at_once() {
    let mut catalog = catalog();
    let one = json!([{"addresses": ["10.244.0.8"], "hostname": "db-0"}]);
    let before = put_slice(&mut catalog, None, json!([]));
    let before = put_slice(&mut catalog, Some(before), one);
    check_in(
        &catalog,
        "db.shop.svc.cluster.local. A",
        "NoError; db.shop.svc.cluster.local. A 10.244.0.8",
    );
    check_in(&catalog, "5.0.244.10.in-addr.arpa. PTR", "NXDomain; SOA");
    let key = ObjectKey::namespaced("shop", "db-1");
    catalog.take_slice(Change { key, before: Some(before), after: None });
    check_in(&catalog, "db.shop.svc.cluster.local. A", "NXDomain; SOA");
    check_in(&catalog, "8.0.244.10.in-addr.arpa. PTR", "NXDomain; SOA");
    put_service(
        &mut catalog,
        "web",
        json!({"clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21"]}),
    );
    check_in(&catalog, "20.0.96.10.in-addr.arpa. PTR", "NXDomain; SOA");
    let key = ObjectKey::namespaced("shop", "web");
    catalog.take_service(Change { key, before: None, after: None });
    check_in(&catalog, "web.shop.svc.cluster.local. A", "NXDomain; SOA");
}

#[test]
fn an_alias_of_itself_does_not_hang() {
    check_in(
        &catalog(),
        "circle.shop.svc.cluster.local. CNAME",
        "NoError; circle.shop.svc.cluster.local. CNAME circle.shop.svc.cluster.local.",
    );
    check_in(
        &catalog(),
        "circle.shop.svc.cluster.local. A",
        "NoError; circle.shop.svc.cluster.local. CNAME circle.shop.svc.cluster.local.; \
         circle.shop.svc.cluster.local. CNAME circle.shop.svc.cluster.local.",
    );
}

#[test]
fn both_families_are_answered_each_by_its_own() {
    check("both.shop.svc.cluster.local. A", "NoError; both.shop.svc.cluster.local. A 10.96.0.21");
    check(
        "both.shop.svc.cluster.local. AAAA",
        "NoError; both.shop.svc.cluster.local. AAAA fd00:96::21",
    );
    check(
        "_http._tcp.both.shop.svc.cluster.local. SRV",
        "NoError; _http._tcp.both.shop.svc.cluster.local. SRV 0 100 80 \
         both.shop.svc.cluster.local.; +both.shop.svc.cluster.local. A 10.96.0.21; \
         +both.shop.svc.cluster.local. AAAA fd00:96::21",
    );
    let reverse = format!("1.2.{}6.9.0.0.0.0.d.f.ip6.arpa. PTR", "0.".repeat(22));
    let expected =
        format!("NoError; {} PTR both.shop.svc.cluster.local.", &reverse[..reverse.len() - 4]);
    check(&reverse, &expected);
}
