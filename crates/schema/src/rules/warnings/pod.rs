//! Warnings about pods and their templates.

use std::collections::{HashMap, HashSet};

use meta::FieldPath;
use serde_json::Value;

use super::{GONE, MOST, Warnings, claim, entry, fraction, labels, paths, say, source_path};
use crate::rules::at::At;
use crate::rules::pod::{APP_ARMOR, SECCOMP_CONTAINER, app_armor_profile};
use crate::rules::warnings::address;
use crate::view::View;

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_TEXT: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// What is said of annotations that mean nothing any more.
const ANNOTATIONS: &[(&str, &str)] = &[
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

/// Warns of a pod.
pub(super) fn pod(pod: &At<'_>, said: &mut Warnings) {
    all(pod, false, said);
}

/// Warns of a template.
pub(super) fn template(template: &At<'_>, said: &mut Warnings) {
    if template.value.is_object() {
        all(template, true, said);
    }
}

fn all(owner: &At<'_>, is_template: bool, said: &mut Warnings) {
    let (spec, meta) = (owner.field("spec"), owner.field("metadata"));
    let annotations = meta.field("annotations");
    placement(&spec, said);
    for (key, text) in ANNOTATIONS.iter().filter(|(key, _)| annotations.has(key)) {
        say(&annotations.path.key(key), text, said);
    }
    volumes(&spec, said);
    paths::overlapping(&spec, said);
    repeated(&spec, said);
    for name in ["memory", "ephemeral-storage"] {
        fraction(&entry(&spec.field("overhead"), name), said);
    }
    let security = spec.at("securityContext");
    if !security.has("seccompProfile") && annotations.has(SECCOMP_POD) {
        say(&annotations.path.key(SECCOMP_POD), SECCOMP_TEXT, said);
    }
    for container in containers(&spec) {
        let own = container.at("securityContext");
        let name = container.str_of("name");
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if !own.has("seccompProfile") && annotations.has(&key) {
            say(&annotations.path.key(&key), SECCOMP_TEXT, said);
        }
        let key = format!("{APP_ARMOR}{name}");
        let same = || {
            let profile = app_armor_profile(annotations.text(&key));
            security.has("appArmorProfile")
                && profile.as_ref() == Some(security.at("appArmorProfile"))
        };
        if is_template && !own.has("appArmorProfile") && annotations.has(&key) && !same() {
            let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            say(&annotations.path.key(&key), text, said);
        }
        for resource in ["memory", "ephemeral-storage"] {
            for kind in ["limits", "requests"] {
                fraction(&entry(&container.field("resources").field(kind), resource), said);
            }
        }
        variables(&container, said);
    }
    ports(&spec, said);
    let grace = spec.field("terminationGracePeriodSeconds");
    if grace.number() < 0 {
        say(
            &grace.path,
            "must be >= 0; negative values are invalid and will be treated as 1",
            said,
        );
    }
    affinity(&spec.field("affinity"), said);
    spec.field("dnsConfig").each("nameservers").for_each(|ip| address::ip(&ip, said));
    spec.each("hostAliases").for_each(|alias| address::ip(&alias.field("ip"), said));
}

fn containers<'a>(spec: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let spec = spec.clone();
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| spec.each(list))
}

fn placement(spec: &At<'_>, said: &mut Warnings) {
    for key in spec.entries("nodeSelector").keys() {
        if let Some(text) = labels::deprecated(key) {
            say(&spec.path.child("nodeSelector").key(key), text, said);
        }
    }
    let nodes = spec.field("affinity").field("nodeAffinity");
    let required = nodes.field("requiredDuringSchedulingIgnoredDuringExecution");
    required.each("nodeSelectorTerms").for_each(|term| labels::term(&term, false, said));
    for term in nodes.each("preferredDuringSchedulingIgnoredDuringExecution") {
        labels::term(&term.field("preference"), true, said);
    }
    for constraint in spec.each("topologySpreadConstraints") {
        let key = constraint.field("topologyKey");
        if let Some(text) = labels::deprecated(key.str()) {
            say(&key.path, &format!("{} is {text}", key.str()), said);
        }
        selects(&constraint, said);
    }
}

fn selects(term: &At<'_>, said: &mut Warnings) {
    if !term.has("labelSelector") {
        say(&term.path.child("labelSelector"), NULL_SELECTOR, said);
    }
}

fn affinity(affinity: &At<'_>, said: &mut Warnings) {
    for kind in ["podAffinity", "podAntiAffinity"].map(|kind| affinity.field(kind)) {
        for term in kind.each("requiredDuringSchedulingIgnoredDuringExecution") {
            selects(&term, said);
        }
        for term in kind.each("preferredDuringSchedulingIgnoredDuringExecution") {
            selects(&term.field("podAffinityTerm"), said);
        }
    }
}

fn volumes(spec: &At<'_>, said: &mut Warnings) {
    for volume in spec.each("volumes") {
        for (source, _, text) in GONE {
            let Some(found) = volume.some(source) else { continue };
            if *source == "ephemeral" {
                claim(&found.field("volumeClaimTemplate").field("spec"), said);
            } else {
                say(&source_path(&volume.path, source), text, said);
            }
        }
    }
}

/// Aliases and secrets that are there twice, and secrets without a name.
fn repeated(spec: &At<'_>, said: &mut Warnings) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut seen = HashSet::new();
        for item in spec.each(list).map(|item| item.field(field)) {
            if !seen.insert(item.str()) {
                say(&item.path, &format!("duplicate {field} {}", meta::quote(item.str())), said);
            }
        }
    }
    for secret in spec.each("imagePullSecrets").filter(|s| s.str_of("name").is_empty()) {
        say(&secret.path.child("name"), "invalid empty name \"\"", said);
    }
}

fn variables(container: &At<'_>, said: &mut Warnings) {
    let mut seen = HashSet::new();
    for variable in container.each("env") {
        let (name, value) = (variable.str_of("name"), variable.str_of("value"));
        let itself = format!("$({name})");
        let keeps = !variable.has("valueFrom") && value != itself && value.contains(&itself);
        if !seen.insert(name) && !keeps {
            let name = meta::quote(name);
            let text = format!(
                "hides previous definition of {name}, which may be dropped when using apply"
            );
            say(&variable.path, &text, said);
        }
    }
}

/// What tells one port from another.
struct Port<'a> {
    path: FieldPath,
    host: i64,
    ip: &'a str,
}

fn ports(spec: &At<'_>, said: &mut Warnings) {
    let mut known: HashMap<(i64, &str), Vec<Port<'_>>> = HashMap::new();
    for port in containers(spec).flat_map(|container| container.each("ports")) {
        let number = |field: &str| port.value.int(field).unwrap_or_default();
        let own =
            Port { path: port.path.clone(), host: number("hostPort"), ip: port.str_of("hostIP") };
        if !own.ip.is_empty() && own.host == 0 {
            say(&own.path, &format!("hostIP set without hostPort: {}", shown(port.value)), said);
        }
        let others = known.entry((number("containerPort"), port.str_of("protocol"))).or_default();
        for other in others.iter() {
            let how = if own.ip == other.ip && own.host == other.host {
                "duplicate"
            } else if own.host == 0 || other.host == 0 {
                "overlapping"
            } else if own.host == other.host && own.ip.is_empty() != other.ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            say(&own.path, &format!("{how} port definition with {}", other.path), said);
        }
        if others.len() < MOST {
            others.push(own);
        }
    }
    let mut names: HashMap<&str, FieldPath> = HashMap::new();
    for port in containers(spec).flat_map(|container| container.each("ports")) {
        let name = port.str_of("name");
        if name.is_empty() {
            continue;
        }
        if let Some(other) = names.get(name) {
            let text = format!(
                "duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                meta::quote(name)
            );
            say(&port.path, &text, said);
        } else {
            names.insert(name, port.path);
        }
    }
}

/// A port as Go prints it.
fn shown(port: &Value) -> String {
    let number = |field: &str| port.int(field).unwrap_or_default();
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        port.text("name"),
        number("hostPort"),
        number("containerPort"),
        port.text("protocol"),
        port.text("hostIP")
    )
}
