//! Rules of Services.

use meta::{FieldError, names};
use serde_json::{Value, json};

use super::at::{At, Errors, PROTOCOLS, is_ipv6};
use super::pod::qualified_name;
use super::{Hooks, metadata};
use crate::view::View;

/// `v1 Service`. Names are labels that may start with a digit (KEP-5311).
pub(super) const SERVICE: Hooks = Hooks {
    name: metadata::label,
    prepare_create: |_| {},
    validate: |service, errors| validate(service, errors),
    validate_update,
    validate_status,
};

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

fn validate(service: &Value, errors: &mut Errors) {
    let spec = At::root(service).field("spec");
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
        cluster_ips(&spec, headless, errors);
    }
    for ip in spec.each("externalIPs") {
        if ip.ip(errors) {
            ip.endpoint_ip(errors);
        }
    }
    spec.field("type").one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    port_conflicts(&spec, errors);
    load_balancer(&spec, errors);
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
    let mut known = Vec::new();
    for port in spec.each("ports") {
        let name = port.field("name");
        if require && name.str().is_empty() {
            name.required("", errors);
        } else if !name.str().is_empty() {
            name.check(names::is_dns1123_label, errors);
            if known.contains(&name.str()) {
                name.duplicate(errors);
            }
            known.push(name.str());
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

fn cluster_ips(spec: &At<'_>, headless: bool, errors: &mut Errors) {
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
    let mut seen = Vec::new();
    for family in spec.each("ipFamilies") {
        if !["IPv4", "IPv6"].contains(&family.str()) {
            family.unsupported(&["IPv4", "IPv6"], errors);
        }
        if seen.contains(&family.str()) {
            family.duplicate(errors);
        }
        seen.push(family.str());
    }
    const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) =
        spec.some("ipFamilyPolicy").filter(|policy| !POLICIES.contains(&policy.str()))
    {
        policy.unsupported(POLICIES, errors);
    }
    let mut bad = false;
    for (index, ip) in spec.each("clusterIPs").enumerate() {
        if index == 0 && ip.str() == "None" {
            if ips.len() > 1 {
                bad = true;
                list.invalid("'None' must be the first and only value", errors);
            }
            continue;
        }
        bad |= !ip.ip(errors);
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
    for ((index, ip), family) in ips.iter().enumerate().zip(&seen) {
        if is_ipv6(ip) != (*family == "IPv6") {
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
    let mut taken = Vec::new();
    for port in spec.each("ports") {
        let number = port.int("nodePort").unwrap_or_default();
        let key = (port.str_of("protocol"), number);
        if number != 0 && taken.contains(&key) {
            port.field("nodePort").duplicate(errors);
        }
        taken.push(key);
    }
    let mut taken = Vec::new();
    for port in spec.each("ports") {
        let key = (port.str_of("protocol"), port.int("port").unwrap_or_default());
        if taken.contains(&key) {
            let shown = json!({"protocol": key.0, "port": key.1, "targetPort": 0});
            errors.push(FieldError::duplicate(&port.path, shown));
        }
        taken.push(key);
    }
}

fn load_balancer(spec: &At<'_>, errors: &mut Errors) {
    let balanced = spec.str_of("type") == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.path.child("LoadBalancerSourceRanges");
    if !balanced && !spec.items("loadBalancerSourceRanges").is_empty() {
        errors.push(FieldError::forbidden(&ranges, only));
    }
    for (index, range) in spec.each("loadBalancerSourceRanges").enumerate() {
        let text = json!(range.str().trim());
        At { value: &text, path: ranges.index(index) }.cidr(errors);
    }
    let allocate = spec.field("allocateLoadBalancerNodePorts");
    match (balanced, allocate.value.is_null()) {
        (false, false) => allocate.forbidden(only, errors),
        (true, true) => errors.push(FieldError::required("allocateLoadBalancerNodePorts", "")),
        _ => {}
    }
    match spec.some("loadBalancerClass") {
        Some(class) if balanced => qualified_name(&class, errors),
        Some(class) => class.forbidden(only, errors),
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

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (after, before) = (At::root(new).field("spec"), old.at("spec"));
    if after.str_of("type") != "ExternalName" && before.text("type") != "ExternalName" {
        let (now_headless, was_headless) = (is_headless(after.value), is_headless(before));
        if !(now_headless && was_headless) {
            unchanged(
                &after,
                before,
                "clusterIPs",
                "primary clusterIP",
                "secondary clusterIP",
                errors,
            );
        }
        if !now_headless && !was_headless {
            unchanged(
                &after,
                before,
                "ipFamilies",
                "primary ipFamily",
                "secondary ipFamily",
                errors,
            );
        }
    }
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    if balanced(after.value)
        && balanced(before)
        && after.at("loadBalancerClass") != before.at("loadBalancerClass")
    {
        after.field("loadBalancerClass").invalid("may not change once set", errors);
    }
    let moved = after.int("healthCheckNodePort") != before.int("healthCheckNodePort");
    if needs_health_check(after.value) && needs_health_check(before) && moved {
        after.field("healthCheckNodePort").forbidden("field is immutable", errors);
    }
    validate(new, errors);
}

/// The addresses or families of a Service stay; a second one may come and go.
fn unchanged(
    after: &At<'_>,
    before: &Value,
    list: &str,
    first: &str,
    second: &str,
    errors: &mut Errors,
) {
    let (new, old) = (after.items(list), before.items(list));
    let whole = Value::Array(new.to_vec());
    let mut complain = |index: usize, text: &str| {
        errors.push(FieldError::invalid(after.path.child(list).index(index), whole.clone(), text));
    };
    if new.len() == old.len() {
        for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            complain(if list == "clusterIPs" { index } else { 0 }, "may not change once set");
        }
        return;
    }
    match (new.first(), old.first()) {
        (None, Some(_)) => complain(0, &format!("{first} can not be unset")),
        (Some(new), Some(old)) if new != old => complain(0, "may not change once set"),
        _ => {}
    }
    if new.len() == 1 && old.len() > 1 && after.str_of("ipFamilyPolicy") != "SingleStack" {
        let text = format!("must be set to 'SingleStack' when releasing the {second}");
        after.field("ipFamilyPolicy").invalid(text, errors);
    }
}

fn validate_status(new: &Value, _: &Value, errors: &mut Errors) {
    let root = At::root(new);
    let balancer = root.field("status").field("loadBalancer");
    if root.value.at("spec").text("type") != "LoadBalancer" {
        if !balancer.items("ingress").is_empty() {
            let text = "may only be used when `spec.type` is 'LoadBalancer'";
            balancer.field("ingress").forbidden(text, errors);
        }
        return;
    }
    for ingress in balancer.each("ingress") {
        let (ip, mode, hostname) =
            (ingress.field("ip"), ingress.field("ipMode"), ingress.field("hostname"));
        if !ip.str().is_empty() {
            ip.ip(errors);
        }
        match (mode.value, ip.str()) {
            (Value::Null, "") => {}
            (Value::Null, _) => mode.required("must be specified when `ip` is set", errors),
            (_, "") => mode.forbidden("may not be specified when `ip` is not set", errors),
            _ if ["Proxy", "VIP"].contains(&mode.str()) => {}
            _ => mode.unsupported(&["Proxy", "VIP"], errors),
        }
        if !hostname.str().is_empty() {
            hostname.check(names::is_dns1123_subdomain, errors);
            if hostname.str().parse::<std::net::IpAddr>().is_ok() {
                hostname.invalid("must be a DNS name, not an IP address", errors);
            }
        }
    }
}
