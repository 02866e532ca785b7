//! How Services may change.

use std::collections::HashSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::{class, is_headless, needs_health_check, validate};
use crate::rules::at::{At, Errors, lenient_ip};
use crate::view::View;

/// Checks an update.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (after, before) = (At::root(new).field("spec"), old.at("spec"));
    if after.str_of("type") != "ExternalName" && before.text("type") != "ExternalName" {
        let (now, was) = (is_headless(after.value), is_headless(before));
        if !(now && was) {
            addresses_stay(&after, before, errors);
        }
        if !now && !was {
            families_stay(&after, before, errors);
        }
    }
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    if balanced(after.value)
        && balanced(before)
        && after.at("loadBalancerClass") != before.at("loadBalancerClass")
    {
        after.field("loadBalancerClass").invalid("may not change once set", errors);
    }
    // Upstream looks at the class here too.
    class(&after, errors);
    let moved = after.int("healthCheckNodePort") != before.int("healthCheckNodePort");
    if needs_health_check(after.value) && needs_health_check(before) && moved {
        after.field("healthCheckNodePort").forbidden("field is immutable", errors);
    }
    validate(new, old, errors);
}

const STAYS: &str = "may not change once set";

fn addresses_stay(after: &At<'_>, before: &Value, errors: &mut Errors) {
    let (list, new) = (after.field("clusterIPs"), after.items("clusterIPs"));
    let old = before.items("clusterIPs");
    let shown = Value::Array(new.to_vec());
    let mut complain = |index: usize, text: &str| {
        errors.push(FieldError::invalid(list.path.index(index), shown.clone(), text));
    };
    if new.len() == old.len() {
        for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            complain(index, STAYS);
        }
        return;
    }
    match (new.first(), old.first()) {
        (None, _) => complain(0, "primary clusterIP can not be unset"),
        (Some(new), Some(old)) if new != old => complain(0, STAYS),
        _ => {}
    }
    released(after, new, old, "clusterIP", errors);
}

/// As for addresses; upstream shows the addresses where the first family changed along with their number.
fn families_stay(after: &At<'_>, before: &Value, errors: &mut Errors) {
    let (list, new) = (after.field("ipFamilies"), after.items("ipFamilies"));
    let old = before.items("ipFamilies");
    let mut complain = |shown: &Value, text: &str| {
        errors.push(FieldError::invalid(list.path.index(0), shown.clone(), text));
    };
    if new.len() == old.len() {
        for _ in new.iter().zip(old).filter(|(new, old)| new != old) {
            complain(list.value, STAYS);
        }
        return;
    }
    if old.len() > new.len() && after.items("clusterIPs").is_empty() {
        complain(list.value, "primary ipFamily can not be unset");
    }
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new != old
    {
        complain(after.at("clusterIPs"), STAYS);
    }
    released(after, new, old, "ipFamily", errors);
}

/// Who gives up the second address says so.
fn released(after: &At<'_>, new: &[Value], old: &[Value], what: &str, errors: &mut Errors) {
    let policy = after.field("ipFamilyPolicy");
    if new.len() == 1 && old.len() > 1 && policy.str() != "SingleStack" {
        let text = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        policy.invalid(text, errors);
    }
}

/// Checks an update of the status.
pub(super) fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    let root = At::root(new);
    let balancer = root.field("status").field("loadBalancer");
    if root.value.at("spec").text("type") != "LoadBalancer" {
        if !balancer.items("ingress").is_empty() {
            let text = "may only be used when `spec.type` is 'LoadBalancer'";
            balancer.field("ingress").forbidden(text, errors);
        }
        return;
    }
    let before = old.at("status").at("loadBalancer");
    let old: HashSet<&str> = before.items("ingress").iter().map(|one| one.text("ip")).collect();
    for ingress in balancer.each("ingress") {
        let (ip, mode, hostname) =
            (ingress.field("ip"), ingress.field("ipMode"), ingress.field("hostname"));
        if !ip.str().is_empty() && !old.contains(ip.str()) {
            ip.ip(errors);
        }
        match (mode.value, ip.str()) {
            (Value::Null, "") => {}
            (Value::Null, _) => mode.required("must be specified when `ip` is set", errors),
            (_, "") => mode.forbidden("may not be specified when `ip` is not set", errors),
            _ => mode.known(&["Proxy", "VIP"], errors),
        }
        if !hostname.str().is_empty() {
            hostname.check(names::is_dns1123_subdomain, errors);
            if lenient_ip(hostname.str()).is_some() {
                hostname.invalid("must be a DNS name, not an IP address", errors);
            }
        }
    }
}
