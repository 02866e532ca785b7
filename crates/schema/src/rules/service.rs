//! Rules of Services; how they may change is below.

mod change;

use std::collections::HashSet;

use meta::{FieldError, names};
use serde_json::{Value, json};

use super::at::{At, Errors, PROTOCOLS, is_ipv6};
use super::pod::qualified_name;
use super::{Hooks, metadata};
use crate::view::View;

/// `v1 Service`. Names are labels that may start with a digit (KEP-5311).
pub(super) const SERVICE: Hooks = Hooks {
    name: metadata::label,
    validate: |service, errors| validate(service, &Value::Null, errors),
    validate_update: change::validate_update,
    validate_status: change::validate_status,
    ..Hooks::BASE
};

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY: &str = "service.kubernetes.io/topology-mode";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const LONGEST_AFFINITY: i64 = 86_400;

fn is_headless(spec: &Value) -> bool {
    matches!(spec.items("clusterIPs"), [ip] if ip == "None")
}

fn is_external(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.items("externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// An entry of an annotation.
fn annotation<'a>(service: &'a Value, key: &str) -> At<'a> {
    let at = At::root(service).field("metadata").field("annotations");
    At { value: at.value.at(key), path: at.path.key(key) }
}

/// The texts of a list.
fn texts<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    value.items(list).iter().filter_map(Value::as_str)
}

/// Checks a Service; `old` is what it was before an update.
fn validate(service: &Value, old: &Value, errors: &mut Errors) {
    let (mode, hints) = (annotation(service, TOPOLOGY), annotation(service, HINTS));
    if !mode.value.is_null() && !hints.value.is_null() && mode.value != hints.value {
        mode.invalid(format!("must match annotations[{HINTS}] when both are specified"), errors);
    }
    let (spec, before) = (At::root(service).field("spec"), old.at("spec"));
    let (kind, headless) = (spec.str_of("type"), is_headless(spec.value));
    if spec.items("ports").is_empty() && !headless && kind != "ExternalName" {
        spec.field("ports").required("", errors);
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let path = spec.path.child("clusterIPs").index(0);
            errors.push(FieldError::invalid(
                path,
                "None",
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    ports(&spec, errors);
    metadata::labels(spec.entries("selector"), &spec.path.child("selector"), errors);
    session_affinity(&spec, errors);
    if kind != "ExternalName" {
        cluster_ips(&spec, before, headless, errors);
    }
    for ip in spec.each("externalIPs") {
        if ip.ip_or_old(texts(before, "externalIPs"), errors) {
            ip.endpoint_ip(errors);
        }
    }
    spec.field("type").one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    port_conflicts(&spec, errors);
    load_balancer(service, &spec, old, errors);
    traffic(&spec, errors);
}

fn external_name(spec: &At<'_>, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let set = spec.has(field) && spec.at(field).as_array().is_none_or(|list| !list.is_empty());
        if set {
            spec.field(field).forbidden("may not be set for ExternalName services", errors);
        }
    }
    let name = spec.field("externalName");
    let text = json!(name.str().strip_suffix('.').unwrap_or(name.str()));
    At { value: &text, path: name.path }.required_name(names::is_dns1123_subdomain, errors);
}

fn ports(spec: &At<'_>, errors: &mut Errors) {
    let require = spec.items("ports").len() > 1;
    let mut known = HashSet::new();
    for port in spec.each("ports") {
        let name = port.field("name");
        if require && name.str().is_empty() {
            name.required("", errors);
        } else if !name.str().is_empty() {
            name.check(names::is_dns1123_label, errors);
            if !known.insert(name.str()) {
                name.duplicate(errors);
            }
        }
        port.field("port").port(errors);
        port.field("protocol").one_of(PROTOCOLS, errors);
        port.field("targetPort").port_or_name(errors);
        if let Some(protocol) = port.some("appProtocol") {
            qualified_name(&protocol, errors);
        }
    }
}

fn session_affinity(spec: &At<'_>, errors: &mut Errors) {
    let affinity = spec.field("sessionAffinity");
    affinity.one_of(&["ClientIP", "None"], errors);
    let config = spec.field("sessionAffinityConfig");
    match affinity.str() {
        "ClientIP" => {
            let text = "when session affinity type is ClientIP";
            let client = config.field("clientIP");
            let timeout = client.field("timeoutSeconds");
            if let Some(missing) =
                [&config, &client, &timeout].into_iter().find(|at| at.value.is_null())
            {
                missing.required(text, errors);
            } else if !(1..=LONGEST_AFFINITY).contains(&timeout.number()) {
                timeout.invalid(
                    format!("must be greater than 0 and less than {LONGEST_AFFINITY}"),
                    errors,
                );
            }
        }
        "None" if !config.value.is_null() => {
            config.forbidden("must not be set when session affinity is None", errors);
        }
        _ => {}
    }
}

fn cluster_ips(spec: &At<'_>, before: &Value, headless: bool, errors: &mut Errors) {
    let (ip, list) = (spec.str_of("clusterIP"), spec.field("clusterIPs"));
    let ips: Vec<&str> = spec.items("clusterIPs").iter().filter_map(Value::as_str).collect();
    match (ip, ips.first()) {
        ("", Some(_)) => list.invalid("must be empty when `clusterIP` is not specified", errors),
        ("", None) => {}
        (_, None) => list.required("", errors),
        (ip, Some(first)) if *first != ip => {
            list.invalid("first value must match `clusterIP`", errors)
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    for family in spec.each("ipFamilies") {
        family.known(&["IPv4", "IPv6"], errors);
        if !seen.insert(family.str()) {
            family.duplicate(errors);
        }
    }
    let policy = spec.field("ipFamilyPolicy");
    policy.known(&["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    let mut bad = false;
    for (index, ip) in spec.each("clusterIPs").enumerate() {
        if index == 0 && ip.str() == "None" {
            if ips.len() > 1 {
                bad = true;
                list.invalid("'None' must be the first and only value", errors);
            }
            continue;
        }
        bad |= !ip.ip_or_old(texts(before, "clusterIPs"), errors);
    }
    if ips.len() > 2 {
        list.invalid("may only hold up to 2 values", errors);
    }
    if bad {
        return;
    }
    if ips.len() > 1 && is_ipv6(ips[0]) == is_ipv6(ips[1]) {
        list.invalid("may specify no more than one IP for each IP family", errors);
    }
    if headless {
        return;
    }
    for ((index, ip), family) in ips.iter().enumerate().zip(texts(spec.value, "ipFamilies")) {
        let known = matches!(family, "IPv4" | "IPv6");
        if known && is_ipv6(ip) != (family == "IPv6") {
            let text = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(list.path.index(index), *ip, text));
        }
    }
}

fn port_conflicts(spec: &At<'_>, errors: &mut Errors) {
    if spec.str_of("type") == "ClusterIP" {
        for port in spec.each("ports").filter(|port| port.int("nodePort").unwrap_or_default() != 0)
        {
            port.field("nodePort").forbidden("may not be used when `type` is 'ClusterIP'", errors);
        }
    }
    let mut taken = HashSet::new();
    for port in spec.each("ports") {
        let number = port.int("nodePort").unwrap_or_default();
        if number != 0 && !taken.insert((port.str_of("protocol"), number)) {
            port.field("nodePort").duplicate(errors);
        }
    }
    let mut taken = HashSet::new();
    for port in spec.each("ports") {
        let (protocol, number) = (port.str_of("protocol"), port.int("port").unwrap_or_default());
        if !taken.insert((protocol, number)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                json!(protocol)
            );
            errors.push(FieldError::duplicate(&port.path, Value::Null).shown_as(shown));
        }
    }
}

fn load_balancer(service: &Value, spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let balanced = spec.str_of("type") == "LoadBalancer";
    source_ranges(service, spec, old, balanced, errors);
    let allocate = spec.field("allocateLoadBalancerNodePorts");
    match (balanced, allocate.value.is_null()) {
        (false, false) => allocate.forbidden(ONLY_BALANCED, errors),
        (true, true) => errors.push(FieldError::required("allocateLoadBalancerNodePorts", "")),
        _ => {}
    }
    class(spec, errors);
}

/// Sources may be said in a field or, where it is empty, in an annotation.
fn source_ranges(service: &Value, spec: &At<'_>, old: &Value, balanced: bool, errors: &mut Errors) {
    let (path, said) = (spec.path.child("LoadBalancerSourceRanges"), annotation(service, RANGES));
    let field = !spec.items("loadBalancerSourceRanges").is_empty();
    let path = if field { path } else { said.path.clone() };
    if !balanced && (field || !said.value.is_null()) {
        errors.push(FieldError::forbidden(&path, ONLY_BALANCED));
    }
    for (index, range) in spec.each("loadBalancerSourceRanges").enumerate() {
        let text = json!(range.str().trim());
        let before = texts(old.at("spec"), "loadBalancerSourceRanges").map(str::trim);
        At { value: &text, path: path.index(index) }.cidr_or_old(before, errors);
    }
    let changed = annotation(old, RANGES).value != said.value;
    if !field && changed && !said.str().trim().is_empty() {
        for range in said.str().trim().split(',') {
            At { value: &json!(range.trim()), path: path.clone() }.cidr(errors);
        }
    }
}

fn class(spec: &At<'_>, errors: &mut Errors) {
    match spec.some("loadBalancerClass") {
        Some(class) if spec.str_of("type") == "LoadBalancer" => qualified_name(&class, errors),
        Some(class) => class.forbidden(ONLY_BALANCED, errors),
        None => {}
    }
}

fn traffic(spec: &At<'_>, errors: &mut Errors) {
    let external = spec.field("externalTrafficPolicy");
    if is_external(spec.value) {
        external.one_of(&["Cluster", "Local"], errors);
    } else if !external.str().is_empty() {
        external.invalid("may only be set for externally-accessible services", errors);
    }
    let health = spec.field("healthCheckNodePort");
    match (needs_health_check(spec.value), health.number()) {
        (false, 0) => {}
        (false, _) => {
            let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            health.invalid(text, errors);
        }
        (true, 0) => health.required("", errors),
        (true, _) => health.port(errors),
    }
    let internal = spec.field("internalTrafficPolicy");
    match internal.value {
        Value::Null if matches!(spec.str_of("type"), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            internal.required("", errors);
        }
        Value::Null => {}
        _ if ["Cluster", "Local"].contains(&internal.str()) => {}
        _ => internal.unsupported(&["Cluster", "Local"], errors),
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = spec.some("trafficDistribution");
    if let Some(found) = distribution.filter(|found| !DISTRIBUTIONS.contains(&found.str())) {
        found.unsupported(DISTRIBUTIONS, errors);
    }
}
