//! Following what quotas are about, beside pods and services: objects that go, and claims that change.
//!
//! Follows only resources that some quota limits, and only their metadata.

use std::collections::HashSet;

use client::{Cache, Metadata, Select, Step, follow};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::ApiResource;
use meta::GroupResource;
use reconcile::Trigger;
use schema::quota::Meter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::concerned;
use crate::discover::discover;

/// Resources that are followed otherwise.
const CACHED: [&str; 2] = ["pods", "services"];

/// The watches.
pub(super) struct Followers {
    client: kube::Client,
    quotas: Cache<ResourceQuota>,
    trigger: Trigger,
}

impl Followers {
    pub(super) fn new(
        client: kube::Client,
        quotas: Cache<ResourceQuota>,
        trigger: Trigger,
    ) -> Self {
        Self { client, quotas, trigger }
    }

    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut running: HashSet<GroupResource> = HashSet::new();
        let mut tasks = JoinSet::new();
        let mut changes = self.quotas.subscribe();
        let following = async {
            while let Some(change) = changes.next().await {
                let names =
                    change.after.as_ref().and_then(|quota| quota.spec.as_ref()?.hard.clone());
                for meter in Meter::named(names.iter().flatten().map(|(name, _)| name.as_str())) {
                    let resource = meter.resource();
                    let known = resource.group.is_empty() && CACHED.contains(&&*resource.resource);
                    if known || running.contains(resource) {
                        continue;
                    }
                    if let Some(served) = self.served(resource).await {
                        running.insert(resource.clone());
                        tasks.spawn(self.follow(meter, served, shutdown.clone()));
                    }
                }
            }
        };
        shutdown.run_until_cancelled(following).await;
        tasks.shutdown().await;
    }

    async fn served(&self, wanted: &GroupResource) -> Option<ApiResource> {
        let discovered = discover(&self.client).await.inspect_err(|error| {
            debug!(%error, %wanted, "what a quota limits cannot be followed yet");
        });
        let served = discovered.ok()?.served.into_iter();
        let mut served = served.filter(|one| one.namespaced && one.can(&["list", "watch"]));
        let is = |resource: &ApiResource| {
            resource.group == wanted.group && resource.plural == wanted.resource
        };
        served.find(|one| is(&one.resource)).map(|one| one.resource)
    }

    fn follow(
        &self,
        meter: Meter,
        resource: ApiResource,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (quotas, trigger, client) =
            (self.quotas.clone(), self.trigger.clone(), self.client.clone());
        let sink = move |step: Step<Metadata>| {
            let object = match step {
                Step::Delete(object, _) => object,
                // What it uses may have changed too.
                Step::Apply(object, _) if !meter.only_counts() => object,
                _ => return,
            };
            let namespace = object.metadata.namespace.unwrap_or_default();
            concerned(&quotas, &meter, &namespace).into_iter().for_each(|key| trigger.run(key));
        };
        follow(client, resource, Select::all(), shutdown, sink)
    }
}
