//! What a controller is to the runtime.
//!
//! Knows nothing of queues or clients: a `Controller` is two functions without I/O. The few that
//! must ask the server before they can decide implement `Reconciler` instead.

use std::future::Future;

use client::ObjectKey;
use jiff::Timestamp;

use crate::{
    Plan,
    apply::{ApplyError, apply},
    guard::Wrote,
    runtime::Deps,
};

/// Why the last run for a key failed, kept until a run succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was attempted: `creating`, `deleting`, `patching`, or empty after a panic.
    pub verb: &'static str,
    /// HTTP status code of the server's answer, if it answered.
    pub code: Option<u16>,
    /// Kubernetes' reason, such as `AlreadyExists`; may be empty.
    pub reason: String,
    /// The error's text, as users should see it.
    pub message: String,
    /// The name of the object whose writing failed; empty for generated names.
    pub object: String,
}

/// What a plan may depend on beside the snapshot.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of this run.
    pub now: Timestamp,
    /// How the last run failed, if it did.
    pub failure: Option<Failure>,
}

impl Context {
    /// A context at `now` without an earlier failure.
    pub fn at(now: Timestamp) -> Self {
        Self { now, failure: None }
    }
}

/// A controller: looks at caches, then decides, without I/O.
pub trait Controller: Send + Sync + 'static {
    /// Everything a plan is made from.
    type Snapshot: Send;

    /// Collects what concerns `key`; `None` when there is nothing to do, as when it is gone.
    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot>;

    /// Decides. Pure: equal arguments give equal plans.
    fn plan(&self, snapshot: &Self::Snapshot, context: &Context) -> Plan;
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was written: the key is not run again before the caches have seen it.
    pub wrote: Vec<Wrote>,
    /// When to run again, if nothing triggers it earlier.
    pub requeue_at: Option<Timestamp>,
}

/// A controller that does its own I/O.
pub trait Reconciler: Send + Sync + 'static {
    /// Brings the world closer to what the object under `key` wants. The second part of an error
    /// is what was written before it happened.
    fn reconcile(
        &self,
        key: &ObjectKey,
        context: Context,
        deps: &Deps,
    ) -> impl Future<Output = Result<Outcome, (ApplyError, Vec<Wrote>)>> + Send;
}

/// Runs a `Controller`: observes, plans and applies.
pub struct Planned<C>(pub C);

impl<C: Controller> Reconciler for Planned<C> {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        context: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        let plan = {
            let Some(snapshot) = self.0.observe(key) else { return Ok(Outcome::default()) };
            self.0.plan(&snapshot, &context)
        };
        let requeue_at = plan.requeue_at;
        let wrote = apply(plan, &deps.client, &deps.events).await?;
        Ok(Outcome { wrote, requeue_at })
    }
}
