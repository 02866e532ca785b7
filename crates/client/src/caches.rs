//! The process's shared caches: one watch for each kind and selector, however many ask.
//!
//! Knows no kinds of its own.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{Arc, Weak},
};

use kube::Resource;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{Cache, Object, Select, cache::Shared, follow};

/// Hands out shared caches of the objects that one client (one identity) may see.
#[derive(Clone)]
pub struct Caches {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    shutdown: CancellationToken,
    open: Mutex<HashMap<Identity, Box<dyn Any + Send + Sync>>>,
}

/// What makes two requests for a cache the same.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    object: TypeId,
    url: String,
    select: Select,
}

impl Caches {
    /// Caches over `client` until `shutdown`. Nothing is watched until it is asked for.
    pub fn new(client: kube::Client, shutdown: CancellationToken) -> Self {
        Self { inner: Arc::new(Inner { client, shutdown, open: Mutex::default() }) }
    }

    /// The client the caches use.
    pub fn client(&self) -> kube::Client {
        self.inner.client.clone()
    }

    /// All objects of a kind in all namespaces. Must be called within a tokio runtime.
    pub fn cache<K: Object + Resource<DynamicType = ()>>(&self) -> Cache<K> {
        self.open((), Select::all())
    }

    /// The objects of a kind that `select` describes. Must be called within a tokio runtime.
    pub fn selected<K: Object + Resource<DynamicType = ()>>(&self, select: Select) -> Cache<K> {
        self.open((), select)
    }

    fn open<K: Object>(&self, kind: K::DynamicType, select: Select) -> Cache<K> {
        let identity = Identity {
            object: TypeId::of::<K>(),
            url: K::url_path(&kind, None),
            select: select.clone(),
        };
        let mut open = self.inner.open.lock();
        let known = open
            .get(&identity)
            .and_then(|entry| entry.downcast_ref::<Weak<Shared<K>>>())
            .and_then(Weak::upgrade);
        if let Some(shared) = known {
            return Cache { shared };
        }
        let stop = self.inner.shutdown.child_token();
        let shared = Arc::new(Shared::new(stop.clone().drop_guard()));
        open.insert(identity, Box::new(Arc::downgrade(&shared)));
        drop(open);
        tokio::spawn(feed(self.inner.client.clone(), kind, select, stop, Arc::downgrade(&shared)));
        Cache { shared }
    }
}

/// Owned by the cache: ends when its last handle goes or the caches shut down.
async fn feed<K: Object>(
    client: kube::Client,
    kind: K::DynamicType,
    select: Select,
    stop: CancellationToken,
    shared: Weak<Shared<K>>,
) {
    let sink = {
        let shared = shared.clone();
        move |step| {
            if let Some(shared) = shared.upgrade() {
                shared.take(step);
            }
        }
    };
    follow(client, kind, select, stop, sink).await;
    if let Some(shared) = shared.upgrade() {
        shared.close();
    }
}
