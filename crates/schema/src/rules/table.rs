//! The table from kind to rules: one line a kind that has rules of its own.

use meta::GroupVersionKind;

use super::{Hooks, metadata};
use crate::types::{self, Type};

/// What kinds without rules of their own do.
const NONE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// The functions of a kind.
pub(super) fn hooks(kind: &GroupVersionKind) -> Hooks {
    own(kind).unwrap_or(NONE)
}

/// The type of a built-in kind whose validation comes from the type graph alone.
pub(super) fn generic(kind: &GroupVersionKind) -> Option<&'static Type> {
    if own(kind).is_some() { None } else { types::by_kind(&kind.group, &kind.version, &kind.kind) }
}

fn own(_kind: &GroupVersionKind) -> Option<Hooks> {
    None
}
