//! The usage of ResourceQuotas, counted anew: when a quota is made or changed, when objects go or use less, and
//! now and then. What objects add is charged by admission as they are written.
//!
//! Every count begins with the quota and then lists what it is about, so that nothing can be charged to the quota
//! unseen: the write fails if anything was. `count` does that, `follow` says when. What an object uses is
//! `schema::quota`'s business.

mod count;
mod follow;

use std::time::Duration;

use client::{Cache, Caches, Change, Object, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Service};
use kube::Resource;
use meta::GroupResource;
use reconcile::{ApplyError, Context, Deps, Outcome, Reconciler, Runtime, Wrote};
use schema::quota::Meter;
use tokio_util::sync::CancellationToken;

use self::{count::Counter, follow::Followers};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "resourcequota-controller";

/// How often a quota is counted although nothing happened.
const RESYNC: SignedDuration = SignedDuration::from_mins(5);
/// How long deletions gather before they are counted.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let quotas = caches.cache::<ResourceQuota>();
    let (pods, services) = (caches.cache::<Pod>(), caches.cache::<Service>());
    let runtime = Runtime::new(NAME, deps.clone());
    let followers = Followers::new(deps.client.clone(), quotas.clone(), runtime.trigger());
    let runtime = runtime
        .watch(&quotas, |change| {
            let is_due = change.after.as_deref().is_some_and(|after| {
                is_uncounted(after)
                    || change.before.as_deref().is_none_or(|old| old.spec != after.spec)
            });
            if is_due { vec![change.key.clone()] } else { Vec::new() }
        })
        .watch(&pods, given_back(&quotas, "pods"))
        .watch(&services, given_back(&quotas, "services"));
    let counting = runtime.run_reconciler(Counting(Counter::default()), shutdown.clone());
    tokio::join!(counting, followers.run(shutdown));
}

/// Whether limits and usage in the status are not those that the specification asks for.
fn is_uncounted(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let status = quota.status.as_ref();
    status.and_then(|status| status.hard.as_ref()) != hard
        || status.is_none_or(|status| status.used.is_none() && status.hard.is_some())
}

/// The quotas that may have room again after a change of an object.
fn given_back<K>(
    quotas: &Cache<ResourceQuota>,
    resource: &'static str,
) -> impl Fn(&Change<K>) -> Vec<ObjectKey> + Send + Sync + use<K>
where
    K: Object + Resource<DynamicType = ()> + serde::Serialize,
{
    let quotas = quotas.clone();
    let meter = Meter::of(&GroupResource::new("", resource));
    move |change| {
        let Some(meter) = &meter else { return Vec::new() };
        let concerned = concerned(&quotas, meter, change.key.namespace());
        if concerned.is_empty() {
            return concerned;
        }
        let value = |object: &K| serde_json::to_value(object).unwrap_or_default();
        let gave_back = match (&change.before, &change.after) {
            (Some(_), None) => true,
            (Some(before), Some(after)) => {
                before.meta().uid != after.meta().uid
                    || meter.gave_back(&value(after), &value(before), Timestamp::now())
            }
            (None, _) => false,
        };
        if gave_back { concerned } else { Vec::new() }
    }
}

/// The quotas of a namespace that limit what a meter measures.
fn concerned(quotas: &Cache<ResourceQuota>, meter: &Meter, namespace: &str) -> Vec<ObjectKey> {
    let limits = |quota: &ResourceQuota| {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        hard.is_some_and(|hard| hard.keys().any(|name| meter.measures(name)))
    };
    let quotas = quotas.list_in(namespace);
    quotas.iter().filter(|quota| limits(quota)).map(|quota| ObjectKey::of(&**quota)).collect()
}

struct Counting(Counter);

impl Reconciler for Counting {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        context: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        tokio::time::sleep(SETTLE).await;
        match self.0.recount(key, context.now, &deps.client).await {
            Ok(false) => Ok(Outcome::default()),
            Ok(true) => {
                let requeue_at = context.now.checked_add(RESYNC).ok();
                Ok(Outcome { requeue_at, ..Outcome::default() })
            }
            Err(error) => {
                let resource = kube::api::ApiResource::erase::<ResourceQuota>(&());
                Err((ApplyError::request("counting", &resource, &key.name, error), Vec::new()))
            }
        }
    }
}
