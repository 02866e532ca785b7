//! The history of a set's templates, in ControllerRevisions: which is current, which is to be, how
//! a new one is made, how many are kept. `kubectl rollout` reads and applies what is kept here.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use reconcile::{Action, Context, Plan};
use serde_json::{Value, json};

use super::identity::{self, Ordinals};
use crate::{
    deployment::template_hash,
    objects::{controller_reference, name},
};

/// Label with the hash in a revision's name.
const HASH: &str = "controller.kubernetes.io/hash";
/// Longest part of a set's name in that of a revision.
const LONGEST: usize = 223;

/// The revisions of a set.
pub(super) struct Revisions {
    /// Oldest first.
    all: Vec<Arc<ControllerRevision>>,
    /// That of the pods of the last finished update.
    pub(super) current: Arc<ControllerRevision>,
    /// That of the template.
    pub(super) update: Arc<ControllerRevision>,
}

impl Revisions {
    /// Finds the revisions; `None` while that of the template is being made. Brings those fields of
    /// the status up to date that name revisions.
    pub(super) fn find(
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        mut all: Vec<Arc<ControllerRevision>>,
        status: &mut StatefulSetStatus,
        context: &Context,
        plan: &mut Plan,
    ) -> Option<Self> {
        all.sort_by_key(|one| {
            let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (one.revision, created, name(&one.metadata).to_owned())
        });
        status.observed_generation = set.metadata.generation;
        let wanted = data(&spec.template);
        let next = all.last().map_or(1, |last| last.revision.saturating_add(1));
        let equal = all.iter().rposition(|one| is_same(one, &wanted));
        let Some(equal) = equal else {
            plan.act(Action::create(&make(set, spec, wanted, status, context, next)));
            return None;
        };
        if equal + 1 < all.len() {
            // An older template again: it becomes the newest.
            plan.act(Action::patch_exact(&*all[equal], json!({ "revision": next })));
            let again = all.remove(equal);
            all.push(again);
        }
        let update = all.last()?.clone();
        let known = status.current_revision.as_deref().unwrap_or_default();
        let current =
            all.iter().find(|one| name(&one.metadata) == known).unwrap_or(&update).clone();
        status.current_revision = current.metadata.name.clone();
        status.update_revision = update.metadata.name.clone();
        Some(Self { all, current, update })
    }

    /// Name and template for a missing pod: below the partition the old one is kept.
    pub(super) fn of_new_pod(
        &self,
        spec: &StatefulSetSpec,
        ordinals: &Ordinals,
        current_replicas: i32,
        ordinal: i32,
    ) -> (&str, PodTemplateSpec) {
        let strategy = spec.update_strategy.as_ref();
        let rolling = strategy.is_none_or(|one| one.type_.as_deref() != Some("OnDelete"));
        let kept = match strategy.and_then(|one| one.rolling_update.as_ref()) {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None => current_replicas,
        };
        let old = rolling && ordinal < ordinals.0.start.saturating_add(kept);
        if old
            && name(&self.current.metadata) != name(&self.update.metadata)
            && let Some(template) = template(&self.current)
        {
            return (name(&self.current.metadata), template);
        }
        (name(&self.update.metadata), spec.template.clone())
    }

    /// Deletes the oldest of those that nothing uses, beyond the limit.
    pub(super) fn truncate(&self, spec: &StatefulSetSpec, pods: &[Arc<Pod>], plan: &mut Plan) {
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let is_live = |one: &ControllerRevision| {
            let own = name(&one.metadata);
            own == name(&self.current.metadata)
                || own == name(&self.update.metadata)
                || pods.iter().any(|pod| identity::revision(pod) == own)
        };
        let unused: Vec<_> = self.all.iter().filter(|one| !is_live(one)).collect();
        for one in unused.iter().take(unused.len().saturating_sub(limit)) {
            plan.act(Action::delete(&***one));
        }
    }
}

/// A revision of the set's template. That its name is taken counts as a collision, which changes
/// the next name.
fn make(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    data: Value,
    status: &mut StatefulSetStatus,
    context: &Context,
    revision: i64,
) -> ControllerRevision {
    let own = name(&set.metadata);
    let own = &own[..own.floor_char_boundary(LONGEST)];
    let named = |collisions| {
        let hash = template_hash(&spec.template, Some(collisions));
        (format!("{own}-{hash}"), hash)
    };
    let mut collisions = status.collision_count.unwrap_or(0);
    let taken = context.failure.as_ref().filter(|failure| failure.reason == "AlreadyExists");
    if taken.is_some_and(|failure| failure.object == named(collisions).0) {
        collisions = collisions.saturating_add(1);
    }
    status.collision_count = Some(collisions);
    let (own, hash) = named(collisions);
    let meta = spec.template.metadata.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = meta.labels.unwrap_or_default();
    labels.insert(HASH.to_owned(), hash);
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(own),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// What is kept: a strategic merge patch that makes a set's template this one.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

fn is_same(revision: &ControllerRevision, wanted: &Value) -> bool {
    // What others wrote, or an older release, may spell defaults otherwise.
    let normal = |data: &Value| {
        let template = data["spec"]["template"].clone();
        serde_json::from_value::<PodTemplateSpec>(template).ok()
    };
    let Some(RawExtension(kept)) = &revision.data else { return false };
    kept == wanted || normal(kept).is_some_and(|kept| Some(kept) == normal(wanted))
}

fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let RawExtension(data) = revision.data.as_ref()?;
    serde_json::from_value(data["spec"]["template"].clone()).ok()
}
