//! Which pods a ReplicaSet creates or deletes to reach its count.

use std::sync::Arc;

use client::reference;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use reconcile::{Action, Plan, Report};

use super::rank::most_expendable;
use crate::objects::{controller_reference, name};

/// Pods created or deleted in one run.
const BURST: usize = 500;

/// Adds the creations or deletions that bring `active` to the wanted number.
pub(super) fn manage(
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    active: &[Arc<Pod>],
    related: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let about = reference(set);
    if active.len() < wanted {
        let pod = new_pod(set, spec);
        let report = Report {
            about,
            done: Some(("SuccessfulCreate", "Created pod: {name}".into())),
            failed: Some(("FailedCreate", "Error creating: {error}".into())),
        };
        let create = Action::create(&pod).reporting(report);
        for _ in 0..(wanted - active.len()).min(BURST) {
            plan.act(create.clone());
        }
        return;
    }
    let surplus = (active.len() - wanted).min(BURST);
    let report = Report {
        about,
        done: Some(("SuccessfulDelete", "Deleted pod: {name}".into())),
        failed: Some(("FailedDelete", "Error deleting: {error}".into())),
    };
    for pod in most_expendable(active, related, surplus, now) {
        plan.act(Action::delete(&*pod).reporting(report.clone()));
    }
}

/// A pod of the set's template, owned by the set, its name left to the server.
fn new_pod(set: &ReplicaSet, spec: &ReplicaSetSpec) -> Pod {
    let template = spec.template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&set.metadata))),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
