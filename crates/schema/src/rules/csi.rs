//! Rules of `storage.k8s.io`: what drivers, nodes and administrators say about volumes.

use std::collections::{BTreeMap, BTreeSet};

use meta::{FieldError, FieldPath, Quantity, names};
use serde_json::{Map, Value};

use super::Hooks;
use super::at::{At, Errors, NOT_NEGATIVE};
use super::metadata::immutable;
use super::selector::{Lenient, is_invalid, label_selector_with};
use crate::view::{View, same};

/// How many bytes parameters, or the metadata of an attachment, may have together.
const MOST_BYTES: usize = 256 << 10;
const MOST_PARAMETERS: usize = 512;
const LONGEST_MESSAGE: usize = 1024;
const LONGEST_NODE_ID: usize = 256;

/// `storage.k8s.io/v1 StorageClass`.
pub(super) const STORAGE_CLASS: Hooks = Hooks {
    validate: storage_class,
    validate_update: |new, old, errors| {
        storage_class(new, errors);
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(new.at(field), old.at(field), field, errors);
        }
    },
    ..Hooks::BASE
};

/// `storage.k8s.io/v1 VolumeAttributesClass`.
pub(super) const ATTRIBUTES_CLASS: Hooks = Hooks {
    validate: attributes_class,
    validate_update: |new, old, errors| {
        for field in ["driverName", "parameters"] {
            if !same(new.at(field), old.at(field)) {
                errors.push(FieldError::forbidden(
                    field,
                    format!("updates to {field} are forbidden."),
                ));
            }
        }
        attributes_class(new, errors);
    },
    ..Hooks::BASE
};

/// `storage.k8s.io/v1 VolumeAttachment`.
pub(super) const VOLUME_ATTACHMENT: Hooks = Hooks {
    validate: attachment,
    validate_update: attachment_update,
    validate_status: attachment_update,
    ..Hooks::BASE
};

/// `storage.k8s.io/v1 CSIDriver`.
pub(super) const CSI_DRIVER: Hooks = Hooks {
    validate: |driver, errors| driver_spec(&At::root(driver).field("spec"), errors),
    validate_update: |new, old, errors| {
        let (spec, before) = (At::root(new).field("spec"), old.at("spec"));
        driver_spec(&spec, errors);
        // Upstream misspells the first field.
        for (field, shown) in [
            ("attachRequired", "attachedRequired"),
            ("volumeLifecycleModes", "volumeLifecycleModes"),
        ] {
            immutable(spec.at(field), before.at(field), spec.path.child(shown), errors);
        }
    },
    ..Hooks::BASE
};

/// `storage.k8s.io/v1 CSINode`.
pub(super) const CSI_NODE: Hooks =
    Hooks { validate: node, validate_update: node_update, ..Hooks::BASE };

/// `storage.k8s.io/v1 CSIStorageCapacity`.
pub(super) const STORAGE_CAPACITY: Hooks = Hooks {
    validate: |capacity, errors| self::capacity(capacity, Lenient::default(), errors),
    validate_update: |new, old, errors| {
        let lenient = Lenient { values: is_invalid(old.at("nodeTopology")), ..Lenient::default() };
        capacity(new, lenient, errors);
        for field in ["nodeTopology", "storageClassName"] {
            immutable(new.at(field), old.at(field), field, errors);
        }
    },
    ..Hooks::BASE
};

fn storage_class(class: &Value, errors: &mut Errors) {
    let root = At::root(class);
    provisioner(&root.field("provisioner"), errors);
    parameters(class.entries("parameters"), true, errors);
    let policy = root.field("reclaimPolicy");
    if !policy.str().is_empty() {
        policy.known(&["Delete", "Retain"], errors);
    }
    root.field("volumeBindingMode").known(&["Immediate", "WaitForFirstConsumer"], errors);
    topologies(&root, errors);
}

fn attributes_class(class: &Value, errors: &mut Errors) {
    provisioner(&At::root(class).field("driverName"), errors);
    parameters(class.entries("parameters"), false, errors);
}

/// The name of what makes volumes: qualified, in any case.
fn provisioner(at: &At<'_>, errors: &mut Errors) {
    if at.str().is_empty() {
        return at.required("", errors);
    }
    let name = at.str().to_lowercase();
    for problem in names::is_qualified_name(&name) {
        errors.push(FieldError::invalid(&at.path, name.as_str(), problem));
    }
}

fn bytes_of(entries: &Map<String, Value>) -> usize {
    entries.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum()
}

fn parameters(entries: &Map<String, Value>, may_be_empty: bool, errors: &mut Errors) {
    let path = FieldPath::new("parameters");
    if entries.len() > MOST_PARAMETERS {
        return errors.push(FieldError::too_long(&path, MOST_PARAMETERS));
    }
    if entries.contains_key("") {
        errors.push(FieldError::invalid(&path, "", "field can not be empty."));
    }
    if bytes_of(entries) > MOST_BYTES {
        errors.push(FieldError::too_long(&path, MOST_BYTES));
    }
    if !may_be_empty && entries.is_empty() {
        errors.push(FieldError::required(&path, "must contain at least one key/value pair"));
    }
}

fn topologies(class: &At<'_>, errors: &mut Errors) {
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    for term in class.each("allowedTopologies") {
        let mut terms = BTreeMap::new();
        for expression in term.each("matchLabelExpressions") {
            let mut values = BTreeSet::new();
            if expression.items("values").is_empty() {
                expression.field("values").required("", errors);
            }
            for value in expression.each("values") {
                if !values.insert(value.str()) {
                    value.duplicate(errors);
                }
            }
            let key = expression.field("key");
            key.check(names::is_qualified_name, errors);
            if terms.insert(key.str(), values).is_some() {
                key.duplicate(errors);
            }
        }
        // One error for each earlier term that says the same.
        let before = known.entry(terms).or_default();
        for _ in 0..*before {
            if errors.is_full() {
                return;
            }
            errors.push(FieldError::duplicate(term.path.child("matchLabelExpressions"), ""));
        }
        *before += 1;
    }
}

fn attachment(attachment: &Value, errors: &mut Errors) {
    let (spec, status) = (At::root(attachment).field("spec"), At::root(attachment).field("status"));
    spec.field("attacher").driver(errors);
    let source = spec.field("source");
    let volume = source.some("persistentVolumeName");
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), &volume) {
        (false, None) => source.required(one, errors),
        (true, Some(_)) => source.forbidden(one, errors),
        (false, Some(name)) if name.str().is_empty() => {
            name.required("must specify non empty persistentVolumeName", errors);
        }
        _ => {}
    }
    spec.field("nodeName").check(names::is_dns1123_subdomain, errors);
    let path = status.path.child("attachmentMetadata");
    if bytes_of(status.entries("attachmentMetadata")) > MOST_BYTES {
        errors.push(FieldError::too_long(path, MOST_BYTES));
    }
    for field in ["attachError", "detachError"] {
        volume_error(&status.field(field), errors);
    }
    if let Some(name) = volume {
        name.check(names::is_dns1123_subdomain, errors);
    }
}

fn volume_error(error: &At<'_>, errors: &mut Errors) {
    if error.str_of("message").len() > LONGEST_MESSAGE {
        // Upstream names the limit of another field.
        errors.push(FieldError::too_long(error.path.child("message"), MOST_BYTES));
    }
    let code = error.field("errorCode");
    if code.number() < 0 {
        code.invalid(names::range_error(0, i64::from(i32::MAX)), errors);
    }
}

fn attachment_update(new: &Value, old: &Value, errors: &mut Errors) {
    attachment(new, errors);
    immutable(new.at("spec"), old.at("spec"), "spec", errors);
}

fn driver_spec(spec: &At<'_>, errors: &mut Errors) {
    spec.field("fsGroupPolicy").known(&["File", "None", "ReadWriteOnceWithFSType"], errors);
    token_requests(spec, errors);
    for mode in spec.each("volumeLifecycleModes") {
        if !matches!(mode.str(), "Persistent" | "Ephemeral") {
            let path = spec.path.child("volumeLifecycleModes");
            errors.push(FieldError::not_supported(path, mode.str(), &["Persistent", "Ephemeral"]));
        }
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if !period.value.is_null() && period.number() < 10 {
        period.invalid("must be greater than or equal to 10 seconds", errors);
    }
    let in_secrets = spec.field("serviceAccountTokenInSecrets");
    if !in_secrets.value.is_null() && spec.items("tokenRequests").is_empty() {
        let text = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        in_secrets.invalid(text, errors);
    }
}

fn token_requests(spec: &At<'_>, errors: &mut Errors) {
    let mut audiences = BTreeSet::new();
    for request in spec.each("tokenRequests") {
        let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
        if !audiences.insert(audience.str()) {
            errors.push(FieldError::duplicate(&audience.path, audience.str()));
        } else if !seconds.value.is_null() {
            lifetime(&seconds, errors);
        }
    }
}

/// How long a token may live that is asked for.
pub(super) fn lifetime(seconds: &At<'_>, errors: &mut Errors) {
    if seconds.number() < 600 {
        seconds.invalid("may not specify a duration less than 10 minutes", errors);
    }
    if seconds.number() > 1 << 32 {
        seconds.invalid("may not specify a duration larger than 2^32 seconds", errors);
    }
}

fn node(node: &Value, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for driver in At::root(node).field("spec").each("drivers") {
        let (name, id) = (driver.field("name"), driver.field("nodeID"));
        name.driver(errors);
        if id.str().is_empty() {
            id.required("", errors);
        }
        if id.str().len() > LONGEST_NODE_ID {
            id.invalid(format!("must be {LONGEST_NODE_ID} characters or less"), errors);
        }
        driver.field("allocatable").field("count").not_negative(errors);
        if !known.insert(name.str()) {
            errors.push(FieldError::duplicate(&name.path, name.str()));
        }
        topology_keys(&driver, errors);
    }
}

fn topology_keys(driver: &At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for key in driver.each("topologyKeys") {
        let key = At { value: key.value, path: driver.path.clone() };
        if key.str().is_empty() {
            key.required("", errors);
        }
        if !known.insert(key.str()) {
            key.duplicate(errors);
        }
        key.check(names::is_qualified_name, errors);
    }
}

fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    node(new, errors);
    let named = |node: &Value| -> Vec<Value> { node.at("spec").items("drivers").to_vec() };
    let before = named(old);
    let by_name: BTreeMap<&str, &Value> =
        before.iter().map(|driver| (driver.text("name"), driver)).collect();
    for mut driver in named(new) {
        let Some(before) = by_name.get(driver.text("name")) else { continue };
        let mut before = (*before).clone();
        for driver in [&mut driver, &mut before] {
            if let Value::Object(fields) = driver {
                fields.remove("allocatable");
            }
        }
        immutable(&driver, &before, "spec.drivers", errors);
    }
}

fn capacity(capacity: &Value, lenient: Lenient, errors: &mut Errors) {
    let root = At::root(capacity);
    label_selector_with(&root.field("nodeTopology"), lenient, errors);
    root.field("storageClassName").check(names::is_dns1123_subdomain, errors);
    let amount = root.field("capacity");
    if amount.str().parse::<Quantity>().is_ok_and(|amount| amount.signum() < 0) {
        amount.invalid(NOT_NEGATIVE, errors);
    }
}
