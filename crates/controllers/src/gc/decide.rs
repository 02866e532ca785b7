//! What becomes of an object, given its owners. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use reconcile::Propagation;

use super::graph::{FOREGROUND, ORPHAN};

/// How it stands with an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It exists, or nobody can tell.
    Solid,
    /// It waits for its dependents to go.
    Waiting,
    /// It does not exist.
    Absent,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Nothing.
    Keep,
    /// Orphan the dependents, then take the finalizer off.
    Orphan,
    /// See to the dependents, and take the finalizer off when none is left.
    WaitForDependents,
    /// Keep only these references: the other owners are gone or going.
    Disown(Vec<OwnerReference>),
    /// Delete it.
    Delete(Propagation),
}

/// Decides about an object from its metadata, read from the server, and the states of its
/// owners in their order.
pub(super) fn decide(meta: &ObjectMeta, owners: &[OwnerState], has_dependents: bool) -> Decision {
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|known| known == finalizer);
    if meta.deletion_timestamp.is_some() {
        return if has(ORPHAN) {
            Decision::Orphan
        } else if has(FOREGROUND) {
            Decision::WaitForDependents
        } else {
            Decision::Keep
        };
    }
    let references = meta.owner_references.as_deref().unwrap_or_default();
    if references.is_empty() {
        return Decision::Keep;
    }
    let count = |wanted: OwnerState| owners.iter().filter(|state| **state == wanted).count();
    if count(OwnerState::Solid) > 0 {
        if count(OwnerState::Solid) == owners.len() {
            return Decision::Keep;
        }
        let solid = references
            .iter()
            .zip(owners)
            .filter(|(_, state)| **state == OwnerState::Solid)
            .map(|(reference, _)| reference.clone());
        return Decision::Disown(solid.collect());
    }
    if count(OwnerState::Waiting) > 0 && has_dependents {
        return Decision::Delete(Propagation::Foreground);
    }
    Decision::Delete(if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::from_yaml;

    fn check(more: &str, owners: &[OwnerState], has_dependents: bool) -> Decision {
        let references: Vec<_> = (0..owners.len())
            .map(|number| format!("{{apiVersion: v1, kind: Pod, name: o{number}, uid: o{number}}}"))
            .collect();
        let meta: ObjectMeta =
            from_yaml(&format!("{{name: a, ownerReferences: [{}]{more}}}", references.join(", ")));
        decide(&meta, owners, has_dependents)
    }

    #[test]
    fn an_object_stays_while_one_owner_does() {
        use OwnerState::{Absent, Solid, Waiting};
        assert_eq!(check("", &[], false), Decision::Keep);
        assert_eq!(check("", &[Solid, Solid], false), Decision::Keep);
        let Decision::Disown(kept) = check("", &[Absent, Solid, Waiting], false) else { panic!() };
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].name, "o1");
        assert_eq!(check("", &[Absent], false), Decision::Delete(Propagation::Background));
        assert_eq!(check("", &[Absent], true), Decision::Delete(Propagation::Background));
        assert_eq!(check("", &[Waiting], true), Decision::Delete(Propagation::Foreground));
        assert_eq!(check("", &[Waiting], false), Decision::Delete(Propagation::Background));
        let orphaning = ", finalizers: [orphan]";
        assert_eq!(check(orphaning, &[Absent], false), Decision::Delete(Propagation::Orphan));
    }

    #[test]
    fn an_object_being_deleted_serves_its_finalizers() {
        let going = |finalizer: &str| {
            format!(", deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [{finalizer}]")
        };
        assert_eq!(check(&going("orphan"), &[], true), Decision::Orphan);
        assert_eq!(check(&going("foregroundDeletion"), &[], true), Decision::WaitForDependents);
        assert_eq!(check(&going("other"), &[OwnerState::Absent], true), Decision::Keep);
    }
}
