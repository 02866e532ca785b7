//! The ConfigMaps and Secrets one pod refers to, watched one by one (never all of them), and the news of their change.
//! Knows nothing of what they are used for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use client::{Cache, Caches, Select, Subscription};
use futures::{FutureExt, StreamExt, stream::SelectAll};
use k8s_openapi::api::core::v1 as api;
use tokio::time::timeout;

use crate::{pod::as_container, spec::env::Lookup};

/// How long to wait for the first answer about an object.
const FIRST: Duration = Duration::from_secs(10);

/// Names of the objects a pod refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct References {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

impl References {
    /// Collects them from a pod.
    pub(crate) fn of(pod: &api::Pod) -> Self {
        let mut found = Self::default();
        let Some(spec) = &pod.spec else { return found };
        for volume in spec.volumes.iter().flatten() {
            found.volume(volume);
        }
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            found.container(container);
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            found.container(&as_container(container));
        }
        found
    }

    fn volume(&mut self, volume: &api::Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        self.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            self.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
            self.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
        }
    }

    fn container(&mut self, container: &api::Container) {
        for source in container.env_from.iter().flatten() {
            self.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
            self.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            self.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
            self.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
}

/// The objects a pod refers to, as they are now. Keeps their watches alive.
pub(crate) struct Sources {
    namespace: String,
    config_maps: HashMap<String, Cache<api::ConfigMap>>,
    secrets: HashMap<String, Cache<api::Secret>>,
}

impl Sources {
    /// Opens a watch for each object. Must be called within a tokio runtime.
    pub(crate) fn open(caches: &Caches, namespace: &str, references: &References) -> Self {
        let select = |name: &String| {
            Select::all().namespace(namespace).fields(format!("metadata.name={name}"))
        };
        let config_maps = references
            .config_maps
            .iter()
            .map(|n| (n.clone(), caches.selected(select(n))))
            .collect();
        let secrets =
            references.secrets.iter().map(|n| (n.clone(), caches.selected(select(n)))).collect();
        Self { namespace: namespace.to_owned(), config_maps, secrets }
    }

    /// Waits until every object is known to exist or not to, or a bounded time has passed.
    pub(crate) async fn ready(&self) -> bool {
        let maps = futures::future::join_all(self.config_maps.values().map(Cache::ready));
        let secrets = futures::future::join_all(self.secrets.values().map(Cache::ready));
        timeout(FIRST, futures::future::join(maps, secrets)).await.is_ok()
    }

    /// The Secret as a whole.
    pub(crate) fn secret_object(&self, name: &str) -> Option<Arc<api::Secret>> {
        self.secrets.get(name)?.get(Some(&self.namespace), name)
    }

    /// A stream that yields whenever one of the objects changes.
    pub(crate) fn changes(&self) -> Changes {
        let mut all: SelectAll<futures::stream::BoxStream<'static, ()>> = SelectAll::new();
        for cache in self.config_maps.values() {
            all.push(drained(cache.subscribe()));
        }
        for cache in self.secrets.values() {
            all.push(drained(cache.subscribe()));
        }
        Changes(all)
    }
}

/// A subscription without what it begins with: the present contents.
fn drained<K: Send + Sync + 'static>(
    mut subscription: Subscription<K>,
) -> futures::stream::BoxStream<'static, ()> {
    while subscription.next().now_or_never().flatten().is_some() {}
    subscription.map(|_| ()).boxed()
}

/// Changes of a pod's sources.
pub(crate) struct Changes(SelectAll<futures::stream::BoxStream<'static, ()>>);

impl Changes {
    /// Resolves at the next change; never, if there is nothing to watch.
    pub(crate) async fn next(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Sources {
    /// Text and binary data of a ConfigMap, as volumes show them; `None` when there is no such object.
    pub(crate) fn config_map_files(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.config_map_object(name)?;
        let binary = object.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
        Some(text(&object).chain(binary).collect())
    }

    fn config_map_object(&self, name: &str) -> Option<Arc<api::ConfigMap>> {
        self.config_maps.get(name)?.get(Some(&self.namespace), name)
    }
}

fn text(object: &api::ConfigMap) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    object.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()))
}

impl Lookup for Sources {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        Some(text(&*self.config_map_object(name)?).collect())
    }

    fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.secret_object(name)?;
        Some(object.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect())
    }
}
