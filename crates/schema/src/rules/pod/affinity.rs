//! Rules of where a pod may run: node and pod affinity, tolerations, topology spread.

use meta::{FieldError, names};
use serde_json::Value;

use crate::rules::at::{At, Errors};
use crate::rules::selector::label_selector;
use crate::view::View;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks `spec.affinity`.
pub(super) fn validate(affinity: &At<'_>, errors: &mut Errors) {
    if let Some(node) = affinity.some("nodeAffinity") {
        if let Some(required) = node.some(REQUIRED) {
            node_selector(&required, errors);
        }
        for term in node.each(PREFERRED) {
            weight(&term, errors);
            node_term(&term.field("preference"), false, errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.some(kind) else { continue };
        for term in pods.each(REQUIRED) {
            pod_term(&term, errors);
        }
        for term in pods.each(PREFERRED) {
            weight(&term, errors);
            pod_term(&term.field("podAffinityTerm"), errors);
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
    if selector.items("nodeSelectorTerms").is_empty() {
        let text = "must have at least one node selector term";
        return selector.field("nodeSelectorTerms").required(text, errors);
    }
    for term in selector.each("nodeSelectorTerms") {
        node_term(&term, true, errors);
    }
}

fn node_term(term: &At<'_>, check_values: bool, errors: &mut Errors) {
    for requirement in term.each("matchExpressions") {
        node_requirement(&requirement, check_values, errors);
    }
    for requirement in term.each("matchFields") {
        node_field(&requirement, errors);
    }
}

fn node_requirement(requirement: &At<'_>, check_values: bool, errors: &mut Errors) {
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
    if check_values {
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

fn pod_term(term: &At<'_>, errors: &mut Errors) {
    label_selector(&term.field("labelSelector"), errors);
    label_selector(&term.field("namespaceSelector"), errors);
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
fn label_keys(term: &At<'_>, errors: &mut Errors) {
    let selector = term.value.at("labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        if !term.items(list).is_empty() && selector.is_null() {
            let text = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(term.path.child(list), text));
        }
        for key in term.each(list) {
            key.check(names::is_qualified_name, errors);
        }
    }
    for key in term.each("matchLabelKeys") {
        if term.items("mismatchLabelKeys").contains(key.value) {
            key.invalid("exists in both matchLabelKeys and mismatchLabelKeys", errors);
        }
    }
}

/// Checks `spec.tolerations`.
pub(in crate::rules) fn tolerations(spec: &At<'_>, errors: &mut Errors) {
    for toleration in spec.each("tolerations") {
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
            "Lt" | "Gt" => operator.unsupported(&["Equal", "Exists", "Lt", "Gt"], errors),
            _ => operator.unsupported(&["Equal", "Exists"], errors),
        }
        if !effect.str().is_empty() && !EFFECTS.contains(&effect.str()) {
            effect.unsupported(EFFECTS, errors);
        }
    }
}

/// Checks `spec.topologySpreadConstraints`.
pub(super) fn topology_spread(spec: &At<'_>, errors: &mut Errors) {
    let all: Vec<At<'_>> = spec.each("topologySpreadConstraints").collect();
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
        let same = |other: &At<'_>| {
            other.str_of("topologyKey") == key.str()
                && other.str_of("whenUnsatisfiable") == action.str()
        };
        if all[index + 1..].iter().any(same) {
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
            let found = constraint.some(policy);
            if let Some(found) = found.filter(|found| !["Honor", "Ignore"].contains(&found.str())) {
                found.unsupported(&["Honor", "Ignore"], errors);
            }
        }
        label_keys(constraint, errors);
        label_selector(&constraint.field("labelSelector"), errors);
    }
}

/// Whether every old toleration is still there, its seconds apart.
pub(super) fn only_added(new: &[Value], old: &[Value]) -> bool {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Value::Object(fields) = &mut toleration {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    old.iter().all(|old| new.iter().any(|new| without_seconds(new) == without_seconds(old)))
}
