//! Warnings about pods and their templates.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::address::address;
use super::volume::{OLD_VOLUMES, claim, fractions, old_volumes};
use super::{node_term, old_label};
use crate::rules::at::At;
use crate::view::View;

/// Annotations that fields took the place of.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const BYTES: &[&str] = &["memory", "ephemeral-storage"];
const NO_POD: &str = "a null labelSelector results in matching no pod";

/// Warnings about a pod, or about the template of one.
pub(super) fn warn(pod: &At<'_>, template: bool, out: &mut Vec<String>) {
    let spec = pod.field("spec");
    placement(&spec, out);
    for (key, text) in OLD_ANNOTATIONS {
        super::annotation(pod, key, text, out);
    }
    let drivers: Vec<&str> = OLD_VOLUMES.iter().map(|(driver, _)| *driver).collect();
    for volume in spec.each("volumes") {
        old_volumes(&volume, &drivers, out);
        let template = volume.field("ephemeral").field("volumeClaimTemplate");
        claim(&template.field("spec"), out);
    }
    repeated(&spec, "hostAliases", "ip", out);
    repeated(&spec, "imagePullSecrets", "name", out);
    for secret in
        spec.each("imagePullSecrets").filter(|secret| secret.value.text("name").is_empty())
    {
        out.push(format!("{}: invalid empty name \"\"", secret.path.child("name")));
    }
    fractions(&spec.field("overhead"), BYTES, out);
    if !spec.value.at("securityContext").has("seccompProfile") {
        super::annotation(pod, "seccomp.security.alpha.kubernetes.io/pod", SECCOMP, out);
    }
    let containers: Vec<At<'_>> = ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| spec.each(list))
        .collect();
    for container in &containers {
        of_container(pod, container, template, out);
    }
    ports(&containers, out);
    if spec.value.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let path = spec.path.child("terminationGracePeriodSeconds");
        out.push(format!(
            "{path}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.field("affinity").field(kind);
        for term in affinity.each("requiredDuringSchedulingIgnoredDuringExecution") {
            selects_nothing(&term, out);
        }
        for term in affinity.each("preferredDuringSchedulingIgnoredDuringExecution") {
            selects_nothing(&term.field("podAffinityTerm"), out);
        }
    }
    spec.field("dnsConfig").each("nameservers").for_each(|server| address(&server, out));
    spec.each("hostAliases").for_each(|alias| address(&alias.field("ip"), out));
}

fn selects_nothing(term: &At<'_>, out: &mut Vec<String>) {
    if !term.value.has("labelSelector") {
        out.push(format!("{}: {NO_POD}", term.path.child("labelSelector")));
    }
}

/// Labels of nodes that have other names by now.
fn placement(spec: &At<'_>, out: &mut Vec<String>) {
    let selector = spec.field("nodeSelector");
    for key in selector.value.as_object().into_iter().flatten().map(|(key, _)| key) {
        out.extend(old_label(key).map(|text| format!("{}: {text}", selector.path.key(key))));
    }
    let affinity = spec.field("affinity").field("nodeAffinity");
    let required = affinity.field("requiredDuringSchedulingIgnoredDuringExecution");
    required.each("nodeSelectorTerms").for_each(|term| node_term(&term, false, out));
    for term in affinity.each("preferredDuringSchedulingIgnoredDuringExecution") {
        node_term(&term.field("preference"), true, out);
    }
    for constraint in spec.each("topologySpreadConstraints") {
        let key = constraint.field("topologyKey");
        out.extend(
            old_label(key.str()).map(|text| format!("{}: {} is {text}", key.path, key.str())),
        );
        selects_nothing(&constraint, out);
    }
}

/// Items of a list that agree in what should tell them apart.
fn repeated(spec: &At<'_>, list: &str, field: &str, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in spec.each(list) {
        let value = item.field(field);
        if !seen.insert(value.str()) {
            out.push(format!("{}: duplicate {field} {:?}", value.path, value.str()));
        }
    }
}

fn of_container(pod: &At<'_>, container: &At<'_>, template: bool, out: &mut Vec<String>) {
    let name = container.value.text("name");
    let context = container.value.at("securityContext");
    if !context.has("seccompProfile") {
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        super::annotation(pod, &key, SECCOMP, out);
    }
    let of_pod = pod.value.at("spec").at("securityContext").at("appArmorProfile");
    if template && !context.has("appArmorProfile") {
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        let said = pod.value.at("metadata").at("annotations").text(&key);
        if of_pod.is_null() || !says_the_same(said, of_pod) {
            let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            super::annotation(pod, &key, text, out);
        }
    }
    let resources = container.field("resources");
    for name in BYTES {
        for part in ["limits", "requests"] {
            fractions(&resources.field(part), &[name], out);
        }
    }
    let mut seen = HashSet::new();
    for variable in container.each("env") {
        let name = variable.value.text("name");
        let (value, itself) = (variable.value.text("value"), format!("$({name})"));
        let hides = variable.value.has("valueFrom") || value == itself || !value.contains(&itself);
        if !seen.insert(name) && hides {
            out.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                variable.path
            ));
        }
    }
}

/// Whether an annotation and a profile mean one thing.
fn says_the_same(annotation: &str, profile: &Value) -> bool {
    match profile.text("type") {
        "RuntimeDefault" => annotation == "runtime/default",
        "Unconfined" => annotation == "unconfined",
        _ => annotation.strip_prefix("localhost/") == Some(profile.text("localhostProfile")),
    }
}

fn ports(containers: &[At<'_>], out: &mut Vec<String>) {
    let mut by_number: HashMap<(i64, &str), Vec<At<'_>>> = HashMap::new();
    for port in containers.iter().flat_map(|container| container.each("ports")) {
        let (host_ip, host_port) = host(&port);
        if !host_ip.is_empty() && host_port == 0 {
            out.push(format!("{}: hostIP set without hostPort: {}", port.path, shown(&port)));
        }
        let key = (port.value.int("containerPort").unwrap_or(0), port.str_of("protocol"));
        let others = by_number.entry(key).or_default();
        for other in others.iter() {
            let (other_ip, other_port) = host(other);
            let what = if (host_ip, host_port) == (other_ip, other_port) {
                "duplicate"
            } else if host_port == 0 || other_port == 0 {
                "overlapping"
            } else if host_port == other_port && host_ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{}: {what} port definition with {}", port.path, other.path));
        }
        // One to compare with is enough to be told; thousands of them would take minutes.
        if others.len() < 64 {
            others.push(port);
        }
    }
    let mut by_name = HashMap::new();
    for port in containers.iter().flat_map(|container| container.each("ports")) {
        let name = port.str_of("name");
        match by_name.get(name) {
            _ if name.is_empty() => {}
            None => drop(by_name.insert(name, port.path)),
            Some(first) => out.push(format!("{}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}", port.path)),
        }
    }
}

fn host<'a>(port: &At<'a>) -> (&'a str, i64) {
    (port.str_of("hostIP"), port.value.int("hostPort").unwrap_or(0))
}

/// A port as Go prints it.
fn shown(port: &At<'_>) -> String {
    let (ip, number) = host(port);
    let (name, protocol) = (port.str_of("name"), port.str_of("protocol"));
    let container = port.value.int("containerPort").unwrap_or(0);
    format!(
        "{{Name:{name} HostPort:{number} ContainerPort:{container} Protocol:{protocol} HostIP:{ip}}}"
    )
}
