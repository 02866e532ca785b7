//! Rules of volumes made of files: Secrets, ConfigMaps, the downward API, and their projections into one.

use std::collections::HashSet;

use meta::FieldError;

use super::Around;
use crate::rules::at::{At, Errors, file_mode, unreserved_path};
use crate::rules::csi;
use crate::rules::pod::{FILE_FIELDS, field_selector, resource_selector};

pub(super) fn default_mode(at: &At<'_>, errors: &mut Errors) {
    if let Some(mode) = at.some("defaultMode") {
        file_mode(&mode, errors);
    }
}

/// A volume from a ConfigMap or Secret, which `name` names.
pub(super) fn keyed(at: &At<'_>, name: &str, errors: &mut Errors) {
    at.field(name).needed(errors);
    default_mode(at, errors);
    for item in at.each("items") {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &At<'_>, errors: &mut Errors) {
    item.field("key").needed(errors);
    item.field("path").needed(errors);
    unreserved_path(&item.field("path"), errors);
    if let Some(mode) = item.some("mode") {
        file_mode(&mode, errors);
    }
}

/// Files of the downward API; upstream leaves the index out of their paths.
pub(super) fn downward(at: &At<'_>, errors: &mut Errors) {
    default_mode(at, errors);
    for file in at.each("items") {
        downward_file(&file.under(at.path.clone()), errors);
    }
}

fn downward_file(file: &At<'_>, errors: &mut Errors) {
    file.field("path").needed(errors);
    unreserved_path(&file.field("path"), errors);
    match (file.some("fieldRef"), file.some("resourceFieldRef")) {
        (Some(field), other) => {
            field_selector(&field, FILE_FIELDS, errors);
            if other.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&file.path, "resource", text));
            }
        }
        (None, Some(resource)) => resource_selector(&resource, true, errors),
        (None, None) => file.required("one of fieldRef and resourceFieldRef is required", errors),
    }
    if let Some(mode) = file.some("mode") {
        file_mode(&mode, errors);
    }
}

/// Sources behind features that are switched off were dropped before.
pub(super) fn projected(at: &At<'_>, around: Around<'_>, errors: &mut Errors) {
    default_mode(at, errors);
    let mut paths: HashSet<&str> = HashSet::new();
    for source in at.each("sources") {
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(found) = source.some(kind) else { continue };
            count += 1;
            found.field("name").needed(errors);
            for item in found.each("items") {
                key_to_path(&item, errors);
                claim(at, &mut paths, item.str_of("path"), found.str_of("name"), errors);
            }
        }
        if let Some(found) = source.some("downwardAPI") {
            count += 1;
            for file in found.each("items") {
                downward_file(&file.under(found.path.clone()), errors);
                claim(at, &mut paths, file.str_of("path"), file.str_of("path"), errors);
            }
        }
        if let Some(token) = source.some("serviceAccountToken") {
            count += 1;
            service_account_token(at, &token, around, errors);
        }
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type per source", errors);
        }
    }
}

/// Takes a path for one file.
fn claim<'a>(
    at: &At<'_>,
    paths: &mut HashSet<&'a str>,
    path: &'a str,
    shown: &str,
    errors: &mut Errors,
) {
    if !path.is_empty() && !paths.insert(path) {
        errors.push(FieldError::invalid(&at.path, shown, "conflicting duplicate paths"));
    }
}

fn service_account_token(at: &At<'_>, token: &At<'_>, around: Around<'_>, errors: &mut Errors) {
    csi::lifetime(&token.field("expirationSeconds"), errors);
    let path = token.field("path").under(at.path.child("path"));
    if path.str().is_empty() {
        path.required("", errors);
    } else if !around.token_paths {
        unreserved_path(&path, errors);
    }
}

/// Whether a token stands at a path that would not be let in.
pub(in crate::rules) fn has_reserved_token_path(spec: &serde_json::Value) -> bool {
    let mut errors = Errors::new();
    for volume in At::root(spec).each("volumes") {
        for source in volume.field("projected").each("sources") {
            if let Some(token) = source.some("serviceAccountToken") {
                unreserved_path(&token.field("path"), &mut errors);
            }
        }
    }
    !errors.is_empty()
}
