//! What the allocator gives and refuses, on a real store.

use serde_json::json;
use store::{CommitError, Durability, Embedded, Expect, Guard, Store, Write};

use super::*;
use crate::object::encode;

const NOW: &str = "2026-01-02T03:04:05Z";

struct Bench {
    allocator: Allocator,
    store: Embedded<Header>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(ranges: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let rows = std::sync::Arc::new(crate::Rows::builtin());
        let options = store::Options::new(directory.path().join("store"));
        let store = Embedded::open(options, crate::header_reader(rows)).expect("store");
        let network = Network {
            services: ranges.iter().map(|range| range.parse().expect("range")).collect(),
            node_ports: 30000..=30002,
        };
        Self { allocator: Allocator::new(network), store, _directory: directory }
    }

    /// A change of a Service as far as the store.
    async fn write(&self, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let claims = self.allocator.claim(&self.store.snapshot(), service, old, NOW)?;
        self.commit(service, claims).await.map_err(|error| Status::internal(error.to_string()))
    }

    async fn commit(&self, service: &Value, claims: Claims) -> Result<(), CommitError<Header>> {
        let name = meta_text(service, "name");
        let record = Write::put(
            format!("/registry/services/default/{name}"),
            encode(service),
            Header::default(),
        );
        let writes = claims.writes.into_iter().chain([record]).collect();
        self.store.commit(claims.guards, writes, Durability::Durable).await.map(drop)
    }

    async fn put(&self, key: &str, object: Value) {
        let write = Write::put(key, encode(&object), Header::of(&object, &[]));
        self.store.commit(vec![], vec![write], Durability::Durable).await.expect("stored");
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let snapshot = self.store.snapshot();
        snapshot.range(prefix).map(|(key, _)| key[prefix.len()..].to_owned()).collect()
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

#[tokio::test]
async fn what_is_taken_is_in_the_store() {
    let bench = Bench::new(&["10.96.0.0/29"]);
    let spec = || json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
    let mut web = service("web", spec());
    bench.write(&mut web, None).await.expect("free");
    let address = web["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    assert_eq!(
        (bench.keys(claims::ADDRESSES), bench.keys(claims::PORTS)),
        (vec![address.clone()], vec!["30001".to_owned()])
    );
    let key = claims::address_key(address.parse().expect("address"));
    let stored = bench.store.snapshot().get(&key).expect("an IPAddress").clone();
    assert_eq!(stored.note.label(claims::MANAGED_BY), Some(claims::MANAGER));
    assert_eq!(claims::address_owner(&stored.value), "default/web");

    let refused = bench.write(&mut service("other", spec()), None).await.expect_err("taken");
    assert_eq!(
        refused.message,
        r#"Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"#
    );
    let asked = json!({"clusterIP": address, "clusterIPs": [address]});
    let refused = bench.write(&mut service("other", asked), None).await.expect_err("taken");
    assert!(refused.message.ends_with("provided IP is already allocated"), "{}", refused.message);

    // Another server chose the same before it saw this: only one commit takes place.
    let before = bench.store.snapshot();
    let mut first = service("first", json!({"ports": [{"port": 80}]}));
    let one = bench.allocator.claim(&before, &mut first, None, NOW).expect("free");
    let mut second = service("second", first["spec"].clone());
    let two = bench.allocator.claim(&before, &mut second, None, NOW).expect("free so far");
    bench.commit(&first, one).await.expect("the first has it");
    let conflict = bench.commit(&second, two).await.expect_err("the second has not");
    assert!(matches!(conflict, CommitError::Conflict { .. }));
    assert_eq!(bench.keys(claims::SERVICES).len(), 2);
}

#[tokio::test]
async fn the_range_runs_out() {
    let bench = Bench::new(&["10.96.0.0/29"]);
    for number in 0..6 {
        let mut web = service(&format!("web{number}"), json!({"ports": [{"port": 80}]}));
        bench.write(&mut web, None).await.expect("free");
        assert_eq!(web["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(web["spec"]["clusterIPs"][0], web["spec"]["clusterIP"]);
    }
    let refused = bench.write(&mut service("web", json!({})), None).await.expect_err("full");
    assert_eq!(refused.code, 500);
    let spec = json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}});
    let mut headless = service("headless", spec);
    bench.write(&mut headless, None).await.expect("needs no address");
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "SingleStack");

    // A second range helps; one that is about to go does not.
    let range = |cidr: &str, status: &str| {
        json!({
            "metadata": {"name": "more"}, "spec": {"cidrs": [cidr]},
            "status": {"conditions": [{"type": "Ready", "status": status}]}
        })
    };
    bench.put(&format!("{}kubernetes", ranges::SERVICE_CIDRS), range("10.96.0.0/29", "True")).await;
    bench.put(&format!("{}more", ranges::SERVICE_CIDRS), range("10.97.0.0/24", "False")).await;
    bench.write(&mut service("web", json!({})), None).await.expect_err("still full");
    bench.put(&format!("{}more", ranges::SERVICE_CIDRS), range("10.97.0.0/24", "True")).await;
    let mut web = service("web", json!({}));
    bench.write(&mut web, None).await.expect("room");
    let address: Ipv4Addr =
        web["spec"]["clusterIP"].as_str().expect("address").parse().expect("address");
    assert!(address.octets()[3] > 16, "{address}: the lower part is for those who ask");
}

#[tokio::test]
async fn a_change_of_type_gives_up_what_it_had() {
    let bench = Bench::new(&["10.96.0.0/29"]);
    let mut web = service("web", json!({"type": "NodePort", "ports": [{"port": 80}]}));
    bench.write(&mut web, None).await.expect("free");
    let mut plain = web.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    plain["spec"]["ports"] = json!([{"port": 80}]);
    bench.write(&mut plain, Some(&web)).await.expect("same address");
    assert!(bench.keys(claims::PORTS).is_empty());
    assert_eq!(bench.keys(claims::ADDRESSES).len(), 1);
    let claims = bench.allocator.release(&bench.store.snapshot(), &plain);
    bench.store.commit(claims.guards, claims.writes, Durability::Durable).await.expect("gone");
    assert!(bench.keys(claims::ADDRESSES).is_empty());
}

#[tokio::test]
async fn addresses_outside_the_range_are_refused() {
    let bench = Bench::new(&["10.96.0.0/29"]);
    for address in ["10.0.0.1", "10.96.0.0", "10.96.0.7"] {
        let spec = json!({"clusterIP": address, "clusterIPs": [address]});
        let refused = bench.write(&mut service("web", spec), None).await.expect_err("outside");
        let text = format!(
            "failed to allocate IP {address}: the provided network does not match the current range"
        );
        assert!(refused.message.ends_with(&text), "{}", refused.message);
    }
}

#[tokio::test]
async fn repair_makes_records_agree_with_services() {
    let bench = Bench::new(&["10.96.0.0/24"]);
    let spec = || json!({"type": "NodePort", "ports": [{"port": 80}]});
    let (mut stays, mut goes) = (service("stays", spec()), service("goes", spec()));
    bench.write(&mut stays, None).await.expect("free");
    bench.write(&mut goes, None).await.expect("free");
    let all = (bench.keys(claims::ADDRESSES), bench.keys(claims::PORTS));
    // As a store from before there were records, and one whose Service went without them.
    let writes = all.0.iter().map(|key| Write::delete(format!("{}{key}", claims::ADDRESSES)));
    let writes = writes.chain([Write::delete("/registry/services/default/goes")]).collect();
    bench.store.commit(vec![], writes, Durability::Durable).await.expect("broken");
    bench
        .put(
            &format!("{}10.96.0.5", claims::ADDRESSES),
            json!({
                "metadata": {"name": "10.96.0.5", "labels": {claims::MANAGED_BY: claims::MANAGER}},
                "spec": {"parentRef": {"resource": "services", "namespace": "x", "name": "y"}}
            }),
        )
        .await;
    bench.put(&format!("{}10.96.0.6", claims::ADDRESSES), json!({
        "metadata": {"name": "10.96.0.6"}, "spec": {"parentRef": {"name": "somebody else's"}}
    }))
    .await;

    for repair in repair::plan(&bench.store.snapshot(), NOW) {
        let repair::Repair { claims, .. } = repair;
        bench.store.commit(claims.guards, claims.writes, Durability::Durable).await.expect("done");
    }
    let port = stays["spec"]["ports"][0]["nodePort"].to_string();
    let address = stays["spec"]["clusterIP"].as_str().expect("address").to_owned();
    let mut addresses = [address, "10.96.0.6".to_owned()];
    addresses.sort();
    assert_eq!(bench.keys(claims::ADDRESSES), addresses);
    assert_eq!(bench.keys(claims::PORTS), [port]);
    assert!(repair::plan(&bench.store.snapshot(), NOW).is_empty(), "nothing is left to do");

    // What changed in between is not repaired on old knowledge.
    let write = Write::delete("/registry/services/default/stays");
    let stale = bench.store.snapshot();
    bench.store.commit(vec![], vec![write], Durability::Durable).await.expect("deleted");
    assert!(repair::plan(&stale, NOW).is_empty());
    let guard = Guard::new("/registry/services/default/stays", Expect::Absent);
    assert!(
        repair::plan(&bench.store.snapshot(), NOW)
            .iter()
            .all(|repair| { repair.claims.guards.contains(&guard) })
    );
}

#[tokio::test]
async fn families_follow_policy_and_cluster() {
    let (both, four, six) = (
        Bench::new(&["10.96.0.0/24", "fd00:10:96::/112"]),
        Bench::new(&["10.96.0.0/24"]),
        Bench::new(&["fd00:10:96::/112", "10.96.0.0/24"]),
    );
    let families = |service: &Value| service["spec"]["ipFamilies"].to_string();
    // (cluster, what is asked for, families or the end of the message)
    let cases = [
        (&both, json!({}), r#"["IPv4"]"#),
        (&six, json!({}), r#"["IPv6"]"#),
        (&both, json!({"ipFamilyPolicy": "PreferDualStack"}), r#"["IPv4","IPv6"]"#),
        (&four, json!({"ipFamilyPolicy": "PreferDualStack"}), r#"["IPv4"]"#),
        (&both, json!({"ipFamilies": ["IPv6"]}), r#"["IPv6"]"#),
        (
            &both,
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            r#"["IPv6","IPv4"]"#,
        ),
        (&four, json!({"clusterIP": "None", "clusterIPs": ["None"]}), r#"["IPv4","IPv6"]"#),
        (
            &four,
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
        ),
        (
            &four,
            json!({"ipFamilies": ["IPv6"]}),
            r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
        ),
        (
            &four,
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
            r#"spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster"#,
        ),
        (
            &both,
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#,
        ),
    ];
    for (index, (bench, spec, expected)) in cases.into_iter().enumerate() {
        let mut web = service(&format!("web{index}"), spec.clone());
        let got = match bench.write(&mut web, None).await {
            Ok(()) => families(&web),
            Err(status) => status.message,
        };
        assert!(got.ends_with(expected), "{spec}: {got}");
        let headless = web["spec"]["clusterIP"] == "None";
        if expected.starts_with('[') && !headless {
            let addresses = web["spec"]["clusterIPs"].as_array().expect("addresses");
            assert_eq!(addresses.len(), web["spec"]["ipFamilies"].as_array().expect("some").len());
        }
    }
}

#[tokio::test]
async fn a_second_family_comes_and_goes() {
    let bench = Bench::new(&["10.96.0.0/24", "fd00:10:96::/112"]);
    let mut web = service("web", json!({"ports": [{"port": 80}]}));
    bench.write(&mut web, None).await.expect("free");
    let mut dual = web.clone();
    dual["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    bench.write(&mut dual, Some(&web)).await.expect("upgraded");
    assert_eq!(dual["spec"]["clusterIPs"][0], web["spec"]["clusterIPs"][0]);
    let second = dual["spec"]["clusterIPs"][1].as_str().expect("a second").to_owned();
    assert!(second.starts_with("fd00:10:96::"), "{second}");
    assert_eq!(bench.keys(claims::ADDRESSES).len(), 2);

    let mut less = dual.clone();
    less["spec"]["clusterIPs"] = json!([dual["spec"]["clusterIPs"][0]]);
    let refused = bench.write(&mut less, Some(&dual)).await.expect_err("says nothing of it");
    assert!(
        refused.message.ends_with("must be 'SingleStack' to release the secondary cluster IP"),
        "{}",
        refused.message
    );

    let mut single = dual.clone();
    single["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    bench.write(&mut single, Some(&dual)).await.expect("downgraded");
    assert_eq!(single["spec"]["clusterIPs"], web["spec"]["clusterIPs"]);
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(bench.keys(claims::ADDRESSES).len(), 1);

    // One that prefers two and has one keeps it, although the cluster has two by now.
    let mut prefers = single.clone();
    prefers["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
    let old = prefers.clone();
    bench.write(&mut prefers, Some(&old)).await.expect("unchanged");
    assert_eq!(prefers["spec"]["ipFamilies"], json!(["IPv4"]));
}
