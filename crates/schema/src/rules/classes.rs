//! Rules of PriorityClasses, RuntimeClasses and Leases.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::metadata::{self, immutable};
use super::{Hooks, pod};
use crate::view::View;

/// The greatest value that users may give a priority class.
const HIGHEST_PRIORITY: i64 = 1_000_000_000;

/// Classes of the system and their values.
const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// `scheduling.k8s.io/v1 PriorityClass`.
pub(super) const PRIORITY_CLASS: Hooks = Hooks {
    validate: priority_class,
    validate_update: |new, old, errors| {
        if new.int("value").unwrap_or_default() != old.int("value").unwrap_or_default() {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        immutable(
            new.at("preemptionPolicy"),
            old.at("preemptionPolicy"),
            "preemptionPolicy",
            errors,
        );
    },
    ..Hooks::BASE
};

fn priority_class(class: &Value, errors: &mut Errors) {
    let (name, value) = (class.at("metadata").text("name"), class.int("value").unwrap_or_default());
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name);
        let problem = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, wanted)) if *wanted != value => {
                Some(format!("value of {name} PriorityClass must be {wanted}"))
            }
            Some(_) if class.flag("globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(problem) = problem {
            let text = "priority class names with 'system-' prefix are reserved for system use only. error:";
            errors.push(FieldError::forbidden("metadata.name", format!("{text} {problem}")));
        }
    } else if value > HIGHEST_PRIORITY {
        let text =
            format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}");
        errors.push(FieldError::forbidden("value", text));
    }
    if let Some(policy) = At::root(class).some("preemptionPolicy") {
        policy.one_of(&["PreemptLowerPriority", "Never"], errors);
    }
}

/// `coordination.k8s.io/v1 Lease`.
pub(super) const LEASE: Hooks =
    Hooks { validate: lease, validate_update: |new, _, errors| lease(new, errors), ..Hooks::BASE };

fn lease(lease: &Value, errors: &mut Errors) {
    let spec = At::root(lease).field("spec");
    let (duration, strategy) = (spec.field("leaseDurationSeconds"), spec.field("strategy"));
    if !duration.value.is_null() && duration.number() <= 0 {
        duration.invalid("must be greater than 0", errors);
    }
    spec.field("leaseTransitions").not_negative(errors);
    if !strategy.value.is_null() {
        // Upstream names the field twice.
        let at = At { value: strategy.value, path: strategy.path.child("strategy") };
        if at.str().contains('/') {
            at.check(names::is_qualified_name, errors);
        } else {
            at.known(&["OldestEmulationVersion"], errors);
        }
    }
    let holder = spec.field("preferredHolder");
    if !holder.str().is_empty() && strategy.str().is_empty() {
        holder.forbidden("may only be specified if `strategy` is defined", errors);
    }
}

/// `node.k8s.io/v1 RuntimeClass`.
pub(super) const RUNTIME_CLASS: Hooks = Hooks {
    validate: runtime_class,
    validate_update: |new, old, errors| {
        runtime_class(new, errors);
        immutable(new.at("handler"), old.at("handler"), "handler", errors);
    },
    ..Hooks::BASE
};

fn runtime_class(class: &Value, errors: &mut Errors) {
    let root = At::root(class);
    root.field("handler").required_name(names::is_dns1123_label, errors);
    if let Some(overhead) = root.some("overhead") {
        pod::limits(overhead.entries("podFixed"), &overhead.path, errors);
    }
    let Some(scheduling) = root.some("scheduling") else { return };
    let path = scheduling.path.child("nodeSelector");
    metadata::labels(scheduling.entries("nodeSelector"), &path, errors);
    pod::tolerations(&scheduling, errors);
    let mut known = BTreeSet::new();
    for toleration in scheduling.each("tolerations") {
        let key = ["key", "operator", "value", "effect"].map(|field| toleration.value.text(field));
        if !known.insert(key) {
            toleration.duplicate(errors);
        }
    }
}
