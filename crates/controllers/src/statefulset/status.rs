//! What a StatefulSet's status says.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use reconcile::{Action, Plan};

use super::{
    control::{Availability, World, is_going},
    identity,
};
use crate::objects::{count as number, is_ready, name, nonzero, phase};

/// Counts pods; when all are of the newest revision and ready, an update is over.
pub(super) fn count(world: &World<'_>, status: &mut StatefulSetStatus, plan: &mut Plan) {
    let of_revision = |revision: &str| {
        let pods = world.pods.iter().filter(|pod| !is_going(pod));
        number(pods.filter(|pod| identity::revision(pod) == revision).count())
    };
    let ready = world.pods.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod));
    let mut available = 0;
    for pod in ready.clone() {
        match world.available(pod) {
            Availability::Yes => available += 1,
            Availability::At(at) => plan.requeue(at),
            Availability::No => {}
        }
    }
    status.replicas = number(world.pods.len());
    status.ready_replicas = nonzero(number(ready.count()));
    status.available_replicas = Some(available);
    let (current, update) =
        (name(&world.revisions.current.metadata), name(&world.revisions.update.metadata));
    status.current_replicas = nonzero(of_revision(current));
    status.updated_replicas = nonzero(of_revision(update));
    let wanted = world.spec.replicas.unwrap_or(1);
    let rolling = world.spec.update_strategy.as_ref();
    let rolling = rolling.is_none_or(|strategy| strategy.type_.as_deref() != Some("OnDelete"));
    let finished = status.updated_replicas.unwrap_or(0) == wanted
        && status.ready_replicas.unwrap_or(0) == wanted
        && status.replicas == wanted;
    if rolling && finished {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
}

/// The write of the status, if it differs. An empty one is written once, zeros and all.
pub(super) fn write(set: &StatefulSet, new: StatefulSetStatus) -> Option<Action> {
    match &set.status {
        Some(old) => Action::status(set, old, &new),
        None => Some(Action::patch_with(
            set,
            Some("status"),
            serde_json::json!({ "status": new }),
            false,
        )),
    }
}
