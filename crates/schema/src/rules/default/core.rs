//! Defaults of the core group's other kinds.

use serde_json::{Map, Value, json};

use super::{Fill, fill_in, object_in};
use crate::view::View;

/// How long a client sticks to an endpoint: three hours.
const AFFINITY_SECONDS: i64 = 10_800;

/// The defaults of a type of this file.
pub(super) fn of(name: &str) -> Option<Fill> {
    Some(match name.strip_prefix("io.k8s.api.core.v1.")? {
        "Service" => service,
        "Secret" => secret,
        "Namespace" => namespace,
        "NodeSpec" => node_spec,
        "NodeStatus" => |status| {
            if !status.has("allocatable") && status.has("capacity") {
                let capacity = status.at("capacity").clone();
                status.insert("allocatable".to_owned(), capacity);
            }
        },
        "EndpointPort" => |port| fill_in(port, "protocol", "TCP"),
        "PersistentVolume" => |volume| {
            if let Some(status) = object_in(volume, "status") {
                fill_in(status, "phase", "Pending");
            }
            if let Some(spec) = object_in(volume, "spec") {
                fill_in(spec, "persistentVolumeReclaimPolicy", "Retain");
                fill_in(spec, "volumeMode", "Filesystem");
            }
        },
        "PersistentVolumeClaim" => |claim| {
            if let Some(status) = object_in(claim, "status") {
                fill_in(status, "phase", "Pending");
            }
        },
        "PersistentVolumeClaimSpec" => |spec| fill_in(spec, "volumeMode", "Filesystem"),
        "ReplicationController" => replication_controller,
        "LimitRangeItem" => limit_range_item,
        _ => return None,
    })
}

/// `podCIDR` and `podCIDRs` say the same; where they differ, clients that know only the former are right.
fn node_spec(spec: &mut Map<String, Value>) {
    let first = spec.at("podCIDRs")[0].as_str().unwrap_or_default().to_owned();
    let range = spec.text("podCIDR").to_owned();
    if range.is_empty() && !first.is_empty() {
        spec.insert("podCIDR".to_owned(), first.into());
    } else if !range.is_empty() && range != first {
        spec.insert("podCIDRs".to_owned(), json!([range]));
    }
}

fn service(service: &mut Map<String, Value>) {
    let Some(spec) = object_in(service, "spec") else { return };
    fill_in(spec, "sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => drop(spec.remove("sessionAffinityConfig")),
        "ClientIP"
            if spec.at("sessionAffinityConfig").at("clientIP").int("timeoutSeconds").is_none() =>
        {
            let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
            spec.insert("sessionAffinityConfig".to_owned(), config);
        }
        _ => {}
    }
    fill_in(spec, "type", "ClusterIP");
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(port) = port {
            fill_in(port, "protocol", "TCP");
            let number = port.int("port").unwrap_or_default();
            if *port.at("targetPort") == 0 || port.at("targetPort") == "" || !port.has("targetPort")
            {
                port.insert("targetPort".to_owned(), number.into());
            }
        }
    }
    let kind = spec.text("type").to_owned();
    let balanced = kind == "LoadBalancer";
    let external = balanced
        || kind == "NodePort"
        || (kind == "ClusterIP" && !spec.items("externalIPs").is_empty());
    if external {
        fill_in(spec, "externalTrafficPolicy", "Cluster");
    }
    if balanced || kind == "NodePort" || kind == "ClusterIP" {
        fill_in(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        fill_in(spec, "allocateLoadBalancerNodePorts", true);
        let status = service
            .get_mut("status")
            .and_then(|status| status.pointer_mut("/loadBalancer/ingress"));
        for ingress in status.and_then(Value::as_array_mut).into_iter().flatten() {
            let addressed = !ingress.text("ip").is_empty();
            if let (Value::Object(ingress), true) = (ingress, addressed) {
                fill_in(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// The write-only `stringData` goes into `data`.
fn secret(secret: &mut Map<String, Value>) {
    use base64::Engine as _;
    fill_in(secret, "type", "Opaque");
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let Some(data) = object_in(secret, "data") else { return };
    for (key, text) in texts {
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        data.insert(key, Value::String(encoded));
    }
}

fn namespace(namespace: &mut Map<String, Value>) {
    let name = namespace.at("metadata").text("name").to_owned();
    if let (Some(metadata), false) = (object_in(namespace, "metadata"), name.is_empty())
        && let Some(labels) = object_in(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), Value::String(name));
    }
    if let Some(status) = object_in(namespace, "status") {
        fill_in(status, "phase", "Active");
    }
}

fn replication_controller(controller: &mut Map<String, Value>) {
    let labels = controller.at("spec").at("template").at("metadata").entries("labels").clone();
    if labels.is_empty() {
        return;
    }
    if let Some(spec) = object_in(controller, "spec")
        && spec.entries("selector").is_empty()
    {
        spec.insert("selector".to_owned(), Value::Object(labels.clone()));
    }
    if let Some(metadata) = object_in(controller, "metadata")
        && metadata.entries("labels").is_empty()
    {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
}

fn limit_range_item(item: &mut Map<String, Value>) {
    if item.text("type") != "Container" {
        return;
    }
    let inherit = |from: &Map<String, Value>, to: &mut Map<String, Value>| {
        for (name, amount) in from {
            to.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    let mut default = item.entries("default").clone();
    inherit(item.entries("max"), &mut default);
    let mut request = item.entries("defaultRequest").clone();
    inherit(&default, &mut request);
    inherit(item.entries("min"), &mut request);
    for (key, value) in [("default", default), ("defaultRequest", request)] {
        if !value.is_empty() {
            item.insert(key.to_owned(), Value::Object(value));
        }
    }
}
