//! Disruption budgets: how many of the pods that one selects may be evicted now.
//!
//! `plan` counts and writes the status that evictions are weighed against; `owners` finds out how
//! many pods there should be; `stale` takes back what was announced to pods and never came. The
//! eviction itself is the API server's.

mod owners;
mod plan;
mod stale;

use std::sync::Arc;

use client::{Cache, Caches, ObjectKey};
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use reconcile::{ApplyError, Context, Deps, Outcome, Reconciler, Runtime, Wrote, apply, itself};
use tokio_util::sync::CancellationToken;

use self::owners::Owners;
use crate::objects::{selector, selects};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "disruption-controller";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let budgets = caches.cache::<PodDisruptionBudget>();
    let pods = caches.cache::<Pod>();
    let owners = Owners::new(&caches, deps.client.clone());
    let all = budgets.clone();
    let counting = owners
        .read_by(Runtime::new(NAME, deps.clone()))
        .watch(&budgets, itself)
        .watch(&pods, move |change| {
            let mut keys = Vec::new();
            for pod in [&change.before, &change.after].into_iter().flatten() {
                for budget in all.list_in(change.key.namespace()) {
                    let key = ObjectKey::of(&*budget);
                    if covers(&budget, pod) && !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            keys
        })
        .run_reconciler(Budgets { budgets, pods: pods.clone(), owners }, shutdown.clone());
    tokio::join!(counting, stale::run(pods, deps, shutdown));
}

/// Whether the budget selects the pod: an empty selector selects all pods, none selects none.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let wanted = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    wanted.is_some_and(|wanted| selects(&selector(wanted), &pod.metadata))
}

struct Budgets {
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    owners: Owners,
}

impl Reconciler for Budgets {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        context: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(Outcome::default()) };
        let mut pods: Vec<Arc<Pod>> = self.pods.list_in(key.namespace());
        pods.retain(|pod| covers(&budget, pod));
        let owners = match plan::asks_for_owners(&budget) {
            true => Some(self.owners.of(&pods).await),
            false => None,
        };
        let plan = plan::plan(&plan::Snapshot { budget, pods, owners }, context.now);
        let requeue_at = plan.requeue_at;
        let wrote = apply(plan, &deps.client, &deps.events).await?;
        Ok(Outcome { wrote, requeue_at })
    }
}
