//! What a ReplicaSet's status says.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use reconcile::{Action, Context, Plan};

use crate::objects::{available_at, count, is_ready, nonzero};

/// Condition type that tells of pods that cannot be created or deleted.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Adds the status write, and a later look if pods are ready but not yet long enough.
pub(super) fn report(
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    active: &[Arc<Pod>],
    terminating: usize,
    context: &Context,
    plan: &mut Plan,
) {
    let old = set.status.clone().unwrap_or_default();
    let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    let labels = template.and_then(|meta| meta.labels.as_ref());
    let fully_labeled = active.iter().filter(|pod| {
        labels.into_iter().flatten().all(|(key, value)| {
            pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value)
        })
    });
    let mut available = 0;
    for at in active.iter().filter_map(|pod| available_at(pod, spec.min_ready_seconds.unwrap_or(0)))
    {
        if at <= context.now {
            available += 1;
        } else {
            plan.requeue(at);
        }
    }
    let new = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: nonzero(count(fully_labeled.count())),
        ready_replicas: nonzero(count(active.iter().filter(|pod| is_ready(pod)).count())),
        available_replicas: nonzero(available),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(&old, spec, active.len(), context),
    };
    plan.status = Action::status(set, &old, &new);
}

fn conditions(
    old: &ReplicaSetStatus,
    spec: &ReplicaSetSpec,
    active: usize,
    context: &Context,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    let failure =
        context.failure.as_ref().filter(|failure| matches!(failure.verb, "creating" | "deleting"));
    match failure {
        Some(failure) if !known => {
            let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
            let reason = if active > wanted { "FailedDelete" } else { "FailedCreate" };
            conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(Time(context.now)),
            });
        }
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    (!conditions.is_empty()).then_some(conditions)
}
