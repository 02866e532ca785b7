//! Which pods are replaced because the template changed: from the highest ordinal down to the
//! partition, never more unavailable at once than allowed (KEP-961).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::int_or_string::scaled_text;
use reconcile::Plan;

use super::{
    control::{Availability, World, delete, is_going},
    identity,
};
use crate::objects::name;

/// Deletes pods of old revisions; their successors are made in the next step.
pub(super) fn advance(world: &World<'_>, plan: &mut Plan) {
    let strategy = world.spec.update_strategy.as_ref();
    if strategy.is_some_and(|one| one.type_.as_deref() == Some("OnDelete")) {
        return;
    }
    let rolling = strategy.and_then(|one| one.rolling_update.as_ref());
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
    let most = most(world, rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
    let newest = name(&world.revisions.update.metadata);
    let mut missing = 0;
    for ordinal in world.ordinals.0.clone() {
        match world.pod(ordinal).map(|pod| (pod, world.available(pod))) {
            Some((pod, Availability::Yes)) if !is_going(pod) => {}
            Some((_, Availability::At(at))) => {
                plan.requeue(at);
                missing += 1;
            }
            _ => missing += 1,
        }
    }
    let lowest = world.ordinals.0.start.saturating_add(partition);
    for ordinal in (lowest..world.ordinals.0.end).rev() {
        let Some(pod) = world.pod(ordinal) else { continue };
        if identity::revision(pod) == newest || is_going(pod) {
            continue;
        }
        match world.available(pod) {
            // One that does not work costs nobody anything.
            Availability::No => {}
            _ if missing >= most => return,
            // One that is ready and has yet to prove itself is among the missing.
            Availability::At(_) => {}
            Availability::Yes => missing += 1,
        }
        delete(world, pod, plan);
    }
}

/// How many may be unavailable: at least one, or nothing would ever move.
fn most(world: &World<'_>, value: Option<&IntOrString>) -> i64 {
    let replicas = i64::from(world.spec.replicas.unwrap_or(1));
    let most = match value {
        None => 1,
        Some(IntOrString::Int(number)) => i64::from(*number),
        Some(IntOrString::String(text)) => scaled_text(text, replicas, false).unwrap_or(1),
    };
    most.max(1)
}
