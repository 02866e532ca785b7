//! What an update of a pod may change.

use std::collections::{HashMap, HashSet};

use meta::{FieldError, names};
use serde_json::{Map, Value};

use super::{Tolerated, affinity, annotations, metadata_and_spec};
use crate::rules::at::{At, Errors};
use crate::rules::difference;
use crate::view::{View, same};

/// What may change, as upstream lists it.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
    (allow it to be set to 1 if it was previously negative)";

/// Checks an update of a pod; ephemeral containers change through their subresource alone.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let tolerated = Tolerated::of(old, true);
    metadata_and_spec(new, tolerated, errors);
    annotations::validate_update(new, old, tolerated, errors);
    let (after, before) = (At::root(new).field("spec"), At::root(old).field("spec"));
    for list in ["containers", "initContainers"] {
        if after.items(list).len() != before.items(list).len() {
            return after
                .field(list)
                .forbidden("pod updates may not add or remove containers", errors);
        }
        for container in after.each(list) {
            container.field("image").needed(errors);
            super::padded_image(&container, errors);
        }
    }
    if !active_deadline(&after, &before, errors) {
        return;
    }
    if affinity::only_added(after.items("tolerations"), before.items("tolerations")) {
        affinity::tolerations(after.each("tolerations"), tolerated, errors);
    } else {
        let text = "existing toleration can not be modified except its tolerationSeconds";
        after.field("tolerations").forbidden(text, errors);
    }
    gates_only_go(&after, &before, errors);
    if same(after.value, before.value) {
        return;
    }
    let (Value::Object(wanted), Value::Object(was)) = (after.value, before.value) else { return };
    let mut rest = wanted.clone();
    keep_what_may_change(&mut rest, was);
    if !was.items("schedulingGates").is_empty() {
        gated(&mut rest, was, &after, errors);
    }
    let (rest, was) = (Value::Object(rest), Value::Object(was.clone()));
    if !same(&rest, &was) {
        let text = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            difference::lines(&rest, &was)
        );
        after.forbidden(&text, errors);
    }
}

/// Scheduling gates may be taken away; of gates with one name, the last is told of.
fn gates_only_go(after: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let known: HashSet<&str> =
        before.items("schedulingGates").iter().map(|gate| gate.text("name")).collect();
    let last: HashMap<&str, usize> = after
        .value
        .items("schedulingGates")
        .iter()
        .enumerate()
        .map(|(index, gate)| (gate.text("name"), index))
        .collect();
    for (index, gate) in after.each("schedulingGates").enumerate() {
        let name = gate.str_of("name");
        if !known.contains(name) && last.get(name) == Some(&index) {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            gate.field("name").forbidden(&text, errors);
        }
    }
}

/// False if nothing more should be looked at.
fn active_deadline(after: &At<'_>, before: &At<'_>, errors: &mut Errors) -> bool {
    let field = after.field("activeDeadlineSeconds");
    match (after.int("activeDeadlineSeconds"), before.int("activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            field.invalid(names::range_error(0, i64::from(i32::MAX)), errors);
            false
        }
        (Some(new), Some(old)) if old < new => {
            field.invalid("must be less than or equal to previous value", errors);
            false
        }
        (None, Some(_)) => {
            field.invalid("must not update from a positive integer to nil value", errors);
            true
        }
        _ => true,
    }
}

/// Makes fields that may change equal, so that what still differs may not.
fn keep_what_may_change(spec: &mut Map<String, Value>, old: &Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        for (container, old) in containers.iter_mut().zip(old.items(list)) {
            if let Value::Object(fields) = container {
                fields.insert("image".to_owned(), old.at("image").clone());
            }
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep(spec, old, field);
    }
    let shortened = old.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && spec.int("terminationGracePeriodSeconds") == Some(1);
    if shortened {
        keep(spec, old, "terminationGracePeriodSeconds");
    }
}

fn keep(spec: &mut Map<String, Value>, old: &Map<String, Value>, field: &str) {
    match old.get(field) {
        Some(value) => drop(spec.insert(field.to_owned(), value.clone())),
        None => drop(spec.remove(field)),
    }
}

/// A pod that is not scheduled yet may become choosier about its node (KEP-3838).
fn gated(
    spec: &mut Map<String, Value>,
    old: &Map<String, Value>,
    after: &At<'_>,
    errors: &mut Errors,
) {
    let selector = old.entries("nodeSelector");
    let kept =
        selector.iter().all(|(key, value)| spec.entries("nodeSelector").get(key) == Some(value));
    if !kept {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        after.field("nodeSelector").invalid(text, errors);
    }
    keep(spec, old, "nodeSelector");
    let of = |spec: &Map<String, Value>| spec.at("affinity").at("nodeAffinity").clone();
    let (new, before) = (of(spec), of(old));
    if same(&new, &before) {
        return;
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |affinity: &Value| affinity.at(REQUIRED).items("nodeSelectorTerms").to_vec();
    let (new_terms, old_terms) = (terms(&new), terms(&before));
    let path = after
        .path
        .child("affinity")
        .child("nodeAffinity")
        .child(REQUIRED)
        .child("nodeSelectorTerms");
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, new_terms, text));
    } else {
        for (index, (new, old)) in new_terms.iter().zip(&old_terms).enumerate() {
            let lists = ["matchExpressions", "matchFields"];
            let grown = |list: &str| new.items(list).starts_with(old.items(list));
            let nothing = |term: &Value| lists.iter().all(|list| term.items(list).is_empty());
            if !lists.iter().all(|list| grown(list)) || (nothing(old) && !nothing(new)) {
                let text = "only additions are allowed (no mutations or deletions)";
                errors.push(FieldError::invalid(path.index(index), new.clone(), text));
            }
        }
    }
    let mut whole = spec.at("affinity").as_object().cloned().unwrap_or_default();
    match before {
        Value::Null => drop(whole.remove("nodeAffinity")),
        before => drop(whole.insert("nodeAffinity".to_owned(), before)),
    }
    if whole.is_empty() && !old.has("affinity") {
        spec.remove("affinity");
    } else {
        spec.insert("affinity".to_owned(), Value::Object(whole));
    }
}
