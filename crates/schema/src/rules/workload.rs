//! Rules of the kinds that make pods from a template: Deployment, ReplicaSet, ReplicationController; those of
//! DaemonSets and StatefulSets, and of their revisions, are below.

mod daemon;
mod stateful;
mod status;

use meta::{FieldError, Selector, names};
use serde_json::{Map, Value, json};

use super::at::{At, Errors};
use super::metadata::immutable;
use super::selector::{is_empty, label_selector, matches};
use super::{Hooks, pod};
use crate::view::View;
pub(super) use daemon::DAEMON_SET;
pub(super) use stateful::{CONTROLLER_REVISION, STATEFUL_SET};

/// `apps/v1 Deployment`.
pub(super) const DEPLOYMENT: Hooks = Hooks {
    validate: |object, errors| deployment(object, None, errors),
    validate_update: |new, old, errors| {
        deployment(new, Some(old), errors);
        immutable_selector(new, old, errors);
    },
    validate_status: status::deployment,
    ..Hooks::BASE
};

/// `apps/v1 ReplicaSet`.
pub(super) const REPLICA_SET: Hooks = Hooks {
    validate: |object, errors| replica_set(object, None, errors),
    validate_update: |new, old, errors| {
        replica_set(new, Some(old), errors);
        immutable_selector(new, old, errors);
    },
    validate_status: status::replica_set,
    ..Hooks::BASE
};

/// `v1 ReplicationController`.
pub(super) const REPLICATION_CONTROLLER: Hooks = Hooks {
    validate: |object, errors| replication_controller(object, None, errors),
    validate_update: |new, old, errors| replication_controller(new, Some(old), errors),
    validate_status: status::replication_controller,
    ..Hooks::BASE
};

fn immutable_selector(new: &Value, old: &Value, errors: &mut Errors) {
    let path = At::root(new).field("spec").path.child("selector");
    immutable(new.at("spec").at("selector"), old.at("spec").at("selector"), path, errors);
}

/// The template that an object had before.
fn template_of(old: Option<&Value>) -> Option<&Value> {
    old.map(|old| old.at("spec").at("template"))
}

fn deployment(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    spec.field("replicas").not_negative(errors);
    selector(&spec, "deployment", errors);
    template_of_replica_set(&spec, old, errors);
    deployment_strategy(&spec.field("strategy"), errors);
    spec.field("minReadySeconds").not_negative(errors);
    spec.field("revisionHistoryLimit").not_negative(errors);
    if let Some(deadline) = spec.some("progressDeadlineSeconds") {
        deadline.not_negative(errors);
        if deadline.number() <= spec.int("minReadySeconds").unwrap_or_default() {
            deadline.invalid("must be greater than minReadySeconds", errors);
        }
    }
}

fn replica_set(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    spec.field("replicas").not_negative(errors);
    spec.field("minReadySeconds").not_negative(errors);
    selector(&spec, "deployment", errors);
    template_of_replica_set(&spec, old, errors);
}

/// A selector that must be there and select something.
fn selector(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let Some(selector) = spec.some("selector") else {
        return spec.field("selector").required("", errors);
    };
    label_selector(&selector, errors);
    if is_empty(selector.value) {
        selector.invalid(format!("empty selector is invalid for {kind}"), errors);
    }
}

fn template_of_replica_set(spec: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let template = spec.field("template");
    match Selector::from_label_selector(spec.value.at("selector")) {
        Err(_) => return spec.field("selector").invalid("invalid label selector", errors),
        Ok(selector) if spec.has("selector") => selects_template(&selector, &template, errors),
        // No selector selects nothing.
        Ok(_) => not_selected(&template, errors),
    }
    pod::template(&template, template_of(old), errors);
    only_always(&template, "ReplicaSet", errors);
}

/// The selector must match the pods that it makes.
fn selects_template(selector: &Selector, template: &At<'_>, errors: &mut Errors) {
    let labels = template.field("metadata").field("labels");
    if !selector.is_empty() && !matches(selector, labels.value) {
        not_selected(template, errors);
    }
}

/// Says that a template's labels are not those that are selected.
pub(super) fn not_selected(template: &At<'_>, errors: &mut Errors) {
    let labels = template.field("metadata").field("labels");
    labels.invalid("`selector` does not match template `labels`", errors);
}

/// Pods that are replaced when they end must not end by themselves.
fn only_always(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let spec = template.field("spec");
    if spec.str_of("restartPolicy") != "Always" {
        spec.field("restartPolicy").unsupported(&["Always"], errors);
    }
    if let Some(deadline) = spec.some("activeDeadlineSeconds") {
        deadline.forbidden(&format!("activeDeadlineSeconds in {kind} is not Supported"), errors);
    }
}

fn deployment_strategy(strategy: &At<'_>, errors: &mut Errors) {
    match (strategy.str_of("type"), strategy.some("rollingUpdate")) {
        ("Recreate", Some(rolling)) => {
            rolling.forbidden("may not be specified when strategy `type` is 'Recreate'", errors);
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            strategy
                .field("rollingUpdate")
                .required("this should be defaulted and never be nil", errors);
        }
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            int_or_percent(&unavailable, errors);
            int_or_percent(&surge, errors);
            if amount(unavailable.value) == 0 && amount(surge.value) == 0 {
                unavailable.invalid("may not be 0 when `maxSurge` is 0", errors);
            }
            at_most_all(&unavailable, errors);
        }
        _ => {
            let shown = strategy_as_go(strategy, &["MaxUnavailable", "MaxSurge"]);
            let words = &["Recreate", "RollingUpdate"];
            errors.push(
                FieldError::not_supported(&strategy.path, Value::Null, words).shown_as(shown),
            );
        }
    }
}

/// A strategy as Go shows it: all fields in its order.
fn strategy_as_go(strategy: &At<'_>, fields: &[&str]) -> String {
    let rolling = strategy.at("rollingUpdate");
    let show = |field: &&str| {
        let json = format!("{}{}", field[..1].to_lowercase(), &field[1..]);
        let value = rolling.at(&json);
        let zero = json!(0);
        format!("\"{field}\":{}", if value.is_null() { &zero } else { value })
    };
    let rolling = match rolling {
        Value::Null => "null".to_owned(),
        _ => format!("{{{}}}", fields.iter().map(show).collect::<Vec<_>>().join(",")),
    };
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", meta::quote(strategy.str_of("type")))
}

pub(super) fn int_or_percent(at: &At<'_>, errors: &mut Errors) {
    if at.value.is_string() { at.check(names::is_percent, errors) } else { at.not_negative(errors) }
}

/// The number itself, or that before the percent sign.
fn amount(value: &Value) -> i64 {
    match value {
        Value::String(text) => percent(text).unwrap_or_default(),
        value => value.as_i64().unwrap_or_default(),
    }
}

fn percent(text: &str) -> Option<i64> {
    text.strip_suffix('%')?.parse().ok()
}

pub(super) fn at_most_all(at: &At<'_>, errors: &mut Errors) {
    if at.value.as_str().and_then(percent).is_some_and(|percent| percent > 100) {
        at.invalid("must not be greater than 100%", errors);
    }
}

fn replication_controller(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    spec.field("minReadySeconds").not_negative(errors);
    if spec.entries("selector").is_empty() {
        spec.field("selector").required("", errors);
    }
    match spec.some("replicas") {
        Some(replicas) => replicas.not_negative(errors),
        None => spec.field("replicas").required("", errors),
    }
    let template = spec.field("template");
    if template.value.is_null() {
        return template.required("", errors);
    }
    // The selector is a map of labels; whatever they are, all must be there.
    let labels = template.at("metadata").entries("labels");
    let selected = |(key, value): (&String, &Value)| labels.get(key) == Some(value);
    if !spec.entries("selector").iter().all(selected) {
        not_selected(&template, errors);
    }
    pod::template(&template, template_of(old), errors);
    only_always(&template, "ReplicationController", errors);
}

/// An object without some of its fields.
fn without(object: &Value, fields: &[&str]) -> Value {
    let kept = object.as_object().into_iter().flatten();
    let kept = kept.filter(|(key, _)| !fields.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
}
