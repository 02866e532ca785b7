//! Rules of how much of a shared device may be asked for.

use meta::{FieldError, Quantity};
use serde_json::Value;

use super::set;
use crate::rules::at::{At, Errors};
use crate::view::View;

const MOST_OPTIONS: usize = 10;

fn amount(at: &At<'_>) -> Option<Quantity> {
    at.str().parse().ok()
}

/// Checks the policy of a capacity.
pub(super) fn request_policy(capacity: &str, policy: &At<'_>, errors: &mut Errors) {
    let Ok(capacity) = capacity.parse::<Quantity>() else { return };
    let (many, range) = (!policy.items("validValues").is_empty(), policy.some("validRange"));
    if many && range.is_some() {
        let text = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return policy.forbidden(text, errors);
    }
    let default = policy.field("default");
    let mut need =
        |what: &str| default.required(&format!("required when {what} is defined"), errors);
    match (amount(&default), many, range) {
        (None, true, _) => need("validValues"),
        (None, false, Some(_)) => need("validRange"),
        (Some(default), true, _) => options(policy, default, capacity, errors),
        (Some(default), false, Some(range)) => self::range(&range, default, capacity, errors),
        (_, false, None) => {}
    }
}

fn options(policy: &At<'_>, default: Quantity, capacity: Quantity, errors: &mut Errors) {
    let list = policy.field("validValues");
    let mut before: Option<Quantity> = None;
    for option in policy.each("validValues") {
        let here = amount(&option);
        if before.zip(here).is_some_and(|(before, here)| before > here) {
            option.invalid("values must be sorted in ascending order", errors);
        }
        before = here;
    }
    let fits = |option: &At<'_>, errors: &mut Errors| {
        if amount(option).is_some_and(|option| option > capacity) {
            let text = format!("option is larger than capacity value: {capacity}");
            option.invalid(text, errors);
        }
    };
    let key = |option: &At<'_>| {
        let value = amount(option).map(|amount| amount.value()).unwrap_or_default();
        (value, Value::from(value.to_string()))
    };
    set(policy, "validValues", Some(MOST_OPTIONS), fits, key, errors);
    let few = policy.items("validValues").len() <= MOST_OPTIONS;
    if !few || !policy.each("validValues").any(|option| amount(&option) == Some(default)) {
        let text = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(&list.path, default.to_string(), text));
    }
}

fn range(range: &At<'_>, default: Quantity, capacity: Quantity, errors: &mut Errors) {
    let (at_least, at_most, step) = (range.field("min"), range.field("max"), range.field("step"));
    let Some(min) = amount(&at_least) else {
        return at_least.required("required when validRange is defined", errors);
    };
    let max = amount(&at_most);
    let mut unless = |fine: bool, at: &At<'_>, shown: Quantity, text: String| {
        if !fine {
            errors.push(FieldError::invalid(&at.path, shown.to_string(), text));
        }
    };
    let beyond = |what: &str| format!("{what} is larger than capacity value: {capacity}");
    unless(min <= capacity, &at_least, min, beyond("min"));
    unless(default >= min, &at_least, default, format!("default is less than min: {min}"));
    if let Some(max) = max {
        unless(min <= max, &at_most, min, format!("min is larger than max: {max}"));
        unless(max <= capacity, &at_most, max, beyond("max"));
        unless(default <= max, &at_most, default, format!("default is more than max: {max}"));
    }
    let Some(size) = amount(&step) else { return };
    let first = min + size;
    unless(first <= capacity, &step, size, beyond(&format!("one step {first}")));
    for value in [Some(default), max].into_iter().flatten() {
        // A step of nothing would be no step at all.
        let rest = value.value().wrapping_sub(min.value()).checked_rem(size.value());
        let text = format!("value is not a multiple of a given step ({size}) from ({min})");
        unless(rest == Some(0), &step, value, text);
    }
}
