//! Rules of Events, in both groups that serve them.

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::metadata::{self, immutable};
use super::{Hooks, pod::qualified_name};
use crate::view::{View, same};

const LONGEST_NAME: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// `v1 Event`: the old rules, for clients that never changed.
pub(super) const EVENT: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |event, errors| common(event, &CORE, errors),
    validate_update: |new, _, errors| common(new, &CORE, errors),
    validate_status: |_, _, _| {},
};

/// `events.k8s.io/v1 Event`.
pub(super) const NEW_EVENT: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |event, errors| {
        common(event, &NEW, errors);
        strict(event, errors);
    },
    validate_update,
    validate_status: |_, _, _| {},
};

/// What the two groups call the same fields.
struct Names {
    object: &'static str,
    message: &'static str,
    controller: &'static str,
}

const CORE: Names =
    Names { object: "involvedObject", message: "message", controller: "reportingComponent" };
const NEW: Names =
    Names { object: "regarding", message: "note", controller: "reportingController" };

fn common(event: &Value, called: &Names, errors: &mut Errors) {
    let root = At::root(event);
    let namespace = event.at("metadata").text("namespace");
    let object = event.at(called.object).text("namespace");
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
        let controller = At {
            value: root.value.at(called.controller),
            path: root.path.child(called.controller),
        };
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
        if event.text(called.message).len() > LONGEST_NOTE {
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
    for (field, old) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ] {
        if event.has(field) && *event.at(field) != 0 {
            errors.push(FieldError::invalid(old, "", "needs to be unset"));
        }
    }
    let source = event.at("deprecatedSource");
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
    common(new, &NEW, errors);
    if !same(new.at("series"), old.at("series")) {
        series(new, errors);
    }
    for (field, shown) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        immutable(new.at(field), old.at(field), shown, errors);
    }
}
