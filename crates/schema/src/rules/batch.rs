//! Rules of Jobs and CronJobs beyond what the type graph says.

use meta::FieldError;
use serde_json::{Map, Value, json};

use super::at::{At, Errors};
use super::metadata::{self, immutable};
use super::{Hooks, pod};
use crate::view::View;

const BASE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// `batch/v1 Job`.
pub(super) const JOB: Hooks = Hooks {
    prepare_create: generate_selector,
    validate: |job, errors| {
        let spec = At::root(job).field("spec");
        if !spec.has("selector") {
            spec.field("selector").required("", errors);
        }
        job_spec(&spec, errors);
    },
    validate_update: |new, old, errors| {
        let spec = At::root(new).field("spec");
        job_spec(&spec, errors);
        let before = old.at("spec");
        // An indexed Job may grow and shrink.
        let elastic = spec.str_of("completionMode") == "Indexed"
            && spec.at("completions") == spec.at("parallelism");
        if !elastic {
            immutable(
                spec.at("completions"),
                before.at("completions"),
                spec.path.child("completions"),
                errors,
            );
        }
        if !before.flag("suspend") {
            immutable(
                spec.at("template"),
                before.at("template"),
                spec.path.child("template"),
                errors,
            );
        }
    },
    ..BASE
};

/// `batch/v1 CronJob`. Jobs add eleven characters to its name.
pub(super) const CRON_JOB: Hooks = Hooks {
    name: |name, prefix| {
        const LONGEST: usize = 52;
        let mut problems = metadata::subdomain(name, prefix);
        if name.len() > LONGEST {
            problems.push(format!("must be no more than {LONGEST} characters"));
        }
        problems
    },
    validate: cron_job,
    validate_update: |new, _, errors| cron_job(new, errors),
    ..BASE
};

/// A Job selects its pods by its own uid, unless it asks to be left alone.
fn generate_selector(job: &mut Value) {
    if job.at("spec").flag("manualSelector") {
        return;
    }
    let meta = job.at("metadata");
    let (uid, name) = (meta.text("uid").to_owned(), meta.text("name").to_owned());
    let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    if spec.at("selector").entries("matchLabels").is_empty() {
        spec.insert("selector".to_owned(), selector);
    }
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let Some(template) = template.as_object_mut() else { return };
    let meta = template.entry("metadata").or_insert_with(|| json!({}));
    let Some(meta) = meta.as_object_mut() else { return };
    let labels = meta.entry("labels").or_insert_with(|| Value::Object(Map::new()));
    let Some(labels) = labels.as_object_mut() else { return };
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        labels.insert(key.to_owned(), Value::String(value.clone()));
    }
}

fn job_spec(spec: &At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.field(field).not_negative(errors);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.field("backoffLimitPerIndex").required("when maxFailedIndexes is specified", errors);
    }
    if spec.str_of("completionMode") == "Indexed" {
        if !spec.has("completions") {
            spec.field("completions").required("when completion mode is Indexed", errors);
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if let Some(found) = spec.some(field) {
                found.invalid("requires indexed completion mode", errors);
            }
        }
    }
    let template = spec.field("template");
    if !spec.value.at("selector").is_null()
        && let Ok(selector) = meta::Selector::from_label_selector(spec.value.at("selector"))
    {
        let labels = template.field("metadata").field("labels");
        if !super::selector::matches(&selector, labels.value) {
            labels.invalid("`selector` does not match template `labels`", errors);
        }
    }
    pod::template(&template, errors);
    let policy = template.field("spec").field("restartPolicy");
    match policy.str() {
        "Always" | "" => policy.required("valid values: \"OnFailure\", \"Never\"", errors),
        "Never" => {}
        "OnFailure" if spec.has("podFailurePolicy") => {
            policy
                .invalid("only \"Never\" is supported when podFailurePolicy is specified", errors);
        }
        "OnFailure" => {}
        _ => policy.unsupported(&["OnFailure", "Never"], errors),
    }
}

fn cron_job(job: &Value, errors: &mut Errors) {
    let spec = At::root(job).field("spec");
    let schedule = spec.field("schedule");
    match schedule.str() {
        "" => schedule.required("", errors),
        text if text.contains("TZ") => {
            schedule.invalid(
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                errors,
            );
        }
        text if !text.starts_with('@') && text.split_whitespace().count() != 5 => {
            let count = text.split_whitespace().count();
            schedule.invalid(format!("expected exactly 5 fields, found {count}: [{text}]"), errors);
        }
        _ => {}
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
    {
        spec.field(field).not_negative(errors);
    }
    if let Some(zone) = spec.some("timeZone") {
        match zone.str() {
            "" => zone.invalid("timeZone must be nil or non-empty string", errors),
            "Local" => zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones", errors),
            _ => {}
        }
    }
    let template = spec.field("jobTemplate").field("spec");
    if template.has("selector") {
        let path = template.path.child("selector");
        let value = template.at("selector").clone();
        errors.push(FieldError::invalid(path, value, "`selector` will be auto-generated"));
    }
    if template.flag("manualSelector") {
        let path = template.path.child("manualSelector");
        errors.push(FieldError::not_supported(path, true, &["nil", "false"]));
    }
    job_spec(&At { value: template.value, path: template.path.clone() }, errors);
}
