//! Rules of Nodes.

use std::collections::HashSet;

use meta::{FieldError, FieldPath, names};
use serde_json::{Value, json};

use super::Hooks;
use super::at::{At, Errors, is_ipv6};
use super::pod::{EFFECTS, quantity_value};
use crate::view::View;

/// `v1 Node`.
pub(super) const NODE: Hooks = Hooks {
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        update(new, old, errors);
    },
    validate_status: update,
    ..Hooks::BASE
};

const TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
const AVOID: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
const LONGEST_FEATURE: usize = 253;

fn validate(node: &Value, errors: &mut Errors) {
    let root = At::root(node);
    let (meta, spec, status) = (root.field("metadata"), root.field("spec"), root.field("status"));
    annotations(&meta.field("annotations"), errors);
    // Upstream names these fields `metadata.taints` and `metadata.nodeSwapStatus`.
    taints(spec.each("taints"), &meta.path.child("taints"), errors);
    amounts(&status, errors);
    if let Some(swap) = status.field("nodeInfo").field("swap").some("capacity") {
        swap.under(meta.path.child("nodeSwapStatus").child("capacity")).positive(errors);
    }
    features(&status, errors);
    let ranges: Vec<At<'_>> = spec.each("podCIDRs").collect();
    ranges.iter().for_each(|range| range.cidr(errors));
    let v6 = |at: &At<'_>| at.str().split('/').next().is_some_and(is_ipv6);
    if ranges.len() > 2 || (ranges.len() == 2 && v6(&ranges[0]) == v6(&ranges[1])) {
        let text = "may specify no more than one CIDR for each IP family";
        spec.field("podCIDRs").invalid(text, errors);
    }
}

fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let root = At::root(new);
    let (meta, spec, status) = (root.field("metadata"), root.field("spec"), root.field("status"));
    annotations(&meta.field("annotations"), errors);
    amounts(&status, errors);
    features(&status, errors);
    let mut seen = HashSet::new();
    for address in status.each("addresses") {
        let (kind, text) = (address.str_of("type"), address.str_of("address"));
        if !seen.insert((kind, text)) {
            let shown = format!("{{\"Type\":{},\"Address\":{}}}", json!(kind), json!(text));
            errors.push(FieldError::duplicate(&address.path, Value::Null).shown_as(shown));
        }
    }
    let before = old.at("spec");
    let (now, was) = (spec.items("podCIDRs"), before.items("podCIDRs"));
    let moved = match was.len() {
        0 => 0,
        count if count != now.len() => 1,
        _ => now.iter().zip(was).filter(|(now, was)| now != was).count(),
    };
    for _ in 0..moved {
        let text = "node updates may not change podCIDR except from \"\" to valid";
        spec.field("podCIDRs").forbidden(text, errors);
    }
    let provider = before.text("providerID");
    if !provider.is_empty() && spec.str_of("providerID") != provider {
        let text = "node updates may not change providerID except from \"\" to valid";
        spec.field("providerID").forbidden(text, errors);
    }
    taints(spec.each("taints"), &meta.path.child("taints"), errors);
    if spec.str_of("externalID") != before.text("externalID") {
        spec.field("externalID").forbidden("may not be updated", errors);
    }
}

/// Annotations that fields replaced; who still has them has them checked.
fn annotations(at: &At<'_>, errors: &mut Errors) {
    let parse = |text: &str| {
        serde_json::from_str::<Value>(text)
            .map_err(|error| crate::decode::syntax(&error, text.as_bytes()))
    };
    match at.str_of(TAINTS) {
        "" => {}
        text => match parse(text) {
            Ok(list) => {
                let whole = json!({ TAINTS: list });
                let list = At { value: &whole, path: at.path.clone() };
                taints(list.each(TAINTS), &at.path.child(TAINTS), errors);
            }
            Err(problem) => errors.push(FieldError::invalid(&at.path, TAINTS, problem)),
        },
    }
    match at.str_of(AVOID) {
        "" => {}
        text => match parse(text) {
            Ok(avoid) => {
                let avoid = At { value: &avoid, path: at.path.clone() };
                for (index, entry) in avoid.each("preferAvoidPods").enumerate() {
                    if !entry.at("podSignature").has("podController") {
                        let path = at.path.child(AVOID).index(index).child("PodSignature");
                        errors.push(FieldError::required(path, ""));
                    }
                }
            }
            Err(problem) => {
                errors.push(FieldError::invalid(at.path.child("AvoidPods"), AVOID, problem));
            }
        },
    }
}

fn taints<'a>(all: impl Iterator<Item = At<'a>>, list: &FieldPath, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, taint) in all.enumerate() {
        let taint = taint.under(list.index(index));
        taint.field("key").check(names::is_qualified_name, errors);
        let value = taint.field("value");
        let problems = names::is_label_value(value.str());
        if !problems.is_empty() {
            value.invalid(problems.join(";"), errors);
        }
        taint.field("effect").one_of(EFFECTS, errors);
        let (key, effect) = (taint.str_of("key"), taint.str_of("effect"));
        if !seen.insert((effect, key)) {
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}",
                json!(key),
                json!(value.str()),
                json!(effect),
                taint.at("timeAdded")
            );
            let mut error = FieldError::duplicate(&taint.path, Value::Null).shown_as(shown);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

fn amounts(status: &At<'_>, errors: &mut Errors) {
    for list in ["capacity", "allocatable"] {
        for (name, amount) in status.entries(list) {
            let path = status.path.child(list).child(name);
            quantity_value(name, amount.as_str().unwrap_or_default(), &path, errors);
        }
    }
}

/// Features of a node are sorted, and their names are words that slashes separate.
fn features(status: &At<'_>, errors: &mut Errors) {
    let mut previous: Option<At<'_>> = None;
    for feature in status.each("declaredFeatures") {
        if let Some(last) = &previous {
            if last.str() == feature.str() {
                feature.duplicate(errors);
            } else if last.str() > feature.str() {
                feature.invalid("list must be sorted alphabetically", errors);
            }
        }
        let name = feature.str();
        let starts = |part: &str, upper: bool| {
            part.starts_with(
                |c: char| if upper { c.is_ascii_uppercase() } else { c.is_ascii_alphabetic() },
            ) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let shown = meta::quote(name);
        if name.len() > LONGEST_FEATURE {
            let text = format!(
                "invalid feature name {shown}: must be no more than {LONGEST_FEATURE} characters"
            );
            feature.invalid(text, errors);
        } else if !name.split('/').enumerate().all(|(index, part)| starts(part, index == 0)) {
            let text = format!(
                "invalid feature name {shown}: must start with an UpperCamelCase segment, with subsequent segments \
                 separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric \
                 characters and slashes"
            );
            feature.invalid(text, errors);
        }
        previous = Some(feature);
    }
}
