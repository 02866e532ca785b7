//! The objects of one kind and selector as last seen, with indexes and subscriptions.
//!
//! Owns the contents; the watch that feeds it is `list_watch`, its sharing is `caches`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use meta::Revision;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::{Object, ObjectKey, Step, Subscription, subscription::Mailbox};

/// A function from an object to the index values it is found under.
type IndexFn<K> = fn(&K) -> Vec<String>;

/// What a cache's handles share with the task that feeds it.
pub(crate) struct Shared<K> {
    contents: RwLock<Contents<K>>,
    /// `None` until the first complete list.
    progress: watch::Sender<Option<Revision>>,
    /// Stops the feeding task when the last handle goes.
    _stop: DropGuard,
}

struct Contents<K> {
    objects: BTreeMap<Arc<ObjectKey>, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
    subscribers: Vec<Weak<Mailbox<K>>>,
    closed: bool,
}

struct Index<K> {
    function: IndexFn<K>,
    keys: HashMap<String, BTreeSet<Arc<ObjectKey>>>,
}

impl<K> Index<K> {
    fn add(&mut self, key: &Arc<ObjectKey>, object: &K) {
        for value in (self.function)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Arc<ObjectKey>, object: &K) {
        for value in (self.function)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

impl<K> Contents<K> {
    fn set(&mut self, key: Arc<ObjectKey>, after: Option<Arc<K>>) {
        let (key, before) = match self.objects.remove_entry(&*key) {
            Some((old, before)) => (old, Some(before)),
            None => (key, None),
        };
        for index in self.indexes.values_mut() {
            if let Some(before) = &before {
                index.remove(&key, before);
            }
            if let Some(after) = &after {
                index.add(&key, after);
            }
        }
        if let Some(after) = &after {
            self.objects.insert(key.clone(), after.clone());
        }
        if before.is_none() && after.is_none() {
            return;
        }
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(mailbox) => {
                mailbox.put(&key, before.clone(), after.clone());
                true
            }
            None => false,
        });
    }
}

impl<K: Object> Shared<K> {
    pub(crate) fn new(stop: DropGuard) -> Self {
        Self {
            contents: RwLock::new(Contents {
                objects: BTreeMap::new(),
                indexes: HashMap::new(),
                subscribers: Vec::new(),
                closed: false,
            }),
            progress: watch::Sender::new(None),
            _stop: stop,
        }
    }

    /// Takes in one step of the watch. The revision moves only after the contents have.
    pub(crate) fn take(&self, step: Step<K>) {
        let revision = match step {
            Step::Replace(objects, revision) => {
                self.replace(objects);
                revision
            }
            Step::Apply(object, revision) => {
                let key = Arc::new(ObjectKey::of(&object));
                self.contents.write().set(key, Some(Arc::new(object)));
                revision
            }
            Step::Delete(object, revision) => {
                let key = Arc::new(ObjectKey::of(&object));
                self.contents.write().set(key, None);
                revision
            }
            Step::Progress(revision) => revision,
        };
        self.progress.send_replace(Some(revision));
    }

    /// Replaces the contents, reporting only what differs.
    fn replace(&self, objects: Vec<K>) {
        let fresh: BTreeMap<Arc<ObjectKey>, K> =
            objects.into_iter().map(|object| (Arc::new(ObjectKey::of(&object)), object)).collect();
        let mut contents = self.contents.write();
        let gone: Vec<_> =
            contents.objects.keys().filter(|key| !fresh.contains_key(*key)).cloned().collect();
        for key in gone {
            contents.set(key, None);
        }
        for (key, object) in fresh {
            let unchanged = contents.objects.get(&key).is_some_and(|known| {
                let (known, new) = (known.meta(), object.meta());
                known.resource_version == new.resource_version && known.uid == new.uid
            });
            if !unchanged {
                contents.set(key, Some(Arc::new(object)));
            }
        }
    }

    /// Ends every subscription: nothing will change any more.
    pub(crate) fn close(&self) {
        let mut contents = self.contents.write();
        contents.closed = true;
        for mailbox in contents.subscribers.drain(..).filter_map(|weak| weak.upgrade()) {
            mailbox.close();
        }
    }
}

/// A cheap handle on the shared, continuously updated objects of one kind and selector.
///
/// Its watch lives as long as any handle or subscription on it does. Objects are immutable and
/// shared; their managed fields have been dropped.
pub struct Cache<K> {
    pub(crate) shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Object> Cache<K> {
    /// The object of that name; `namespace` is `None` for cluster-scoped kinds.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// The object under `key`.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.contents.read().objects.get(key).cloned()
    }

    /// Every object, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.contents.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, ordered by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = ObjectKey::namespaced(namespace, "");
        self.shared
            .contents
            .read()
            .objects
            .range::<ObjectKey, _>(&first..)
            .take_while(|(key, _)| key.namespace.as_deref() == Some(namespace))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Number of objects held.
    pub fn len(&self) -> usize {
        self.shared.contents.read().objects.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maintains an index called `name` (once per cache: later calls with a known name do
    /// nothing). `function` gives the values an object is found under and must be pure.
    pub fn index(&self, name: &'static str, function: IndexFn<K>) {
        let mut contents = self.shared.contents.write();
        if contents.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { function, keys: HashMap::new() };
        for (key, object) in &contents.objects {
            index.add(key, object);
        }
        contents.indexes.insert(name, index);
    }

    /// The objects found under `value` in the index `name`, ordered by key; none if there is no
    /// such index.
    pub fn indexed(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let contents = self.shared.contents.read();
        let Some(keys) = contents.indexes.get(name).and_then(|index| index.keys.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| contents.objects.get(key)).cloned().collect()
    }

    /// Waits until the first complete list has been taken in. Waits for ever if the caches shut
    /// down before that: select it with your own shutdown.
    pub async fn ready(&self) {
        let mut progress = self.shared.progress.subscribe();
        if progress.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the first complete list has been taken in.
    pub fn is_ready(&self) -> bool {
        self.shared.progress.borrow().is_some()
    }

    /// The newest revision seen: the contents are at least as new. Zero before the first list.
    pub fn revision(&self) -> Revision {
        self.shared.progress.borrow().unwrap_or(Revision(0))
    }

    /// The newest revision seen, as a channel; `None` before the first list.
    pub fn revisions(&self) -> watch::Receiver<Option<Revision>> {
        self.shared.progress.subscribe()
    }

    /// A stream of changes that begins with the current contents as additions.
    pub fn subscribe(&self) -> Subscription<K> {
        let mailbox = Arc::new(Mailbox::new());
        let mut contents = self.shared.contents.write();
        for (key, object) in &contents.objects {
            mailbox.put(key, None, Some(object.clone()));
        }
        if contents.closed {
            mailbox.close();
        } else {
            contents.subscribers.push(Arc::downgrade(&mailbox));
        }
        drop(contents);
        Subscription { mailbox, _cache: self.shared.clone() }
    }

    /// A cache fed by hand, for tests of code that reads caches.
    pub fn fixed(objects: Vec<K>) -> Self {
        let shared = Shared::new(tokio_util::sync::CancellationToken::new().drop_guard());
        shared.take(Step::Replace(objects, Revision(1)));
        Self { shared: Arc::new(shared) }
    }
}
