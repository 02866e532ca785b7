//! Defaults of pods, pod specs, containers, probes and volumes.

use serde_json::{Map, Value, json};

use super::{Fill, fill_in, fill_zero, make, object_in};
use crate::view::View;

/// The defaults of a type of this file.
pub(super) fn of(name: &str) -> Option<Fill> {
    Some(match name.strip_prefix("io.k8s.api.core.v1.")? {
        "Pod" => pod,
        "PodSpec" => pod_spec,
        "PodTemplateSpec" => |template| make(template, "spec"),
        "Container" | "EphemeralContainer" => container,
        "Probe" => probe,
        "HTTPGetAction" => |action| {
            fill_in(action, "path", "/");
            fill_in(action, "scheme", "HTTP");
        },
        "GRPCAction" => |action| fill_in(action, "service", ""),
        "ObjectFieldSelector" => |selector| fill_in(selector, "apiVersion", "v1"),
        "Volume" => volume,
        "SecretVolumeSource"
        | "ConfigMapVolumeSource"
        | "DownwardAPIVolumeSource"
        | "ProjectedVolumeSource" => |source| fill_in(source, "defaultMode", 0o644),
        "ServiceAccountTokenProjection" => {
            |projection| fill_in(projection, "expirationSeconds", 3600)
        }
        "HostPathVolumeSource" => |source| fill_in(source, "type", ""),
        _ => return None,
    })
}

fn pod(pod: &mut Map<String, Value>) {
    let Some(spec) = object_in(pod, "spec") else { return };
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            requests_from_limits(container);
        }
    }
    pod_limits(spec);
    pod_requests(spec);
    fill_in(spec, "enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
            {
                host_ports(container);
            }
        }
    }
}

/// A container that limits a resource requests as much of it.
fn requests_from_limits(container: &mut Value) {
    let limits = container.at("resources").entries("limits").clone();
    if limits.is_empty() {
        return;
    }
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(requests) = object_in(resources, "requests") else { return };
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// Pod-level limits of huge pages: what the containers may have together, unless the pod requests such pages.
fn pod_limits(spec: &mut Map<String, Value>) {
    let resources = spec.at("resources");
    let mut limits = resources.entries("limits").clone();
    if limits.is_empty() && resources.entries("requests").is_empty() {
        return;
    }
    for (name, amount) in crate::amounts::aggregate(spec, "limits") {
        if name.starts_with("hugepages-") && !spec.at("resources").at("requests").has(&name) {
            limits.entry(name).or_insert_with(|| Value::String(amount.to_string()));
        }
    }
    if !limits.is_empty()
        && let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut)
    {
        resources.insert("limits".to_owned(), Value::Object(limits));
    }
}

/// Pod-level requests: what the containers request together, else the pod's limits.
fn pod_requests(spec: &mut Map<String, Value>) {
    let limits = spec.at("resources").entries("limits").clone();
    if limits.is_empty() {
        return;
    }
    let supported =
        |name: &str| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
    let mut requests = spec.at("resources").entries("requests").clone();
    let together = crate::amounts::aggregate(spec, "requests");
    for (name, amount) in together {
        if supported(&name) && !name.starts_with("hugepages-") {
            requests.entry(name).or_insert_with(|| Value::String(amount.to_string()));
        }
    }
    for (name, amount) in limits {
        if supported(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    if !requests.is_empty()
        && let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut)
    {
        resources.insert("requests".to_owned(), Value::Object(requests));
    }
}

fn host_ports(container: &mut Value) {
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port.int("containerPort").unwrap_or_default();
        if let (Value::Object(port), true) = (port, number != 0) {
            fill_zero(port, "hostPort", number);
        }
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    fill_in(spec, "dnsPolicy", "ClusterFirst");
    fill_in(spec, "restartPolicy", "Always");
    fill_in(spec, "securityContext", json!({}));
    fill_in(spec, "terminationGracePeriodSeconds", 30);
    fill_in(spec, "schedulerName", "default-scheduler");
    // The deprecated alias follows the field that replaced it.
    let alias = spec.text("serviceAccount").to_owned();
    if !alias.is_empty() {
        fill_in(spec, "serviceAccountName", alias);
    }
    let name = spec.text("serviceAccountName").to_owned();
    if !name.is_empty() {
        spec.insert("serviceAccount".to_owned(), Value::String(name));
    }
}

fn container(container: &mut Map<String, Value>) {
    let policy = if is_latest(container.text("image")) { "Always" } else { "IfNotPresent" };
    fill_in(container, "imagePullPolicy", policy);
    fill_in(container, "terminationMessagePath", "/dev/termination-log");
    fill_in(container, "terminationMessagePolicy", "File");
    fill_in(container, "resources", json!({}));
}

/// Whether an image reference names the tag `latest`, as it does when it has neither tag nor digest.
pub(super) fn is_latest(image: &str) -> bool {
    if image.is_empty() {
        return false;
    }
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !digest,
    }
}

fn probe(probe: &mut Map<String, Value>) {
    fill_zero(probe, "timeoutSeconds", 1);
    fill_zero(probe, "periodSeconds", 10);
    fill_zero(probe, "successThreshold", 1);
    fill_zero(probe, "failureThreshold", 3);
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
        let policy = if is_latest(image.text("reference")) { "Always" } else { "IfNotPresent" };
        fill_in(image, "pullPolicy", policy);
    }
}
