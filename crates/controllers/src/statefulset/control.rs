//! What comes and goes next. In order: one pod after the other, each only when all before it are
//! available, and back in reverse; in parallel: all at once.

use std::sync::Arc;

use client::reference;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec},
    core::v1::{PersistentVolumeClaim, Pod},
};
use reconcile::{Action, Plan, Report};
use serde_json::json;

use super::{
    claims,
    identity::{self, Ordinals},
    revisions::Revisions,
    update,
};
use crate::objects::{available_at, is_finished, is_ready, name, phase};

/// Pods made in one run.
const BURST: usize = 500;

/// Everything a step is decided from.
pub(super) struct World<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) spec: &'a StatefulSetSpec,
    pub(super) ordinals: Ordinals,
    /// All that belong to the set.
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) claims: &'a [Arc<PersistentVolumeClaim>],
    pub(super) revisions: &'a Revisions,
    pub(super) now: Timestamp,
}

impl World<'_> {
    /// The pod of that ordinal, if it exists.
    pub(super) fn pod(&self, ordinal: i32) -> Option<&Arc<Pod>> {
        self.pods.iter().find(|pod| identity::ordinal(pod) == Some(ordinal))
    }

    /// Whether the pod has been ready for long enough, and when it will have been.
    pub(super) fn available(&self, pod: &Pod) -> Availability {
        if phase(pod) != "Running" || !is_ready(pod) {
            return Availability::No;
        }
        match available_at(pod, self.spec.min_ready_seconds.unwrap_or(0)) {
            Some(at) if at <= self.now => Availability::Yes,
            Some(at) => Availability::At(at),
            None => Availability::No,
        }
    }
}

/// Whether a pod counts as available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Yes,
    /// Ready, but only available then.
    At(Timestamp),
    No,
}

pub(super) fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Adds the next steps.
pub(super) fn advance(world: &World<'_>, plan: &mut Plan) {
    if world.set.metadata.deletion_timestamp.is_some() {
        return;
    }
    let ordered = world.spec.pod_management_policy.as_deref() != Some("Parallel");
    let mut made = 0;
    for ordinal in world.ordinals.0.clone() {
        match wanted(world, ordinal, ordered, plan) {
            Step::Settled => {}
            Step::Made => made += 1,
            Step::Waits if ordered => return,
            Step::Waits => {}
        }
        if made == BURST || (made > 0 && ordered) {
            return;
        }
    }
    if unwanted(world, ordered, plan) {
        return;
    }
    update::advance(world, plan);
}

/// How a wanted pod stands.
enum Step {
    /// It is there and as it should be.
    Settled,
    /// It is being made.
    Made,
    /// Something has to happen before it counts.
    Waits,
}

fn wanted(world: &World<'_>, ordinal: i32, ordered: bool, plan: &mut Plan) -> Step {
    let Some(pod) = world.pod(ordinal) else {
        return create(world, ordinal, plan);
    };
    if is_finished(pod) {
        // Its successor has the same name: it is made when this one is gone.
        if !is_going(pod) {
            delete(world, pod, plan);
        }
        return Step::Waits;
    }
    if phase(pod) == "Pending" {
        claims::create(world, name(&pod.metadata), ordinal, plan);
    }
    if ordered {
        match world.available(pod) {
            _ if is_going(pod) => return Step::Waits,
            Availability::Yes => {}
            Availability::At(at) => {
                plan.requeue(at);
                return Step::Waits;
            }
            Availability::No => return Step::Waits,
        }
    }
    identify(pod, ordinal, plan);
    claims::retain(world, pod, plan);
    Step::Settled
}

fn create(world: &World<'_>, ordinal: i32, plan: &mut Plan) -> Step {
    if claims::is_stale(world, ordinal) {
        return Step::Waits;
    }
    let counted = world.set.status.as_ref().and_then(|status| status.current_replicas);
    let (revision, template) =
        world.revisions.of_new_pod(world.spec, &world.ordinals, counted.unwrap_or(0), ordinal);
    let pod = identity::new_pod(world.set, world.spec, &template, revision, ordinal);
    claims::create(world, name(&pod.metadata), ordinal, plan);
    plan.act(Action::create(&pod).reporting(report(world, "Create", "create")));
    Step::Made
}

/// Restores the labels by which a pod is known.
fn identify(pod: &Pod, ordinal: i32, plan: &mut Plan) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let wanted = identity::labels_of(name(&pod.metadata), ordinal);
    if wanted.iter().any(|(key, value)| labels.get(*key) != Some(value)) {
        let labels: serde_json::Map<String, serde_json::Value> =
            wanted.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        plan.act(Action::patch(pod, json!({ "metadata": { "labels": labels } })));
    }
}

/// Deletes pods beyond the wanted ordinals, the highest first; whether others have to wait for it.
fn unwanted(world: &World<'_>, ordered: bool, plan: &mut Plan) -> bool {
    let beyond = |pod: &&Arc<Pod>| {
        identity::ordinal(pod).is_some_and(|ordinal| !world.ordinals.0.contains(&ordinal))
    };
    let mut condemned: Vec<&Arc<Pod>> = world.pods.iter().filter(beyond).collect();
    condemned.sort_by_key(|pod| std::cmp::Reverse(identity::ordinal(pod)));
    // Claims first: a pod that goes before its claims follow it leaves them behind.
    let before = plan.actions.len();
    for pod in &condemned {
        claims::retain(world, pod, plan);
    }
    if plan.actions.len() > before {
        return true;
    }
    // The lowest pod that does not work may go although it does not: it may be why others do not.
    let first_broken = first_broken(world, &condemned);
    for pod in &condemned {
        if is_going(pod) {
            if ordered {
                return true;
            }
            continue;
        }
        if ordered && Some(name(&pod.metadata)) != first_broken.as_deref() {
            match world.available(pod) {
                Availability::Yes => {}
                Availability::At(at) => {
                    plan.requeue(at);
                    return true;
                }
                Availability::No => return true,
            }
        }
        delete(world, pod, plan);
        if ordered {
            return true;
        }
    }
    false
}

fn first_broken(world: &World<'_>, condemned: &[&Arc<Pod>]) -> Option<String> {
    let works = |pod: &Pod| phase(pod) == "Running" && is_ready(pod) && !is_going(pod);
    for ordinal in world.ordinals.0.clone() {
        match world.pod(ordinal) {
            Some(pod) if works(pod) => {}
            Some(pod) => return Some(name(&pod.metadata).to_owned()),
            None => return Some(String::new()),
        }
    }
    let lowest = condemned.iter().rev().find(|pod| !works(pod));
    lowest.map(|pod| name(&pod.metadata).to_owned())
}

/// Adds the deletion of a pod.
pub(super) fn delete(world: &World<'_>, pod: &Pod, plan: &mut Plan) {
    plan.act(Action::delete(pod).reporting(report(world, "Delete", "delete")));
}

/// The events about a pod that is made or deleted.
fn report(world: &World<'_>, word: &str, verb: &str) -> Report {
    let set = name(&world.set.metadata);
    let (done, failed) = match word {
        "Create" => ("SuccessfulCreate", "FailedCreate"),
        _ => ("SuccessfulDelete", "FailedDelete"),
    };
    Report {
        about: reference(world.set),
        done: Some((done, format!("{verb} Pod {{name}} in StatefulSet {set} successful"))),
        failed: Some((
            failed,
            format!("{verb} Pod {{name}} in StatefulSet {set} failed error: {{error}}"),
        )),
    }
}
