//! Rules of volume claims, disruption budgets and autoscalers beyond what the type graph says.

use meta::{FieldError, Quantity};
use serde_json::Value;

use super::at::{At, Errors};
use super::workload::{at_most_all, int_or_percent};
use super::{Hooks, metadata};
use crate::view::{View, same};

const BASE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// `v1 PersistentVolumeClaim`.
pub(super) const PERSISTENT_VOLUME_CLAIM: Hooks = Hooks {
    validate: |claim, errors| claim_spec(claim, errors),
    validate_update: claim_update,
    ..BASE
};

/// `v1 PersistentVolume`.
pub(super) const PERSISTENT_VOLUME: Hooks = Hooks {
    validate: |volume, errors| {
        let spec = At::root(volume).field("spec");
        if spec.items("accessModes").is_empty() {
            spec.field("accessModes").required("", errors);
        }
        if spec.entries("capacity").is_empty() {
            spec.field("capacity").required("", errors);
        }
    },
    ..BASE
};

fn storage(spec: &Value) -> Option<Quantity> {
    spec.at("resources").at("requests").text("storage").parse().ok()
}

fn claim_spec(claim: &Value, errors: &mut Errors) {
    let spec = At::root(claim).field("spec");
    let modes = spec.items("accessModes");
    if modes.is_empty() {
        spec.field("accessModes").required("at least 1 access mode is required", errors);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let text = "may not use ReadWriteOncePod with other access modes";
        spec.field("accessModes").forbidden(text, errors);
    }
    let path = spec.path.child("resources").key("storage");
    match storage(spec.value) {
        None => errors.push(FieldError::required(path, "")),
        Some(size) if size.signum() <= 0 => {
            errors.push(FieldError::invalid(path, size.to_string(), "must be greater than zero"));
        }
        Some(_) => {}
    }
}

fn claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    claim_spec(new, errors);
    let bound = new.at("status").text("phase") == "Bound";
    let rest = |claim: &Value| {
        let mut spec = claim.at("spec").clone();
        if let Value::Object(fields) = &mut spec {
            if old.at("spec").text("volumeName").is_empty() {
                fields.remove("volumeName");
            }
            if !old.at("spec").has("storageClassName") {
                fields.remove("storageClassName");
            }
            if bound {
                fields.remove("volumeAttributesClassName");
                if let Some(requests) =
                    fields.get_mut("resources").and_then(|resources| resources.get_mut("requests"))
                {
                    *requests = Value::Null;
                }
            }
        }
        spec
    };
    let spec = At::root(new).field("spec");
    if !same(&rest(new), &rest(old)) {
        let text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                    bound claims";
        spec.forbidden(text, errors);
    }
    if let (Some(size), Some(before)) = (storage(new.at("spec")), storage(old.at("spec"))) {
        let capacity =
            old.at("status").at("capacity").text("storage").parse().unwrap_or(Quantity::ZERO);
        if size < before && size <= capacity {
            let path = spec.path.child("resources").child("requests").child("storage");
            errors.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
        }
    }
}

/// `policy/v1 PodDisruptionBudget`.
pub(super) const POD_DISRUPTION_BUDGET: Hooks =
    Hooks { validate: budget, validate_update: |new, _, errors| budget(new, errors), ..BASE };

fn budget(budget: &Value, errors: &mut Errors) {
    let spec = At::root(budget).field("spec");
    let bounds = ["minAvailable", "maxUnavailable"].map(|field| spec.some(field));
    if bounds.iter().all(Option::is_some) {
        spec.invalid("minAvailable and maxUnavailable cannot be both set", errors);
    }
    for bound in bounds.iter().flatten() {
        int_or_percent(bound, errors);
        at_most_all(bound, errors);
    }
}

/// `autoscaling HorizontalPodAutoscaler`.
pub(super) const POD_AUTOSCALER: Hooks = Hooks {
    validate: autoscaler,
    validate_update: |new, _, errors| autoscaler(new, errors),
    ..BASE
};

fn autoscaler(scaler: &Value, errors: &mut Errors) {
    let spec = At::root(scaler).field("spec");
    let (minimum, maximum) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if spec.has("minReplicas") && minimum.number() < 1 {
        minimum.invalid("must be greater than or equal to 1", errors);
    }
    match maximum.number() {
        0 => maximum.required("must be set and greater than 0", errors),
        number if number < 0 => maximum.invalid("must be greater than or equal to 1", errors),
        _ => {}
    }
    if spec.has("minReplicas") && maximum.number() < minimum.number() {
        let text = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&maximum.path, maximum.number(), text));
    }
}
