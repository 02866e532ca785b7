//! Rules of resource requirements: names, amounts, requests within limits, claims.

use std::collections::BTreeSet;

use meta::{FieldError, FieldPath, Quantity, names};
use serde_json::{Map, Value};

use super::optional_subdomain;
use crate::rules::at::{At, Errors, NOT_NEGATIVE};
use crate::rules::resources::{aggregate, amounts};
use crate::view::View;

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const WHOLE: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub(in crate::rules) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(in crate::rules) fn is_extended(name: &str) -> bool {
    let quota = format!("requests.{name}");
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_qualified_name(&quota).is_empty()
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Checks the name of a resource of a container.
fn container_resource(name: &str, path: &FieldPath, errors: &mut Errors) {
    let invalid = |text: &str| FieldError::invalid(path, name, text);
    let problems = names::is_qualified_name(name);
    if !problems.is_empty() {
        errors.extend(problems.iter().map(|text| invalid(text)));
    } else if !name.contains('/') && !STANDARD.contains(&name) && !is_huge_page(name) {
        errors.push(invalid("must be a standard resource type or fully qualified"));
    }
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_huge_page(name) {
            errors.push(invalid("must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(invalid("doesn't follow extended resource name standard"));
    }
}

/// Checks an amount of a resource.
pub(in crate::rules) fn quantity_value(
    name: &str,
    amount: &str,
    path: &FieldPath,
    errors: &mut Errors,
) {
    let Ok(quantity) = amount.parse::<Quantity>() else { return };
    if quantity.signum() < 0 {
        errors.push(FieldError::invalid(path, amount, NOT_NEGATIVE));
    }
    if (WHOLE.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, amount, "must be an integer"));
    }
}

/// Checks requests and limits; `claims` are the names of the pod's claims.
pub(super) fn requirements(at: &At<'_>, claims: Option<&BTreeSet<&str>>, errors: &mut Errors) {
    let (limits, requests) = (at.entries("limits"), at.entries("requests"));
    let (limits_path, requests_path) = (at.path.child("limits"), at.path.child("requests"));
    let check = |map: &Map<String, Value>, name: &str, path: &FieldPath, errors: &mut Errors| {
        container_resource(name, path, errors);
        quantity_value(name, map.text(name), path, errors);
    };
    for name in limits.keys() {
        check(limits, name, &limits_path.key(name), errors);
    }
    for name in requests.keys() {
        check(requests, name, &requests_path.key(name), errors);
        let request = requests.text(name);
        let Ok(amount) = request.parse::<Quantity>() else { continue };
        match limits.text(name).parse::<Quantity>() {
            Ok(limit) if amount != limit && !may_overcommit(name) => {
                let text = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&requests_path, request, text));
            }
            Ok(limit) if amount > limit => {
                let text = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&requests_path, request, text));
            }
            Err(_) if !may_overcommit(name) => {
                let text = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_path, text));
            }
            _ => {}
        }
    }
    let any =
        |test: &dyn Fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| test(name));
    if any(&is_huge_page) && !any(&|name| matches!(name, "cpu" | "memory")) {
        at.forbidden("HugePages require cpu or memory", errors);
    }
    if let Some(claims) = claims {
        claim_names(at, claims, errors);
    }
}

fn claim_names(at: &At<'_>, known: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in at.each("claims") {
        let (name, request) = (claim.str_of("name"), claim.str_of("request"));
        if name.is_empty() {
            claim.required("", errors);
            continue;
        }
        if !seen.insert((name, request)) {
            let value =
                if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            errors.push(FieldError::duplicate(&claim.path, value));
        }
        if !known.contains(name) {
            let mut error = FieldError::not_found(&claim.path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if known.is_empty() {
                error.detail.push_str(" which is empty");
            }
            errors.push(error);
        }
    }
}

/// Checks `spec.resourceClaims`.
pub(super) fn pod_claims(spec: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in spec.each("resourceClaims") {
        let name = claim.field("name");
        if name.str().is_empty() {
            name.required("", errors);
        } else if !seen.insert(name.str()) {
            name.duplicate(errors);
        } else {
            name.check(names::is_dns1123_label, errors);
        }
        match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName")) {
            (true, true) => {
                let text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                claim.invalid(text, errors);
            }
            (false, false) => {
                claim.invalid(
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                    errors,
                );
            }
            _ => {}
        }
        optional_subdomain(&claim.field("resourceClaimName"), errors);
        optional_subdomain(&claim.field("resourceClaimTemplateName"), errors);
    }
}

/// Checks resources of the pod as a whole (KEP-2837).
pub(super) fn pod_level(spec: &At<'_>, errors: &mut Errors) {
    let Some(resources) = spec.some("resources") else { return };
    if resources.has("claims") {
        resources
            .field("claims")
            .forbidden("claims may not be set for Resources at pod-level", errors);
    }
    requirements(&resources, None, errors);
    let Value::Object(object) = spec.value else { return };
    let (requests, limits) =
        (amounts(resources.entries("requests")), amounts(resources.entries("limits")));
    for (name, sum) in aggregate(object, "requests") {
        if let Some(request) = requests.get(&name).filter(|request| sum > **request) {
            let path = resources.path.child("requests").key(&name);
            let text =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(path, request.to_string(), text));
        }
    }
    for (index, container) in spec.items("containers").iter().enumerate() {
        for (name, limit) in amounts(container.at("resources").entries("limits")) {
            if let Some(whole) = limits.get(&name).filter(|whole| limit > **whole) {
                let path =
                    resources.path.child("containers").index(index).key(&name).child("limits");
                let text = format!("must be less than or equal to pod limits of {whole}");
                errors.push(FieldError::invalid(path, limit.to_string(), text));
            }
        }
    }
}

/// Checks amounts that are limits, though nothing runs that they limit: what a pod takes beside its containers.
pub(in crate::rules) fn limits(map: &Map<String, Value>, owner: &FieldPath, errors: &mut Errors) {
    let path = owner.child("limits");
    for (name, amount) in map {
        let path = path.key(name);
        container_resource(name, &path, errors);
        quantity_value(name, amount.as_str().unwrap_or_default(), &path, errors);
    }
    let any = |test: &dyn Fn(&str) -> bool| map.keys().any(|name| test(name));
    if any(&is_huge_page) && !any(&|name| matches!(name, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(owner, "HugePages require cpu or memory"));
    }
}

/// Checks `spec.overhead`.
pub(super) fn overhead(spec: &At<'_>, errors: &mut Errors) {
    limits(spec.entries("overhead"), &spec.path.child("overhead"), errors);
}
