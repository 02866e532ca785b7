//! Rules of Namespaces and ServiceAccounts.

use meta::{FieldError, names};

use super::Hooks;
use super::at::At;
use super::metadata;
use crate::view::View;

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
    ..Hooks::BASE
};

/// `v1 ServiceAccount`: nothing beyond its name.
pub(super) const SERVICE_ACCOUNT: Hooks = Hooks::BASE;
