//! Validation of object metadata, and the checks of names that kinds choose from.

use meta::{FieldError, FieldPath, names};
use serde_json::{Map, Value, json};

use super::NameCheck;
use super::view::{View, same};

/// How many bytes the keys and values of all annotations may have together.
pub const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// What upstream says of a field that must not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Names that are DNS subdomains: most kinds.
#[must_use]
pub fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    names::is_dns1123_subdomain(&unmask(name, prefix))
}

/// Names that are DNS labels.
#[must_use]
pub fn label(name: &str, prefix: bool) -> Vec<String> {
    names::is_dns1123_label(&unmask(name, prefix))
}

/// Names that are DNS labels of RFC 1035: they start with a letter.
#[must_use]
pub fn label_1035(name: &str, prefix: bool) -> Vec<String> {
    names::is_dns1035_label(&unmask(name, prefix))
}

/// Names that are one segment of a URL path.
#[must_use]
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    let problems = names::is_path_segment(name);
    // A prefix may be a dot or two: more follows.
    if prefix && matches!(name, "." | "..") { Vec::new() } else { problems }
}

fn unmask(name: &str, prefix: bool) -> String {
    if prefix { names::mask_trailing_dash(name) } else { name.to_owned() }
}

/// Checks the metadata of a new object.
pub fn validate(
    metadata: &Value,
    namespaced: bool,
    name_check: NameCheck,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let generate = metadata.text("generateName");
    if !generate.is_empty() {
        let at = path.child("generateName");
        errors.extend(
            name_check(generate, true)
                .into_iter()
                .map(|text| FieldError::invalid(&at, generate, text)),
        );
    }
    let name = metadata.text("name");
    let at = path.child("name");
    if name.is_empty() {
        errors.push(FieldError::required(&at, "name or generateName is required"));
    } else {
        errors.extend(
            name_check(name, false).into_iter().map(|text| FieldError::invalid(&at, name, text)),
        );
    }
    let namespace = metadata.text("namespace");
    let at = path.child("namespace");
    match (namespaced, namespace) {
        (true, "") => errors.push(FieldError::required(&at, "")),
        (true, _) => {
            errors.extend(
                label(namespace, false)
                    .into_iter()
                    .map(|text| FieldError::invalid(&at, namespace, text)),
            );
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(&at, "not allowed on this type")),
    }
    if metadata.int("generation").is_some_and(|generation| generation < 0) {
        let at = path.child("generation");
        errors.push(FieldError::invalid(
            &at,
            metadata.at("generation").clone(),
            "must be greater than or equal to 0",
        ));
    }
    labels(metadata.entries("labels"), &path.child("labels"), errors);
    annotations(metadata.entries("annotations"), &path.child("annotations"), errors);
    owner_references(metadata, &path.child("ownerReferences"), errors);
    finalizers(metadata, &path.child("finalizers"), errors);
}

/// Checks a change of metadata.
pub fn validate_update(new: &Value, old: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if old.has("deletionTimestamp") {
        let added: Vec<String> = new
            .items("finalizers")
            .iter()
            .filter(|finalizer| !old.items("finalizers").contains(finalizer))
            .map(|finalizer| meta::quote(finalizer.as_str().unwrap_or_default()))
            .collect();
        if !added.is_empty() {
            let text = "no new finalizers can be added if the object is being deleted, found new finalizers";
            let detail = format!("{text} []string{{{}}}", added.join(", "));
            errors.push(FieldError::forbidden(path.child("finalizers"), detail));
        }
    }
    if new.text("resourceVersion").is_empty() {
        let at = path.child("resourceVersion");
        errors.push(FieldError::invalid(at, "", "must be specified for an update"));
    }
    if new.int("generation").unwrap_or_default() < old.int("generation").unwrap_or_default() {
        let generation = new.int("generation").unwrap_or_default();
        errors.push(FieldError::invalid(
            path.child("generation"),
            generation,
            "must not be decremented",
        ));
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        immutable(new.at(field), old.at(field), path.child(field), errors);
    }
    labels(new.entries("labels"), &path.child("labels"), errors);
    annotations(new.entries("annotations"), &path.child("annotations"), errors);
    owner_references(new, &path.child("ownerReferences"), errors);
}

/// Refuses a change of a field that must stay.
pub(crate) fn immutable(
    new: &Value,
    old: &Value,
    path: impl Into<String>,
    errors: &mut Vec<FieldError>,
) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new.clone(), IMMUTABLE));
    }
}

/// Checks labels, or anything that must look like labels.
pub(crate) fn labels(labels: &Map<String, Value>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (key, value) in labels {
        errors.extend(
            names::is_qualified_name(key)
                .into_iter()
                .map(|text| FieldError::invalid(path, key.as_str(), text)),
        );
        let value = value.as_str().unwrap_or_default();
        errors.extend(
            names::is_label_value(value)
                .into_iter()
                .map(|text| FieldError::invalid(path, value, text)),
        );
    }
}

/// Checks annotations; their keys may be in upper case.
pub(crate) fn annotations(
    annotations: &Map<String, Value>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let mut size = 0;
    for (key, value) in annotations {
        let problems = names::is_qualified_name(&key.to_lowercase());
        errors
            .extend(problems.into_iter().map(|text| FieldError::invalid(path, key.as_str(), text)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MOST_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(path, MOST_ANNOTATION_BYTES));
    }
}

fn owner_references(metadata: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut controller: Option<String> = None;
    for reference in metadata.items("ownerReferences") {
        let (api_version, kind) = (reference.text("apiVersion"), reference.text("kind"));
        if api_version.rsplit('/').next().unwrap_or_default().is_empty() {
            errors.push(FieldError::invalid(
                path.child("apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for field in ["kind", "name", "uid"] {
            if reference.text(field).is_empty() {
                errors.push(FieldError::invalid(path.child(field), "", "must not be empty"));
            }
        }
        if (api_version, kind) == ("v1", "Event") {
            let text = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference.clone(), text));
        }
        if reference.flag("controller") {
            let name = format!("{kind}/{}", reference.text("name"));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.push(FieldError::invalid(
                        path,
                        metadata.at("ownerReferences").clone(),
                        detail,
                    ));
                }
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(metadata: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let finalizers = metadata.items("finalizers");
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        let problems = names::is_qualified_name(finalizer);
        errors.extend(problems.into_iter().map(|text| FieldError::invalid(path, finalizer, text)));
    }
    let (orphan, foreground) = ("orphan", "foregroundDeletion");
    if finalizers.contains(&json!(orphan)) && finalizers.contains(&json!(foreground)) {
        let detail = format!("finalizer {orphan} and {foreground} cannot be both set");
        errors.push(FieldError::invalid(path, finalizers.to_vec(), detail));
    }
}
