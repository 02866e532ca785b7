//! The steps of a rollout: make the new ReplicaSet, grow it, shrink the old ones, clean up.
//!
//! Each run makes one step and lets the ReplicaSets answer.

use std::collections::BTreeMap;

use client::reference;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentSpec},
    core::v1::Pod,
};
use reconcile::{Action, Context, Plan, Report};
use serde_json::{Value, json};

use super::{
    Snapshot, annotations, fenceposts, is_recreate,
    progress::Draft,
    replica_sets::{Member, Sets, by_age, make, specified},
    scale, wanted,
};
use crate::objects::{annotation, controller, is_finished, name, uid};

/// Scales without rolling: for paused Deployments and changed sizes.
pub(super) fn resize(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    sets: &mut Sets,
    status: &mut Draft<'_>,
    context: &Context,
    plan: &mut Plan,
) {
    renew(deployment, spec, sets, false, status, context, plan);
    scale::spread(spec, &status.new, sets);
    write_sizes(deployment, spec, sets, plan);
    if spec.paused == Some(true) {
        clean_up(spec, sets, plan);
    }
}

/// Makes the next step of the rollout.
pub(super) fn step(
    snapshot: &Snapshot,
    spec: &DeploymentSpec,
    sets: &mut Sets,
    status: &mut Draft<'_>,
    context: &Context,
    plan: &mut Plan,
) {
    let deployment = &*snapshot.deployment;
    if is_recreate(spec) {
        recreate(snapshot, spec, sets, status, context, plan);
    } else if !renew(deployment, spec, sets, true, status, context, plan) {
        let before = plan.actions.len();
        grow(spec, sets);
        write_sizes(deployment, spec, sets, plan);
        if plan.actions.len() == before {
            shrink(spec, sets);
            write_sizes(deployment, spec, sets, plan);
        }
    }
    if status.is_complete() {
        clean_up(spec, sets, plan);
    }
}

fn recreate(
    snapshot: &Snapshot,
    spec: &DeploymentSpec,
    sets: &mut Sets,
    status: &mut Draft<'_>,
    context: &Context,
    plan: &mut Plan,
) {
    let deployment = &*snapshot.deployment;
    if sets.newest.is_some() {
        renew(deployment, spec, sets, false, status, context, plan);
    }
    if sets.total_old() > 0 {
        for member in &mut sets.old {
            member.size = 0;
        }
        write_sizes(deployment, spec, sets, plan);
        return;
    }
    if old_pods_run(sets, &snapshot.pods) {
        return;
    }
    if sets.newest.is_none() {
        renew(deployment, spec, sets, true, status, context, plan);
        return;
    }
    if let Some(newest) = &mut sets.newest {
        newest.size = wanted(spec);
    }
    write_sizes(deployment, spec, sets, plan);
}

/// Whether pods of an old ReplicaSet may still run. Pods being deleted do.
fn old_pods_run(sets: &Sets, pods: &[std::sync::Arc<Pod>]) -> bool {
    pods.iter().filter(|pod| !is_finished(pod)).any(|pod| {
        controller(&pod.metadata).is_some_and(|owner| {
            sets.old.iter().any(|member| uid(&member.set.metadata) == owner.uid)
        })
    })
}

/// Brings the newest ReplicaSet and the revisions up to date; creates it if there is none and
/// `create` is set. Returns whether it did create it.
fn renew(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    sets: &Sets,
    create: bool,
    status: &mut Draft<'_>,
    context: &Context,
    plan: &mut Plan,
) -> bool {
    let revision = sets.next_revision();
    if let Some(newest) = &sets.newest {
        let current = newest.set.metadata.annotations.clone().unwrap_or_default();
        let changes = annotations::of_newest(deployment, &current, revision);
        let mut patch = json!({});
        if !changes.is_empty() {
            patch["metadata"]["annotations"] = json!(changes);
        }
        let ready = newest.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        if ready.unwrap_or(0) != spec.min_ready_seconds.unwrap_or(0) {
            patch["spec"]["minReadySeconds"] = json!(spec.min_ready_seconds.unwrap_or(0));
        }
        if patch != json!({}) {
            plan.act(Action::patch(&*newest.set, patch));
        }
        let revision = changes.get(annotations::REVISION).or(current.get(annotations::REVISION));
        if let Some(revision) = revision {
            set_revision(deployment, revision, plan);
        }
        status.found(newest.name());
        return false;
    }
    if !create {
        return false;
    }
    status.note_failed_creation(context);
    let size = initial_size(spec, sets);
    let set = make(deployment, spec, status.new.collision_count, revision, size);
    let set_name = name(&set.metadata).to_owned();
    plan.act(Action::create(&set).reporting(Report {
        about: reference(deployment),
        done: (size > 0).then(|| {
            ("ScalingReplicaSet", format!("Scaled up replica set {set_name} from 0 to {size}"))
        }),
        failed: Some((
            "ReplicaSetCreateError",
            format!("Failed to create new replica set \"{set_name}\": {{error}}"),
        )),
    }));
    set_revision(deployment, &revision.to_string(), plan);
    if context.failure.is_none() {
        status.created(&set_name);
    }
    true
}

fn set_revision(deployment: &Deployment, revision: &str, plan: &mut Plan) {
    if annotation(&deployment.metadata, annotations::REVISION) != Some(revision) {
        let patch = json!({ "metadata": { "annotations": { annotations::REVISION: revision } } });
        plan.act(Action::patch(deployment, patch));
    }
}

/// The size with which a new ReplicaSet starts.
fn initial_size(spec: &DeploymentSpec, sets: &Sets) -> i32 {
    if is_recreate(spec) { wanted(spec) } else { grown(spec, sets, 0) }
}

/// What a newest ReplicaSet of `size` may grow to without exceeding the surge.
fn grown(spec: &DeploymentSpec, sets: &Sets, size: i32) -> i32 {
    let room = wanted(spec).saturating_add(fenceposts(spec).0) - sets.total();
    if room <= 0 { size } else { size + room.min(wanted(spec) - size) }
}

fn grow(spec: &DeploymentSpec, sets: &mut Sets) {
    let Some(size) = sets.newest.as_ref().map(|newest| newest.size) else { return };
    let wanted = wanted(spec);
    let target = if size > wanted { wanted } else { grown(spec, sets, size) };
    if let Some(newest) = &mut sets.newest {
        newest.size = target;
    }
}

/// Shrinks old ReplicaSets: first pods that do not serve anyway, then as many as can be spared.
fn shrink(spec: &DeploymentSpec, sets: &mut Sets) {
    if sets.total_old() == 0 {
        return;
    }
    let minimum = wanted(spec) - fenceposts(spec).1;
    let not_serving = sets.newest.as_ref().map_or(0, |newest| newest.size - newest.available());
    let spare = sets.total() - minimum - not_serving;
    if spare <= 0 {
        return;
    }
    sets.old.sort_by(|a, b| by_age(&a.set, &b.set));
    let mut cleaned = 0;
    for member in &mut sets.old {
        let unhealthy = (member.size - member.available()).max(0).min(spare - cleaned);
        member.size -= unhealthy;
        cleaned += unhealthy;
    }
    let available: i32 = sets.all().map(Member::available).sum();
    let mut spare = (available - minimum).max(0);
    for member in &mut sets.old {
        let fewer = member.size.min(spare);
        member.size -= fewer;
        spare -= fewer;
    }
}

/// Writes the sizes that differ from the specified ones, with the size annotations.
fn write_sizes(deployment: &Deployment, spec: &DeploymentSpec, sets: &Sets, plan: &mut Plan) {
    let surge = fenceposts(spec).0;
    for member in sets.all() {
        let before = specified(&member.set);
        let current = member.set.metadata.annotations.clone().unwrap_or_default();
        let annotations = annotations::sizes(&current, wanted(spec), surge);
        if before == member.size && (annotations.is_empty() || member.size == 0) {
            continue;
        }
        let patch = size_patch(before, member.size, &annotations);
        let mut action = Action::patch(&*member.set, patch);
        if before != member.size {
            let direction = if before < member.size { "up" } else { "down" };
            let note = format!(
                "Scaled {direction} replica set {} from {before} to {}",
                member.name(),
                member.size
            );
            action = action.reporting(Report {
                about: reference(deployment),
                done: Some(("ScalingReplicaSet", note)),
                failed: None,
            });
        }
        plan.act(action);
    }
}

fn size_patch(before: i32, after: i32, annotations: &BTreeMap<String, String>) -> Value {
    let mut patch = json!({});
    if before != after {
        patch["spec"]["replicas"] = json!(after);
    }
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = json!(annotations);
    }
    patch
}

/// Deletes the oldest empty ReplicaSets beyond the history limit.
fn clean_up(spec: &DeploymentSpec, sets: &Sets, plan: &mut Plan) {
    let Some(limit) = spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok())
    else {
        return;
    };
    let mut candidates: Vec<&Member> =
        sets.old.iter().filter(|old| old.set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = candidates.len().saturating_sub(limit);
    candidates.sort_by_key(|member| annotations::revision(&member.set));
    for member in candidates.into_iter().take(surplus) {
        let observed = member.set.status.as_ref().and_then(|status| status.observed_generation);
        let settled = member.set.metadata.generation <= observed;
        if settled && member.actual() == 0 && specified(&member.set) == 0 && member.size == 0 {
            plan.act(Action::delete(&*member.set));
        }
    }
}
