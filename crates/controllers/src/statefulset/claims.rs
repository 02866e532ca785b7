//! The claims of a set's pods: made with the pod, kept for the next one of its name, and removed
//! only where the retention policy says so (KEP-1847), by owner references that the garbage
//! collector follows.

use std::sync::Arc;

use client::reference;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use reconcile::{Action, Plan, Report};
use serde_json::json;

use super::{
    control::World,
    identity::{new_claims, ordinal},
};
use crate::objects::{controller_reference, name, uid};

/// What follows the end of a set, or of a pod that the set no longer wants.
#[derive(Clone, Copy)]
struct Policy {
    deleted_with_set: bool,
    deleted_with_pod: bool,
}

impl Policy {
    fn of(world: &World<'_>) -> Self {
        let policy = world.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |rule: Option<&String>| rule.is_some_and(|rule| rule == "Delete");
        Self {
            deleted_with_set: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            deleted_with_pod: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }
}

fn existing<'a>(
    world: &World<'a>,
    wanted: &PersistentVolumeClaim,
) -> Option<&'a Arc<PersistentVolumeClaim>> {
    world.claims.iter().find(|claim| name(&claim.metadata) == name(&wanted.metadata))
}

/// Adds the creation of the claims that a pod of that ordinal misses.
pub(super) fn create(world: &World<'_>, pod: &str, ordinal: i32, plan: &mut Plan) {
    let policy = Policy::of(world);
    for mut claim in new_claims(world.set, world.spec, ordinal) {
        if existing(world, &claim).is_some() {
            continue;
        }
        if policy.deleted_with_set {
            claim.metadata.owner_references = Some(vec![controller_reference(world.set)]);
        }
        let (own, set) = (name(&claim.metadata).to_owned(), name(&world.set.metadata));
        let report = Report {
            about: reference(world.set),
            done: Some((
                "SuccessfulCreate",
                format!("create Claim {own} Pod {pod} in StatefulSet {set} success"),
            )),
            failed: Some((
                "FailedCreate",
                format!(
                    "create Claim {own} for Pod {pod} in StatefulSet {set} failed error: {{error}}"
                ),
            )),
        };
        plan.act(Action::create(&claim).reporting(report));
    }
}

/// Whether a claim of that ordinal still belongs to a pod of the same name that is gone: it is
/// about to be deleted, and a new pod must not get it.
pub(super) fn is_stale(world: &World<'_>, ordinal: i32) -> bool {
    let wanted = new_claims(world.set, world.spec, ordinal);
    wanted.iter().filter_map(|claim| existing(world, claim)).any(|claim| {
        claim.metadata.deletion_timestamp.is_some()
            || claim.metadata.owner_references.iter().flatten().any(|owner| {
                owner.kind == "Pod" && !world.pods.iter().any(|pod| uid(&pod.metadata) == owner.uid)
            })
    })
}

/// Adds the changes of owner references that make a pod's claims follow the policy.
pub(super) fn retain(world: &World<'_>, pod: &Pod, plan: &mut Plan) {
    let policy = Policy::of(world);
    let Some(ordinal) = ordinal(pod) else { return };
    let condemned = !world.ordinals.0.contains(&ordinal);
    let with_pod = policy.deleted_with_pod && condemned;
    let with_set = policy.deleted_with_set && !with_pod;
    for wanted in new_claims(world.set, world.spec, ordinal) {
        let Some(claim) = existing(world, &wanted) else { continue };
        let old = claim.metadata.owner_references.clone().unwrap_or_default();
        let set_uid = uid(&world.set.metadata);
        let mut new: Vec<OwnerReference> = old
            .iter()
            .filter(|owner| owner.uid != set_uid && owner.uid != uid(&pod.metadata))
            .cloned()
            .collect();
        // Another controller's claim is its own affair.
        if new.iter().any(|owner| owner.controller == Some(true)) {
            continue;
        }
        if with_set {
            new.push(controller_reference(world.set));
        }
        if with_pod {
            new.push(controller_reference(pod));
        }
        let same = old.len() == new.len()
            && new.iter().all(|one| old.iter().any(|known| known.uid == one.uid));
        if !same {
            let patch = json!({ "metadata": { "ownerReferences": new } });
            plan.act(Action::patch_exact(&**claim, patch));
        }
    }
}
