//! Rules of HorizontalPodAutoscalers, in the version in which they are stored.

use std::collections::BTreeSet;

use meta::{FieldError, Quantity, names};
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors, NOT_NEGATIVE};
use super::pod::container_resource;
use crate::view::View;

/// `autoscaling HorizontalPodAutoscaler`.
pub(super) const POD_AUTOSCALER: Hooks = Hooks {
    validate: |scaler, errors| validate(scaler, &Value::Null, errors),
    validate_update: validate,
    validate_status: |new, _, errors| {
        let status = At::root(new).field("status");
        status.field("currentReplicas").not_negative(errors);
        status.field("desiredReplicas").not_negative(errors);
    },
    ..Hooks::BASE
};

/// How strictly the API version of a reference is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// It must have a group.
    Grouped,
    /// It may be of the core group.
    Any,
    /// It was let in before.
    Unchecked,
}

fn validate(scaler: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (At::root(scaler).field("spec"), old.at("spec"));
    let least = i64::from(before.int("minReplicas") != Some(0));
    let (minimum, maximum) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if spec.has("minReplicas") && minimum.number() < least {
        minimum.invalid(format!("must be greater than or equal to {least}"), errors);
    }
    match maximum.number() {
        0 => maximum.required("must be set and greater than 0", errors),
        number if number < 0 => maximum.invalid("must be greater than or equal to 1", errors),
        _ => {}
    }
    if spec.has("minReplicas") && maximum.number() < minimum.number() {
        let text = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&maximum.path, maximum.number(), text));
    }
    let target = spec.field("scaleTargetRef");
    let was = before.at("scaleTargetRef");
    let same = |field: &str| was.text(field) == target.str_of(field);
    let version = if old.is_object() && same("apiVersion") && same("kind") {
        Version::Unchecked
    } else if target.str_of("kind") == "ReplicationController" {
        Version::Any
    } else {
        Version::Grouped
    };
    reference(&target, version, errors);
    metrics(&spec, before, errors);
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.field("behavior").some(direction) {
            scaling(&rules, errors);
        }
    }
}

fn reference(at: &At<'_>, version: Version, errors: &mut Errors) {
    for field in ["kind", "name"] {
        at.field(field).required_name(names::is_path_segment, errors);
    }
    let api = at.field("apiVersion");
    if let Some(problem) = bad_version(api.str(), version) {
        api.invalid_text(problem, errors);
    }
}

fn bad_version(text: &str, version: Version) -> Option<String> {
    match text.matches('/').count() {
        _ if version == Version::Unchecked => None,
        0 if version == Version::Grouped => Some("apiVersion must specify API group".to_owned()),
        1 if version == Version::Grouped && text.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        0 | 1 => None,
        _ => Some(format!("unexpected GroupVersion string: {text}")),
    }
}

fn metrics(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let bad = |metric: &Value| {
        let object = metric.at("object").at("describedObject");
        metric.text("type") == "Object"
            && metric.has("object")
            && bad_version(object.text("apiVersion"), Version::Any).is_some()
    };
    let version =
        if before.items("metrics").iter().any(bad) { Version::Unchecked } else { Version::Any };
    let mut outside = false;
    for each in spec.each("metrics") {
        metric(&each, version, errors);
        outside |= matches!(each.str_of("type"), "Object" | "External");
    }
    if spec.int("minReplicas") == Some(0) && !outside {
        let text = "must specify at least one Object or External metric to support scaling to zero replicas";
        spec.field("metrics").forbidden(text, errors);
    }
}

/// Types of metrics and their fields, in the order in which upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn metric(at: &At<'_>, version: Version, errors: &mut Errors) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = at.field("type");
    if kind.str().is_empty() {
        kind.required("must specify a metric source type", errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.str()).map(|row| row.1);
    if expected.is_none() {
        kind.unsupported(TYPES, errors);
    }
    let mut present: BTreeSet<&str> = BTreeSet::new();
    for (_, field) in SOURCES {
        let Some(source) = at.some(field) else { continue };
        present.insert(field);
        if present.len() == 1 {
            self::source(&source, field, version, errors);
        }
    }
    match expected {
        None => kind.unsupported(TYPES, errors),
        Some(field) if !at.has(field) => {
            let text = "must populate information for the given metric source";
            at.field(field).required(text, errors);
        }
        Some(_) => {}
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| expected != Some(**field)) {
            at.field(field).forbidden("must populate the given metric source only", errors);
        }
    }
}

fn source(at: &At<'_>, field: &str, version: Version, errors: &mut Errors) {
    let target = at.field("target");
    let has = |field: &str| target.has(field);
    match field {
        "object" => reference(&at.field("describedObject"), version, errors),
        "containerResource" | "resource" => {
            let name = at.field("name");
            if name.str().is_empty() {
                name.required("must specify a resource name", errors);
            } else if field == "containerResource" {
                container_resource(name.str(), &name.path, errors);
            }
        }
        _ => {}
    }
    if field == "containerResource" {
        let container = at.field("container");
        if container.str().is_empty() {
            container.required("must specify a container", errors);
        }
        container.optional(names::is_dns1123_label, errors);
    }
    if !field.ends_with("esource") {
        let name = at.field("metric").field("name");
        if name.str().is_empty() {
            name.required("must specify a metric name", errors);
        }
        name.optional(names::is_path_segment, errors);
    }
    metric_target(&target, errors);
    let (value, average) = (target.field("value"), target.field("averageValue"));
    let utilization = target.field("averageUtilization");
    match field {
        "object" if !has("value") && !has("averageValue") => {
            average.required("must set either a target value or averageValue", errors);
        }
        "external" if !has("value") && !has("averageValue") => {
            let text = "must set either a target value for metric or a per-pod target";
            average.required(text, errors);
        }
        "external" if has("value") && has("averageValue") => {
            let text = "may not set both a target value for metric and a per-pod target";
            value.forbidden(text, errors);
        }
        "pods" if !has("averageValue") => {
            average.required("must specify a positive target averageValue", errors);
        }
        "resource" | "containerResource" => {
            match (has("averageUtilization"), has("averageValue")) {
                (false, false) => utilization
                    .required("must set either a target raw value or a target utilization", errors),
                (true, true) => average.forbidden(
                    "may not set both a target raw value and a target utilization",
                    errors,
                ),
                _ => {}
            }
        }
        _ => {}
    }
}

fn metric_target(at: &At<'_>, errors: &mut Errors) {
    let kind = at.field("type");
    if kind.str().is_empty() {
        kind.required("must specify a metric target type", errors);
    }
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        kind.invalid_text("must be either Utilization, Value, or AverageValue", errors);
    }
    for field in ["value", "averageValue"] {
        let amount = at.field(field);
        if amount.str().parse::<Quantity>().is_ok_and(|amount| amount.signum() <= 0) {
            amount.invalid("must be positive", errors);
        }
    }
    if at.int("averageUtilization").is_some_and(|percent| percent < 1) {
        at.field("averageUtilization").invalid("must be greater than 0", errors);
    }
}

fn scaling(rules: &At<'_>, errors: &mut Errors) {
    const LONGEST_WINDOW: i64 = 3600;
    const LONGEST_PERIOD: i64 = 1800;
    let window = rules.field("stabilizationWindowSeconds");
    if window.number() < 0 {
        window.invalid("must be greater than or equal to zero", errors);
    }
    if window.number() > LONGEST_WINDOW {
        window.invalid(format!("must be less than or equal to {LONGEST_WINDOW}"), errors);
    }
    rules.field("selectPolicy").known(&["Disabled", "Max", "Min"], errors);
    if rules.items("policies").is_empty() {
        rules.field("policies").required("must specify at least one Policy", errors);
    }
    for policy in rules.each("policies") {
        let kind = policy.field("type");
        if !["Percent", "Pods"].contains(&kind.str()) {
            kind.unsupported(&["Percent", "Pods"], errors);
        }
        policy.field("value").positive(errors);
        let period = policy.field("periodSeconds");
        period.positive(errors);
        if period.number() > LONGEST_PERIOD {
            period.invalid(format!("must be less than or equal to {LONGEST_PERIOD}"), errors);
        }
    }
    let tolerance = rules.field("tolerance");
    if tolerance.str().parse::<Quantity>().is_ok_and(|amount| amount.signum() < 0) {
        tolerance.invalid(NOT_NEGATIVE, errors);
    }
}
