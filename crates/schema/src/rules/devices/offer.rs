//! Rules of ResourceSlices: the devices of a pool, where they are and what they can do.

use std::collections::BTreeMap;

use meta::{FieldError, FieldPath, Quantity, names};
use serde_json::{Map, Value};

use super::{
    EFFECTS, binding_conditions, by, policy::request_policy, pool_name, qualified_name, set,
    short_list,
};
use crate::rules::at::{At, Errors};
use crate::rules::metadata::immutable;
use crate::rules::{Hooks, pod};
use crate::view::{View, same};

/// `resource.k8s.io/v1 ResourceSlice`.
pub(in crate::rules) const SLICE: Hooks = Hooks {
    validate: |slice, errors| self::slice(slice, None, errors),
    validate_update: |new, old, errors| slice(new, Some(old.at("spec")), errors),
    ..Hooks::BASE
};

const MOST_DEVICES: usize = 128;
/// How many where devices are tainted, take from counters or have lists for attributes.
const MOST_ADVANCED_DEVICES: usize = 64;
const MOST_COUNTER_SETS: usize = 8;
const MOST_COUNTERS: usize = 32;
const MOST_CONSUMPTIONS: usize = 2;
const MOST_TAINTS: usize = 16;
const MOST_ATTRIBUTES_AND_CAPACITIES: usize = 32;
const MOST_VALUES: usize = 48;
const LONGEST_VALUE: usize = 64;
/// A domain, a slash and a name.
const LONGEST_KEY: usize = 63 + 1 + 32;
const LONGEST_LABEL: usize = 63;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
const PLAIN: [&str; 4] = ["bool", "int", "string", "version"];

fn slice(slice: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::root(slice).field("spec");
    spec.field("driver").driver(errors);
    pool(&spec.field("pool"), errors);
    if let Some(old) = old {
        let path = |field: &str| spec.path.child(field);
        let (pool, before) = (spec.at("pool").at("name"), old.at("pool").at("name"));
        immutable(pool, before, path("pool").child("name"), errors);
        for field in ["driver", "nodeName"] {
            immutable(spec.at(field), old.at(field), path(field), errors);
        }
    }
    where_it_is(&spec, errors);
    if spec.has("sharedCounters") && spec.has("devices") {
        let text = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(&spec.path, "", text));
    }
    let per_device = spec.flag("perDeviceNodeSelection");
    let before: BTreeMap<&str, &Value> = old
        .map(|old| old.items("devices"))
        .unwrap_or_default()
        .iter()
        .map(|device| (device.text("name"), device))
        .collect();
    let device = |at: &At<'_>, errors: &mut Errors| {
        device_of(at, before.get(at.str_of("name")).copied(), per_device, errors);
    };
    let most = if spec.each("devices").any(|device| is_advanced(&device)) {
        MOST_ADVANCED_DEVICES
    } else {
        MOST_DEVICES
    };
    set(&spec, "devices", Some(most), device, by("name"), errors);
    set(&spec, "sharedCounters", Some(MOST_COUNTER_SETS), counter_set, by("name"), errors);
}

fn is_advanced(device: &At<'_>) -> bool {
    let mut attributes = device.entries("attributes").values();
    !device.items("taints").is_empty()
        || !device.items("consumesCounters").is_empty()
        || attributes.any(|attribute| LISTS.iter().any(|list| attribute.has(list)))
}

fn pool(pool: &At<'_>, errors: &mut Errors) {
    pool_name(&pool.field("name"), errors);
    pool.field("resourceSliceCount").positive(errors);
    let generation = pool.field("generation");
    if generation.number() < 0 {
        generation.invalid("must be greater than or equal to zero", errors);
    }
}

/// Collects which of the fields that exclude each other are set, each fit or not.
fn set_fields(at: &At<'_>, empty: &str, one_term: bool, errors: &mut Errors) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(node) = at.some("nodeName") {
        if node.str().is_empty() {
            node.invalid(empty, errors);
        } else {
            found.push("`nodeName`".to_owned());
            node.check(names::is_dns1123_subdomain, errors);
        }
    }
    if let Some(selector) = at.some("nodeSelector") {
        found.push("`nodeSelector`".to_owned());
        pod::node_selector(&selector, errors);
        if one_term && selector.items("nodeSelectorTerms").len() != 1 {
            let terms = selector.field("nodeSelectorTerms");
            terms.invalid("must have exactly one node selector term", errors);
        }
    }
    for field in ["allNodes", "perDeviceNodeSelection"] {
        match at.some(field) {
            Some(flag) if *flag.value == false => {
                flag.invalid("must be either unset or set to true", errors);
            }
            Some(_) => found.push(format!("`{field}`")),
            None => {}
        }
    }
    found
}

fn where_it_is(spec: &At<'_>, errors: &mut Errors) {
    let empty = "must be either unset or set to a non-empty string";
    let found = set_fields(spec, empty, true, errors);
    let text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match found.len() {
        0 => spec.required(text, errors),
        1 => {}
        _ => {
            let text = format!("{text}, but multiple fields are set");
            let value = format!("{{{}}}", found.join(", "));
            errors.push(FieldError::invalid(&spec.path, value, text));
        }
    }
}

fn counter_set(at: &At<'_>, errors: &mut Errors) {
    at.field("name").required_name(names::is_dns1123_label, errors);
    counters(at, errors);
}

fn counters(at: &At<'_>, errors: &mut Errors) {
    let list = at.field("counters");
    let entries = at.entries("counters");
    if entries.is_empty() {
        return list.required("", errors);
    }
    let label = |name: &str, path: &FieldPath, errors: &mut Errors| {
        let problems = names::is_dns1123_label(name);
        errors.extend(problems.into_iter().map(|text| FieldError::invalid(path, name, text)));
    };
    let keys = Keys { most: Some(MOST_COUNTERS), longest: LONGEST_LABEL, check: label };
    map(&list.path, entries, &keys, |_, _| {}, errors);
}

/// What the keys of a map must be.
struct Keys<C> {
    most: Option<usize>,
    longest: usize,
    check: C,
}

fn map<'a, C: Fn(&str, &FieldPath, &mut Errors)>(
    path: &FieldPath,
    entries: &'a Map<String, Value>,
    keys: &Keys<C>,
    mut item: impl FnMut(&At<'a>, &mut Errors),
    errors: &mut Errors,
) {
    if let Some(most) = keys.most.filter(|most| entries.len() > *most) {
        return errors.push(FieldError::too_many(path, entries.len(), most));
    }
    for (key, value) in entries {
        (keys.check)(key, path, errors);
        item(&At { value, path: path.key(&shortened(key, keys.longest)) }, errors);
    }
}

/// A key that is too long is shown by its ends.
fn shortened(key: &str, longest: usize) -> String {
    if key.len() <= longest {
        return key.to_owned();
    }
    let rest = longest - 3;
    let start: String = key.chars().take(rest.div_ceil(2)).collect();
    let mut end: Vec<char> = key.chars().rev().take(rest / 2).collect();
    end.reverse();
    format!("{start}...{}", end.into_iter().collect::<String>())
}

fn device_of(at: &At<'_>, old: Option<&Value>, per_device: bool, errors: &mut Errors) {
    at.field("name").check(names::is_dns1123_label, errors);
    let (attributes, capacity) = (at.entries("attributes"), at.entries("capacity"));
    let mut at_most = |count: usize, most: usize, what: &str| {
        if count > most {
            let text = format!("the total number of {what} must not exceed {most}");
            errors.push(FieldError::invalid(&at.path, count, text));
        }
    };
    let values = |attribute: &Value| LISTS.iter().map(|list| attribute.items(list).len()).sum();
    let count: usize =
        attributes.values().map(|attribute| std::cmp::max::<usize>(values(attribute), 1)).sum();
    let both = attributes.len() + capacity.len();
    at_most(both, MOST_ATTRIBUTES_AND_CAPACITIES, "attributes and capacities");
    at_most(count, MOST_VALUES, "attribute values");
    let keys = Keys { most: None, longest: LONGEST_KEY, check: qualified_name };
    map(&at.path.child("attributes"), attributes, &keys, attribute, errors);
    let shared = at.flag("allowMultipleAllocations");
    let one = |at: &At<'_>, errors: &mut Errors| match at.some("requestPolicy") {
        Some(policy) if shared => request_policy(at.str_of("value"), &policy, errors),
        Some(policy) => policy.forbidden("allowMultipleAllocations must be true", errors),
        None => {}
    };
    map(&at.path.child("capacity"), capacity, &keys, one, errors);
    if old.is_none_or(|old| !same(old.at("taints"), at.at("taints"))) {
        short_list(at, "taints", Some(MOST_TAINTS), taint, errors);
    }
    let consumption = |at: &At<'_>, errors: &mut Errors| {
        at.field("counterSet").required_name(names::is_dns1123_label, errors);
        counters(at, errors);
    };
    set(at, "consumesCounters", Some(MOST_CONSUMPTIONS), consumption, by("counterSet"), errors);
    place(at, per_device, errors);
    binding_conditions(at, errors);
    mappings(at, errors);
}

/// Where one device is, if the slice leaves that to its devices.
fn place(at: &At<'_>, per_device: bool, errors: &mut Errors) {
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| at.has(field)) {
            let text = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(FieldError::invalid(&at.path, Value::Null, text));
        }
        return;
    }
    let found = set_fields(at, "must not be empty", false, errors);
    let text = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match found.len() {
        0 => at.required(text, errors),
        1 => {}
        _ => {
            let value = format!("{{{}}}", found.join(", "));
            errors.push(FieldError::invalid(&at.path, value, text));
        }
    }
}

fn attribute(at: &At<'_>, errors: &mut Errors) {
    let text = |at: &At<'_>, errors: &mut Errors| at.no_longer(LONGEST_VALUE, errors);
    let version = |at: &At<'_>, errors: &mut Errors| {
        if !is_semantic_version(at.str()) {
            at.invalid("must be a string compatible with semver.org spec 2.0.0", errors);
        }
        at.no_longer(LONGEST_VALUE, errors);
    };
    if let Some(found) = at.some("string") {
        text(&found, errors);
    }
    if let Some(found) = at.some("version") {
        version(&found, errors);
    }
    for list in LISTS {
        if let Some(found) = at.some(list)
            && at.items(list).is_empty()
        {
            found.invalid("must not be empty if specified", errors);
        }
        match list {
            "strings" => at.each(list).for_each(|item| text(&item, errors)),
            "versions" => at.each(list).for_each(|item| version(&item, errors)),
            _ => {}
        }
    }
    match PLAIN.iter().chain(&LISTS).filter(|field| at.has(field)).count() {
        0 => {
            errors.push(FieldError::invalid(&at.path, "", "exactly one value must be specified"));
        }
        1 => {}
        _ => at.invalid("exactly one value must be specified", errors),
    }
}

/// Whether a text is a version as semver.org has it.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(a, b)| (a, Some(b)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|p| word(p) && (!digits(p) || number(p))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn taint(at: &At<'_>, errors: &mut Errors) {
    at.field("key").check(names::is_qualified_name, errors);
    at.field("value").optional(names::is_label_value, errors);
    at.field("effect").one_of(EFFECTS, errors);
}

/// How a device is counted as resources of its node.
fn mappings(at: &At<'_>, errors: &mut Errors) {
    let path = at.path.child("nodeAllocatableResourceMappings");
    for (name, value) in at.entries("nodeAllocatableResourceMappings") {
        let mapping = At { value, path: path.key(name) };
        if !crate::amounts::is_native(name) {
            let text = "must be a node allocatable resource name";
            errors.push(FieldError::invalid(&mapping.path, name.as_str(), text));
        }
        let (factor, key) = (mapping.some("allocationMultiplier"), mapping.some("capacityKey"));
        if factor.is_none() && key.is_none() {
            let text = "at least one of allocationMultiplier or capacityKey must be set";
            errors.push(FieldError::invalid(&mapping.path, "", text));
        }
        if let Some(factor) = factor
            && factor.str().parse::<Quantity>().is_ok_and(|factor| factor.signum() <= 0)
        {
            factor.invalid("must be positive", errors);
        }
        match key {
            Some(key) if key.str().is_empty() => {
                key.invalid("capacityKey must not be an empty string", errors);
            }
            Some(key) if !at.entries("capacity").contains_key(key.str()) => key.not_found(errors),
            _ => {}
        }
    }
}
