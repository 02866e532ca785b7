//! Rules of resource requirements: names, amounts, requests within limits, claims.

use std::collections::BTreeSet;

use meta::{FieldError, FieldPath, Quantity, names};
use serde_json::{Map, Value};

use super::tolerated::{Tolerated, containers};
use crate::amounts::{Amounts, COUNTS, OF_PODS, aggregate, amounts, is_extended, is_native};
use crate::rules::at::{At, Errors, NOT_NEGATIVE};
use crate::view::View;

/// Whether it is the resource of a huge page's size.
pub(in crate::rules) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether limits may exceed requests.
pub(in crate::rules) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Checks the name of a resource; `true` if it is one.
pub(in crate::rules) fn resource_name(name: &str, path: &FieldPath, errors: &mut Errors) -> bool {
    let problems = names::is_qualified_name(name);
    let known = name.contains('/')
        || OF_PODS.contains(&name)
        || COUNTS.contains(&name)
        || matches!(name, "storage" | "requests.storage")
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-");
    if !problems.is_empty() {
        errors.extend(problems.iter().map(|text| FieldError::invalid(path, name, text)));
    } else if !known {
        let text = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, name, text));
    }
    problems.is_empty() && known
}

/// Checks the name of a resource of a container.
pub(in crate::rules) fn container_resource(name: &str, path: &FieldPath, errors: &mut Errors) {
    resource_name(name, path, errors);
    let text = if !name.contains('/') {
        if ["cpu", "memory", "ephemeral-storage"].contains(&name) || is_huge_page(name) {
            return;
        }
        "must be a standard resource for containers"
    } else if !is_native(name) && !is_extended(name) {
        "doesn't follow extended resource name standard"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, name, text));
}

/// Checks the name of a resource of a pod as a whole.
fn pod_resource(name: &str, path: &FieldPath, errors: &mut Errors) {
    let supported = ["cpu", "memory"].contains(&name) || is_huge_page(name);
    if resource_name(name, path, errors) && !supported {
        errors.push(FieldError::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
}

/// Whether an amount is made of whole pages of the size that the name says.
fn is_whole_pages(name: &str, amount: &Quantity) -> bool {
    let size = name.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok());
    size.is_some_and(|size| {
        size.signum() > 0 && size.milli_value() % 1000 == 0 && amount.value() % size.value() == 0
    })
}

/// Whether amounts of huge pages of a pod are no whole pages.
pub(super) fn has_parts_of_pages(spec: &Value) -> bool {
    let parts = |amounts: &Map<String, Value>| {
        amounts.iter().any(|(name, amount)| {
            let amount = amount.as_str().and_then(|text| text.parse().ok());
            is_huge_page(name) && amount.is_some_and(|amount| !is_whole_pages(name, &amount))
        })
    };
    parts(spec.entries("overhead"))
        || containers(spec).any(|container| {
            let resources = container.at("resources");
            parts(resources.entries("limits")) || parts(resources.entries("requests"))
        })
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
    if (COUNTS.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, amount, "must be an integer"));
    }
}

/// Checks requests and limits of a container, whose pod has those claims.
pub(super) fn requirements(
    at: &At<'_>,
    claims: Option<&BTreeSet<&str>>,
    tolerated: Tolerated,
    errors: &mut Errors,
) {
    amounts_of(at, container_resource, tolerated, errors);
    if let Some(claims) = claims {
        claim_names(at, claims, errors);
    }
}

fn amounts_of(
    at: &At<'_>,
    name_check: fn(&str, &FieldPath, &mut Errors),
    tolerated: Tolerated,
    errors: &mut Errors,
) {
    let (limits, requests) = (at.entries("limits"), at.entries("requests"));
    let (limits_path, requests_path) = (at.path.child("limits"), at.path.child("requests"));
    let pages = |name: &str, amount: &Quantity, path: &FieldPath, errors: &mut Errors| {
        if is_huge_page(name) && !tolerated.parts_of_pages && !is_whole_pages(name, amount) {
            let text = format!("{amount} is not positive integer multiple of {name}");
            errors.push(FieldError::invalid(path, amount.to_string(), text));
        }
    };
    for name in limits.keys() {
        let path = limits_path.key(name);
        name_check(name, &path, errors);
        quantity_value(name, limits.text(name), &path, errors);
        if let Ok(amount) = limits.text(name).parse() {
            pages(name, &amount, &path, errors);
        }
    }
    for name in requests.keys() {
        let path = requests_path.key(name);
        name_check(name, &path, errors);
        let request = requests.text(name);
        quantity_value(name, request, &path, errors);
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
        pages(name, &amount, &path, errors);
    }
    let any =
        |test: &dyn Fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| test(name));
    if any(&is_huge_page) && !any(&|name| matches!(name, "cpu" | "memory")) {
        at.forbidden("HugePages require cpu or memory", errors);
    }
}

fn claim_names(at: &At<'_>, known: &BTreeSet<&str>, errors: &mut Errors) {
    let mut whole = BTreeSet::new();
    let mut parts: BTreeSet<(&str, &str)> = BTreeSet::new();
    for claim in at.each("claims") {
        let (name, request) = (claim.str_of("name"), claim.str_of("request"));
        let mut repeated = |shown: &str| {
            errors.push(FieldError::duplicate(&claim.path, shown));
        };
        if name.is_empty() {
            claim.required("", errors);
            continue;
        }
        if whole.contains(name) {
            repeated(name);
        } else if request.is_empty() {
            // Each request that was named before is part of it.
            let range = parts.range((name, "")..).take_while(|(claim, _)| *claim == name);
            range.for_each(|_| repeated(name));
            whole.insert(name);
        } else {
            claim.field("request").check(names::is_dns1123_label, errors);
            if !parts.insert((name, request)) {
                errors.push(FieldError::duplicate(&claim.path, format!("{name}/{request}")));
            }
        }
        if !known.contains(name) && !errors.is_full() {
            let mut error = FieldError::not_found(&claim.path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if known.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                let all: Vec<&str> = known.iter().copied().collect();
                error.detail.push_str(&format!(": {}", all.join(", ")));
            }
            errors.push(error);
        }
    }
}

/// Checks `spec.resourceClaims`.
pub(super) fn pod_claims(spec: &At<'_>, meta: Option<&Value>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let mirror = meta.is_some_and(|m| m.at("annotations").has("kubernetes.io/config.mirror"));
    for claim in spec.each("resourceClaims") {
        if mirror {
            errors.push(FieldError::forbidden("[]", "static pods do not support resource claims"));
            continue;
        }
        let name = claim.field("name");
        if name.str().is_empty() {
            name.required("", errors);
        } else if !seen.insert(name.str()) {
            name.duplicate(errors);
        } else {
            name.check(names::is_dns1123_label, errors);
        }
        let problem = match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName"))
        {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            }
            _ => "",
        };
        if !problem.is_empty() {
            let shown = format!(
                "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
                name.value,
                claim.at("resourceClaimName"),
                claim.at("resourceClaimTemplateName")
            );
            errors.push(FieldError::invalid(&claim.path, Value::Null, problem).shown_as(shown));
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(reference) = claim.some(field) {
                reference.check(names::is_dns1123_subdomain, errors);
            }
        }
    }
}

/// Checks resources of the pod as a whole (KEP-2837).
pub(super) fn pod_level(spec: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    let Some(resources) = spec.some("resources") else { return };
    if spec.value.at("os").text("name") == "windows" {
        return resources.forbidden("may not be set for a windows pod", errors);
    }
    if resources.has("claims") {
        resources
            .field("claims")
            .forbidden("claims may not be set for Resources at pod-level", errors);
    }
    amounts_of(&resources, pod_resource, tolerated, errors);
    let claims = spec.items("resourceClaims").iter().map(|claim| claim.text("name")).collect();
    claim_names(&resources, &claims, errors);
    let Value::Object(object) = spec.value else { return };
    let (requests, limits) =
        (amounts(resources.entries("requests")), amounts(resources.entries("limits")));
    let mut exceeds = |what: &str, pages_only: bool, whole: &Amounts| {
        for (name, sum) in aggregate(object, what) {
            if pages_only && !is_huge_page(&name) {
                continue;
            }
            if let Some(amount) = whole.get(&name).filter(|amount| sum > **amount) {
                let path = resources.path.child(what).key(&name);
                let text =
                    format!("must be greater than or equal to aggregate container {what} of {sum}");
                errors.push(FieldError::invalid(path, amount.to_string(), text));
            }
        }
    };
    exceeds("requests", false, &requests);
    exceeds("limits", true, &limits);
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

/// Checks amounts that are limits, though nothing runs that they limit.
pub(in crate::rules) fn limits(map: &Map<String, Value>, owner: &FieldPath, errors: &mut Errors) {
    let whole = serde_json::json!({"limits": map});
    let at = At { value: &whole, path: owner.clone() };
    amounts_of(&at, container_resource, Tolerated::default(), errors);
}

/// Checks `spec.overhead` as the limits they are.
pub(super) fn overhead(spec: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    if let Some(overhead) = spec.some("overhead") {
        let whole = serde_json::json!({"limits": overhead.value});
        let at = At { value: &whole, path: overhead.path.clone() };
        amounts_of(&at, container_resource, tolerated, errors);
    }
}
