//! The objects themselves, as data: namespaces, priority classes, the `kubernetes` Service and its endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use meta::Status;
use serde_json::{Value, json};

use super::{Place, Writer};

/// How the API server is reached.
#[derive(Clone, Debug)]
pub(crate) struct Advertised {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Where all API servers of the cluster are, this one among them.
    pub(crate) servers: Vec<SocketAddr>,
    /// The cluster IP of the `kubernetes` Service.
    pub(crate) service_ip: IpAddr,
    /// The ranges cluster IPs come from.
    pub(crate) service_cidrs: Vec<String>,
    /// The authority that signs client certificates, as PEM.
    pub(crate) client_ca: String,
    /// What is said about proxies that speak for users.
    pub(crate) front: Vec<(&'static str, String)>,
}

/// A place that owns nothing but is built from constants.
pub(super) struct Fixed {
    group: &'static str,
    resource: &'static str,
    namespace: &'static str,
    name: &'static str,
}

impl Fixed {
    pub(super) fn get(&self) -> Place<'static> {
        let Self { group, resource, namespace, name } = *self;
        Place { group, version: "v1", resource, namespace, name }
    }
}

/// The namespaces every cluster has.
pub(super) fn namespaces() -> Vec<(Fixed, Value)> {
    ["default", "kube-system", "kube-public", "kube-node-lease"]
        .into_iter()
        .map(|name| {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            (Fixed { group: "", resource: "namespaces", namespace: "", name }, object)
        })
        .collect()
}

/// Everything else that is made once and then left to its administrator.
pub(super) fn all() -> Vec<(Fixed, Value)> {
    vec![
        priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// Tells extensions of the API server how users are known; what others wrote beside it stays.
pub(super) async fn publish_authentication(
    writer: &Writer,
    advertised: &Advertised,
) -> Result<(), Status> {
    let place = Place {
        group: "",
        version: "v1",
        resource: "configmaps",
        namespace: "kube-system",
        name: "extension-apiserver-authentication",
    };
    let client_ca = Some(("client-ca-file", advertised.client_ca.clone()));
    let client_ca = client_ca.filter(|(_, pem)| !pem.is_empty());
    let data: BTreeMap<&str, String> =
        client_ca.into_iter().chain(advertised.front.clone()).collect();
    if data.is_empty() {
        return Ok(());
    }
    let wanted = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": place.name, "namespace": place.namespace}, "data": data
    });
    let merge = |stored: &Value| {
        let mut merged = stored.clone();
        data.iter().for_each(|(key, value)| merged["data"][*key] = value.as_str().into());
        (merged != *stored).then_some(merged)
    };
    writer.ensure(place, &wanted, merge).await
}

/// Makes the ServiceCIDR of the configured ranges; a second family that was configured later is added.
pub(super) async fn ranges(writer: &Writer, advertised: &Advertised) -> Result<(), Status> {
    let place = Place {
        group: "networking.k8s.io",
        version: "v1",
        resource: "servicecidrs",
        namespace: "",
        name: "kubernetes",
    };
    let wanted = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": advertised.service_cidrs}
    });
    writer.ensure(place, &wanted, |stored| widened(stored, &wanted)).await
}

fn widened(stored: &Value, wanted: &Value) -> Option<Value> {
    let (now, then) = (&wanted["spec"]["cidrs"], &stored["spec"]["cidrs"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if now == then {
        return None;
    }
    if list(now).len() > list(then).len() && list(now).starts_with(&list(then)) {
        let mut merged = stored.clone();
        merged["spec"]["cidrs"] = now.clone();
        return Some(merged);
    }
    tracing::warn!(
        configured = %now,
        used = %then,
        "Services get addresses from the ServiceCIDR kubernetes, which says otherwise than --service-cidr"
    );
    None
}

fn priority_class(name: &'static str, value: i64, description: &str) -> (Fixed, Value) {
    let place =
        Fixed { group: "scheduling.k8s.io", resource: "priorityclasses", namespace: "", name };
    let object = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
        "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority"
    });
    (place, object)
}

fn service(advertised: &Advertised) -> (Fixed, Value) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}
        },
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "clusterIP": advertised.service_ip.to_string(),
            "ports": [{
                "name": "https", "protocol": "TCP", "port": 443, "targetPort": advertised.address.port()
            }]
        }
    });
    (Fixed { group: "", resource: "services", namespace: "default", name: "kubernetes" }, object)
}

/// Makes Service, Endpoints and EndpointSlice say where the API servers are, whatever they said before.
pub(crate) async fn endpoints(writer: &Writer, advertised: &Advertised) -> Result<(), Status> {
    let (place, wanted) = service(advertised);
    writer
        .ensure(place.get(), &wanted, |stored| {
            let mut merged = stored.clone();
            let port = advertised.address.port();
            // Several servers may listen on several ports; they would correct each other for ever.
            let alone = advertised.servers.len() == 1;
            if alone && let Some(first) = merged.pointer_mut("/spec/ports/0") {
                first["targetPort"] = port.into();
            }
            (merged != *stored).then_some(merged)
        })
        .await?;
    // Kubernetes allows no loopback endpoint: it would mean another machine to everybody who reads it.
    let servers = advertised.servers.iter().filter(|server| !server.ip().is_loopback());
    // A slice has one family; that of this server counts, as the Service's first address has it.
    let servers = servers.filter(|server| server.is_ipv4() == advertised.address.is_ipv4());
    let servers: Vec<&SocketAddr> = servers.collect();
    // What listens on the same port is one subset; servers that do not are the exception.
    let mut by_port: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for server in &servers {
        by_port.entry(server.port()).or_default().push(server.ip().to_string());
    }
    let port_list = |port: u16| json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subset = |(port, addresses): (&u16, &Vec<String>)| {
        let addresses: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        json!({"addresses": addresses, "ports": port_list(*port)})
    };
    let subsets: Vec<Value> = by_port.iter().map(subset).collect();
    // A slice has one list of ports as well.
    let Some((port, addresses)) = by_port.first_key_value() else { return Ok(()) };
    let endpoint = |address| json!({"addresses": [address], "conditions": {"ready": true}});
    let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
    let legacy = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}
        },
        "subsets": subsets
    });
    let place = Place {
        group: "",
        version: "v1",
        resource: "endpoints",
        namespace: "default",
        name: "kubernetes",
    };
    writer.ensure(place, &legacy, |stored| overwritten(stored, &legacy, &["subsets"])).await?;
    let family = if advertised.address.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": port_list(*port)
    });
    let place = Place {
        group: "discovery.k8s.io",
        version: "v1",
        resource: "endpointslices",
        namespace: "default",
        name: "kubernetes",
    };
    writer
        .ensure(place, &slice, |stored| overwritten(stored, &slice, &["endpoints", "ports"]))
        .await
}

/// The stored object with these fields and the labels as wanted, or none if they are already.
fn overwritten(stored: &Value, wanted: &Value, fields: &[&str]) -> Option<Value> {
    let mut merged = stored.clone();
    for field in fields {
        merged[*field] = wanted[*field].clone();
    }
    for (key, value) in wanted["metadata"]["labels"].as_object().into_iter().flatten() {
        merged["metadata"]["labels"][key] = value.clone();
    }
    (merged != *stored).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_family_is_added_and_nothing_is_taken_away() {
        let object = |cidrs: &[&str]| json!({"spec": {"cidrs": cidrs}});
        let (one, two) = (object(&["10.0.0.0/16"]), object(&["10.0.0.0/16", "fd00::/112"]));
        assert_eq!(widened(&one, &two), Some(two.clone()));
        assert_eq!(widened(&two, &one), None);
        assert_eq!(widened(&two, &two), None);
        assert_eq!(widened(&one, &object(&["10.1.0.0/16", "fd00::/112"])), None);
    }

    #[test]
    fn an_address_that_moved_is_corrected() {
        let wanted = json!({"metadata": {"labels": {"a": "1"}}, "subsets": [1]});
        let stored = json!({"metadata": {"name": "kubernetes"}, "subsets": [2], "other": 3});
        let merged = overwritten(&stored, &wanted, &["subsets"]).expect("a change");
        assert_eq!((&merged["subsets"], &merged["other"]), (&json!([1]), &json!(3)));
        assert!(overwritten(&merged, &wanted, &["subsets"]).is_none());
    }
}
