//! Rules of `resource.k8s.io`: claims on devices, classes of them, and what drivers offer.
//!
//! Owns what the kinds share. Selectors are expressions; what they say is compiled elsewhere.

mod claim;
mod offer;
mod policy;
mod status;

use std::collections::BTreeSet;

use meta::{FieldError, FieldPath, names};
use serde_json::Value;

use super::at::{At, Errors};
use crate::view::View;

pub(super) use claim::{CLAIM, CLASS, TEMPLATE};
pub(super) use offer::SLICE;

const LONGEST_POOL: usize = 253;
const LONGEST_ID: usize = 32;
const LONGEST_PARAMETERS: usize = 10 << 10;
const MOST_BINDING_CONDITIONS: usize = 4;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Checks the items of a list, and then that none is there twice; a list that is too long is not looked at.
fn set<'a, K: Ord>(
    owner: &At<'a>,
    field: &str,
    most: Option<usize>,
    mut item: impl FnMut(&At<'a>, &mut Errors),
    key: impl Fn(&At<'a>) -> (K, Value),
    errors: &mut Errors,
) {
    if !short_list(owner, field, most, &mut item, errors) {
        return;
    }
    let mut known = BTreeSet::new();
    for item in owner.each(field) {
        let (key, shown) = key(&item);
        if !known.insert(key) {
            errors.push(FieldError::duplicate(&item.path, shown));
        }
    }
}

/// Checks the items of a list; one that is too long is not looked at.
fn short_list<'a>(
    owner: &At<'a>,
    field: &str,
    most: Option<usize>,
    mut item: impl FnMut(&At<'a>, &mut Errors),
    errors: &mut Errors,
) -> bool {
    let fits = most.is_none_or(|most| owner.field(field).no_more(most, errors));
    if fits {
        owner.each(field).for_each(|at| item(&at, errors));
    }
    fits
}

/// What tells items of a set apart: a text of theirs.
fn by<'a>(field: &'static str) -> impl Fn(&At<'a>) -> (&'a str, Value) {
    move |item| (item.str_of(field), item.str_of(field).into())
}

/// The items themselves are texts.
fn itself<'a>(item: &At<'a>) -> (&'a str, Value) {
    (item.str(), item.str().into())
}

fn pool_name(at: &At<'_>, errors: &mut Errors) {
    if at.str().is_empty() {
        return at.required("", errors);
    }
    at.no_longer(LONGEST_POOL, errors);
    for part in at.str().split('/') {
        for problem in names::is_dns1123_subdomain(part) {
            errors.push(FieldError::invalid(&at.path, part, problem));
        }
    }
}

/// An identity of one share of a device.
fn share_id(at: &At<'_>, errors: &mut Errors) {
    let text = at.str();
    let dashes = [8, 13, 18, 23];
    let well_formed = text.bytes().enumerate().all(|(index, byte)| {
        if dashes.contains(&index) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    });
    if text.len() != 36 {
        at.invalid(format!("error validating uid: invalid UUID length: {}", text.len()), errors);
    } else if !well_formed {
        at.invalid("error validating uid: invalid UUID format", errors);
    } else if text != text.to_lowercase() {
        let problem = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        at.invalid(problem, errors);
    }
}

/// JSON for a driver, opaque to everybody else.
fn opaque(at: &At<'_>, most: Option<usize>, errors: &mut Errors) {
    if at.value.is_null() {
        return at.required("", errors);
    }
    if let Some(most) = most.filter(|most| at.value.to_string().len() > *most) {
        errors.push(FieldError::too_long(&at.path, most));
    } else if !at.value.is_object() {
        let text = "must be a valid JSON object";
        errors.push(FieldError::invalid(&at.path, "<value omitted>", text));
    }
}

/// The configuration of a device by its driver.
fn configuration(at: &At<'_>, stored: bool, errors: &mut Errors) {
    let Some(config) = at.some("opaque") else {
        return at.field("opaque").required("", errors);
    };
    config.field("driver").driver(errors);
    let most = (!stored).then_some(LONGEST_PARAMETERS);
    opaque(&config.field("parameters"), most, errors);
}

/// A name, perhaps within the domain of a driver.
fn qualified_name(name: &str, path: &FieldPath, errors: &mut Errors) {
    let mut part = |text: &str, what: &str, is_domain: bool| {
        let value = Value::from(text);
        let at = At { value: &value, path: path.clone() };
        if text.is_empty() && !what.is_empty() {
            at.invalid(format!("the {what} must not be empty"), errors);
        } else if is_domain {
            at.driver(errors);
        } else {
            identifier(&at, errors);
        }
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [name] => part(name, "", false),
        [domain, name] => {
            part(domain, "domain", true);
            part(name, "name", false);
        }
        _ => {}
    }
}

fn fully_qualified_name(at: &At<'_>, errors: &mut Errors) {
    qualified_name(at.str(), &at.path, errors);
    if !at.str().contains('/') {
        let text = "a fully qualified name must be a domain and a name separated by a slash";
        at.invalid_text(text, errors);
    }
}

fn identifier(at: &At<'_>, errors: &mut Errors) {
    const FORMAT: &str = "[A-Za-z_][A-Za-z0-9_]*";
    const PROBLEM: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    at.no_longer(LONGEST_ID, errors);
    let text = at.str();
    let fine = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit());
    if !fine {
        let problem = names::regex_error(PROBLEM, FORMAT, &["my_name", "MY_NAME", "MyName"]);
        at.invalid_text(problem, errors);
    }
}

/// What must hold, and what must not, before a pod is bound to a node with the device.
fn binding_conditions(device: &At<'_>, errors: &mut Errors) {
    let (wanted, failed) = ("bindingConditions", "bindingFailureConditions");
    for list in [wanted, failed] {
        let label = |at: &At<'_>, errors: &mut Errors| at.check(names::is_qualified_name, errors);
        short_list(device, list, Some(MOST_BINDING_CONDITIONS), label, errors);
    }
    let mut known = BTreeSet::new();
    for condition in device.each(wanted) {
        if !known.insert(condition.str()) {
            condition.duplicate(errors);
        }
    }
    let mut failures = BTreeSet::new();
    for condition in device.each(failed) {
        if !failures.insert(condition.str()) {
            condition.duplicate(errors);
        }
        if known.contains(condition.str()) {
            let text = "bindingFailureConditions must not overlap with bindingConditions";
            condition.invalid(text, errors);
        }
    }
    for (list, other) in [(wanted, failed), (failed, wanted)] {
        if device.items(list).is_empty() && !device.items(other).is_empty() {
            let text = format!("{list} are required to use {other}");
            device.field(list).invalid(text, errors);
        }
    }
}
