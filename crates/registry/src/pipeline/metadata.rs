//! The rules of `metadata`, which are the same for every kind.
//!
//! Owns what `ObjectMeta` may hold and how it may change. Which names a kind allows comes from the
//! schema's rules.

use std::collections::HashSet;

use meta::{FieldError, FieldErrors, FieldPath, names};
use schema::{View as _, rules};
use serde_json::Value;

use crate::object::{meta_text, metadata};

/// Checks the metadata of a new object.
pub(super) fn validate(
    object: &Value,
    namespaced: bool,
    check_name: &dyn Fn(&str, bool) -> Vec<String>,
) -> FieldErrors {
    let path = FieldPath::new("metadata");
    let mut errors = FieldErrors::new();
    let generate = meta_text(object, "generateName");
    if !generate.is_empty() {
        for problem in check_name(generate, true) {
            errors.push(FieldError::invalid(path.child("generateName"), generate, problem));
        }
    }
    let name = meta_text(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        for problem in check_name(name, false) {
            errors.push(FieldError::invalid(path.child("name"), name, problem));
        }
    }
    let namespace = meta_text(object, "namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required(path.child("namespace"), ""));
        }
        for problem in names::is_dns1123_label(namespace) {
            if !namespace.is_empty() {
                errors.push(FieldError::invalid(path.child("namespace"), namespace, problem));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(path.child("namespace"), "not allowed on this type"));
    }
    validate_content(object, &path, &mut errors);
    errors
}

/// What new and changed objects share.
fn validate_content(object: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let meta = &object["metadata"];
    rules::labels(meta.entries("labels"), &path.child("labels"), errors);
    rules::annotations(meta.entries("annotations"), &path.child("annotations"), errors);
    owners(&meta["ownerReferences"], &path.child("ownerReferences"), errors);
    finalizers(object, &path.child("finalizers"), errors);
}

fn owners(list: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let mut controller: Option<String> = None;
    for (index, owner) in list.as_array().into_iter().flatten().enumerate() {
        let (path, whole) = (path.index(index), path);
        let text = |field: &str| owner.text(field);
        let version = text("apiVersion");
        if meta::kind::split_api_version(version).is_none_or(|(_, v)| v.is_empty()) {
            errors.push(FieldError::invalid(
                path.child("apiVersion"),
                version,
                "version must not be empty",
            ));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(path.child(field), "", "must not be empty"));
            }
        }
        if version == "v1" && text("kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, owner.clone(), detail));
        }
        if owner["controller"] != true {
            continue;
        }
        let this = format!("{}/{}", text("kind"), text("name"));
        match &controller {
            None => controller = Some(this),
            // The list may be long, and be shown for each of its items.
            Some(_) if errors.is_full() => return,
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.push(FieldError::invalid(whole, list.clone(), detail));
            }
        }
    }
}

fn finalizers(object: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let list = finalizer_names(object);
    for name in &list {
        for problem in names::is_qualified_name(name) {
            errors.push(FieldError::invalid(path, *name, problem));
        }
    }
    for (index, name) in list.iter().enumerate() {
        if !name.contains('/') && !["kubernetes", ORPHAN, FOREGROUND].contains(name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path.index(index), *name, detail));
        }
    }
    if list.contains(&ORPHAN) && list.contains(&FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        let value = object["metadata"]["finalizers"].clone();
        errors.push(FieldError::invalid(path, value, detail));
    }
}

/// Takes repeated owner references out; the uids of those, for a warning.
pub(super) fn dedup_owners(object: &mut Value) -> Vec<String> {
    let mut repeated = Vec::new();
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    let Some(owners) = owners.filter(|owners| owners.len() > 1) else { return repeated };
    let mut seen = HashSet::with_capacity(owners.len());
    let first: Vec<bool> = owners.iter().map(|owner| seen.insert(owner)).collect();
    let mut first = first.into_iter();
    owners.retain(|owner| {
        let keep = first.next().unwrap_or(true);
        if !keep {
            repeated.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        }
        keep
    });
    repeated
}

/// The warning about repeated owner references that were taken out.
pub(super) fn repeated_owners(uids: &[String], after_admission: bool) -> Option<String> {
    let when = if after_admission { " after mutating admission happens" } else { "" };
    (!uids.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: [{}]",
            uids.join(" ")
        )
    })
}

/// The finalizer that makes the garbage collector orphan dependents.
pub(crate) const ORPHAN: &str = "orphan";

/// The finalizer that makes the garbage collector delete dependents first.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizers of an object.
pub(crate) fn finalizer_names(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// Fills in what an update may leave out: identity, creation, deletion.
pub(super) fn carry_over(object: &mut Value, old: &Value) {
    let carried = ["uid", "creationTimestamp"];
    for field in carried {
        if meta_text(object, field).is_empty() {
            insert(object, field, &old["metadata"][field]);
        }
    }
    // A deletion that has begun cannot be taken back.
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        let kept = &old["metadata"][field];
        if !kept.is_null() && (field == "deletionTimestamp" || object["metadata"][field].is_null())
        {
            insert(object, field, kept);
        }
        if kept.is_null() && field == "deletionGracePeriodSeconds" {
            metadata(object).remove(field);
        }
    }
    let generation = &old["metadata"]["generation"];
    insert(object, "generation", generation);
    metadata(object).remove("selfLink");
}

fn insert(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        metadata(object).remove(field);
    } else {
        metadata(object).insert(field.to_owned(), value.clone());
    }
}

/// Checks how the metadata changed.
pub(super) fn validate_update(object: &Value, old: &Value) -> FieldErrors {
    let path = FieldPath::new("metadata");
    let mut errors = FieldErrors::new();
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let had: HashSet<&str> = finalizer_names(old).into_iter().collect();
        let mut added: Vec<&str> =
            finalizer_names(object).into_iter().filter(|f| !had.contains(f)).collect();
        if !added.is_empty() {
            added.sort_unstable();
            let list: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            errors.push(FieldError::forbidden(
                path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
    let fixed = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for field in fixed {
        let (new, old) = (&object["metadata"][field], &old["metadata"][field]);
        if new != old {
            errors.push(FieldError::invalid(path.child(field), new.clone(), "field is immutable"));
        }
    }
    validate_content(object, &path, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, expected: &[&str]) {
        let errors = validate(&object, true, &|name, _| names::is_dns1123_subdomain(name));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn metadata_of_new_objects() {
        check(json!({"metadata": {"name": "web", "namespace": "d"}}), &[]);
        check(
            json!({"metadata": {"namespace": "d"}}),
            &["metadata.name: Required value: name or generateName is required"],
        );
        check(
            json!({"metadata": {"name": "We_b", "namespace": "d", "labels": {"a b": "c", "k": "-"}}}),
            &[
                "metadata.name: Invalid value: \"We_b\": a lowercase RFC 1123 subdomain",
                "metadata.labels: Invalid value: \"a b\": name part must consist of",
                "metadata.labels: Invalid value: \"-\": a valid label must be",
            ],
        );
        check(
            json!({"metadata": {"name": "web", "namespace": "d", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]}}),
            &["metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"],
        );
    }

    #[test]
    fn repeated_owners_are_taken_out() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u"});
        let mut object =
            json!({"metadata": {"ownerReferences": [owner("a"), owner("b"), owner("a")]}});
        assert_eq!(dedup_owners(&mut object), ["u"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([owner("a"), owner("b")]));
        assert!(dedup_owners(&mut object).is_empty());
        assert!(dedup_owners(&mut json!({"metadata": {"ownerReferences": "x"}})).is_empty());
        assert!(dedup_owners(&mut json!({})).is_empty());
    }

    #[test]
    fn what_an_update_may_not_touch() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "generation": 3, "creationTimestamp": "t", "deletionTimestamp": "d", "deletionGracePeriodSeconds": 0}});
        let mut new =
            json!({"metadata": {"name": "a", "generation": 9, "finalizers": ["example.com/x"]}});
        carry_over(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
        assert_eq!(new["metadata"]["deletionTimestamp"], "d");
        let errors = validate_update(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/x\"}"
        );
        new["metadata"]["uid"] = "other".into();
        let errors = validate_update(&new, &old);
        assert_eq!(
            errors[1].to_string(),
            "metadata.uid: Invalid value: \"other\": field is immutable"
        );
    }
}
