//! Rules of Namespaces, Nodes and ServiceAccounts.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors, is_ipv6};
use super::metadata;
use super::{Hooks, pod::quantity_value};
use crate::view::View;

const BASE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// `v1 Namespace`.
pub(super) const NAMESPACE: Hooks = Hooks {
    name: metadata::label,
    validate: |namespace, errors| {
        for finalizer in At::root(namespace).field("spec").each("finalizers") {
            let path = At::root(namespace).field("spec").path.child("finalizers");
            let at = At { value: finalizer.value, path };
            at.check(names::is_qualified_name, errors);
            if !at.str().contains('/')
                && !["kubernetes", "orphan", "foregroundDeletion"].contains(&at.str())
            {
                at.invalid(
                    "name is neither a standard finalizer name nor is it fully qualified",
                    errors,
                );
            }
        }
    },
    validate_status: |new, _, errors| {
        let phase = new.at("status").text("phase");
        let (wanted, text) = if new.at("metadata").has("deletionTimestamp") {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        } else {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        };
        if phase != wanted {
            errors.push(FieldError::invalid("status.Phase", phase, text));
        }
    },
    ..BASE
};

/// `v1 Node`.
pub(super) const NODE: Hooks = Hooks {
    validate: |node, errors| {
        let root = At::root(node);
        taints(&root, errors);
        amounts(&root, errors);
        let spec = root.field("spec");
        let cidrs: Vec<At<'_>> = spec.each("podCIDRs").collect();
        for cidr in &cidrs {
            cidr.cidr(errors);
        }
        let v6 = |at: &At<'_>| at.str().split('/').next().is_some_and(is_ipv6);
        if cidrs.len() > 2 || (cidrs.len() == 2 && v6(&cidrs[0]) == v6(&cidrs[1])) {
            spec.field("podCIDRs")
                .invalid("may specify no more than one CIDR for each IP family", errors);
        }
    },
    validate_update: |new, old, errors| {
        node_update(new, old, errors);
        taints(&At::root(new), errors);
    },
    validate_status: node_update,
    ..BASE
};

fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let root = At::root(new);
    amounts(&root, errors);
    let mut seen = BTreeSet::new();
    for address in root.field("status").each("addresses") {
        if !seen.insert((address.str_of("type"), address.str_of("address"))) {
            address.duplicate(errors);
        }
    }
    let (spec, before) = (root.field("spec"), old.at("spec"));
    let all_changed =
        !before.items("podCIDRs").is_empty() && spec.items("podCIDRs") != before.items("podCIDRs");
    let first_changed =
        !before.text("podCIDR").is_empty() && spec.str_of("podCIDR") != before.text("podCIDR");
    if all_changed || first_changed {
        let text = "node updates may not change podCIDR except from \"\" to valid";
        spec.field("podCIDRs").forbidden(text, errors);
    }
    if !before.text("providerID").is_empty()
        && spec.str_of("providerID") != before.text("providerID")
    {
        let text = "node updates may not change providerID except from \"\" to valid";
        spec.field("providerID").forbidden(text, errors);
    }
    if spec.str_of("externalID") != before.text("externalID") {
        spec.field("externalID").forbidden("may not be updated", errors);
    }
}

/// Upstream names these fields `metadata.taints`.
fn taints(root: &At<'_>, errors: &mut Errors) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let list = root.field("metadata").path.child("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in root.field("spec").each("taints").enumerate() {
        let taint = At { value: taint.value, path: list.index(index) };
        taint.field("key").check(names::is_qualified_name, errors);
        let value = taint.field("value");
        let problems = names::is_label_value(value.str());
        if !problems.is_empty() {
            value.invalid(problems.join(";"), errors);
        }
        taint.field("effect").one_of(EFFECTS, errors);
        if !seen.insert((taint.str_of("effect"), taint.str_of("key"))) {
            let mut error = FieldError::duplicate(&taint.path, taint.value.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

fn amounts(root: &At<'_>, errors: &mut Errors) {
    let status = root.field("status");
    for list in ["capacity", "allocatable"] {
        for (name, amount) in status.entries(list) {
            let path = status.path.child(list).child(name);
            quantity_value(name, amount.as_str().unwrap_or_default(), &path, errors);
        }
    }
}

/// `v1 ServiceAccount`: nothing beyond its name.
pub(super) const SERVICE_ACCOUNT: Hooks = BASE;
