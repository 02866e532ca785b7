//! Rules of StatefulSets, and of the revisions that they and DaemonSets keep.

use std::collections::BTreeSet;

use meta::{FieldError, Selector, names};
use serde_json::{Value, json};

use super::{
    amount, at_most_all, int_or_percent, only_always, selector, selects_template, status,
    strategy_as_go, template_of, without,
};
use crate::rules::at::{At, Errors};
use crate::rules::metadata::{self, immutable};
use crate::rules::{Hooks, claim, pod};
use crate::view::{View, same};

/// `apps/v1 StatefulSet`. Its name becomes part of its pods' names.
pub(in crate::rules) const STATEFUL_SET: Hooks = Hooks {
    name: metadata::label,
    validate: |object, errors| spec(object, None, errors),
    validate_update: |new, old, errors| {
        spec(new, Some(old), errors);
        stays(new, old, errors);
    },
    validate_status: status::stateful_set,
    ..Hooks::BASE
};

/// `apps/v1 ControllerRevision`.
pub(in crate::rules) const CONTROLLER_REVISION: Hooks = Hooks {
    validate: |object, errors| {
        let root = At::root(object);
        root.field("revision").not_negative(errors);
        match root.value.at("data") {
            Value::Object(_) => {}
            Value::Null => root.field("data").required("data is mandatory", errors),
            _ => root.field("data").required("data must be a valid JSON object", errors),
        }
    },
    validate_update: |new, old, errors| {
        At::root(new).field("revision").not_negative(errors);
        immutable(new.at("data"), old.at("data"), "data", errors);
    },
    ..Hooks::BASE
};

/// What may change of a set.
const MAY_CHANGE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

fn stays(new: &Value, old: &Value, errors: &mut Errors) {
    let rest = |object: &Value| without(object.at("spec"), MAY_CHANGE);
    if !same(&rest(new), &rest(old)) {
        let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                    'minReadySeconds' are forbidden";
        At::root(new).field("spec").forbidden(text, errors);
    }
}

fn spec(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    let policy = spec.field("podManagementPolicy");
    match policy.str() {
        "" => policy.required("", errors),
        "OrderedReady" | "Parallel" => {}
        _ => policy.invalid("must be 'OrderedReady' or 'Parallel'", errors),
    }
    strategy(&spec.field("updateStrategy"), errors);
    if let Some(policy) = spec.some("persistentVolumeClaimRetentionPolicy") {
        for field in ["whenDeleted", "whenScaled"] {
            let at = policy.field(field);
            if !["Retain", "Delete"].contains(&at.str()) {
                at.unsupported(&["Retain", "Delete"], errors);
            }
        }
    }
    // What cannot change any more is not asked about again.
    if old.is_none() {
        for claim in spec.each("volumeClaimTemplates") {
            claim::of_stateful_set(&claim.field("spec"), errors);
        }
    }
    spec.field("replicas").not_negative(errors);
    spec.field("minReadySeconds").not_negative(errors);
    spec.field("ordinals").field("start").not_negative(errors);
    if old.is_none() {
        spec.field("serviceName").optional(names::is_dns1123_label, errors);
    }
    selector(&spec, "statefulset", errors);
    let template = spec.field("template");
    match Selector::from_label_selector(spec.value.at("selector")) {
        Err(_) => spec.field("selector").invalid("", errors),
        Ok(selector) => {
            if spec.has("selector") {
                selects_template(&selector, &template, errors);
            } else {
                super::not_selected(&template, errors);
            }
            pods(&spec, old, errors);
        }
    }
    only_always(&template, "StatefulSet", errors);
}

fn pods(spec: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let template = spec.field("template");
    let whole = with_claims(spec.value, template.value);
    let at = At { value: &whole, path: template.path.clone() };
    // A set that was let in once with anything wrong may keep its pods.
    let was_bad = old.filter(|old| !old.is_null()).is_some_and(|old| {
        let mut wrong = Errors::new();
        self::spec(old, Some(&Value::Null), &mut wrong);
        !wrong.is_empty()
    });
    if !was_bad {
        pod::template(&at, template_of(old), errors);
    }
    let tolerated =
        template_of(old).map_or_else(pod::Tolerated::default, |old| pod::Tolerated::of(old, false));
    pod::template_metadata(&at, tolerated, errors);
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
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
        _ => {
            let shown = strategy_as_go(strategy, &["Partition", "MaxUnavailable"]);
            let text = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(&strategy.path, Value::Null, text).shown_as(shown));
        }
    }
}

/// The template as its pods will see it: with a volume for each claim template.
fn with_claims(spec: &Value, template: &Value) -> Value {
    let mut template = template.clone();
    let claims: BTreeSet<&str> = spec
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
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
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
