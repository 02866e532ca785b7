//! Deployments: rolling from one ReplicaSet to the next.
//!
//! Owns ReplicaSets by controller references and their `deployment.kubernetes.io/` annotations;
//! touches no pod. `rollout` decides the steps, `scale` spreads sizes, `replica_sets` finds and
//! makes ReplicaSets, `progress` writes the status.

mod annotations;
mod hash;
mod progress;
mod replica_sets;
mod rollout;
mod scale;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, Caches, EventKind, ObjectKey};
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
    core::v1::Pod,
};
use meta::int_or_string::scaled_text;
use reconcile::{Context, Controller, Deps, Plan, Runtime, controller_of, itself, owner_of};
use tokio_util::sync::CancellationToken;

pub(crate) use self::hash::template_hash;
use self::replica_sets::Sets;
use crate::{
    claim::claim,
    objects::{BY_CONTROLLER, controller, controller_index, orphans, selector, selects, uid},
};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "deployment-controller";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let deployments = caches.cache::<Deployment>();
    let sets = caches.cache::<ReplicaSet>();
    let pods = caches.cache::<Pod>();
    sets.index(BY_CONTROLLER, controller_index);
    pods.index(BY_CONTROLLER, controller_index);
    let (adopters, recreating, owners) = (deployments.clone(), deployments.clone(), sets.clone());
    Runtime::new(NAME, deps)
        .watch(&deployments, itself)
        .watch(&sets, move |change| {
            let mut keys = controller_of::<Deployment, ReplicaSet>(change);
            if let Some(set) = &change.after
                && controller(&set.metadata).is_none()
            {
                keys.extend(would_adopt(&adopters, set));
            }
            keys
        })
        .watch(&pods, move |change| {
            // Only Recreate waits for pods to go.
            let (Some(pod), None) = (&change.before, &change.after) else { return Vec::new() };
            waits_for(&recreating, &owners, pod).into_iter().collect()
        })
        .run(Deployments { deployments, sets, pods }, shutdown)
        .await;
}

/// The Deployments whose selectors match an orphan.
fn would_adopt(deployments: &Cache<Deployment>, set: &ReplicaSet) -> Vec<ObjectKey> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    deployments
        .list_in(namespace)
        .iter()
        .filter(|deployment| {
            deployment
                .spec
                .as_ref()
                .is_some_and(|spec| selects(&selector(&spec.selector), &set.metadata))
        })
        .map(|deployment| ObjectKey::of(&**deployment))
        .collect()
}

/// The Recreate deployment that a gone pod belonged to.
fn waits_for(
    deployments: &Cache<Deployment>,
    sets: &Cache<ReplicaSet>,
    pod: &Pod,
) -> Option<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref();
    let set = sets.get(namespace, owner_of::<ReplicaSet>(&pod.metadata)?)?;
    let deployment = deployments.get(namespace, owner_of::<Deployment>(&set.metadata)?)?;
    is_recreate(deployment.spec.as_ref()?).then(|| ObjectKey::of(&*deployment))
}

struct Deployments {
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

/// A Deployment with the ReplicaSets it may claim and, for Recreate, their pods.
pub(crate) struct Snapshot {
    deployment: Arc<Deployment>,
    sets: Vec<Arc<ReplicaSet>>,
    pods: Vec<Arc<Pod>>,
}

impl Controller for Deployments {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let deployment = self.deployments.get_key(key)?;
        let mut sets = self.sets.indexed(BY_CONTROLLER, uid(&deployment.metadata));
        sets.extend(self.sets.indexed(BY_CONTROLLER, &orphans(key.namespace())));
        let pods = if deployment.spec.as_ref().is_some_and(is_recreate) {
            sets.iter()
                .flat_map(|set| self.pods.indexed(BY_CONTROLLER, uid(&set.metadata)))
                .collect()
        } else {
            Vec::new()
        };
        Some(Snapshot { deployment, sets, pods })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context)
    }
}

/// One step of a Deployment: what to write to ReplicaSets, and what to say in its status.
pub(crate) fn plan(snapshot: &Snapshot, context: &Context) -> Plan {
    let deployment = &*snapshot.deployment;
    let Some(spec) = &deployment.spec else { return Plan::nothing() };
    let mut plan = Plan::default();
    let selector = selector(&spec.selector);
    if selector.is_empty() {
        let note = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.note(deployment, EventKind::Warning, "SelectingAll", note);
        return plan;
    }
    let claims = claim(deployment, &selector, snapshot.sets.iter().cloned());
    plan.actions = claims.actions;
    if !plan.actions.is_empty() {
        // Sizes are decided once everything that counts is ours.
        return plan;
    }
    let mut sets = Sets::sort(spec, &claims.claimed);
    let mut status = progress::Draft::new(deployment, spec, context);
    if deployment.metadata.deletion_timestamp.is_none() {
        status.note_pause();
        if spec.paused == Some(true) || scale::is_scaling(spec, &sets) {
            rollout::resize(deployment, spec, &mut sets, &mut status, context, &mut plan);
            status.count(&sets);
        } else {
            rollout::step(snapshot, spec, &mut sets, &mut status, context, &mut plan);
            status.judge(&sets);
        }
    } else {
        status.count(&sets);
    }
    status.finish(&mut plan);
    plan
}

fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods are wanted.
fn wanted(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

/// How many pods there may be above the wanted number, and how many of it may be missing.
///
/// Surge rounds up, unavailability down; if both come to nothing one may be missing, or the
/// rollout could not move.
fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    if is_recreate(spec) {
        return (0, 0);
    }
    let wanted = wanted(spec);
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let resolve = |value: Option<&k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>,
                   round_up| {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
        match value {
            None => 0,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(text)) => scaled_text(text, i64::from(wanted), round_up)
                .ok()
                .and_then(|number| i32::try_from(number).ok())
                .unwrap_or(0),
        }
    };
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
    let missing = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
    let missing = if surge == 0 && missing == 0 { 1 } else { missing };
    (surge, missing.min(wanted))
}
