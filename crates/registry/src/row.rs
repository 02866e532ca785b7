//! What a resource is, as data: one [`Row`] for each served version of a resource.
//!
//! Owns the shape of rows and their lookup. Refuses to know where a row came from (the checked-in
//! table of built-in kinds or, later, a CustomResourceDefinition) and how it is reached over HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use meta::{GroupResource, GroupVersionKind, GroupVersionResource};
use store::Key;

use crate::strategy::Strategy;
use crate::verb::Verb;

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One set of names for the whole cluster.
    Cluster,
    /// One set of names in each namespace.
    Namespaced,
}

/// When a write of a resource is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk.
    Durable,
    /// After it is in the log in revision order; its fsync may lag by a second.
    Relaxed,
    /// Relaxed in this one namespace, durable in the others (node heartbeats among leases).
    RelaxedIn(&'static str),
}

/// A subresource of a row as discovery shows it.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Its name in the path, such as `status`.
    pub name: String,
    /// The kind it serves; group and version are those of the row unless the kind is foreign
    /// (`autoscaling/v1 Scale`, `policy/v1 Eviction`, `authentication.k8s.io/v1 TokenRequest`).
    pub kind: GroupVersionKind,
    /// True when discovery must show group and version beside the kind.
    pub foreign: bool,
    /// The verbs discovery lists for it.
    pub verbs: Vec<Verb>,
}

/// Where and how the objects of a resource are kept; shared by all rows of one resource.
#[derive(Debug)]
pub struct Storage {
    /// Key segment, `deployments.apps` being kept under `/registry/apps.deployments/`.
    pub segment: String,
    /// Group, version and kind of the stored bytes.
    pub kind: GroupVersionKind,
    /// When writes are acknowledged.
    pub durability: Durability,
    /// Whether the store seals the bytes at rest.
    pub sealed: bool,
    /// Objects vanish this long after their last write.
    pub ttl: Option<Duration>,
}

/// One served version of one resource.
#[derive(Debug)]
pub struct Row {
    /// Group, version and kind as served.
    pub kind: GroupVersionKind,
    /// Kind of the list, `DeploymentList`.
    pub list_kind: String,
    /// Group, version and plural as served.
    pub resource: GroupVersionResource,
    /// Lower-case singular name.
    pub singular: String,
    /// Short names such as `deploy`.
    pub short_names: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Cluster or namespaced.
    pub scope: Scope,
    /// Verbs served on the resource itself.
    pub verbs: Vec<Verb>,
    /// Subresources, sorted by name.
    pub subresources: Vec<Subresource>,
    /// OpenAPI name of the type, `io.k8s.api.apps.v1.Deployment`.
    pub type_name: String,
    /// Field labels beside `metadata.name` and `metadata.namespace` that selectors may use.
    pub selectable: Vec<String>,
    /// Which of them names the node that an object is on, where reads of one node's objects have an index.
    pub(crate) by_node: Option<usize>,
    /// Whether a change of the specification bumps `metadata.generation`.
    pub generation: bool,
    /// Whether an object has a generation before its specification changes for the first time.
    pub generation_at_birth: bool,
    /// Fields of the metadata that a write of the status leaves as they were.
    pub status_keeps: &'static [&'static str],
    /// Whether a deletion answers with the deleted object rather than with a `Status`.
    pub returned: bool,
    /// Whether an update must carry a resourceVersion.
    pub conditional: bool,
    /// Whether an update of an object that does not exist creates it.
    pub upsert: bool,
    /// What clients of a deprecated kind are warned of.
    pub deprecated: Option<String>,
    /// Where objects are kept; `None` for kinds that are only questions (reviews, bindings).
    pub storage: Option<Arc<Storage>>,
    /// What a served object starts with: kind, version, and the opening of its metadata.
    pub(crate) head: Box<str>,
    /// Behaviour that data cannot say.
    pub(crate) strategy: &'static dyn Strategy,
}

impl Row {
    /// Group and plural, as errors and authorization name the resource.
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        self.kind.api_version()
    }

    /// The storage key of an object; the namespace is ignored for cluster-scoped resources.
    pub(crate) fn key(&self, namespace: Option<&str>, name: &str) -> Option<Key> {
        let segment = &self.storage.as_ref()?.segment;
        Some(match namespace.filter(|_| self.namespaced()) {
            Some(namespace) => format!("/registry/{segment}/{namespace}/{name}").into(),
            None => format!("/registry/{segment}/{name}").into(),
        })
    }

    /// The prefix of the storage keys of a collection: all, or those of one namespace.
    pub(crate) fn prefix(&self, namespace: Option<&str>) -> String {
        let segment = self.storage.as_ref().map_or("", |s| s.segment.as_str());
        match namespace.filter(|_| self.namespaced()) {
            Some(namespace) => format!("/registry/{segment}/{namespace}/"),
            None => format!("/registry/{segment}/"),
        }
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the resource has the status subresource.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether stored bytes can be served untouched.
    pub(crate) fn served_as_stored(&self) -> bool {
        self.storage.as_ref().is_none_or(|s| s.kind == self.kind)
    }
}

/// All rows served, ordered by group, version and plural.
#[derive(Debug, Default)]
pub struct Rows {
    rows: BTreeMap<(String, String, String), Arc<Row>>,
    stored: HashMap<String, Arc<Row>>,
}

impl Rows {
    /// The built-in kinds of Kubernetes v1.36, GA versions only.
    pub fn builtin() -> Self {
        crate::builtin::rows().into_iter().collect()
    }

    /// The row served at `/apis/<group>/<version>/<plural>`; the core group is the empty string.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        self.rows.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The first row (by version) that serves the resource `plural` of `group`.
    pub fn by_resource(&self, group: &str, plural: &str) -> Option<&Arc<Row>> {
        self.iter().find(|r| r.resource.group == group && r.resource.resource == plural)
    }

    /// The row that serves a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Row>> {
        self.iter()
            .find(|r| r.kind.group == group && r.kind.version == version && r.kind.kind == kind)
    }

    /// Prefixes of the storage keys whose values the store must seal at rest.
    pub fn sealed_prefixes(&self) -> Vec<String> {
        let rows = self.stored.values();
        rows.filter(|r| r.storage.as_ref().is_some_and(|s| s.sealed))
            .map(|r| r.prefix(None))
            .collect()
    }

    /// The selectable fields of the objects kept under a storage key.
    pub(crate) fn selectable_of_key(&self, key: &str) -> &[String] {
        let mut parts = key.split('/').skip(2);
        let row = parts.next().and_then(|segment| self.stored.get(segment));
        row.map(|row| row.selectable.as_slice()).unwrap_or_default()
    }

    /// The row in whose version the objects of a key segment are stored.
    pub(crate) fn stored(&self, storage: &Storage) -> Option<&Arc<Row>> {
        self.stored.get(&storage.segment)
    }

    /// Every row, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }
}

impl FromIterator<Row> for Rows {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut table = Self::default();
        for row in rows {
            let row = Arc::new(row);
            let r = &row.resource;
            let key = (r.group.clone(), r.version.clone(), r.resource.clone());
            if let Some(storage) = row.storage.as_ref().filter(|s| s.kind == row.kind) {
                table.stored.insert(storage.segment.clone(), row.clone());
            }
            table.rows.insert(key, row);
        }
        table
    }
}
