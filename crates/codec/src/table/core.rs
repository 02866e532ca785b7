//! Rows of the core group's other kinds, events and endpoint slices.

use jiff::Timestamp;
use schema::View;
use serde_json::{Value, json};

use super::Cells;
use super::format::{age, containers, joined, labels, name, number, or, since, with_more};

/// The table of a kind of this file.
pub(super) fn printer(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    Some(match key {
        ("", "PodTemplate") => ("podTemplate", |object, _| {
            let template = object.at("template");
            let (names, images) = containers(template.at("spec"));
            vec![
                name(object),
                names,
                images,
                labels(template.at("metadata").entries("labels")).into(),
            ]
        }),
        ("", "Service") => ("service", service),
        ("", "Endpoints") => ("endpoint", |object, now| {
            vec![name(object), endpoints(object).into(), age(object, now)]
        }),
        ("discovery.k8s.io", "EndpointSlice") => ("endpointSlice", endpoint_slice),
        ("", "Node") => ("node", node),
        ("" | "events.k8s.io", "Event") => ("event", event),
        ("", "Namespace") => ("namespace", |object, now| {
            vec![name(object), object.at("status").text("phase").into(), age(object, now)]
        }),
        ("", "Secret") => ("secret", |object, now| {
            let count = object.entries("data").len();
            vec![name(object), object.text("type").into(), count.into(), age(object, now)]
        }),
        ("", "ConfigMap") => ("configMap", |object, now| {
            let count = object.entries("data").len() + object.entries("binaryData").len();
            vec![name(object), count.into(), age(object, now)]
        }),
        ("", "ServiceAccount") => {
            ("serviceAccount", |object, now| vec![name(object), age(object, now)])
        }
        ("", "PersistentVolume") => ("persistentVolume", persistent_volume),
        ("", "PersistentVolumeClaim") => ("persistentVolumeClaim", persistent_volume_claim),
        ("", "ComponentStatus") => ("componentStatus", component_status),
        ("", "ResourceQuota") => ("resourceQuota", resource_quota),
        _ => return None,
    })
}

fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = service.at("spec");
    let cluster_ip =
        spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or(spec.text("clusterIP"));
    let ports: Vec<String> = spec
        .items("ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (port.int("port").unwrap_or_default(), port.text("protocol"));
            match port.int("nodePort").unwrap_or_default() {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    vec![
        name(service),
        spec.text("type").into(),
        or(cluster_ip, "<none>").into(),
        external_ip(service).into(),
        or(&ports.join(","), "<none>").into(),
        age(service, now),
        labels(spec.entries("selector")).into(),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = service.at("spec");
    let external = joined(spec.items("externalIPs"), ",");
    match spec.text("type") {
        "ClusterIP" | "NodePort" => or(&external, "<none>").to_owned(),
        "LoadBalancer" => {
            let balancer = load_balancer(service);
            match (balancer.as_str(), external.as_str()) {
                ("", "") => "<pending>".to_owned(),
                (one, "") | ("", one) => one.to_owned(),
                (one, other) => format!("{one},{other}"),
            }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses or host names of a load balancer, sorted.
pub(super) fn load_balancer(object: &Value) -> String {
    let ingress = object.at("status").at("loadBalancer").items("ingress");
    let mut addresses: Vec<&str> = ingress
        .iter()
        .map(|entry| or(entry.text("ip"), entry.text("hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

fn endpoints(endpoints: &Value) -> String {
    const MOST: usize = 3;
    let mut all = Vec::new();
    for subset in endpoints.items("subsets") {
        let ports = subset.items("ports");
        for port in ports {
            let number = port.int("port").unwrap_or_default();
            all.extend(subset.items("addresses").iter().map(|address| match address.text("ip") {
                ip if ip.contains(':') => format!("[{ip}]:{number}"),
                ip => format!("{ip}:{number}"),
            }));
        }
        if ports.is_empty() {
            all.extend(
                subset.items("addresses").iter().map(|address| address.text("ip").to_owned()),
            );
        }
    }
    match all.is_empty() {
        true if endpoints.items("subsets").is_empty() => "<none>".to_owned(),
        true => String::new(),
        false => with_more(&all, MOST),
    }
}

fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    const MOST: usize = 3;
    let ports: Vec<String> = slice
        .items("ports")
        .iter()
        .map(|port| match (port.int("port"), port.at("name").as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = slice
        .items("endpoints")
        .iter()
        .flat_map(|endpoint| endpoint.items("addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        name(slice),
        slice.text("addressType").into(),
        with_more(&ports, MOST).into(),
        with_more(&addresses, MOST).into(),
        age(slice, now),
    ]
}

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let (status, info) = (node.at("status"), node.at("status").at("nodeInfo"));
    let ready =
        status.items("conditions").iter().find(|condition| condition.text("type") == "Ready");
    let mut words = match ready.map(|condition| condition.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.at("spec").flag("unschedulable") {
        words.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = node
        .at("metadata")
        .entries("labels")
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found = status.items("addresses").iter().find(|address| address.text("type") == kind);
        or(found.map_or("", |address| address.text("address")), "<none>").to_owned()
    };
    let mut kernel = or(info.text("kernelVersion"), "<unknown>").to_owned();
    let architecture = info.text("architecture");
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        name(node),
        words.into(),
        or(&roles.join(","), "<none>").into(),
        age(node, now),
        info.text("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info.text("osImage"), "<unknown>").into(),
        kernel.into(),
        or(info.text("containerRuntimeVersion"), "<unknown>").into(),
    ]
}

/// Events of the core group; those of events.k8s.io name some fields otherwise.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let field = |one: &'static str, other: &'static str| {
        if event.has(one) { event.at(one) } else { event.at(other) }
    };
    let first = field("firstTimestamp", "deprecatedFirstTimestamp");
    let first = since(if first.is_null() { event.at("eventTime") } else { first }, now);
    let last = field("lastTimestamp", "deprecatedLastTimestamp");
    let mut last = if last.is_null() { first.clone() } else { since(last, now) };
    let mut count = field("count", "deprecatedCount").as_i64().unwrap_or_default().max(1);
    let series = event.at("series");
    if !series.is_null() {
        last = since(series.at("lastObservedTime"), now);
        count = series.int("count").unwrap_or_default();
    }
    let object = field("involvedObject", "regarding");
    let kind = object.text("kind").to_lowercase();
    let target = match object.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = field("source", "deprecatedSource");
    let component = or(
        source.text("component"),
        or(event.text("reportingComponent"), event.text("reportingController")),
    );
    let source = match or(source.text("host"), event.text("reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    let message = field("message", "note").as_str().unwrap_or_default().trim();
    vec![
        last.into(),
        event.text("type").into(),
        event.text("reason").into(),
        target.into(),
        object.text("fieldPath").into(),
        source.into(),
        message.into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

/// Access modes in short: `RWO,ROX`.
fn access_modes(modes: &[Value]) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short: Vec<&str> = known
        .iter()
        .filter(|(mode, _)| modes.contains(&json!(mode)))
        .map(|(_, short)| *short)
        .collect();
    short.join(",")
}

fn storage_class(object: &Value) -> String {
    let old =
        object.at("metadata").at("annotations").text("volume.beta.kubernetes.io/storage-class");
    or(old, object.at("spec").text("storageClassName")).to_owned()
}

fn phase(object: &Value) -> &str {
    let terminating = object.at("metadata").has("deletionTimestamp");
    if terminating { "Terminating" } else { object.at("status").text("phase") }
}

fn persistent_volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, claim) = (volume.at("spec"), volume.at("spec").at("claimRef"));
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!("{}/{}", claim.text("namespace"), claim.text("name"))
    };
    vec![
        name(volume),
        or(spec.at("capacity").text("storage"), "0").into(),
        access_modes(spec.items("accessModes")).into(),
        spec.text("persistentVolumeReclaimPolicy").into(),
        phase(volume).into(),
        claim.into(),
        storage_class(volume).into(),
        or(spec.text("volumeAttributesClassName"), "<unset>").into(),
        volume.at("status").text("reason").into(),
        age(volume, now),
        or(spec.text("volumeMode"), "<unset>").into(),
    ]
}

fn persistent_volume_claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (claim.at("spec"), claim.at("status"));
    let bound = !spec.text("volumeName").is_empty();
    let capacity = if bound { or(status.at("capacity").text("storage"), "0") } else { "" };
    let modes = if bound { access_modes(status.items("accessModes")) } else { String::new() };
    vec![
        name(claim),
        phase(claim).into(),
        spec.text("volumeName").into(),
        capacity.into(),
        modes.into(),
        storage_class(claim).into(),
        or(spec.text("volumeAttributesClassName"), "<unset>").into(),
        age(claim, now),
        or(spec.text("volumeMode"), "<unset>").into(),
    ]
}

fn component_status(status: &Value, _: Timestamp) -> Vec<Value> {
    let healthy =
        status.items("conditions").iter().find(|condition| condition.text("type") == "Healthy");
    let (word, message, error) = match healthy {
        Some(condition) if condition.text("status") == "True" => {
            ("Healthy", condition.text("message"), condition.text("error"))
        }
        Some(condition) => ("Unhealthy", condition.text("message"), condition.text("error")),
        None => ("Unknown", "", ""),
    };
    vec![name(status), word.into(), message.into(), error.into()]
}

fn resource_quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = quota.at("status");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in status.entries("hard") {
        let used = or(status.at("used").text(resource), "0");
        let entry = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
    }
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota, now)]
}

/// The number of items in a list.
pub(super) fn count(object: &Value, list: &str) -> Value {
    object.items(list).len().into()
}

/// Cells of a kind that scales: name, desired, current, ready.
pub(super) fn scaled(object: &Value) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    vec![
        name(object),
        number(spec, "replicas"),
        number(status, "replicas"),
        number(status, "readyReplicas"),
    ]
}
