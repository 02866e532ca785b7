//! Reads of stored objects that deciding about a request needs, straight from memory.

use std::sync::{Arc, Weak};

use registry::{Object, Registry, Row};
use serde_json::Value;

use crate::authz::node::Lookup;

/// How long a bound object may have been marked as deleted before tokens bound to it end, in seconds.
const DELETION_LEEWAY: i64 = 60;

/// Reads from a registry that it does not keep alive.
pub(crate) struct Objects(Weak<Registry>);

impl Objects {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        Self(Arc::downgrade(registry))
    }

    fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<(Arc<Row>, Object)> {
        let registry = self.0.upgrade()?;
        let row = registry.rows().by_resource(group, resource)?;
        let namespace = (!namespace.is_empty()).then_some(namespace);
        let object = registry.get(row, namespace, name)?;
        Some((row.clone(), object))
    }

    /// The objects of a namespace that carry a label.
    pub(crate) fn labelled(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        (key, value): (&str, &str),
    ) -> Vec<Value> {
        let Some(registry) = self.0.upgrade() else { return Vec::new() };
        let Some(row) = registry.rows().by_resource(group, resource) else { return Vec::new() };
        let objects = registry.list(row, Some(namespace));
        let carries = |object: &&Object| object.header().label(key) == Some(value);
        objects.iter().filter(carries).map(|object| object.value(row)).collect()
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, group: &str, resource: &str) -> Vec<Value> {
        let Some(registry) = self.0.upgrade() else { return Vec::new() };
        let Some(row) = registry.rows().by_resource(group, resource) else { return Vec::new() };
        registry.list(row, None).iter().map(|object| object.value(row)).collect()
    }
}

impl Lookup for Objects {
    fn object(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let (row, object) = self.find(group, resource, namespace, name)?;
        Some(Arc::new(object.value(&row)))
    }

    fn pods_on(&self, node: &str, namespace: &str, mention: &str) -> Vec<Value> {
        let Some(registry) = self.0.upgrade() else { return Vec::new() };
        let Some(row) = registry.rows().by_resource("", "pods") else { return Vec::new() };
        // Parsing is the expensive part: most pods are ruled out by their bytes.
        let pods = registry.pods_on(node).into_iter().filter(|pod| {
            pod.namespace() == namespace && contains(pod.stored(), mention.as_bytes())
        });
        pods.map(|pod| pod.value(row)).collect()
    }

    fn lives(&self, group: &str, resource: &str, namespace: &str, name: &str, uid: &str) -> bool {
        let Some((row, object)) = self.find(group, resource, namespace, name) else { return false };
        if object.header().uid() != uid {
            return false;
        }
        if !object.header().deleting() {
            return true;
        }
        let deleted = object.value(&row)["metadata"]["deletionTimestamp"]
            .as_str()
            .and_then(meta::time::parse);
        let now = jiff::Timestamp::now().as_second();
        deleted.is_some_and(|time| now - time.as_second() < DELETION_LEEWAY)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let Some((&first, rest)) = part.split_first() else { return true };
    let mut remaining = bytes;
    while let Some(at) = remaining.iter().position(|byte| *byte == first) {
        remaining = &remaining[at + 1..];
        if remaining.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        assert!(contains(b"aab", b"ab") && contains(b"x", b"") && contains(b"abc", b"c"));
        assert!(!contains(b"abc", b"ac") && !contains(b"", b"a"));
    }
}
