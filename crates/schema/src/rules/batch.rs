//! Rules of Jobs.
//!
//! Owns what a Job is and how it may change; policies, status and schedules are below.

mod cron;
mod indexes;
mod policy;
mod schedule;
mod spec;
mod status;

use meta::{FieldError, FieldPath, Selector, names};
use serde_json::{Map, Value, json};

use super::Hooks;
use super::at::{At, Errors};
use super::conditions::is;
use super::metadata::immutable;
use super::selector::{self, Lenient, has_bad_value, matches};
use crate::view::{View, same};
pub(super) use cron::CRON_JOB;

/// `batch/v1 Job`.
pub(super) const JOB: Hooks = Hooks {
    prepare_create: generate_selector,
    validate: |job, errors| validate(job, None, errors),
    validate_update: |new, old, errors| {
        // Upstream looks at the new Job twice, and clients see every cause twice.
        validate(new, Some(old), errors);
        specification(new, Some(old), errors);
        update(new, old, errors);
    },
    validate_status: status::validate,
    ..Hooks::BASE
};

/// Labels that Jobs put on their pods, old names first; the values are the Job's uid and name.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// A Job selects its pods by its own uid, unless it asks to be left alone.
fn generate_selector(job: &mut Value) {
    fn within<'a>(
        object: &'a mut Map<String, Value>,
        key: &str,
    ) -> Option<&'a mut Map<String, Value>> {
        object.entry(key).or_insert_with(|| json!({})).as_object_mut()
    }
    if job.at("spec").flag("manualSelector") {
        return;
    }
    let meta = job.at("metadata");
    let (uid, name) = (meta.text("uid").to_owned(), meta.text("name").to_owned());
    let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(labels) = within(spec, "selector").and_then(|s| within(s, "matchLabels")) {
        labels.entry(UID_LABELS[1]).or_insert_with(|| uid.as_str().into());
    }
    let template = within(spec, "template").and_then(|template| within(template, "metadata"));
    let Some(labels) = template.and_then(|meta| within(meta, "labels")) else { return };
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| value.as_str().into());
        }
    }
}

fn validate(job: &Value, old: Option<&Value>, errors: &mut Errors) {
    generated_selector(job, old, errors);
    specification(job, old, errors);
    let (meta, spec) = (job.at("metadata"), job.at("spec"));
    let completions = spec.int("completions").unwrap_or_default();
    if spec.text("completionMode") == "Indexed" && completions > 0 {
        let last = format!("{}-{}", meta.text("name"), completions - 1);
        if !names::is_dns1123_label(&last).is_empty() {
            let text = format!("will not able to create pod with invalid DNS label: {last}");
            errors.push(FieldError::invalid("metadata.name", meta.text("name"), text));
        }
    }
}

/// The selector and labels must be those that were generated.
fn generated_selector(job: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (meta, spec) = (job.at("metadata"), At::root(job).field("spec"));
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let (uid, name) = (meta.text("uid"), meta.text("name"));
    if uid.is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    let template = spec.field("template").field("metadata");
    let old_labels = old.map(|old| old.at("spec").at("template").at("metadata").at("labels"));
    let prefixed =
        old_labels.is_none_or(|labels| labels.has(NAME_LABELS[1]) && labels.has(UID_LABELS[1]));
    let mut expected = Map::new();
    for index in 0..=usize::from(prefixed) {
        for (key, value) in [(UID_LABELS[index], uid), (NAME_LABELS[index], name)] {
            has_label(&template, key, value, errors);
            expected.insert(key.to_owned(), value.into());
        }
    }
    if let Ok(selector) = Selector::from_label_selector(spec.at("selector"))
        && !matches(&selector, &Value::Object(expected))
    {
        spec.field("selector").invalid("`selector` not auto-generated", errors);
    }
}

fn has_label(meta: &At<'_>, key: &str, value: &str, errors: &mut Errors) {
    let labels = meta.field("labels");
    let (path, text): (FieldPath, _) = (labels.path.key(key), format!("must be '{value}'"));
    match labels.value.get(key) {
        None => errors.push(FieldError::required(path, text)),
        Some(found) if found == value => {}
        Some(_) => errors.push(FieldError::invalid(path, labels.value.clone(), text)),
    }
}

/// The specification, with its selector.
fn specification(job: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(job).field("spec");
    spec::validate(&spec, old.map(|old| old.at("spec").at("template")), errors);
    match spec.some("selector") {
        None => spec.field("selector").required("", errors),
        Some(selector) => {
            let any = old.is_some_and(|old| has_bad_value(old.at("spec").at("selector")));
            selector::label_selector_with(&selector, Lenient::values(any), errors);
        }
    }
    if let Ok(selector) = Selector::from_label_selector(spec.at("selector")) {
        let labels = spec.at("template").at("metadata").at("labels");
        if !spec.has("selector") || !matches(&selector, labels) {
            super::workload::not_selected(&spec.field("template"), errors);
        }
    }
}

fn update(new: &Value, old: &Value, errors: &mut Errors) {
    const STAY: &[&str] = &[
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ];
    let (spec, before) = (At::root(new).field("spec"), old.at("spec"));
    let stays = |field: &str, errors: &mut Errors| {
        immutable(spec.at(field), before.at(field), spec.path.child(field), errors);
    };
    let completions = spec.field("completions");
    if spec.str_of("completionMode") != "Indexed" {
        stays("completions", errors);
    } else if completions.value != before.at("completions")
        && !completions.value.is_null()
        && completions.value != spec.at("parallelism")
    {
        completions.invalid("can only be modified in tandem with spec.parallelism", errors);
    }
    stays("selector", errors);
    template_stays(&spec, old, errors);
    STAY.iter().for_each(|field| stays(field, errors));
}

/// Where its pods may run and what they need may change of a Job that is suspended and has none.
fn template_stays(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let (before, was) = (old.at("spec"), old.at("status"));
    let idle = (!was.has("startTime") || is(was, "Suspended", "True"))
        && was.int("active").unwrap_or_default() == 0;
    let free = before.flag("suspend") && idle;
    let template = spec.field("template");
    let mut kept = before.at("template").clone();
    if free {
        for field in ["annotations", "labels"] {
            kept["metadata"][field] = template.at("metadata").at(field).clone();
        }
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            kept["spec"][field] = template.at("spec").at(field).clone();
        }
        let nodes = template.at("spec").at("affinity").at("nodeAffinity").clone();
        let mut affinity = kept.at("spec").entries("affinity").clone();
        affinity.insert("nodeAffinity".to_owned(), nodes);
        affinity.retain(|_, found| !found.is_null());
        kept["spec"]["affinity"] = Value::Object(affinity);
    }
    if !free {
        return immutable(template.value, &kept, &template.path, errors);
    }
    for list in ["containers", "initContainers"] {
        let new = template.at("spec").items(list);
        let Some(Value::Array(kept)) = kept["spec"].get_mut(list) else { continue };
        if kept.len() == new.len() {
            for (kept, new) in
                kept.iter_mut().zip(new).filter(|(k, n)| k.text("name") == n.text("name"))
            {
                kept["resources"] = new.at("resources").clone();
            }
        }
    }
    if !same(template.at("spec"), &kept["spec"]) {
        let path = FieldPath::new("spec.template.spec");
        errors.push(FieldError::invalid(
            path,
            template.at("spec").clone(),
            super::metadata::IMMUTABLE,
        ));
    }
}
