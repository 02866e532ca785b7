//! The name by which a cache knows an object, and what it asks of an object's type.
//!
//! Knows nothing of kinds: a key is meaningful only beside the type it belongs to.

use std::fmt;

use kube::Resource;
use serde::de::DeserializeOwned;

/// What a cached type must be: every `k8s-openapi` kind and kube's metadata-only objects are.
pub trait Object: Resource + Clone + DeserializeOwned + Send + Sync + 'static {}

impl<K: Resource + Clone + DeserializeOwned + Send + Sync + 'static> Object for K {}

/// Namespace (none for cluster-scoped objects) and name of an object of some kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` in `namespace`, or of a cluster-scoped `name`.
    pub fn new(namespace: Option<&str>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.map(str::to_owned), name: name.into() }
    }

    /// The key of `name` in `namespace`.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// The key under which `object` is cached.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().filter(|namespace| !namespace.is_empty()),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// The namespace, or the empty string for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
