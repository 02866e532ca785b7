//! What an update of a pod's status may say.

use serde_json::Value;

use super::optional_subdomain;
use super::security::qualified_name;
use crate::rules::at::{At, Errors, is_ipv6};
use crate::rules::metadata::immutable;
use crate::view::View;

/// Checks a new status against the old.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let (status, before) = (At::root(new).field("status"), At::root(old).field("status"));
    for condition in status.each("conditions") {
        if !matches!(condition.str_of("type"), "PodScheduled" | "Ready" | "Initialized") {
            let at = At { value: condition.value.at("type"), path: condition.path.child("Type") };
            qualified_name(&at, errors);
        }
    }
    if new.at("spec").text("nodeName") != old.at("spec").text("nodeName") {
        status.field("nodeName").forbidden("may not be changed directly", errors);
    }
    let nominated = status.field("nominatedNodeName");
    if nominated.str() != before.str_of("nominatedNodeName") {
        optional_subdomain(&nominated, errors);
    }
    immutable(status.at("qosClass"), before.at("qosClass"), status.path.child("qosClass"), errors);
    for list in ["containerStatuses", "initContainerStatuses"] {
        transitions(&status, &before, old.at("spec"), list, errors);
    }
    addresses(&status, "podIPs", errors);
    let host = status.field("hostIPs");
    if let Some(first) = host.value.as_array().and_then(|ips| ips.first())
        && first.text("ip") != status.str_of("hostIP")
    {
        let at = At { value: first.at("ip"), path: host.path.index(0).child("ip") };
        at.invalid("must be equal to `hostIP`", errors);
    }
    addresses(&status, "hostIPs", errors);
}

/// A container that has ended for good must not come back.
fn transitions(status: &At<'_>, before: &At<'_>, spec: &Value, list: &str, errors: &mut Errors) {
    let containers = if list == "containerStatuses" { "containers" } else { "initContainers" };
    for (index, old) in before.items(list).iter().enumerate() {
        let ended = old.at("state").at("terminated");
        let name = old.text("name");
        let new = status.items(list).iter().find(|new| new.text("name") == name);
        if ended.is_null() || new.is_none_or(|new| new.at("state").has("terminated")) {
            continue;
        }
        let container =
            spec.items(containers).iter().find(|container| container.text("name") == name);
        let code = ended.int("exitCode").unwrap_or_default();
        if !container.is_some_and(|container| may_restart(container, spec, code)) {
            let at = At {
                value: &Value::Null,
                path: status.path.child(list).index(index).child("state"),
            };
            at.forbidden("may not be transitioned to non-terminated state", errors);
        }
    }
}

fn may_restart(container: &Value, spec: &Value, code: i64) -> bool {
    for rule in container.items("restartPolicyRules") {
        let codes = rule.at("exitCodes");
        let listed = codes.items("values").iter().any(|value| value.as_i64() == Some(code));
        if listed == (codes.text("operator") == "In") {
            return true;
        }
    }
    let own = container.text("restartPolicy");
    match if own.is_empty() { spec.text("restartPolicy") } else { own } {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// At most one address per family.
fn addresses(status: &At<'_>, list: &str, errors: &mut Errors) {
    let mut families = Vec::new();
    for address in status.each(list) {
        let ip = At { value: address.value.at("ip"), path: address.path.clone() };
        ip.ip(errors);
        families.push(is_ipv6(ip.str()));
    }
    if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        status.field(list).invalid("may specify no more than one IP for each IP family", errors);
    }
}
