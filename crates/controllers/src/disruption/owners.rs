//! How many pods there should be, by what controls them: the sizes of workloads, from caches for
//! the built-in ones and over the scale subresource for all others.

use std::{collections::HashMap, sync::Arc};

use client::{Cache, Caches, ErrorExt};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        autoscaling::v1::Scale,
        core::v1::{Pod, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::Resource;
use kube::api::{ApiResource, DynamicObject, Request};
use reconcile::Runtime;

use crate::{
    discover::{Recent, Served},
    objects::{controller, name},
};

/// What controls the pods of a budget.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sizes {
    /// How many pods their controllers want together.
    pub(super) expected: i32,
    /// Whether some have no controller.
    pub(super) unmanaged: bool,
}

/// Finds the owners of pods.
pub(super) struct Owners {
    client: kube::Client,
    served: Recent,
    deployments: Cache<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    stateful_sets: Cache<StatefulSet>,
    replication: Cache<ReplicationController>,
}

impl Owners {
    pub(super) fn new(caches: &Caches, client: kube::Client) -> Self {
        Self {
            client,
            served: Recent::default(),
            deployments: caches.cache(),
            replica_sets: caches.cache(),
            stateful_sets: caches.cache(),
            replication: caches.cache(),
        }
    }

    /// Makes the first run wait for the caches.
    pub(super) fn read_by(&self, runtime: Runtime) -> Runtime {
        runtime
            .reading(&self.deployments)
            .reading(&self.replica_sets)
            .reading(&self.stateful_sets)
            .reading(&self.replication)
    }

    /// The sizes of all controllers of `pods`, each counted once.
    ///
    /// # Errors
    /// A sentence for users when the size of one cannot be found out.
    pub(super) async fn of(&self, pods: &[Arc<Pod>]) -> Result<Sizes, String> {
        let mut sizes: HashMap<String, i32> = HashMap::new();
        let mut seen = std::collections::HashSet::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if !seen.insert(owner.uid.clone()) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let found = match self.cached(namespace, owner) {
                Found::Size(uid, size) => Some((uid, size)),
                Found::Gone => None,
                Found::Other => self.scale(namespace, owner).await?,
            };
            let Some((uid, size)) = found else {
                return Err(format!("found no controllers for pod {:?}", name(&pod.metadata)));
            };
            sizes.insert(uid, size);
        }
        let expected = sizes.values().fold(0_i32, |sum, size| sum.saturating_add(*size));
        Ok(Sizes { expected, unmanaged })
    }

    fn cached(&self, namespace: &str, owner: &OwnerReference) -> Found {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let namespace = Some(namespace);
        let size = |replicas: Option<i32>| Found::Size(owner.uid.clone(), replicas.unwrap_or(1));
        match (group, &*owner.kind) {
            ("", "ReplicationController") => {
                same(self.replication.get(namespace, &owner.name), owner)
                    .map_or(Found::Gone, |one| size(one.spec.as_ref().and_then(|s| s.replicas)))
            }
            ("apps", "StatefulSet") => same(self.stateful_sets.get(namespace, &owner.name), owner)
                .map_or(Found::Gone, |one| size(one.spec.as_ref().and_then(|s| s.replicas))),
            ("apps", "ReplicaSet") => {
                let Some(set) = same(self.replica_sets.get(namespace, &owner.name), owner) else {
                    return Found::Gone;
                };
                match controller(&set.metadata) {
                    Some(above) if above.kind == "Deployment" => {
                        let found = same(self.deployments.get(namespace, &above.name), above);
                        found.map_or(Found::Gone, |one| {
                            let replicas = one.spec.as_ref().and_then(|spec| spec.replicas);
                            Found::Size(above.uid.clone(), replicas.unwrap_or(1))
                        })
                    }
                    _ => size(set.spec.as_ref().and_then(|spec| spec.replicas)),
                }
            }
            _ => Found::Other,
        }
    }

    /// The size by the owner's scale subresource; `None` if the owner is gone.
    async fn scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, String> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let wanted = |one: &Served| one.resource.group == group && one.resource.kind == owner.kind;
        let served = self.served.find(&self.client, wanted).await;
        let Some(served) = served.map_err(|error| error.to_string())? else {
            return Err(format!("no matches for kind {:?} in group {group:?}", owner.kind));
        };
        if !served.scales {
            let ApiResource { plural, group, .. } = &served.resource;
            let resource = meta::GroupResource::new(group.clone(), plural.clone());
            return Err(format!("{resource} does not implement the scale subresource"));
        }
        let path = DynamicObject::url_path(&served.resource, Some(namespace));
        let request = Request::new(path).get_subresource("scale", &owner.name);
        let request = request.map_err(|error| error.to_string())?;
        match self.client.request::<Scale>(request).await {
            Ok(scale) if scale.metadata.uid.as_deref() == Some(&owner.uid) => {
                let size = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Some((owner.uid.clone(), size)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What the caches know of an owner.
enum Found {
    /// Uid and size of what decides about the number.
    Size(String, i32),
    /// It is of a kind that is cached, and not there.
    Gone,
    /// It is of another kind.
    Other,
}

/// The object if it is the one referred to.
fn same<K: Resource>(found: Option<Arc<K>>, owner: &OwnerReference) -> Option<Arc<K>> {
    found.filter(|object| object.meta().uid.as_ref() == Some(&owner.uid))
}
