//! Services: keeping allocated addresses and ports through updates that do not mention them, and
//! dropping what another type does not have.
//!
//! Allocation itself is the allocator's.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Strategy;
use crate::object::{child, set_or_remove, set_or_remove_in};
use crate::request::UserInfo;

/// `v1 Service`.
#[derive(Debug)]
pub(super) struct Service;

impl Strategy for Service {
    fn allocates(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Value, _: &UserInfo, _: bool) {
        object["status"] = serde_json::json!({"loadBalancer": {}});
        normalize_cluster_ips(object, None);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: bool) {
        set_or_remove(object, "status", &old["status"]);
        normalize_cluster_ips(object, Some(old));
        keep_allocated(object, old);
        drop_foreign_fields(object, old);
    }
}

/// The service's type, `ClusterIP` unless it says otherwise.
pub(crate) fn service_type(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

/// Whether services of that type have a cluster IP.
pub(crate) fn has_cluster_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

/// Whether services of that type have node ports.
pub(crate) fn has_node_ports(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

/// Whether the service has a health check node port.
pub(crate) fn has_health_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

/// `clusterIP`, empty where unset.
pub(crate) fn cluster_ip(service: &Value) -> &str {
    service["spec"]["clusterIP"].as_str().unwrap_or_default()
}

/// Keeps the singular and the plural field of the cluster IP in step, whichever a client knows.
fn normalize_cluster_ips(object: &mut Value, old: Option<&Value>) {
    let singular = cluster_ip(object).to_owned();
    let plural = object["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    let spec = child(object, "spec");
    match old {
        None => {
            if !singular.is_empty() && plural.is_empty() {
                spec.insert("clusterIPs".to_owned(), vec![singular].into());
            }
        }
        Some(old) => {
            let singular_changed = cluster_ip(old) != singular;
            let plural_changed = old["spec"]["clusterIPs"] != Value::from(plural.clone());
            if singular_changed && !plural_changed {
                // The client knows the singular alone: it was cleared, or replaced.
                if singular.is_empty() {
                    spec.remove("clusterIPs");
                } else {
                    spec.insert("clusterIPs".to_owned(), vec![singular].into());
                }
            }
        }
    }
}

/// Takes addresses and ports which the new object leaves open from the old one.
fn keep_allocated(object: &mut Value, old: &Value) {
    if has_cluster_ip(object) && has_cluster_ip(old) && cluster_ip(object).is_empty() {
        let plural = &object["spec"]["clusterIPs"];
        if plural.as_array().is_none_or(Vec::is_empty) {
            let (singular, plural) =
                (old["spec"]["clusterIP"].clone(), old["spec"]["clusterIPs"].clone());
            set_or_remove_in(child(object, "spec"), "clusterIP", &singular);
            set_or_remove_in(child(object, "spec"), "clusterIPs", &plural);
        }
    }
    if has_node_ports(object) && has_node_ports(old) {
        keep_node_ports(object, old);
    }
    if has_health_port(object) && has_health_port(old) {
        let port = old["spec"]["healthCheckNodePort"].clone();
        let spec = child(object, "spec");
        if spec.get("healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0) == 0
            && !port.is_null()
        {
            spec.insert("healthCheckNodePort".to_owned(), port);
        }
    }
}

fn keep_node_ports(object: &mut Value, old: &Value) {
    let identity = |port: &Value| (port["protocol"].clone(), port["port"].clone());
    let node_port = |port: &Value| port["nodePort"].as_u64().filter(|p| *p != 0);
    let list = |object: &Value| object["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let mut held = HashMap::new();
    for port in list(old) {
        held.entry(identity(&port)).or_insert(node_port(&port));
    }
    let mut used: HashSet<u64> = list(object).iter().filter_map(node_port).collect();
    let Some(ports) = child(object, "spec").get_mut("ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports.iter_mut().filter(|p| node_port(p).is_none()) {
        let kept = held.get(&identity(port)).copied().flatten();
        if let Some(kept) = kept.filter(|kept| used.insert(*kept)) {
            port["nodePort"] = kept.into();
        }
    }
}

/// Drops fields that the new type does not have, if the client merely left them as they were.
fn drop_foreign_fields(object: &mut Value, old: &Value) {
    let unchanged = |object: &Value, field: &str| object["spec"][field] == old["spec"][field];
    let (cluster_ip, node_ports, health, balancer) = (
        has_cluster_ip(object),
        has_node_ports(object),
        has_health_port(object),
        service_type(object) == "LoadBalancer",
    );
    let mut drop = Vec::new();
    let has_external_policy =
        node_ports || object["spec"]["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    let fields = [
        (cluster_ip, "clusterIP"),
        (cluster_ip, "clusterIPs"),
        (cluster_ip, "ipFamilies"),
        (cluster_ip, "ipFamilyPolicy"),
        (cluster_ip, "internalTrafficPolicy"),
        (health, "healthCheckNodePort"),
        (balancer, "allocateLoadBalancerNodePorts"),
        (balancer, "loadBalancerClass"),
        (has_external_policy, "externalTrafficPolicy"),
    ];
    for (has, field) in fields {
        if !has && unchanged(object, field) {
            drop.push(field);
        }
    }
    let ports_unchanged = {
        let ports = |o: &Value| -> Vec<Value> {
            let list = o["spec"]["ports"].as_array().into_iter().flatten();
            list.map(|p| p["nodePort"].clone()).filter(|p| !p.is_null()).collect()
        };
        ports(object) == ports(old)
    };
    let spec = child(object, "spec");
    for field in drop {
        spec.remove(field);
    }
    if !node_ports && ports_unchanged {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(port) = port {
                port.remove("nodePort");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_update_that_says_nothing_keeps_what_was_allocated() {
        let old = json!({"spec": {
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        }});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        Service.prepare_update(&mut new, &old, true);
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.9");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(new["spec"]["ports"][1].get("nodePort").is_none());
    }

    #[test]
    fn another_type_drops_what_it_does_not_have() {
        let old = json!({"spec": {
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        }});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        Service.prepare_update(&mut new, &old, true);
        assert_eq!(
            new["spec"],
            json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "protocol": "TCP"}]})
        );
    }
}
