//! What the status of a kind that makes pods may say.

use meta::FieldError;
use serde_json::Value;

use crate::rules::at::{At, Errors};
use crate::view::View;

const OF_REPLICAS: &str = "cannot be greater than status.replicas";

/// Counts must not be negative, nor those of `bounded` exceed the replicas.
fn counts(status: &At<'_>, counts: &[&str], bounded: &[&str], errors: &mut Errors) {
    for field in counts {
        status.field(field).not_negative(errors);
    }
    let count = |field: &str| status.int(field).unwrap_or_default();
    for field in bounded {
        if count(field) > count("replicas") {
            status.field(field).invalid(OF_REPLICAS, errors);
        }
    }
}

fn available_is_ready(status: &At<'_>, ready: &str, errors: &mut Errors) {
    let count = |field: &str| status.int(field).unwrap_or_default();
    if count("availableReplicas") > count("readyReplicas") {
        let text = format!("cannot be greater than {ready}");
        status.field("availableReplicas").invalid(text, errors);
    }
}

/// Hashes of templates must not be used again.
fn collisions(new: &Value, old: &Value, errors: &mut Errors) {
    let count = |object: &Value| object.at("status").int("collisionCount");
    if count(old).is_some_and(|old| count(new).is_none_or(|new| new < old)) {
        let count = count(new).unwrap_or_default();
        let text = "cannot be decremented";
        errors.push(FieldError::invalid("status.collisionCount", count, text));
    }
}

pub(super) fn deployment(new: &Value, old: &Value, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let status = At::root(new).field("status");
    counts(&status, COUNTS, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
    available_is_ready(&status, "readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn replica_set(new: &Value, _: &Value, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    let status = At::root(new).field("status");
    let bounded = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    counts(&status, COUNTS, &bounded, errors);
    available_is_ready(&status, "readyReplicas", errors);
}

pub(super) fn replication_controller(new: &Value, old: &Value, errors: &mut Errors) {
    replica_set(new, old, errors);
}

pub(super) fn stateful_set(new: &Value, old: &Value, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    let status = At::root(new).field("status");
    counts(&status, COUNTS, &COUNTS[1..5], errors);
    available_is_ready(&status, "status.readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn daemon_set(new: &Value, old: &Value, errors: &mut Errors) {
    const COUNTS: &[&str] = &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(&At::root(new).field("status"), COUNTS, &[], errors);
    collisions(new, old, errors);
}
