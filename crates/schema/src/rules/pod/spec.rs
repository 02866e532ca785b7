//! Rules of a pod spec as a whole.

use std::collections::HashSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::security::{pod_security_context, qualified_name};
use super::tolerated::{LISTS, Tolerated};
use super::{affinity, container, mount, resources, windows};
use crate::rules::at::{At, Errors};
use crate::rules::metadata;
use crate::view::View;

const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const MOST_SEARCH_CHARS: usize = 2048;

/// Checks a pod spec. `meta` is the pod's metadata and absent for a template.
pub(super) fn validate(
    spec: &At<'_>,
    meta: Option<&Value>,
    tolerated: Tolerated,
    errors: &mut Errors,
) {
    if !spec.has("terminationGracePeriodSeconds") {
        spec.field("terminationGracePeriodSeconds").required("", errors);
    }
    let volumes = mount::volumes(spec, meta, tolerated, errors);
    resources::pod_claims(spec, meta, errors);
    let claims = spec.items("resourceClaims").iter().map(|claim| claim.text("name"));
    let shared = container::Shared {
        volumes: &volumes,
        claims: claims.filter(|name| !name.is_empty()).collect(),
        grace: spec.int("terminationGracePeriodSeconds"),
        restart_policy: spec.str_of("restartPolicy"),
        os: spec.value.at("os").text("name"),
        host_users: spec.at("hostUsers").as_bool().unwrap_or(true),
        tolerated,
    };
    container::containers(spec, &shared, errors);
    container::init_containers(spec, &shared, errors);
    container::ephemeral_containers(spec, &shared, errors);
    resources::pod_level(spec, tolerated, errors);
    host_network_ports(spec, tolerated.pod, errors);
    spec.field("restartPolicy").one_of(&["Always", "OnFailure", "Never"], errors);
    spec.field("dnsPolicy")
        .one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    metadata::labels(spec.entries("nodeSelector"), &spec.path.child("nodeSelector"), errors);
    pod_security_context(spec, tolerated, errors);
    if let Some(affinity) = spec.some("affinity") {
        affinity::validate(&affinity, tolerated, errors);
    }
    dns_config(spec, errors);
    for gate in spec.each("readinessGates") {
        qualified_name(&gate.field("conditionType"), errors);
    }
    scheduling_gates(spec, errors);
    affinity::topology_spread(spec, tolerated, errors);
    windows::host_processes(spec, errors);
    host_users(spec, tolerated, errors);
    hostname_override(spec, errors);
    for field in ["serviceAccountName", "nodeName"] {
        spec.field(field).optional(names::is_dns1123_subdomain, errors);
    }
    spec.field("activeDeadlineSeconds").in_range(1, i64::from(i32::MAX), errors);
    for field in ["hostname", "subdomain"] {
        spec.field(field).optional(names::is_dns1123_label, errors);
    }
    affinity::tolerations(spec.each("tolerations"), tolerated, errors);
    for alias in spec.each("hostAliases") {
        alias.field("ip").ip(errors);
        for hostname in alias.each("hostnames") {
            hostname.check(names::is_dns1123_subdomain, errors);
        }
    }
    spec.field("priorityClassName").optional(names::is_dns1123_subdomain, errors);
    if let Some(class) = spec.some("runtimeClassName") {
        class.check(names::is_dns1123_subdomain, errors);
    }
    if let Some(policy) = spec.some("preemptionPolicy") {
        policy.one_of(&["PreemptLowerPriority", "Never"], errors);
    }
    resources::overhead(spec, tolerated, errors);
    windows::system(spec, errors);
    mount::files_of_variables(spec, errors);
}

fn host_network_ports(spec: &At<'_>, pod: bool, errors: &mut Errors) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for container in spec.each("containers") {
        for port in container.each("ports") {
            let host = port.int("hostPort").unwrap_or_default();
            if (pod || host != 0) && host != port.int("containerPort").unwrap_or_default() {
                let text = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(port.path.child("hostPort"), host, text));
            }
        }
    }
}

fn dns_config(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let own = spec.str_of("dnsPolicy") == "None";
    if own && config.value.is_null() {
        return config.required("must provide `dnsConfig` when `dnsPolicy` is None", errors);
    }
    let (nameservers, searches) = (config.items("nameservers"), config.items("searches"));
    if own && nameservers.is_empty() {
        let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return config.field("nameservers").required(text, errors);
    }
    if nameservers.len() > MOST_NAMESERVERS {
        let text = format!("must not have more than {MOST_NAMESERVERS} nameservers");
        config.field("nameservers").invalid(text, errors);
    }
    for nameserver in config.each("nameservers") {
        nameserver.ip(errors);
    }
    if searches.len() > MOST_SEARCHES {
        config
            .field("searches")
            .invalid(format!("must not have more than {MOST_SEARCHES} search paths"), errors);
    }
    let chars: usize =
        searches.iter().filter_map(Value::as_str).map(|search| search.len() + 1).sum();
    if chars > MOST_SEARCH_CHARS + 1 {
        let text = format!(
            "must not have more than {MOST_SEARCH_CHARS} characters (including spaces) in the search list"
        );
        config.field("searches").invalid(text, errors);
    }
    for search in config.each("searches").filter(|search| search.str() != ".") {
        let name = search.str().strip_suffix('.').unwrap_or(search.str());
        for problem in names::is_search_domain(name) {
            errors.push(FieldError::invalid(&search.path, name, problem));
        }
    }
    for option in config.each("options") {
        if option.str_of("name").is_empty() {
            option.required("must not be empty", errors);
        }
    }
}

fn scheduling_gates(spec: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for gate in spec.each("schedulingGates") {
        let name = gate.field("name").under(gate.path.clone());
        qualified_name(&name, errors);
        if !seen.insert(name.str()) {
            name.duplicate(errors);
        }
    }
}

fn host_users(spec: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    if spec.at("hostUsers").as_bool() != Some(false) {
        return;
    }
    let text = "when `hostUsers` is false";
    if spec.flag("hostNetwork") && !tolerated.users_on_host_network {
        spec.field("hostNetwork").forbidden(text, errors);
    }
    for (field, name) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(field) {
            errors.push(FieldError::forbidden(spec.path.child(name), text));
        }
    }
    for container in LISTS.iter().flat_map(|list| spec.each(list)) {
        if !container.items("volumeDevices").is_empty() && !tolerated.users_with_devices {
            container.field("volumeDevices").forbidden(text, errors);
        }
    }
}

fn hostname_override(spec: &At<'_>, errors: &mut Errors) {
    const LONGEST: usize = 64;
    let Some(hostname) = spec.some("hostnameOverride") else { return };
    if spec.flag("setHostnameAsFQDN") {
        hostname.forbidden("may not be specified when setHostnameAsFQDN is true", errors);
    }
    if spec.flag("hostNetwork") {
        hostname.forbidden("may not be specified when hostNetwork is true", errors);
    }
    hostname.no_longer(LONGEST, errors);
    hostname.check(names::is_dns1123_subdomain, errors);
}
