//! Rules of the kinds that make pods from a template: Deployment, ReplicaSet, ReplicationController, DaemonSet,
//! StatefulSet.

use meta::{FieldError, Selector, names};
use serde_json::{Map, Value};

use super::at::{At, Errors};
use super::metadata::{self, immutable};
use super::selector::{is_empty, label_selector, matches};
use super::{Hooks, pod};
use crate::view::{View, same};

const BASE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// `apps/v1 Deployment`.
pub(super) const DEPLOYMENT: Hooks = Hooks {
    validate: deployment,
    validate_update: |new, old, errors| {
        deployment(new, errors);
        immutable_selector(new, old, errors);
    },
    validate_status: |new, old, errors| {
        let counts = [
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ];
        status(new, &counts, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
        let count = |object: &Value| object.at("status").int("collisionCount");
        let decremented = count(old).is_some_and(|old| count(new).is_none_or(|new| new < old));
        if decremented {
            let path = At::root(new).field("status").path.child("collisionCount");
            errors.push(FieldError::invalid(
                path,
                count(new).unwrap_or_default(),
                "cannot be decremented",
            ));
        }
    },
    ..BASE
};

/// `apps/v1 ReplicaSet`.
pub(super) const REPLICA_SET: Hooks = Hooks {
    validate: replica_set,
    validate_update: |new, old, errors| {
        replica_set(new, errors);
        immutable_selector(new, old, errors);
    },
    validate_status: replica_status,
    ..BASE
};

/// `v1 ReplicationController`.
pub(super) const REPLICATION_CONTROLLER: Hooks = Hooks {
    validate: replication_controller,
    validate_update: |new, _, errors| replication_controller(new, errors),
    validate_status: replica_status,
    ..BASE
};

/// `apps/v1 DaemonSet`.
pub(super) const DAEMON_SET: Hooks = Hooks {
    validate: daemon_set,
    validate_update: |new, old, errors| {
        immutable_selector(new, old, errors);
        daemon_set(new, errors);
    },
    ..BASE
};

/// `apps/v1 StatefulSet`.
pub(super) const STATEFUL_SET: Hooks =
    Hooks { validate: stateful_set, validate_update: stateful_set_update, ..BASE };

fn immutable_selector(new: &Value, old: &Value, errors: &mut Errors) {
    let path = At::root(new).field("spec").path.child("selector");
    immutable(new.at("spec").at("selector"), old.at("spec").at("selector"), path, errors);
}

fn replica_status(new: &Value, _: &Value, errors: &mut Errors) {
    let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    status(new, &counts, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errors);
}

/// Counts must not be negative, nor those of `bounded` exceed the replicas.
fn status(object: &Value, counts: &[&str], bounded: &[&str], errors: &mut Errors) {
    let status = At::root(object).field("status");
    status.field("observedGeneration").not_negative(errors);
    for field in counts.iter().chain(&["terminatingReplicas", "collisionCount"]) {
        status.field(field).not_negative(errors);
    }
    let count = |field: &str| status.int(field).unwrap_or_default();
    for field in bounded {
        if count(field) > count("replicas") {
            status.field(field).invalid("cannot be greater than status.replicas", errors);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        status.field("availableReplicas").invalid("cannot be greater than readyReplicas", errors);
    }
}

fn deployment(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    spec.field("replicas").not_negative(errors);
    selector(&spec, "deployment", errors);
    template_of_replica_set(&spec, errors);
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

fn replica_set(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    spec.field("replicas").not_negative(errors);
    spec.field("minReadySeconds").not_negative(errors);
    selector(&spec, "deployment", errors);
    template_of_replica_set(&spec, errors);
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

fn template_of_replica_set(spec: &At<'_>, errors: &mut Errors) {
    let template = spec.field("template");
    match Selector::from_label_selector(spec.value.at("selector")) {
        Err(_) => return spec.field("selector").invalid("invalid label selector", errors),
        Ok(selector) if spec.has("selector") => selects_template(&selector, &template, errors),
        // No selector selects nothing.
        Ok(_) => not_selected(&template, errors),
    }
    pod::template(&template, errors);
    only_always(&template, "ReplicaSet", errors);
}

/// The selector must match the pods that it makes.
fn selects_template(selector: &Selector, template: &At<'_>, errors: &mut Errors) {
    let labels = template.field("metadata").field("labels");
    if !selector.is_empty() && !matches(selector, labels.value) {
        not_selected(template, errors);
    }
}

fn not_selected(template: &At<'_>, errors: &mut Errors) {
    let labels = template.field("metadata").field("labels");
    let shown =
        if labels.value.is_null() { Value::Object(Map::new()) } else { labels.value.clone() };
    errors.push(FieldError::invalid(
        &labels.path,
        shown,
        "`selector` does not match template `labels`",
    ));
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
            let value = strategy.value.clone();
            errors.push(FieldError::not_supported(
                &strategy.path,
                value,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
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

fn replication_controller(object: &Value, errors: &mut Errors) {
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
    let wrapped = serde_json::json!({"matchLabels": spec.at("selector")});
    if let Ok(selector) = Selector::from_label_selector(&wrapped) {
        selects_template(&selector, &template, errors);
    }
    pod::template(&template, errors);
    only_always(&template, "ReplicationController", errors);
}

fn daemon_set(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    let (chosen, template) = (spec.field("selector"), spec.field("template"));
    label_selector(&chosen, errors);
    if let Ok(selector) = Selector::from_label_selector(chosen.value) {
        let labels = template.field("metadata").field("labels");
        if chosen.value.is_null() || !matches(&selector, labels.value) {
            labels.invalid("`selector` does not match template `labels`", errors);
        }
    }
    if !chosen.value.is_null() && is_empty(chosen.value) {
        chosen.invalid("empty selector is invalid for daemonset", errors);
    }
    pod::template(&template, errors);
    only_always(&template, "DaemonSet", errors);
    spec.field("minReadySeconds").not_negative(errors);
    daemon_set_strategy(&spec.field("updateStrategy"), errors);
    spec.field("revisionHistoryLimit").not_negative(errors);
}

fn daemon_set_strategy(strategy: &At<'_>, errors: &mut Errors) {
    match (strategy.str_of("type"), strategy.some("rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => strategy.field("rollingUpdate").required("", errors),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            for bound in [&unavailable, &surge] {
                int_or_percent(bound, errors);
            }
            for bound in [&unavailable, &surge] {
                at_most_all(bound, errors);
            }
            match (amount(unavailable.value) != 0, amount(surge.value) != 0) {
                (true, true) => {
                    surge.invalid("may not be set when maxUnavailable is non-zero", errors)
                }
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0", errors),
                _ => {}
            }
        }
        _ => {
            let value = strategy.value.clone();
            errors.push(FieldError::not_supported(
                &strategy.path,
                value,
                &["RollingUpdate", "OnDelete"],
            ));
        }
    }
}

fn stateful_set(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    let service = spec.field("serviceName");
    if !service.str().is_empty() {
        service.check(names::is_dns1123_label, errors);
    }
    stateful_set_spec(&spec, errors);
}

fn stateful_set_spec(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.field("podManagementPolicy");
    match policy.str() {
        "" => policy.required("", errors),
        "OrderedReady" | "Parallel" => {}
        _ => policy.invalid("must be 'OrderedReady' or 'Parallel'", errors),
    }
    let strategy = spec.field("updateStrategy");
    match (strategy.str_of("type"), strategy.some("rollingUpdate")) {
        ("", _) => strategy.required("", errors),
        ("OnDelete", Some(rolling)) => {
            rolling.invalid("only allowed for updateStrategy 'RollingUpdate'", errors);
        }
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            rolling.field("partition").not_negative(errors);
            if let Some(unavailable) = rolling.some("maxUnavailable") {
                int_or_percent(&unavailable, errors);
                if amount(unavailable.value) == 0 {
                    unavailable.invalid("cannot be 0", errors);
                }
                at_most_all(&unavailable, errors);
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'", errors),
    }
    spec.field("replicas").not_negative(errors);
    spec.field("minReadySeconds").not_negative(errors);
    spec.field("ordinals").field("start").not_negative(errors);
    selector(spec, "statefulset", errors);
    let template = spec.field("template");
    if let (Ok(selector), true) =
        (Selector::from_label_selector(spec.value.at("selector")), spec.has("selector"))
    {
        selects_template(&selector, &template, errors);
    }
    let whole = with_claims(spec.value, template.value);
    pod::template(&At { value: &whole, path: template.path.clone() }, errors);
    only_always(&template, "StatefulSet", errors);
}

/// The template as its pods will see it: with a volume for each claim template.
fn with_claims(spec: &Value, template: &Value) -> Value {
    let mut template = template.clone();
    let claims: Vec<&str> = spec
        .items("volumeClaimTemplates")
        .iter()
        .map(|claim| claim.at("metadata").text("name"))
        .collect();
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else {
        return template;
    };
    pod.remove("hostname");
    pod.remove("subdomain");
    let mut volumes: Vec<Value> = claims
        .iter()
        .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    volumes.extend(
        pod.items("volumes")
            .iter()
            .filter(|volume| !claims.contains(&volume.text("name")))
            .cloned(),
    );
    if !volumes.is_empty() {
        pod.insert("volumes".to_owned(), Value::Array(volumes));
    }
    template
}

fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    const MAY_CHANGE: &[&str] = &[
        "replicas",
        "template",
        "updateStrategy",
        "minReadySeconds",
        "ordinals",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
    ];
    stateful_set_spec(&At::root(new).field("spec"), errors);
    let rest = |object: &Value| {
        let fields = object.at("spec").as_object().cloned().unwrap_or_default();
        Value::Object(
            fields.into_iter().filter(|(key, _)| !MAY_CHANGE.contains(&key.as_str())).collect(),
        )
    };
    if !same(&rest(new), &rest(old)) {
        let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                    'minReadySeconds' are forbidden";
        At::root(new).field("spec").forbidden(text, errors);
    }
}
