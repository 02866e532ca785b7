//! What an update of a pod's status may say.

use std::collections::{HashMap, HashSet};

use meta::{FieldError, names};
use serde_json::Value;

use super::security::{id, qualified_name};
use super::{Tolerated, annotations};
use crate::rules::at::{At, Errors, is_ipv6};
use crate::rules::metadata::immutable;
use crate::view::View;

/// The lists of statuses, and the lists of containers that they are about.
const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// Checks a new status against the old.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    const COUNT: &str = "must be a non-negative integer";
    annotations::validate_update(new, old, Tolerated::of_annotations(old), errors);
    let (status, before) = (At::root(new).field("status"), At::root(old).field("status"));
    for condition in status.each("conditions") {
        let generation = condition.field("observedGeneration");
        if generation.number() < 0 {
            generation.invalid(COUNT, errors);
        }
        if !matches!(condition.str_of("type"), "PodScheduled" | "Ready" | "Initialized") {
            qualified_name(&condition.field("type").under(condition.path.child("Type")), errors);
        }
    }
    if new.at("spec").text("nodeName") != old.at("spec").text("nodeName") {
        status.field("nodeName").forbidden("may not be changed directly", errors);
    }
    let nominated = status.field("nominatedNodeName");
    if nominated.str() != before.str_of("nominatedNodeName") && !nominated.str().is_empty() {
        nominated.check(names::is_dns1123_subdomain, errors);
        if !old.at("spec").text("nodeName").is_empty() {
            let text = "may not be set on pods that are already bound to a node";
            nominated.forbidden(text, errors);
        }
    }
    if status.field("observedGeneration").number() < 0 {
        status.field("observedGeneration").invalid(COUNT, errors);
    }
    immutable(status.at("qosClass"), before.at("qosClass"), status.path.child("qosClass"), errors);
    for (list, containers) in LISTS {
        transitions(&status, &before, old.at("spec"), (list, containers), errors);
    }
    claims(&status, new.at("spec"), errors);
    addresses(&status, &before, "podIPs", errors);
    let host = status.field("hostIPs");
    if let Some(first) = host.value.as_array().and_then(|ips| ips.first())
        && first.text("ip") != status.str_of("hostIP")
    {
        let at = At { value: first.at("ip"), path: host.path.index(0).child("ip") };
        at.invalid("must be equal to `hostIP`", errors);
    }
    addresses(&status, &before, "hostIPs", errors);
    for (list, _) in LISTS {
        users(&status, list, new.at("spec").at("os").text("name"), errors);
    }
    for (list, containers) in LISTS {
        allocated(&status, list, new.at("spec").items(containers), errors);
    }
}

/// A container that has ended for good must not come back.
fn transitions(
    status: &At<'_>,
    before: &At<'_>,
    spec: &Value,
    (list, containers): (&str, &str),
    errors: &mut Errors,
) {
    let ephemeral = containers == "ephemeralContainers";
    // Where one container's end may restart all, each may come back.
    if !ephemeral && all_may_restart(spec) {
        return;
    }
    let mut now: HashMap<&str, bool> = HashMap::new();
    for new in status.items(list) {
        now.entry(new.text("name")).or_insert(new.at("state").has("terminated"));
    }
    for (index, old) in before.items(list).iter().enumerate() {
        let ended = old.at("state").at("terminated");
        if ended.is_null() || now.get(old.text("name")) != Some(&false) {
            continue;
        }
        let mut all = spec.items(containers).iter();
        let container = all.find(|container| container.text("name") == old.text("name"));
        let code = ended.int("exitCode").unwrap_or_default();
        if ephemeral || !container.is_some_and(|container| may_restart(container, spec, code)) {
            let path = status.path.child(list).index(index).child("state");
            let text = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(path, text));
        }
    }
}

fn all_may_restart(spec: &Value) -> bool {
    ["initContainers", "containers"].iter().flat_map(|list| spec.items(list)).any(|container| {
        let rules = container.items("restartPolicyRules");
        rules.iter().any(|rule| rule.text("action") == "RestartAllContainers")
    })
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

/// Claims that were made for the pod's.
fn claims(status: &At<'_>, spec: &Value, errors: &mut Errors) {
    let known: HashSet<&str> =
        spec.items("resourceClaims").iter().map(|claim| claim.text("name")).collect();
    let mut seen = HashSet::new();
    for claim in status.each("resourceClaimStatuses") {
        let name = claim.field("name");
        if !known.contains(name.str()) {
            let text = "must match the name of an entry in `spec.resourceClaims`";
            name.invalid_text(text, errors);
        }
        if !seen.insert(name.str()) {
            name.duplicate(errors);
        }
        if let Some(made) = claim.some("resourceClaimName") {
            made.check(names::is_dns1123_subdomain, errors);
        }
    }
    if let Some(extended) = status.some("extendedResourceClaimStatus") {
        extended_claim(&extended, spec, errors);
    }
}

/// The claim that stands for extended resources (KEP-5004).
fn extended_claim(at: &At<'_>, spec: &Value, errors: &mut Errors) {
    let containers: HashMap<&str, &Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| spec.items(list))
        .map(|container| (container.text("name"), container))
        .collect();
    if at.items("requestMappings").is_empty() {
        at.field("requestMappings").required("at least one request mapping is required", errors);
    }
    let mut seen = HashSet::new();
    for mapping in at.each("requestMappings") {
        let fields = ["containerName", "resourceName", "requestName"];
        let [container, resource, request] = fields.map(|field| mapping.field(field));
        match containers.get(container.str()) {
            None => container.invalid_text(
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
                errors,
            ),
            Some(found) if found.at("resources").at("requests").has(resource.str()) => {}
            Some(_) => resource.invalid_text(
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests",
                errors,
            ),
        }
        request.under(at.path.child("requestName")).check(names::is_dns1123_label, errors);
        if !seen.insert((container.str(), resource.str(), request.str())) {
            for field in [container, resource, request] {
                field.duplicate(errors);
            }
        }
    }
    at.field("resourceClaimName").required_name(names::is_dns1123_subdomain, errors);
}

/// At most one address per family; those that were there may be as they were.
fn addresses(status: &At<'_>, before: &At<'_>, list: &str, errors: &mut Errors) {
    let mut families = Vec::new();
    for address in status.each(list) {
        let ip = address.field("ip").under(address.path.clone());
        ip.ip_or_old(before.items(list).iter().map(|old| old.text("ip")), errors);
        families.push(is_ipv6(ip.str()));
    }
    if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        status.field(list).invalid("may specify no more than one IP for each IP family", errors);
    }
}

fn users(status: &At<'_>, list: &str, os: &str, errors: &mut Errors) {
    for container in status.each(list) {
        let Some(user) = container.field("user").some("linux") else { continue };
        match os {
            "windows" => user.forbidden("cannot be set for a windows pod", errors),
            "" | "linux" => {
                id(user.some("uid"), errors);
                id(user.some("gid"), errors);
                user.each("supplementalGroups").for_each(|group| id(Some(group), errors));
            }
            _ => {}
        }
    }
}

/// The health of what was allocated to containers.
fn allocated(status: &At<'_>, list: &str, containers: &[Value], errors: &mut Errors) {
    const LONGEST_MESSAGE: usize = 1024;
    for container in status.each(list) {
        if list == "ephemeralContainerStatuses" {
            if !container.items("allocatedResourcesStatus").is_empty() {
                let text = "must not be specified in container status";
                container.field("allocatedResourcesStatus").forbidden(text, errors);
            }
            continue;
        }
        for resource in container.each("allocatedResourcesStatus") {
            let name = resource.field("name");
            let found = containers.iter().find(|c| c.text("name") == container.str_of("name"));
            if let Some(problem) = found.and_then(|found| not_asked_for(found, name.str())) {
                name.invalid_text(problem, errors);
            }
            let mut seen = HashSet::new();
            for one in resource.each("resources") {
                let health = one.field("health");
                if !["Healthy", "Unhealthy", "Unknown"].contains(&health.str()) {
                    health.unsupported(&["Healthy", "Unhealthy", "Unknown"], errors);
                }
                if let Some(message) = one.some("message") {
                    if message.str().is_empty() {
                        message.required("must be non-empty if specified", errors);
                    }
                    message.no_longer(LONGEST_MESSAGE, errors);
                }
                if !seen.insert(one.str_of("resourceID")) {
                    one.field("resourceID").duplicate(errors);
                }
            }
        }
    }
}

fn not_asked_for(container: &Value, name: &str) -> Option<&'static str> {
    let resources = container.at("resources");
    let Some(claim) = name.strip_prefix("claim:") else {
        let asked = resources.at("requests").has(name);
        return (!asked).then_some("must match one of the container's resource requests");
    };
    let asked = resources.items("claims").iter().any(|of| match of.text("request") {
        "" => of.text("name") == claim,
        request => claim.split_once('/') == Some((of.text("name"), request)),
    });
    (!asked).then_some(
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
         'claim:<claimName>' if request is empty",
    )
}
