//! Stale-read guards: a key is not run again before the caches have seen what its last run
//! wrote.
//!
//! Revisions of one store are ordered across kinds, so "seen" is a comparison; only deletions,
//! whose answer does not always carry the revision, are looked up.

use std::{collections::HashMap, time::Duration};

use client::{Cache, Object, ObjectKey};
use kube::{Resource, api::ApiResource};
use meta::Revision;
use tokio::sync::watch;
use tracing::warn;

/// How long a run may be held back by a cache that does not see a write.
const PATIENCE: Duration = Duration::from_secs(300);

/// A write that a cache will see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Group and plural of what was written.
    pub resource: (String, String),
    /// What to wait for.
    pub seen: Seen,
}

/// When a cache has seen a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has reached this revision.
    Revision(Revision),
    /// The object of this uid is gone from it or being deleted.
    Deleted(ObjectKey, String),
}

impl Wrote {
    /// An object was created or changed, at `version`.
    pub fn changed(resource: &ApiResource, version: &str) -> Option<Self> {
        let seen = Seen::Revision(version.parse().ok()?);
        Some(Self { resource: (resource.group.clone(), resource.plural.clone()), seen })
    }

    /// The object `key` of this `uid` was asked to go.
    pub fn deleted(resource: &ApiResource, key: ObjectKey, uid: String) -> Self {
        let seen = Seen::Deleted(key, uid);
        Self { resource: (resource.group.clone(), resource.plural.clone()), seen }
    }
}

trait Watched: Send + Sync {
    fn revisions(&self) -> watch::Receiver<Option<Revision>>;
    fn has_seen(&self, seen: &Seen) -> bool;
}

impl<K: Object> Watched for Cache<K> {
    fn revisions(&self) -> watch::Receiver<Option<Revision>> {
        Cache::revisions(self)
    }

    fn has_seen(&self, seen: &Seen) -> bool {
        match seen {
            Seen::Revision(revision) => self.revision() >= *revision,
            Seen::Deleted(key, uid) => self.get_key(key).is_none_or(|object| {
                object.meta().uid.as_ref() != Some(uid)
                    || object.meta().deletion_timestamp.is_some()
            }),
        }
    }
}

/// The caches a controller reads, by what they hold.
#[derive(Default)]
pub struct Guard {
    caches: HashMap<(String, String), Box<dyn Watched>>,
}

impl Guard {
    /// Waits for `cache` after writes to its kind.
    pub fn add<K: Object + Resource<DynamicType = ()>>(&mut self, cache: &Cache<K>) {
        let resource = (K::group(&()).into_owned(), K::plural(&()).into_owned());
        self.caches.insert(resource, Box::new(cache.clone()));
    }

    /// Waits until the caches have seen all of `wrote`, or patience has run out.
    pub async fn caught_up(&self, wrote: &[Wrote]) {
        let wait = async {
            for wrote in wrote {
                let Some(cache) = self.caches.get(&wrote.resource) else { continue };
                let mut revisions = cache.revisions();
                while !cache.has_seen(&wrote.seen) {
                    if revisions.changed().await.is_err() {
                        return;
                    }
                }
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            warn!("a cache has not seen a write for five minutes, going on without");
        }
    }

    /// Waits until every cache has been filled once.
    pub(crate) async fn ready(&self) {
        for cache in self.caches.values() {
            let mut revisions = cache.revisions();
            if revisions.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::ObjectMeta;

    use super::*;

    #[tokio::test]
    async fn what_the_cache_has_seen_does_not_wait() {
        let pod = Pod {
            metadata: ObjectMeta {
                namespace: Some("default".into()),
                name: Some("web".into()),
                uid: Some("new".into()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        let cache = Cache::fixed(vec![pod]);
        let key = ObjectKey::namespaced("default", "web");
        assert!(cache.has_seen(&Seen::Revision(Revision(1))));
        assert!(!cache.has_seen(&Seen::Revision(Revision(2))));
        assert!(cache.has_seen(&Seen::Deleted(key.clone(), "old".into())));
        assert!(!cache.has_seen(&Seen::Deleted(key, "new".into())));
        let mut guard = Guard::default();
        guard.add(&cache);
        let resource = ApiResource::erase::<Pod>(&());
        guard.caught_up(&[Wrote::changed(&resource, "1").expect("a number")]).await;
    }
}
