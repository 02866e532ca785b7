//! Rules of DaemonSets.

use meta::{FieldError, Selector};
use serde_json::Value;

use super::{
    amount, at_most_all, immutable_selector, int_or_percent, not_selected, only_always, status,
    strategy_as_go, template_of,
};
use crate::rules::at::{At, Errors};
use crate::rules::selector::{Lenient, has_bad_value, is_empty, label_selector_with, matches};
use crate::rules::{Hooks, pod};
use crate::view::View;

/// `apps/v1 DaemonSet`. The number of its template is the server's business.
pub(in crate::rules) const DAEMON_SET: Hooks = Hooks {
    validate: |object, errors| validate(object, None, errors),
    validate_update: |new, old, errors| {
        immutable_selector(new, old, errors);
        validate(new, Some(old), errors);
    },
    validate_status: status::daemon_set,
    ..Hooks::BASE
};

fn validate(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    let (chosen, template) = (spec.field("selector"), spec.field("template"));
    let any_value = old.is_some_and(|old| has_bad_value(old.at("spec").at("selector")));
    label_selector_with(&chosen, Lenient::values(any_value), errors);
    if let Ok(selector) = Selector::from_label_selector(chosen.value)
        && (chosen.value.is_null() || !matches(&selector, template.at("metadata").at("labels")))
    {
        not_selected(&template, errors);
    }
    if !chosen.value.is_null() && is_empty(chosen.value) {
        chosen.invalid("empty selector is invalid for daemonset", errors);
    }
    pod::template(&template, template_of(old), errors);
    only_always(&template, "DaemonSet", errors);
    spec.field("minReadySeconds").not_negative(errors);
    strategy(&spec.field("updateStrategy"), errors);
    spec.field("revisionHistoryLimit").not_negative(errors);
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
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
                    surge.invalid("may not be set when maxUnavailable is non-zero", errors);
                }
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0", errors),
                _ => {}
            }
        }
        _ => {
            let shown = strategy_as_go(strategy, &["MaxUnavailable", "MaxSurge"]);
            let words = &["RollingUpdate", "OnDelete"];
            errors.push(
                FieldError::not_supported(&strategy.path, Value::Null, words).shown_as(shown),
            );
        }
    }
}
