//! What the allocator gives and refuses.

use serde_json::json;

use super::*;

fn allocator() -> Allocator {
    Allocator {
        network: Network {
            services: "10.96.0.0/29".parse().expect("network"),
            node_ports: 30000..=30002,
        },
        taken: Arc::default(),
    }
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": spec})
}

#[test]
fn a_reservation_that_is_not_committed_gives_back() {
    let allocator = allocator();
    let mut web = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    drop(allocator.reserve(&mut web, None).expect("free"));
    let mut web = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    allocator.reserve(&mut web, None).expect("free again").commit();
    let mut other =
        service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    let refused = allocator.reserve(&mut other, None).expect_err("taken");
    assert_eq!(
        refused.message,
        r#"Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"#
    );
    allocator.release(&web);
    allocator.reserve(&mut other, None).expect("released");
}

#[test]
fn the_range_runs_out() {
    let allocator = allocator();
    for _ in 0..6 {
        let mut web = service(json!({"ports": [{"port": 80}]}));
        allocator.reserve(&mut web, None).expect("free").commit();
        assert_eq!(web["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(web["spec"]["clusterIPs"][0], web["spec"]["clusterIP"]);
    }
    let refused = allocator.reserve(&mut service(json!({})), None).expect_err("full");
    assert_eq!(refused.code, 500);
    let mut headless = service(json!({"clusterIP": "None", "selector": {"a": "b"}}));
    allocator.reserve(&mut headless, None).expect("needs no address").commit();
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "SingleStack");
}

#[test]
fn a_change_of_type_gives_up_what_it_had() {
    let allocator = allocator();
    let mut web = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    allocator.reserve(&mut web, None).expect("free").commit();
    let mut plain = web.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    plain["spec"]["ports"] = json!([{"port": 80}]);
    allocator.reserve(&mut plain, Some(&web)).expect("same address").commit();
    assert!(allocator.taken.lock().ports.is_empty());
    assert_eq!(allocator.taken.lock().addresses.len(), 1);
}

#[test]
fn addresses_outside_the_range_are_refused() {
    let mut web = service(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}));
    let refused = allocator().reserve(&mut web, None).expect_err("outside");
    assert!(
        refused.message.ends_with(
            "failed to allocate IP 10.0.0.1: the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/29"
        ),
        "{}",
        refused.message
    );
}
