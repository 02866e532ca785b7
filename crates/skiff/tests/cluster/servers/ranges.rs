//! Ranges of Services: two families, further ranges, and ranges that go.

use testkit::eventually;

use super::{PATIENCE, Shared};

const MORE: &str = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
    "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}}"#;

#[test]
fn services_take_both_families_and_ranges_stay_while_they_are_needed() {
    let mut shared = Shared::new(1);
    shared.arguments = ["--service-cidr", "10.96.0.0/16,fd00:10:96::/112"].map(String::from).into();
    let (a, b) = (shared.add_ready_server(), shared.add_ready_server());
    let ready = |server: usize, name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        shared.kubectl(server, &["get", "servicecidr", name, "-o", path]).unwrap_or_default()
    };
    eventually("the range is ready", PATIENCE, || ready(b, "kubernetes") == "True");

    // A second family comes by one server and goes by the other.
    let policy = |server: usize, policy: &str| {
        let patch = format!(r#"{{"spec":{{"ipFamilyPolicy":"{policy}"}}}}"#);
        shared.kubectl(server, &["patch", "service", "web", "--type=merge", "-p", &patch]).unwrap();
        let path = "jsonpath={.spec.clusterIPs[*]}";
        let addresses = shared.kubectl(server, &["get", "service", "web", "-o", path]).unwrap();
        addresses.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    shared.kubectl(a, &["create", "service", "clusterip", "web", "--tcp=80"]).unwrap();
    let both = policy(b, "RequireDualStack");
    assert!(both.len() == 2 && both[1].starts_with("fd00:10:96::"), "{both:?}");
    assert!(shared.kubectl(a, &["get", "ipaddress", &both[1]]).is_ok());
    assert_eq!(policy(a, "SingleStack"), both[..1]);
    let gone = shared.kubectl(b, &["get", "ipaddress", &both[1]]).unwrap_err();
    assert!(gone.contains("NotFound"), "{gone}");

    // An address of a range that is added later; then the range may not go before the Service.
    let named = ["create", "service", "clusterip", "later", "--tcp=80", "--clusterip=10.97.0.7"];
    let refused = shared.kubectl(b, &named).unwrap_err();
    assert!(refused.contains("does not match the current range"), "{refused}");
    let file = shared.path("more.json");
    std::fs::write(&file, MORE).unwrap();
    shared.kubectl(a, &["apply", "-f", file.to_str().unwrap()]).unwrap();
    eventually("the new range is ready", PATIENCE, || ready(b, "more") == "True");
    shared.kubectl(b, &named).unwrap();
    shared.kubectl(a, &["delete", "servicecidr", "more", "--wait=false"]).unwrap();
    eventually("the range is needed", PATIENCE, || ready(b, "more") == "False");
    shared.kubectl(b, &["delete", "service", "later"]).unwrap();
    eventually("the range goes", PATIENCE, || {
        shared.kubectl(a, &["get", "servicecidr", "more"]).is_err_and(|e| e.contains("NotFound"))
    });
}
