//! A Deployment's ReplicaSets: which is the newest, which are old, how a new one is made.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    annotations::{self, revision},
    fenceposts,
    hash::template_hash,
    wanted,
};
use crate::objects::{controller_reference, name};

/// The label that tells the pods of one template from those of others.
pub(super) const HASH: &str = "pod-template-hash";

/// A ReplicaSet with the size it has or is about to have.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) set: Arc<ReplicaSet>,
    pub(super) size: i32,
}

impl Member {
    fn of(set: &Arc<ReplicaSet>) -> Self {
        Self { set: set.clone(), size: specified(set) }
    }

    pub(super) fn name(&self) -> &str {
        name(&self.set.metadata)
    }

    /// Pods that have been ready for long enough.
    pub(super) fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    /// Pods there are.
    pub(super) fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }
}

/// The size in a ReplicaSet's spec.
pub(super) fn specified(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// A Deployment's ReplicaSets.
pub(super) struct Sets {
    /// That of the current template, if it exists.
    pub(super) newest: Option<Member>,
    /// All others, oldest first.
    pub(super) old: Vec<Member>,
}

impl Sets {
    /// Tells the newest from the old. Of several with the current template, the oldest is it.
    pub(super) fn sort(spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>]) -> Self {
        let mut members: Vec<Member> = sets.iter().map(Member::of).collect();
        members.sort_by(|a, b| by_age(&a.set, &b.set));
        let wanted = bare(&spec.template);
        let newest = members
            .iter()
            .position(|member| template(&member.set).is_some_and(|one| bare(one) == wanted))
            .map(|at| members.remove(at));
        Self { newest, old: members }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.old.iter().chain(&self.newest)
    }

    /// The sum of sizes.
    pub(super) fn total(&self) -> i32 {
        self.all().map(|member| member.size).sum()
    }

    /// The sum of sizes of the old ones.
    pub(super) fn total_old(&self) -> i32 {
        self.old.iter().map(|member| member.size).sum()
    }

    /// The revision that the current template has or would get.
    pub(super) fn next_revision(&self) -> i64 {
        self.old.iter().map(|member| revision(&member.set)).max().unwrap_or(0) + 1
    }
}

/// Older first, then by name.
pub(super) fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let key = |set: &ReplicaSet| {
        let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, name(&set.metadata).to_owned())
    };
    key(a).cmp(&key(b))
}

fn template(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

/// The template without the hash label, for comparison.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH);
    }
    meta.labels.take_if(|labels| labels.is_empty());
    meta.annotations.take_if(|annotations| annotations.is_empty());
    meta.creation_timestamp = None;
    template
}

/// The ReplicaSet of the current template, of `size`, that does not exist yet.
pub(super) fn make(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    collisions: Option<i32>,
    revision: i64,
    size: i32,
) -> ReplicaSet {
    let mut template = spec.template.clone();
    let hash = template_hash(&template, collisions);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let mut annotations = annotations::of_newest(deployment, &BTreeMap::new(), revision);
    annotations.extend(annotations::sizes(&BTreeMap::new(), wanted(spec), fenceposts(spec).0));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(size),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
