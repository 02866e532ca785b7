//! What a Deployment's status says: counts, and whether it is available, progressing or stuck.
//!
//! Reasons and messages are upstream's: `kubectl rollout status` and users read them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use reconcile::{Action, Context, Plan};

use super::{
    fenceposts,
    replica_sets::{Member, Sets},
    wanted,
};
use crate::objects::{name, nonzero};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";

/// A status being written.
pub(super) struct Draft<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    old: DeploymentStatus,
    /// What it will be.
    pub(super) new: DeploymentStatus,
    now: Timestamp,
    requeue_at: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        context: &Context,
    ) -> Self {
        let old = deployment.status.clone().unwrap_or_default();
        let new = old.clone();
        Self { deployment, spec, old, new, now: context.now, requeue_at: None }
    }

    /// Adds the status write to the plan.
    pub(super) fn finish(mut self, plan: &mut Plan) {
        self.new.conditions.take_if(|conditions| conditions.is_empty());
        plan.status = Action::status(self.deployment, &self.old, &self.new);
        if let Some(at) = self.requeue_at {
            plan.requeue(at);
        }
    }

    /// Whether the rollout, as last reported, is complete.
    pub(super) fn is_complete(&self) -> bool {
        complete(self.deployment, self.spec, &self.old)
    }

    /// Says that the Deployment was paused or resumed.
    pub(super) fn note_pause(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = self.condition(PROGRESSING).and_then(|known| known.reason.as_deref());
        if reason == Some(TIMED_OUT) {
            return;
        }
        let said = reason == Some(PAUSED);
        if self.spec.paused == Some(true) && !said {
            self.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into());
        } else if self.spec.paused != Some(true) && said {
            self.set(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed".into());
        }
    }

    /// Says that the ReplicaSet of the current template exists, unless something was said.
    pub(super) fn found(&mut self, set: &str) {
        if self.has_deadline() && self.condition(PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{set}\"");
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", message);
        }
    }

    /// Says that the ReplicaSet of the current template is being created.
    pub(super) fn created(&mut self, set: &str) {
        if self.has_deadline() {
            let message = format!("Created new replica set \"{set}\"");
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", message);
        }
    }

    /// Takes the failure to create the ReplicaSet into account: a name that is taken counts as
    /// a collision, which changes the next name; anything else is reported.
    pub(super) fn note_failed_creation(&mut self, context: &Context) {
        let Some(failure) = context.failure.as_ref().filter(|one| one.verb == "creating") else {
            return;
        };
        if failure.reason == "AlreadyExists" {
            let collisions = self.new.collision_count.unwrap_or(0);
            self.new.collision_count = Some(collisions.saturating_add(1));
        } else if self.has_deadline() {
            let message = format!(
                "Failed to create new replica set \"{}\": {}",
                failure.object, failure.message
            );
            self.set(PROGRESSING, "False", "ReplicaSetCreateError", message);
        }
    }

    /// Fills in counts and availability.
    pub(super) fn count(&mut self, sets: &Sets) {
        let sum = |count: fn(&Member) -> i32| sets.all().map(count).sum::<i32>();
        let available = sum(Member::available);
        let wanted_total = sum(|member| super::replica_sets::specified(&member.set));
        self.new.observed_generation = self.deployment.metadata.generation;
        self.new.replicas = nonzero(sum(Member::actual));
        self.new.updated_replicas = nonzero(sets.newest.as_ref().map_or(0, Member::actual));
        self.new.ready_replicas = nonzero(sum(ready));
        self.new.available_replicas = nonzero(available);
        self.new.unavailable_replicas = nonzero((wanted_total - available).max(0));
        self.new.terminating_replicas = terminating(sets);
        if available >= wanted(self.spec) - fenceposts(self.spec).1 {
            let message = "Deployment has minimum availability.";
            self.set(AVAILABLE, "True", "MinimumReplicasAvailable", message.into());
        } else {
            let message = "Deployment does not have minimum availability.";
            self.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message.into());
        }
    }

    /// Fills in counts, and judges whether the rollout is complete, moving or stuck.
    pub(super) fn judge(&mut self, sets: &Sets) {
        self.count(sets);
        let what = match &sets.newest {
            Some(newest) => format!("ReplicaSet \"{}\"", newest.name()),
            None => format!("Deployment \"{}\"", name(&self.deployment.metadata)),
        };
        let current = self.condition(PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|known| known.reason.as_deref());
        let settled =
            self.new.replicas == self.new.updated_replicas && reason == Some(NEW_AVAILABLE);
        if !self.has_deadline() {
            self.remove(PROGRESSING);
        } else if !settled {
            if complete(self.deployment, self.spec, &self.new) {
                let message = format!("{what} has successfully progressed.");
                self.set(PROGRESSING, "True", NEW_AVAILABLE, message);
            } else if moving(&self.old, &self.new) {
                let since = current
                    .filter(|known| known.status == "True")
                    .and_then(|known| known.last_transition_time);
                self.remove(PROGRESSING);
                let message = format!("{what} is progressing.");
                self.set(PROGRESSING, "True", "ReplicaSetUpdated", message);
                if let (Some(since), Some(fresh)) = (since, self.condition_mut(PROGRESSING)) {
                    fresh.last_transition_time = Some(since);
                }
            } else if self.timed_out() {
                let message = format!("{what} has timed out progressing.");
                self.set(PROGRESSING, "False", TIMED_OUT, message);
            }
        }
        self.report_failures(sets);
        self.requeue_at = self.next_look();
    }

    /// Copies the ReplicaSets' own failures, those of the newest before any others.
    fn report_failures(&mut self, sets: &Sets) {
        let failure = sets.newest.iter().chain(sets.old.iter()).find_map(|member| {
            let conditions = member.set.status.as_ref()?.conditions.as_ref()?;
            conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE)
        });
        match failure {
            Some(failure) => {
                let reason = failure.reason.clone().unwrap_or_default();
                let message = failure.message.clone().unwrap_or_default();
                self.set(REPLICA_FAILURE, &failure.status.clone(), &reason, message);
            }
            None => self.remove(REPLICA_FAILURE),
        }
    }

    fn deadline(&self) -> Option<i64> {
        // The largest number is how users say "never".
        self.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX).map(i64::from)
    }

    fn has_deadline(&self) -> bool {
        self.deadline().is_some()
    }

    /// When the rollout will have made no progress for too long, going by the last news of it.
    fn due(&self) -> Option<Timestamp> {
        let updated = self.condition(PROGRESSING)?.last_update_time.as_ref()?.0;
        updated.checked_add(SignedDuration::from_secs(self.deadline()?)).ok()
    }

    fn timed_out(&self) -> bool {
        match self.condition(PROGRESSING).and_then(|known| known.reason.as_deref()) {
            None | Some(NEW_AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            Some(_) => self.due().is_some_and(|due| due < self.now),
        }
    }

    /// Nothing wakes a stuck rollout: look again just after its deadline.
    fn next_look(&self) -> Option<Timestamp> {
        let reason = self.condition(PROGRESSING)?.reason.as_deref();
        if reason == Some(TIMED_OUT) || complete(self.deployment, self.spec, &self.new) {
            return None;
        }
        self.due()?.checked_add(SignedDuration::from_secs(1)).ok()
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.new.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
    }

    fn condition_mut(&mut self, kind: &str) -> Option<&mut DeploymentCondition> {
        self.new.conditions.as_mut()?.iter_mut().find(|condition| condition.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        self.new.conditions.get_or_insert_default().retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition unless it already says so; its time moves only with its status.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let known = self.condition(kind);
        if known.is_some_and(|known| {
            known.status == status && known.reason.as_deref().unwrap_or_default() == reason
        }) {
            return;
        }
        let since = known
            .filter(|known| known.status == status)
            .and_then(|known| known.last_transition_time.clone());
        self.remove(kind);
        self.new.conditions.get_or_insert_default().push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(self.now))),
            last_update_time: Some(Time(self.now)),
        });
    }
}

fn ready(member: &Member) -> i32 {
    member.set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

/// `None` unless every ReplicaSet says how many of its pods are going.
fn terminating(sets: &Sets) -> Option<i32> {
    sets.all().map(|member| member.set.status.as_ref()?.terminating_replicas).sum()
}

fn complete(deployment: &Deployment, spec: &DeploymentSpec, status: &DeploymentStatus) -> bool {
    let wanted = wanted(spec);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn moving(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |count: Option<i32>| count.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}
