//! Rules of PodDisruptionBudgets and of evictions.

use meta::FieldError;
use serde_json::Value;

use super::at::{At, Errors};
use super::workload::{at_most_all, int_or_percent};
use super::{Hooks, selector};
use crate::view::View;

/// `policy/v1 PodDisruptionBudget`.
pub(super) const POD_DISRUPTION_BUDGET: Hooks = Hooks {
    validate: |budget, errors| validate(budget, false, errors),
    validate_update: |new, old, errors| {
        validate(new, selector::has_bad_value(old.at("spec").at("selector")), errors);
    },
    validate_status: |new, _, errors| status(&At::root(new).field("status"), errors),
    ..Hooks::BASE
};

/// `policy/v1 Eviction`.
pub(super) const EVICTION: Hooks = Hooks {
    validate: |eviction, errors| {
        let options = At::root(eviction).field("deleteOptions");
        let forced = options.field("ignoreStoreReadErrorWithClusterBreakingPotential");
        if *forced.value == true {
            let text = "can not be set for pod eviction, try after removing the option";
            forced.invalid(text, errors);
        }
    },
    ..Hooks::BASE
};

fn validate(budget: &Value, any_value: bool, errors: &mut Errors) {
    let spec = At::root(budget).field("spec");
    let bounds = ["minAvailable", "maxUnavailable"].map(|field| spec.some(field));
    if bounds.iter().all(Option::is_some) {
        let policy = spec.at("unhealthyPodEvictionPolicy");
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{policy}}}",
            spec.at("minAvailable"),
            spec.at("selector"),
            spec.at("maxUnavailable"),
        );
        let text = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&spec.path, Value::Null, text).shown_as(shown));
    }
    for bound in bounds.iter().flatten() {
        int_or_percent(bound, errors);
        at_most_all(bound, errors);
    }
    selector::label_selector_with(
        &spec.field("selector"),
        selector::Lenient::values(any_value),
        errors,
    );
    spec.field("unhealthyPodEvictionPolicy").known(&["AlwaysAllow", "IfHealthyBudget"], errors);
}

fn status(status: &At<'_>, errors: &mut Errors) {
    super::conditions::conditions(status, errors);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.field(field).not_negative(errors);
    }
}
