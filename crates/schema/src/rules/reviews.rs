//! Rules of questions: access reviews and requests for tokens.

use meta::FieldError;
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors};
use super::csi::lifetime;
use super::selector::{Lenient, operator, requirement};
use crate::view::View;

/// `authorization.k8s.io/v1 SubjectAccessReview`.
pub(super) const SUBJECT: Hooks = Hooks {
    validate: |review, errors| {
        spec(review, true, errors);
        bare(review, &[], "must be empty", errors);
    },
    ..Hooks::BASE
};

/// `authorization.k8s.io/v1 SelfSubjectAccessReview`.
pub(super) const SELF: Hooks = Hooks {
    validate: |review, errors| {
        spec(review, false, errors);
        bare(review, &[], "must be empty", errors);
    },
    ..Hooks::BASE
};

/// `authorization.k8s.io/v1 LocalSubjectAccessReview`.
pub(super) const LOCAL: Hooks = Hooks { validate: local, ..Hooks::BASE };

/// `authentication.k8s.io/v1 TokenRequest`.
pub(super) const TOKEN: Hooks = Hooks {
    validate: |request, errors| {
        lifetime(&At::root(request).field("spec").field("expirationSeconds"), errors);
    },
    ..Hooks::BASE
};

fn spec(review: &Value, names_subject: bool, errors: &mut Errors) {
    let spec = At::root(review).field("spec");
    let (resource, path) = (spec.field("resourceAttributes"), spec.field("nonResourceAttributes"));
    match (resource.value.is_null(), path.value.is_null()) {
        (false, false) => {
            path.invalid("cannot be specified in combination with resourceAttributes", errors);
        }
        (true, true) => {
            let text =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            resource.invalid(text, errors);
        }
        _ => {}
    }
    if names_subject && spec.str_of("user").is_empty() && spec.items("groups").is_empty() {
        let text = "at least one of user or group must be specified";
        spec.field("user").invalid_text(text, errors);
    }
    for (field, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        if let Some(selector) = resource.some(field) {
            self::selector(&selector, labels, errors);
        }
    }
}

fn selector(at: &At<'_>, labels: bool, errors: &mut Errors) {
    let (raw, none) = (at.field("rawSelector"), at.items("requirements").is_empty());
    if !raw.str().is_empty() && !none {
        raw.invalid("may not specified at the same time as requirements", errors);
    }
    if raw.str().is_empty() && none {
        let text =
            format!("when {} is specified, requirements or rawSelector is required", at.path);
        at.field("requirements").required(&text, errors);
    }
    let lenient = Lenient { operators: true, ..Lenient::default() };
    for term in at.each("requirements") {
        if labels {
            requirement(&term, lenient, errors);
        } else {
            if term.str_of("key").is_empty() {
                term.field("key").required("must be specified", errors);
            }
            operator(&term, lenient, errors);
        }
    }
}

/// A question has no name; `besides` may be said.
fn bare(review: &Value, besides: &[&str], text: &str, errors: &mut Errors) {
    let meta = At::root(review).field("metadata");
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    };
    let ignored = |key: &str| key == "managedFields" || besides.contains(&key);
    let entries = meta.value.as_object().into_iter().flatten();
    if entries.into_iter().any(|(key, value)| !ignored(key) && says(value)) {
        meta.invalid(text, errors);
    }
}

fn local(review: &Value, errors: &mut Errors) {
    spec(review, true, errors);
    bare(review, &["namespace"], "must be empty except for namespace", errors);
    let (namespace, spec) = (review.at("metadata").text("namespace"), review.at("spec"));
    let resource = spec.at("resourceAttributes");
    if !resource.is_null() && resource.text("namespace") != namespace {
        let path = "spec.resourceAttributes.namespace";
        let text = "must match metadata.namespace";
        errors.push(FieldError::invalid(path, resource.text("namespace"), text));
    }
    let path = At::root(spec).field("nonResourceAttributes");
    if !path.value.is_null() {
        let path =
            At { value: path.value, path: meta::FieldPath::new("spec.nonResourceAttributes") };
        path.invalid("disallowed on this kind of request", errors);
    }
}
