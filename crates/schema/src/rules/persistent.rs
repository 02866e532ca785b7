//! Rules of PersistentVolumes.

use meta::{FieldError, names};
use serde_json::{Map, Value};

use super::at::{At, Errors};
use super::metadata::{IMMUTABLE, immutable};
use super::pod::node_selector_with;
use super::volume::{self, Around, Owner};
use super::{Hooks, claim, difference};
use crate::view::{View, same};

/// `v1 PersistentVolume`.
pub(super) const PERSISTENT_VOLUME: Hooks = Hooks {
    validate: |volume, errors| validate(volume, false, errors),
    validate_update: update,
    ..Hooks::BASE
};

/// Labels of nodes that were renamed, and what they are called now.
const RENAMED: &[(&str, &str)] = &[
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// `any_value` lets values of labels in the affinity be whatever they are.
fn validate(object: &Value, any_value: bool, errors: &mut Errors) {
    let spec = At::root(object).field("spec");
    if spec.items("accessModes").is_empty() {
        spec.field("accessModes").required("", errors);
    }
    claim::access_modes(&spec, errors);
    capacity(&spec, errors);
    let reclaim = spec.field("persistentVolumeReclaimPolicy");
    if !reclaim.str().is_empty() {
        reclaim.known(&["Delete", "Recycle", "Retain"], errors);
    }
    if let Some(affinity) = spec.some("nodeAffinity") {
        match affinity.some("required") {
            Some(required) => node_selector_with(&required, any_value, errors),
            None => affinity
                .field("required")
                .required("must specify required node constraints", errors),
        }
    }
    let around = Around {
        owner: Owner::Volume,
        name: object.at("metadata").text("name"),
        token_paths: false,
        has_nodes: spec.has("nodeAffinity"),
    };
    volume::source(&spec, around, errors);
    let host = spec.value.at("hostPath");
    if host.is_object() && volume::is_root(host.text("path")) && reclaim.str() == "Recycle" {
        reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'", errors);
    }
    spec.field("storageClassName").optional(names::is_dns1123_subdomain, errors);
    spec.field("volumeMode").known(&["Block", "Filesystem"], errors);
    if let Some(class) = spec.some("volumeAttributesClassName") {
        if class.str().is_empty() {
            class.required("an empty string is disallowed", errors);
        }
        class.optional(names::is_dns1123_subdomain, errors);
        if !spec.has("csi") {
            let text = "has to be specified when using volumeAttributesClassName";
            spec.field("csi").required(text, errors);
        }
    }
}

fn capacity(spec: &At<'_>, errors: &mut Errors) {
    let (at, amounts) = (spec.field("capacity"), spec.entries("capacity"));
    if amounts.is_empty() {
        at.required("", errors);
    }
    if !amounts.contains_key("storage") || amounts.len() > 1 {
        let shown = if at.value.is_null() { Value::Null } else { at.value.clone() };
        errors.push(FieldError::not_supported(&at.path, shown, &["storage"]));
    }
    for (name, amount) in amounts {
        claim::basic(amount, at.path.key(name), errors);
        let text = amount.as_str().unwrap_or_default();
        if text.parse::<meta::Quantity>().is_ok_and(|amount| amount.signum() <= 0) {
            let problem = "must be greater than zero";
            errors.push(FieldError::invalid(at.path.key(name), text, problem));
        }
    }
}

fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, was) = (At::root(new).field("spec"), old.at("spec"));
    let affinity = was.at("nodeAffinity");
    let bad_value = |requirement: &Value| {
        let mut values = requirement.items("values").iter();
        values.any(|v| !names::is_label_value(v.as_str().unwrap_or_default()).is_empty())
    };
    let any_value = affinity
        .at("required")
        .items("nodeSelectorTerms")
        .iter()
        .any(|term| term.items("matchExpressions").iter().any(bad_value));
    validate(new, any_value, errors);
    source_stays(spec.value, was, errors);
    immutable(spec.at("volumeMode"), was.at("volumeMode"), "volumeMode", errors);
    if !affinity.is_null() && !same_but_renamed(spec.at("nodeAffinity"), affinity) {
        let text = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(FieldError::invalid("nodeAffinity", spec.at("nodeAffinity").clone(), text));
    }
    let class = spec.field("volumeAttributesClassName");
    if was.has("volumeAttributesClassName") && class.value.is_null() {
        class.forbidden("update from non-nil value to nil is forbidden", errors);
    }
}

/// The source stays, but that a secret for growing may come.
fn source_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let source = |spec: &Value| {
        let of = |kind: &&str| Some(((*kind).to_owned(), spec.get(kind)?.clone()));
        Value::Object(volume::types(Owner::Volume).iter().filter_map(of).collect::<Map<_, _>>())
    };
    let (mut new, old) = (source(new), source(old));
    let secret = |spec: &Value| spec.at("csi").has("controllerExpandSecretRef");
    if old.has("csi") && !secret(&old) && secret(&new) {
        new["csi"]["controllerExpandSecretRef"] = Value::Null;
    }
    if !same(&new, &old) {
        let text = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            difference::lines(&new, &old)
        );
        errors.push(FieldError::forbidden("spec.persistentvolumesource", text));
    }
}

/// Whether two affinities mean the same once labels have their new names.
fn same_but_renamed(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            let renamed = RENAMED.iter().find(|(from, _)| *old.at("key") == *from);
            let mut old = old.clone();
            if let Some((_, to)) = renamed.filter(|(_, to)| *new.at("key") == *to) {
                old.insert("key".to_owned(), (*to).into());
            }
            new.len() == old.len() && new.iter().all(|(k, v)| same_but_renamed(v, old.at(k)))
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(n, o)| same_but_renamed(n, o))
        }
        _ => same(new, old),
    }
}
