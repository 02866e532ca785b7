//! Rules of Events, in both groups that serve them. All read events as they are stored.

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::metadata::immutable;
use super::{Hooks, pod::qualified_name};
use crate::view::{View, same};

const LONGEST_NAME: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// `v1 Event`: the old rules, for clients that never changed.
pub(super) const EVENT: Hooks = Hooks {
    validate: |event, errors| common(event, "reportingComponent", errors),
    validate_update: |new, _, errors| common(new, "reportingComponent", errors),
    ..Hooks::BASE
};

/// `events.k8s.io/v1 Event`, in the form in which it is stored: that of `v1`.
pub(super) const NEW_EVENT: Hooks = Hooks {
    validate: |event, errors| {
        common(event, "reportingController", errors);
        strict(event, errors);
    },
    validate_update,
    ..Hooks::BASE
};

/// `controller` is what the group calls the reporting controller.
fn common(event: &Value, controller: &str, errors: &mut Errors) {
    let root = At::root(event);
    let namespace = event.at("metadata").text("namespace");
    let object = event.at("involvedObject").text("namespace");
    let modern = event.has("eventTime");
    let fits = match (object, modern) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (object, false) => object == namespace,
        (_, true) => true,
    };
    if !fits {
        let text = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", object, text));
    }
    if modern {
        let stored = root.value.at("reportingComponent");
        let controller = At { value: stored, path: root.path.child(controller) };
        if controller.str().is_empty() {
            controller.required("", errors);
        }
        qualified_name(&controller, errors);
        for field in ["reportingInstance", "action", "reason"] {
            let at = root.field(field);
            if at.str().is_empty() {
                at.required("", errors);
            }
            if at.str().len() > LONGEST_NAME {
                let text = format!("can have at most {LONGEST_NAME} characters");
                errors.push(FieldError::invalid(&at.path, "", text));
            }
        }
        if event.text("message").len() > LONGEST_NOTE {
            let text = format!("can have at most {LONGEST_NOTE} characters");
            errors.push(FieldError::invalid("message", "", text));
        }
    }
    for problem in names::is_dns1123_subdomain(namespace) {
        errors.push(FieldError::invalid("namespace", namespace, problem));
    }
}

fn strict(event: &Value, errors: &mut Errors) {
    series(event, errors);
    if !event.has("eventTime") {
        errors.push(FieldError::required("eventTime", ""));
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if event.has(field) && *event.at(field) != 0 {
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
    }
    let source = event.at("source");
    if !source.text("component").is_empty() || !source.text("host").is_empty() {
        errors.push(FieldError::invalid("source", "", "needs to be unset"));
    }
}

fn series(event: &Value, errors: &mut Errors) {
    let series = event.at("series");
    if series.is_null() {
        return;
    }
    if series.int("count").unwrap_or_default() < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if !series.has("lastObservedTime") {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    common(new, "reportingController", errors);
    if !same(new.at("series"), old.at("series")) {
        series(new, errors);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
    ] {
        immutable(new.at(field), old.at(field), field, errors);
    }
    let (now, then) = (new.at("reportingComponent"), old.at("reportingComponent"));
    immutable(now, then, "reportingController", errors);
    immutable(
        new.at("reportingInstance"),
        old.at("reportingInstance"),
        "reportingInstance",
        errors,
    );
}
