//! How a change of a Deployment's size spreads over its ReplicaSets.
//!
//! Pure arithmetic on sizes; source: proportional scaling as upstream documents it.

use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStatus};

use super::{
    annotations::{DESIRED, MAXIMUM, size},
    fenceposts, is_recreate,
    replica_sets::{Member, Sets, by_age},
    wanted,
};

/// Whether the Deployment's size changed since its ReplicaSets were last sized.
pub(super) fn is_scaling(spec: &DeploymentSpec, sets: &Sets) -> bool {
    sets.all()
        .filter(|member| member.size > 0)
        .any(|member| size(&member.set, DESIRED).is_some_and(|desired| desired != wanted(spec)))
}

/// Gives every ReplicaSet its new size.
///
/// A single active one gets the whole size; when the newest already serves everything the old
/// ones go; in the middle of a rollout each gets its share.
pub(super) fn spread(spec: &DeploymentSpec, status: &DeploymentStatus, sets: &mut Sets) {
    if let Some(only) = only_active(sets) {
        only.size = wanted(spec);
        return;
    }
    if is_saturated(spec, sets) {
        for member in &mut sets.old {
            member.size = 0;
        }
        return;
    }
    if !is_recreate(spec) {
        proportionally(spec, status, sets);
    }
}

/// The only active ReplicaSet, or if none is, the newest one there is.
fn only_active(sets: &mut Sets) -> Option<&mut Member> {
    let active = sets.all().filter(|member| member.size > 0).count();
    match active {
        0 if sets.newest.is_some() => sets.newest.as_mut(),
        0 => sets.old.last_mut(),
        1 => sets.old.iter_mut().chain(&mut sets.newest).find(|member| member.size > 0),
        _ => None,
    }
}

/// Whether the newest ReplicaSet has, wants and serves the whole size.
fn is_saturated(spec: &DeploymentSpec, sets: &Sets) -> bool {
    let wanted = wanted(spec);
    sets.newest.as_ref().is_some_and(|newest| {
        newest.size == wanted
            && size(&newest.set, DESIRED) == Some(wanted)
            && newest.available() == wanted
    })
}

fn proportionally(spec: &DeploymentSpec, status: &DeploymentStatus, sets: &mut Sets) {
    let wanted = wanted(spec);
    let allowed = if wanted > 0 { wanted.saturating_add(fenceposts(spec).0) } else { 0 };
    let to_add = allowed - sets.total();
    let mut active: Vec<&mut Member> =
        sets.old.iter_mut().chain(&mut sets.newest).filter(|member| member.size > 0).collect();
    // The largest take most of the change; of equals, the newer grow first and the older
    // shrink first.
    active.sort_by(|a, b| {
        let age = by_age(&a.set, &b.set);
        b.size.cmp(&a.size).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    if to_add != 0 {
        for member in &mut active {
            let share = share(member, spec, status);
            let left = to_add - added;
            let share = if to_add > 0 { share.min(left) } else { share.max(left) };
            member.size += share;
            added += share;
        }
        if let Some(first) = active.first_mut() {
            first.size = (first.size + to_add - added).max(0);
        }
    }
}

/// By how much a ReplicaSet would change so as to keep its part of the whole.
fn share(member: &Member, spec: &DeploymentSpec, status: &DeploymentStatus) -> i32 {
    let wanted = wanted(spec);
    if wanted == 0 {
        return -member.size;
    }
    let after = i64::from(wanted.saturating_add(fenceposts(spec).0));
    let before = size(&member.set, MAXIMUM)
        .filter(|maximum| *maximum > 0)
        .or(status.replicas.filter(|replicas| *replicas > 0));
    let Some(before) = before.map(i64::from) else { return 0 };
    let product = i64::from(member.size) * after;
    // Rounded half up; all numbers are positive.
    let target = (2 * product + before) / (2 * before);
    i32::try_from(target).unwrap_or(i32::MAX) - member.size
}
