//! Rules of LimitRanges and ResourceQuotas.

use std::collections::{BTreeSet, HashSet};

use meta::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors};
use super::metadata::IMMUTABLE;
use super::pod::{container_resource, may_overcommit, quantity_value, resource_name};
use crate::amounts::{COUNTS, OF_PODS};
use crate::view::View;

/// `v1 LimitRange`.
pub(super) const LIMIT_RANGE: Hooks = Hooks {
    validate: limit_range,
    validate_update: |new, _, errors| limit_range(new, errors),
    ..Hooks::BASE
};

/// `v1 ResourceQuota`.
pub(super) const RESOURCE_QUOTA: Hooks = Hooks {
    validate: |quota, errors| {
        quota_spec(&At::root(quota).field("spec"), errors);
        quota_status(quota, errors);
    },
    validate_update: |new, old, errors| {
        let spec = At::root(new).field("spec");
        quota_spec(&spec, errors);
        let scopes = |spec: &Value| {
            let texts = spec.items("scopes").iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        if scopes(spec.value) != scopes(old.at("spec")) {
            spec.field("scopes").invalid(IMMUTABLE, errors);
        }
    },
    validate_status: |new, _, errors| quota_status(new, errors),
    ..Hooks::BASE
};

fn limit_range(range: &Value, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for limit in At::root(range).field("spec").each("limits") {
        let kind = limit.field("type");
        let problems = names::is_qualified_name(kind.str());
        let known = ["Container", "PersistentVolumeClaim", "Pod"].contains(&kind.str());
        if problems.is_empty() && !known && !kind.str().contains('/') {
            kind.invalid_text("must be a standard limit type or fully qualified", errors);
        }
        kind.check(|_| problems, errors);
        if !seen.insert(kind.str()) {
            kind.duplicate(errors);
        }
        limits(&limit, errors);
    }
}

fn limits(limit: &At<'_>, errors: &mut Errors) {
    let kind = limit.str_of("type");
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut check = |list: &str, errors: &mut Errors| {
        for name in limit.value.entries(list).keys() {
            let path = limit.path.child(list).key(name);
            if matches!(kind, "Pod" | "Container") {
                container_resource(name, &path, errors);
            } else {
                resource_name(name, &path, errors);
            }
            names.insert(name);
        }
    };
    check("max", errors);
    check("min", errors);
    for list in ["default", "defaultRequest"] {
        if kind != "Pod" {
            check(list, errors);
        } else if !limit.entries(list).is_empty() {
            let text = "may not be specified when `type` is 'Pod'";
            limit.field(list).forbidden(text, errors);
        }
    }
    let bounded = limit.at("min").has("storage") || limit.at("max").has("storage");
    if kind == "PersistentVolumeClaim" && !bounded {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        limit.field("limits").required(text, errors);
    }
    check("maxLimitRequestRatio", errors);
    for name in names {
        order(limit, kind == "Pod", name, errors);
    }
}

/// Least, most, defaults and ratio of one resource must fit together.
fn order(limit: &At<'_>, pod: bool, name: &str, errors: &mut Errors) {
    let of = |list: &str| limit.at(list).text(name).parse::<Quantity>().ok();
    let (min, max, ratio) = (of("min"), of("max"), of("maxLimitRequestRatio"));
    let default = of("default").filter(|_| !pod);
    let request = of("defaultRequest").filter(|_| !pod);
    let mut too_much = |low: Option<Quantity>,
                        high: Option<Quantity>,
                        (field, shows_low): (&str, bool),
                        (what, than): (&str, &str)| {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let path = limit.path.child(field).key(name);
            let shown = if shows_low { low } else { high }.to_string();
            let text = format!("{what} value {low} is greater than {than} value {high}");
            errors.push(FieldError::invalid(path, shown, text));
        }
    };
    too_much(min, max, ("min", true), ("min", "max"));
    too_much(min, request, ("defaultRequest", false), ("min", "default request"));
    too_much(request, max, ("defaultRequest", true), ("default request", "max"));
    too_much(request, default, ("defaultRequest", true), ("default request", "default limit"));
    too_much(min, default, ("default", true), ("min", "default"));
    too_much(default, max, ("default", false), ("default", "max"));
    if let Some(ratio) = ratio {
        let path = limit.path.child("maxLimitRequestRatio").key(name);
        if ratio < Quantity::from_milli(1000) {
            let text = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(&path, ratio.to_string(), text));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.approximate() / min.approximate();
            if ratio.approximate() > most {
                let text = format!("ratio {ratio} is greater than max/min = {most:.6}");
                errors.push(FieldError::invalid(path, ratio.to_string(), text));
            }
        }
    }
    if let (false, Some(default), Some(request)) = (may_overcommit(name), default, request)
        && default != request
    {
        let path = limit.path.child("defaultRequest").key(name);
        let text = format!(
            "default value {default} must equal to defaultRequest value {request} in {name}"
        );
        errors.push(FieldError::invalid(path, request.to_string(), text));
    }
}

/// Whether quotas count a resource.
fn is_counted(name: &str) -> bool {
    OF_PODS.contains(&name)
        || COUNTS.contains(&name)
        || name == "requests.storage"
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

fn quota_amounts(at: &At<'_>, errors: &mut Errors) {
    for (name, amount) in at.value.as_object().into_iter().flatten() {
        let path = at.path.key(name);
        quota_resource(name, &path, errors);
        quantity_value(name, amount.as_str().unwrap_or_default(), &path, errors);
    }
}

fn quota_resource(name: &str, path: &FieldPath, errors: &mut Errors) {
    resource_name(name, path, errors);
    if !name.contains('/') && !is_counted(name) {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for quota"));
    }
}

fn quota_status(quota: &Value, errors: &mut Errors) {
    let status = At::root(quota).field("status");
    quota_amounts(&status.field("hard"), errors);
    quota_amounts(&status.field("used"), errors);
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// After how many complaints of scopes no more are looked at: each of them shows all scopes.
const MOST_SHOWN: usize = 100;

/// Whether a scope has anything to say of a resource.
fn applies(scope: &str, resource: &str) -> bool {
    let computed = OF_PODS.contains(&resource) && !resource.ends_with("ephemeral-storage");
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        scope if SCOPES.contains(&scope) => computed || resource == "pods",
        _ => true,
    }
}

fn quota_spec(spec: &At<'_>, errors: &mut Errors) {
    quota_amounts(&spec.field("hard"), errors);
    let unfit = |scope: &str| {
        let resources = spec.entries("hard").keys();
        resources.filter(|name| is_counted(name) && !applies(scope, name)).count()
    };
    let (scopes, before) = (spec.field("scopes"), errors.len());
    let texts = || spec.items("scopes").iter().filter_map(Value::as_str);
    for scope in texts() {
        if errors.len() > before + MOST_SHOWN {
            break;
        }
        if !SCOPES.contains(&scope) {
            scopes.invalid("unsupported scope", errors);
        }
        for _ in 0..unfit(scope) {
            scopes.invalid("unsupported scope applied to resource", errors);
        }
        if errors.is_full() {
            return;
        }
    }
    conflicts(&texts().collect(), &scopes, errors);
    let Some(selector) = spec.some("scopeSelector") else { return };
    let list = selector.field("matchExpressions");
    let mut seen = HashSet::new();
    let before = errors.len();
    for requirement in selector.each("matchExpressions") {
        if errors.len() > before + MOST_SHOWN {
            break;
        }
        // Upstream leaves the index out of these paths.
        let requirement = requirement.under(list.path.clone());
        let scope = requirement.str_of("scopeName");
        if !SCOPES.contains(&scope) {
            requirement.field("scopeName").invalid_text("unsupported scope", errors);
        }
        for _ in 0..unfit(scope) {
            selector
                .under(list.path.clone())
                .invalid("unsupported scope applied to resource", errors);
        }
        if errors.is_full() {
            return;
        }
        operator(&requirement, scope, errors);
        seen.insert(scope);
    }
    conflicts(&seen, &scopes.under(list.path.clone()), errors);
}

fn conflicts(seen: &HashSet<&str>, at: &At<'_>, errors: &mut Errors) {
    for scope in ["BestEffort", "Terminating"] {
        if seen.contains(scope) && seen.contains(format!("Not{scope}").as_str()) {
            at.invalid("conflicting scopes", errors);
        }
    }
}

fn operator(requirement: &At<'_>, scope: &str, errors: &mut Errors) {
    let (operator, values) = (requirement.field("operator"), requirement.field("values"));
    let named = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope) && !named && operator.str() != "Exists" {
        let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                    ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                    ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        operator.invalid_text(text, errors);
    }
    let empty = requirement.items("values").is_empty();
    match operator.str() {
        "In" | "NotIn" if empty => values.required(
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            errors,
        ),
        "Exists" | "DoesNotExist" if !empty => values.invalid(
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            errors,
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => operator.invalid_text("not a valid selector operator", errors),
    }
}
