//! Rules of where a pod may run: node and pod affinity, tolerations, topology spread.

use std::collections::{HashMap, HashSet};

use meta::{FieldError, names};
use serde_json::Value;

use super::tolerated::{Tolerated, has_bad_label_value};
use crate::rules::at::{At, Errors};
use crate::rules::selector::{self, Lenient, label_selector_with};
use crate::view::View;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
pub(in crate::rules) const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks `spec.affinity`.
pub(super) fn validate(affinity: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    if let Some(node) = affinity.some("nodeAffinity") {
        if let Some(required) = node.some(REQUIRED) {
            node_selector_with(&required, tolerated.node_affinity_values, errors);
        }
        for term in node.each(PREFERRED) {
            weight(&term, errors);
            node_term(&term.field("preference"), true, errors);
        }
    }
    let any_value = tolerated.pod_affinity_values;
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.some(kind) else { continue };
        for term in pods.each(REQUIRED) {
            pod_term(&term, any_value, errors);
        }
        for term in pods.each(PREFERRED) {
            weight(&term, errors);
            pod_term(&term.field("podAffinityTerm"), any_value, errors);
        }
    }
}

fn weight(term: &At<'_>, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            term.path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

/// Checks a node selector.
pub(in crate::rules) fn node_selector(selector: &At<'_>, errors: &mut Errors) {
    node_selector_with(selector, false, errors);
}

/// As [`node_selector`]; `any_value` lets values be whatever they are.
pub(in crate::rules) fn node_selector_with(
    selector: &At<'_>,
    any_value: bool,
    errors: &mut Errors,
) {
    if selector.items("nodeSelectorTerms").is_empty() {
        let text = "must have at least one node selector term";
        return selector.field("nodeSelectorTerms").required(text, errors);
    }
    for term in selector.each("nodeSelectorTerms") {
        node_term(&term, any_value, errors);
    }
}

fn node_term(term: &At<'_>, any_value: bool, errors: &mut Errors) {
    for requirement in term.each("matchExpressions") {
        node_requirement(&requirement, any_value, errors);
    }
    for requirement in term.each("matchFields") {
        node_field(&requirement, errors);
    }
}

fn node_requirement(requirement: &At<'_>, any_value: bool, errors: &mut Errors) {
    let (values, count) = (requirement.field("values"), requirement.items("values").len());
    match requirement.str_of("operator") {
        "In" | "NotIn" if count == 0 => {
            values.required("must be specified when `operator` is 'In' or 'NotIn'", errors);
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            values.forbidden(
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                errors,
            );
        }
        "Gt" | "Lt" if count != 1 => {
            values
                .required("must be specified single value when `operator` is 'Lt' or 'Gt'", errors);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => requirement.field("operator").invalid_text("not a valid selector operator", errors),
    }
    requirement.field("key").check(names::is_qualified_name, errors);
    if !any_value {
        for value in requirement.each("values") {
            value.check(names::is_label_value, errors);
        }
    }
}

fn node_field(requirement: &At<'_>, errors: &mut Errors) {
    match requirement.str_of("operator") {
        "In" | "NotIn" if requirement.items("values").len() != 1 => {
            let text =
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            requirement.field("values").required(text, errors);
        }
        "In" | "NotIn" => {}
        _ => requirement.field("operator").invalid_text("not a valid selector operator", errors),
    }
    if requirement.str_of("key") == "metadata.name" {
        for value in requirement.each("values") {
            value.check(names::is_dns1123_subdomain, errors);
        }
    } else {
        requirement.field("key").invalid_text("not a valid field selector key", errors);
    }
}

fn pod_term(term: &At<'_>, any_value: bool, errors: &mut Errors) {
    label_selector_with(&term.field("labelSelector"), Lenient::values(any_value), errors);
    label_selector_with(&term.field("namespaceSelector"), Lenient::values(any_value), errors);
    for namespace in term.each("namespaces") {
        for problem in names::is_dns1123_label(namespace.str()) {
            errors.push(FieldError::invalid(
                term.path.child("namespace"),
                namespace.str(),
                problem,
            ));
        }
    }
    label_keys(term, errors);
    let key = term.field("topologyKey");
    if key.str().is_empty() {
        key.required("can not be empty", errors);
    }
    key.check(names::is_qualified_name, errors);
}

/// Checks `matchLabelKeys` and `mismatchLabelKeys`.
pub(super) fn label_keys(term: &At<'_>, errors: &mut Errors) {
    let selector = term.value.at("labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        if !term.items(list).is_empty() && selector.is_null() {
            let text = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(term.path.child(list), text));
            continue;
        }
        for key in term.each(list) {
            key.check(names::is_qualified_name, errors);
        }
    }
    // The selector has an expression for each key by now; one more is the user's.
    let mut selected: HashSet<&str> =
        selector.entries("matchLabels").keys().map(String::as_str).collect();
    let positions: HashMap<&str, usize> = term
        .items("matchLabelKeys")
        .iter()
        .enumerate()
        .map(|(index, key)| (key.as_str().unwrap_or_default(), index))
        .collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        if let (Some(index), true) = (positions.get(key), selected.contains(key)) {
            let text = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(term.path.index(*index), key, text));
        }
        selected.insert(key);
    }
    let others: HashSet<&str> =
        term.items("mismatchLabelKeys").iter().filter_map(Value::as_str).collect();
    for key in term.each("matchLabelKeys") {
        if others.contains(key.str()) {
            key.invalid("exists in both matchLabelKeys and mismatchLabelKeys", errors);
        }
    }
}

/// What former versions asked of `matchLabelKeys` in topology spread constraints.
fn former_label_keys(constraint: &At<'_>, errors: &mut Errors) {
    let selector = constraint.value.at("labelSelector");
    if selector.is_null() && !constraint.items("matchLabelKeys").is_empty() {
        let text = "must not be specified when labelSelector is not set";
        constraint.field("matchLabelKeys").forbidden(text, errors);
    }
    for key in constraint.each("matchLabelKeys") {
        key.check(names::is_qualified_name, errors);
        let selected = selector.entries("matchLabels").contains_key(key.str())
            || selector.items("matchExpressions").iter().any(|e| e.text("key") == key.str());
        if selected {
            key.invalid("exists in both matchLabelKeys and labelSelector", errors);
        }
    }
}

/// Whether selectors of pod affinity hold values that are none of labels.
pub(super) fn has_bad_pod_values(spec: &Value) -> bool {
    let bad = |term: &Value| {
        selector::has_bad_value(term.at("labelSelector"))
            || selector::has_bad_value(term.at("namespaceSelector"))
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let pods = spec.at("affinity").at(kind);
        pods.items(REQUIRED).iter().any(bad)
            || pods.items(PREFERRED).iter().any(|term| bad(term.at("podAffinityTerm")))
    })
}

/// Whether required node affinity holds values that are none of labels.
pub(super) fn has_bad_node_values(spec: &Value) -> bool {
    let required = spec.at("affinity").at("nodeAffinity").at(REQUIRED);
    required.items("nodeSelectorTerms").iter().any(|term| {
        term.items("matchExpressions").iter().any(|e| has_bad_label_value(e.items("values")))
    })
}

/// Checks `spec.tolerations`.
pub(super) fn tolerations<'a>(
    list: impl Iterator<Item = At<'a>>,
    tolerated: Tolerated,
    errors: &mut Errors,
) {
    for toleration in list {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.str_of("value"), toleration.field("effect"));
        if !key.str().is_empty() {
            key.check(names::is_qualified_name, errors);
        } else if operator.str() != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_text(text, errors);
        }
        if toleration.has("tolerationSeconds") && effect.str() != "NoExecute" {
            effect
                .invalid_text("effect must be 'NoExecute' when `tolerationSeconds` is set", errors);
        }
        match operator.str() {
            "Equal" | "" => {
                let problems = names::is_label_value(value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(&operator.path, value, problems.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let text = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&operator.path, value, text));
            }
            "Exists" => {}
            "Lt" | "Gt" if tolerated.comparisons => {
                number(&toleration.field("value"), errors);
            }
            "Lt" | "Gt" => operator.unsupported(&["Equal", "Exists", "Lt", "Gt"], errors),
            _ => operator.unsupported(&["Equal", "Exists"], errors),
        }
        if !effect.str().is_empty() && !EFFECTS.contains(&effect.str()) {
            effect.unsupported(EFFECTS, errors);
        }
    }
}

/// A value that is compared as a number.
fn number(value: &At<'_>, errors: &mut Errors) {
    if value.str().parse::<i64>().is_err() {
        let text = value.str();
        let problem = format!("strconv.ParseInt: parsing {}: invalid syntax", meta::quote(text));
        value.invalid_text(problem, errors);
    }
}

/// Checks `spec.topologySpreadConstraints`.
pub(super) fn topology_spread(spec: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    let all: Vec<At<'_>> = spec.each("topologySpreadConstraints").collect();
    let mut last: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, constraint) in all.iter().enumerate() {
        let (key, action) =
            (constraint.str_of("topologyKey"), constraint.str_of("whenUnsatisfiable"));
        last.insert((key, action), index);
    }
    for (index, constraint) in all.iter().enumerate() {
        constraint.field("maxSkew").positive(errors);
        let (key, action) =
            (constraint.field("topologyKey"), constraint.field("whenUnsatisfiable"));
        if key.str().is_empty() {
            key.required("can not be empty", errors);
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.str()) {
            action.unsupported(&["DoNotSchedule", "ScheduleAnyway"], errors);
        }
        if last.get(&(key.str(), action.str())).is_some_and(|last| *last > index) {
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors
                .push(FieldError::duplicate(path, format!("{{{}, {}}}", key.str(), action.str())));
        }
        if let Some(domains) = constraint.some("minDomains") {
            domains.positive(errors);
            if action.str() != "DoNotSchedule" {
                let text = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.str()
                );
                domains.invalid(text, errors);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.field(policy).known(&["Honor", "Ignore"], errors);
        }
        if tolerated.spread_keys {
            former_label_keys(constraint, errors);
        } else {
            label_keys(constraint, errors);
        }
        if !tolerated.spread_selectors {
            selector::label_selector(&constraint.field("labelSelector"), errors);
        }
    }
}

/// Whether every old toleration is still there, its seconds apart.
pub(super) fn only_added(new: &[Value], old: &[Value]) -> bool {
    const FIELDS: [&str; 4] = ["key", "operator", "value", "effect"];
    fn of(toleration: &Value) -> [&str; 4] {
        FIELDS.map(|field| toleration.text(field))
    }
    let kept: HashSet<[&str; 4]> = new.iter().map(of).collect();
    old.iter().all(|old| kept.contains(&of(old)))
}
