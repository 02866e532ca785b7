//! Rules of ResourceClaims, their templates, and DeviceClasses.

use std::collections::{BTreeMap, BTreeSet};

use meta::{FieldError, names};
use serde_json::Value;

use super::{EFFECTS, by, configuration, fully_qualified_name, itself, set, short_list, status};
use crate::rules::at::{At, Errors};
use crate::rules::metadata::immutable;
use crate::rules::{Hooks, metadata};
use crate::view::{View, same};

/// `resource.k8s.io/v1 ResourceClaim`.
pub(in crate::rules) const CLAIM: Hooks = Hooks {
    validate: |claim, errors| spec(&At::root(claim).field("spec"), errors),
    validate_update: |new, old, errors| immutable(new.at("spec"), old.at("spec"), "spec", errors),
    validate_status: status::validate,
    ..Hooks::BASE
};

/// `resource.k8s.io/v1 ResourceClaimTemplate`.
pub(in crate::rules) const TEMPLATE: Hooks = Hooks {
    validate: template,
    validate_update: |new, old, errors| {
        template(new, errors);
        immutable(new.at("spec"), old.at("spec"), "spec", errors);
    },
    ..Hooks::BASE
};

/// `resource.k8s.io/v1 DeviceClass`.
pub(in crate::rules) const CLASS: Hooks = Hooks {
    validate: |class, errors| self::class(class, &Value::Null, errors),
    validate_update: class,
    ..Hooks::BASE
};

pub(super) const MOST_REQUESTS: usize = 32;
pub(super) const MOST_CONFIGS: usize = 32;
const MOST_CONSTRAINTS: usize = 32;
const MOST_SELECTORS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const LONGEST_EXPRESSION: usize = 10 << 10;

/// The names of requests, each with those of its alternatives.
pub(super) struct Names<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Names<'a> {
    /// Those of a claim.
    pub(super) fn of(devices: &At<'a>) -> Self {
        let alternatives = |request: &At<'a>| {
            request.each("firstAvailable").map(|one| one.str_of("name")).collect()
        };
        let requests = devices.each("requests");
        Self(requests.map(|request| (request.str_of("name"), alternatives(&request))).collect())
    }

    /// Checks a reference to a request, or to one alternative of it.
    pub(super) fn check(&self, at: &At<'_>, errors: &mut Errors) {
        let text = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let (request, alternative) =
            at.str().split_once('/').map_or((at.str(), None), |(one, two)| (one, Some(two)));
        if alternative.is_some_and(|rest| rest.contains('/')) {
            return at.invalid_text(text, errors);
        }
        for part in [Some(request), alternative].into_iter().flatten() {
            for problem in names::is_dns1123_label(part) {
                errors.push(FieldError::invalid(&at.path, part, problem));
            }
        }
        let known = self
            .0
            .get(request)
            .is_some_and(|known| alternative.is_none_or(|alternative| known.contains(alternative)));
        if !known {
            at.invalid_text(text, errors);
        }
    }
}

fn spec(spec: &At<'_>, errors: &mut Errors) {
    let devices = spec.field("devices");
    let names = Names::of(&devices);
    set(&devices, "requests", Some(MOST_REQUESTS), request, by("name"), errors);
    let constraint = |at: &At<'_>, errors: &mut Errors| constraint(at, &names, errors);
    short_list(&devices, "constraints", Some(MOST_CONSTRAINTS), constraint, errors);
    let config = |at: &At<'_>, errors: &mut Errors| {
        references(at, &names, errors);
        configuration(at, false, errors);
    };
    short_list(&devices, "config", Some(MOST_CONFIGS), config, errors);
}

/// Checks which requests something is about.
pub(super) fn references(at: &At<'_>, names: &Names<'_>, errors: &mut Errors) {
    let check = |name: &At<'_>, errors: &mut Errors| names.check(name, errors);
    set(at, "requests", Some(MOST_REQUESTS), check, itself, errors);
}

fn request(request: &At<'_>, errors: &mut Errors) {
    request.field("name").check(names::is_dns1123_label, errors);
    let many = !request.items("firstAvailable").is_empty();
    match (request.some("exactly"), many) {
        (None, false) => {
            request.required("exactly one of `exactly` or `firstAvailable` is required", errors);
        }
        (Some(_), true) => {
            let text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(&request.path, Value::Null, text));
        }
        (Some(exactly), false) => devices(&exactly, errors),
        (None, true) => {
            let one = |at: &At<'_>, errors: &mut Errors| {
                at.field("name").check(names::is_dns1123_label, errors);
                devices(at, errors);
            };
            set(request, "firstAvailable", Some(MOST_ALTERNATIVES), one, by("name"), errors);
        }
    }
}

/// Which devices, and how many.
fn devices(at: &At<'_>, errors: &mut Errors) {
    at.field("deviceClassName").required_name(names::is_dns1123_subdomain, errors);
    selectors(at, errors);
    let (mode, count) = (at.field("allocationMode"), at.field("count"));
    match mode.str() {
        "All" if count.number() != 0 => {
            count.invalid("must not be specified when allocationMode is 'All'", errors);
        }
        "ExactCount" => count.positive(errors),
        "All" => {}
        _ => mode.unsupported(&["All", "ExactCount"], errors),
    }
    for toleration in at.each("tolerations") {
        self::toleration(&toleration, errors);
    }
}

fn selectors(at: &At<'_>, errors: &mut Errors) {
    let selector = |at: &At<'_>, errors: &mut Errors| match at.some("cel") {
        None => at.field("cel").required("", errors),
        Some(cel) => cel.field("expression").no_longer(LONGEST_EXPRESSION, errors),
    };
    short_list(at, "selectors", Some(MOST_SELECTORS), selector, errors);
}

fn toleration(at: &At<'_>, errors: &mut Errors) {
    at.field("key").optional(names::is_qualified_name, errors);
    let (operator, value, effect) = (at.field("operator"), at.field("value"), at.field("effect"));
    match operator.str() {
        "Exists" if !value.str().is_empty() => {
            value.invalid("must be empty for operator `Exists`", errors);
        }
        "Equal" => value.check(names::is_label_value, errors),
        "Exists" => {}
        _ => operator.one_of(&["Equal", "Exists"], errors),
    }
    if !effect.str().is_empty() {
        effect.known(EFFECTS, errors);
    }
}

fn constraint(at: &At<'_>, names: &Names<'_>, errors: &mut Errors) {
    references(at, names, errors);
    match at.some("matchAttribute").or_else(|| at.some("distinctAttribute")) {
        Some(attribute) => fully_qualified_name(&attribute, errors),
        None => {
            let text = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            at.required(text, errors);
        }
    }
}

fn template(template: &Value, errors: &mut Errors) {
    let at = At::root(template).field("spec");
    let meta = at.field("metadata");
    let path = |field: &str| meta.path.child(field);
    metadata::annotations(meta.entries("annotations"), &path("annotations"), errors);
    metadata::labels(meta.entries("labels"), &path("labels"), errors);
    for (name, value) in meta.value.as_object().into_iter().flatten() {
        let said = !value.is_null() && value != "" && *value != 0;
        if said && !matches!(name.as_str(), "annotations" | "labels") {
            meta.field(name).forbidden("cannot be set", errors);
        }
    }
    spec(&at.field("spec"), errors);
}

fn class(class: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (At::root(class).field("spec"), old.at("spec").at("config"));
    selectors(&spec, errors);
    let stored = !before.is_null() && same(spec.at("config"), before);
    let config = |at: &At<'_>, errors: &mut Errors| configuration(at, stored, errors);
    short_list(&spec, "config", Some(MOST_CONFIGS), config, errors);
    if let Some(name) = spec.some("extendedResourceName")
        && !crate::amounts::is_extended(name.str())
    {
        name.invalid("must be a valid extended resource name", errors);
    }
}
