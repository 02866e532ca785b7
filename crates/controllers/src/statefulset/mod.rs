//! StatefulSets: pods with names, claims and an order of their own.
//!
//! Owns pods, ControllerRevisions and, where the retention policy says so, claims. `identity` makes
//! pods, `revisions` keeps the history of templates, `claims` looks after claims, `control` decides
//! what comes and goes next, `update` which pods are replaced, `status` says what there is. A pod
//! is never made while another of its name may still run: that one has to be gone from the API.

mod claims;
mod control;
mod identity;
mod revisions;
mod status;
#[cfg(test)]
mod tests;
mod update;

use std::sync::Arc;

use client::{Cache, Caches, EventKind, ObjectKey};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use reconcile::{Context, Controller, Deps, Plan, Runtime, controller_of, itself};
use tokio_util::sync::CancellationToken;

use self::{identity::Ordinals, revisions::Revisions};
use crate::{
    claim::claim,
    objects::{BY_CONTROLLER, controller, controller_index, name, orphans, selector, uid},
};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "statefulset-controller";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let sets = caches.cache::<StatefulSet>();
    let pods = caches.cache::<Pod>();
    let revisions = caches.cache::<ControllerRevision>();
    let claims = caches.cache::<PersistentVolumeClaim>();
    pods.index(BY_CONTROLLER, controller_index);
    revisions.index(BY_CONTROLLER, controller_index);
    Runtime::new(NAME, deps)
        .watch(&sets, itself)
        .watch(&pods, |change| {
            let mut keys = controller_of::<StatefulSet, Pod>(change);
            // An orphan is adopted by the set that its name names.
            if let Some(pod) = &change.after
                && controller(&pod.metadata).is_none()
                && let Some((set, _)) = identity::parse(name(&pod.metadata))
            {
                keys.push(ObjectKey::new(pod.metadata.namespace.as_deref(), set));
            }
            keys
        })
        .watch(&revisions, controller_of::<StatefulSet, ControllerRevision>)
        .watch(&claims, |change| {
            let of_pod = identity::parse(&change.key.name).map(|(rest, _)| rest);
            // `<claim>-<set>-<ordinal>`: either part may have hyphens.
            let hyphens = of_pod
                .into_iter()
                .flat_map(|rest| rest.match_indices('-').map(|(at, _)| rest[at + 1..].to_owned()));
            hyphens.map(|set| ObjectKey::new(change.key.namespace.as_deref(), set)).collect()
        })
        .run(StatefulSets { sets, pods, revisions, claims }, shutdown)
        .await;
}

struct StatefulSets {
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    revisions: Cache<ControllerRevision>,
    claims: Cache<PersistentVolumeClaim>,
}

/// A StatefulSet with what it may own.
pub(crate) struct Snapshot {
    set: Arc<StatefulSet>,
    pods: Vec<Arc<Pod>>,
    revisions: Vec<Arc<ControllerRevision>>,
    /// Claims by the names that its pods use.
    claims: Vec<Arc<PersistentVolumeClaim>>,
}

impl Controller for StatefulSets {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let set = self.sets.get_key(key)?;
        let orphans = orphans(key.namespace());
        let mut pods = self.pods.indexed(BY_CONTROLLER, uid(&set.metadata));
        pods.extend(self.pods.indexed(BY_CONTROLLER, &orphans));
        pods.retain(|pod| identity::is_member(&set, pod));
        let mut revisions = self.revisions.indexed(BY_CONTROLLER, uid(&set.metadata));
        revisions.extend(self.revisions.indexed(BY_CONTROLLER, &orphans));
        let names = identity::claim_names(&set, &pods);
        let claims =
            names.iter().filter_map(|name| self.claims.get(Some(key.namespace()), name)).collect();
        Some(Snapshot { set, pods, revisions, claims })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context)
    }
}

/// One step: adopts, makes, updates and deletes, and says what there is.
pub(crate) fn plan(snapshot: &Snapshot, context: &Context) -> Plan {
    let set = &*snapshot.set;
    let Some(spec) = &set.spec else { return Plan::nothing() };
    let mut plan = Plan::default();
    let selector = selector(&spec.selector);
    if selector.is_empty() {
        let note = "This StatefulSet is selecting all pods. A non-empty selector is required.";
        plan.note(set, EventKind::Warning, "SelectingAll", note);
        return plan;
    }
    let pods = claim(set, &selector, snapshot.pods.iter().cloned());
    let revisions = claim(set, &selector, snapshot.revisions.iter().cloned());
    plan.actions.extend(pods.actions);
    plan.actions.extend(revisions.actions);
    let mut status = set.status.clone().unwrap_or_default();
    let Some(revisions) =
        Revisions::find(set, spec, revisions.claimed, &mut status, context, &mut plan)
    else {
        // The new revision is being made; pods follow when it is there.
        plan.status = status::write(set, status);
        return plan;
    };
    let ordinals = Ordinals::of(spec);
    let world = control::World {
        set,
        spec,
        ordinals,
        pods: &pods.claimed,
        claims: &snapshot.claims,
        revisions: &revisions,
        now: context.now,
    };
    control::advance(&world, &mut plan);
    revisions.truncate(spec, &pods.claimed, &mut plan);
    status::count(&world, &mut status, &mut plan);
    plan.status = status::write(set, status);
    plan
}
