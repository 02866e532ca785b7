//! Who owns whom, kept small: only objects with owners, or whose deletion waits for dependents,
//! have more than their uid remembered.
//!
//! Pure: takes steps of watches, names the uids to look at. A uid it does not know may still
//! exist; whoever acts on an absence must ask the server.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use client::{Metadata, Step};
use kube::api::{ApiResource, ObjectMeta};

/// The finalizer that makes dependents go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that makes dependents stay.
pub(super) const ORPHAN: &str = "orphan";

/// Uids of deleted objects remembered, so that a thousand dependents do not ask a thousand
/// times.
const REMEMBERED: usize = 4096;

/// A followed resource.
#[derive(Debug, PartialEq)]
pub(super) struct Kind {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
}

pub(super) type Uid = Arc<str>;

/// A reference to an owner, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    uid: Uid,
    blocks: bool,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Arc<Kind>,
    namespace: Option<Box<str>>,
    name: Box<str>,
    owners: Box<[Owner]>,
    /// Being deleted, dependents first.
    foreground: bool,
    /// Being deleted, dependents to be orphaned.
    orphan: bool,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) uid: Uid,
}

/// What is known of an owner without asking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    /// It exists.
    Exists,
    /// It exists and waits for its dependents to go.
    Waiting,
    /// It was deleted.
    Absent,
    /// Nothing is known.
    Unknown,
}

/// The graph.
#[derive(Default)]
pub(super) struct Graph {
    exists: HashMap<Uid, Arc<Kind>>,
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
    absent: HashSet<Uid>,
    absent_order: VecDeque<Uid>,
    /// Whether all resources have been listed: before that an absence means nothing.
    complete: bool,
}

impl Graph {
    /// Takes in a step of a resource's watch; the uids to look at.
    pub(super) fn take(&mut self, kind: &Arc<Kind>, step: Step<Metadata>) -> Vec<Uid> {
        let mut affected = Vec::new();
        match step {
            Step::Replace(objects, _) => {
                let listed: HashSet<&str> =
                    objects.iter().filter_map(|object| object.metadata.uid.as_deref()).collect();
                let gone: Vec<Uid> = self
                    .exists
                    .iter()
                    .filter(|(uid, known)| Arc::ptr_eq(known, kind) && !listed.contains(&***uid))
                    .map(|(uid, _)| uid.clone())
                    .collect();
                for uid in gone {
                    self.remove(&uid, &mut affected);
                }
                for object in objects {
                    self.put(kind, object.metadata, &mut affected);
                }
            }
            Step::Apply(object, _) => self.put(kind, object.metadata, &mut affected),
            Step::Delete(object, _) => {
                if let Some(uid) = object.metadata.uid {
                    self.remove(&Uid::from(uid), &mut affected);
                }
            }
            Step::Progress(_) => {}
        }
        if self.complete { affected } else { Vec::new() }
    }

    /// All resources have been listed: what there is to look at.
    pub(super) fn completed(&mut self) -> Vec<Uid> {
        self.complete = true;
        self.suspects()
    }

    /// Every object that may have to go.
    pub(super) fn suspects(&self) -> Vec<Uid> {
        let suspect = |node: &Node| node.foreground || node.orphan || self.is_suspect(node);
        self.nodes.iter().filter(|(_, node)| suspect(node)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Forgets all objects of a resource that is no longer served.
    pub(super) fn drop_kind(&mut self, kind: &Arc<Kind>) -> Vec<Uid> {
        self.take(kind, Step::Replace(Vec::new(), meta::Revision(0)))
    }

    /// Notes that an object turned out not to exist; the uids to look at.
    pub(super) fn forget(&mut self, uid: &Uid) -> Vec<Uid> {
        let mut affected = Vec::new();
        self.remove(uid, &mut affected);
        affected
    }

    /// Where the object is; `None` if it is not of interest.
    pub(super) fn place(&self, uid: &str) -> Option<Place> {
        let (uid, node) = self.nodes.get_key_value(uid)?;
        Some(Place {
            kind: node.kind.clone(),
            namespace: node.namespace.as_deref().map(str::to_owned),
            name: node.name.to_string(),
            uid: uid.clone(),
        })
    }

    /// The places of an object's dependents; with `blocking`, of those alone that hold up its
    /// deletion.
    pub(super) fn dependents(&self, owner: &str, blocking: bool) -> Vec<Place> {
        let Some(dependents) = self.dependents.get(owner) else { return Vec::new() };
        dependents
            .iter()
            .filter(|uid| {
                self.nodes.get(*uid).is_some_and(|node| {
                    node.owners.iter().any(|one| &*one.uid == owner && (one.blocks || !blocking))
                })
            })
            .filter_map(|uid| self.place(uid))
            .collect()
    }

    /// Whether a dependent of `owner` is itself waiting for its dependents: a possible cycle.
    pub(super) fn has_waiting_dependent(&self, owner: &str) -> bool {
        self.dependents.get(owner).into_iter().flatten().any(|uid| self.is_waiting(uid))
    }

    /// What is known of an owner.
    pub(super) fn known(&self, uid: &str) -> Known {
        if self.is_waiting(uid) {
            Known::Waiting
        } else if self.exists.contains_key(uid) {
            Known::Exists
        } else if self.absent.contains(uid) {
            Known::Absent
        } else {
            Known::Unknown
        }
    }

    /// Remembers that an owner was asked for and does not exist.
    pub(super) fn note_absent(&mut self, uid: &str) {
        let uid = Uid::from(uid);
        if !self.exists.contains_key(&uid) && self.absent.insert(uid.clone()) {
            self.absent_order.push_back(uid);
            if self.absent_order.len() > REMEMBERED
                && let Some(oldest) = self.absent_order.pop_front()
            {
                self.absent.remove(&oldest);
            }
        }
    }

    fn is_waiting(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.foreground)
    }

    /// Whether an owner is missing or waits for it to go.
    fn is_suspect(&self, node: &Node) -> bool {
        node.owners
            .iter()
            .any(|owner| !self.exists.contains_key(&owner.uid) || self.is_waiting(&owner.uid))
    }

    fn put(&mut self, kind: &Arc<Kind>, meta: ObjectMeta, affected: &mut Vec<Uid>) {
        let Some(uid) = meta.uid.as_deref().map(Uid::from) else { return };
        self.exists.entry(uid.clone()).or_insert_with(|| kind.clone());
        let new = node(kind, meta);
        let old = self.nodes.remove(&uid);
        let old_owners: &[Owner] = old.as_ref().map_or(&[], |old| &old.owners);
        for owner in old_owners.iter().filter(|owner| !new.owners.contains(owner)) {
            if self.is_waiting(&owner.uid) {
                affected.push(owner.uid.clone());
            }
            if !new.owners.iter().any(|one| one.uid == owner.uid) {
                self.unlink(&owner.uid, &uid);
            }
        }
        for owner in &new.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let waits = new.foreground || new.orphan;
        if waits || (*old_owners != *new.owners && self.is_suspect(&new)) {
            affected.push(uid.clone());
        }
        if waits || !new.owners.is_empty() {
            self.nodes.insert(uid, new);
        }
    }

    fn remove(&mut self, uid: &Uid, affected: &mut Vec<Uid>) {
        self.exists.remove(uid);
        self.note_absent(uid);
        if let Some(node) = self.nodes.remove(uid) {
            for owner in &node.owners {
                self.unlink(&owner.uid, uid);
                if self.is_waiting(&owner.uid) {
                    affected.push(owner.uid.clone());
                }
            }
        }
        affected.extend(self.dependents.get(uid).into_iter().flatten().cloned());
    }

    fn unlink(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn node(kind: &Arc<Kind>, meta: ObjectMeta) -> Node {
    let deleting = meta.deletion_timestamp.is_some();
    let has = |finalizer: &str| {
        deleting && meta.finalizers.iter().flatten().any(|known| known == finalizer)
    };
    Node {
        kind: kind.clone(),
        foreground: has(FOREGROUND),
        orphan: has(ORPHAN),
        namespace: meta.namespace.map(String::into_boxed_str),
        name: meta.name.unwrap_or_default().into_boxed_str(),
        owners: meta
            .owner_references
            .into_iter()
            .flatten()
            .map(|owner| Owner {
                uid: owner.uid.into(),
                blocks: owner.block_owner_deletion == Some(true),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use meta::Revision;

    use super::*;
    use crate::testing::from_yaml;

    fn kind() -> Arc<Kind> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
        };
        Arc::new(Kind { resource, namespaced: true })
    }

    fn object(uid: &str, owners: &[&str], more: &str) -> Metadata {
        let owners: Vec<_> = owners
            .iter()
            .map(|uid| {
                format!(
                    "{{apiVersion: v1, kind: Pod, name: o, uid: {uid}, blockOwnerDeletion: true}}"
                )
            })
            .collect();
        from_yaml(&format!(
            "{{metadata: {{name: {uid}, uid: {uid}, ownerReferences: [{}]{more}}}}}",
            owners.join(", ")
        ))
    }

    fn told(mut uids: Vec<Uid>) -> Vec<String> {
        uids.sort();
        uids.iter().map(ToString::to_string).collect()
    }

    const GOING: &str =
        ", deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [foregroundDeletion]";

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let (kind, mut graph) = (kind(), Graph::default());
        let list = vec![object("a", &[], ""), object("b", &["a"], ""), object("c", &["b"], "")];
        assert!(graph.take(&kind, Step::Replace(list, Revision(1))).is_empty());
        assert!(graph.completed().is_empty());
        let affected = graph.take(&kind, Step::Delete(object("a", &[], ""), Revision(2)));
        assert_eq!(told(affected), ["b"]);
        assert_eq!(graph.known("a"), Known::Absent);
        assert_eq!(graph.known("b"), Known::Exists);
        assert_eq!(graph.known("x"), Known::Unknown);
        // What a list no longer holds is gone as well.
        let affected = graph.take(&kind, Step::Replace(vec![object("c", &["b"], "")], Revision(3)));
        assert_eq!(told(affected), ["c"]);
    }

    #[test]
    fn missing_owners_are_found_at_the_start_and_later() {
        let (kind, mut graph) = (kind(), Graph::default());
        let early = graph.take(&kind, Step::Apply(object("a", &["x"], ""), Revision(1)));
        assert!(early.is_empty(), "nothing is judged before all is listed");
        assert_eq!(told(graph.completed()), ["a"]);
        let affected = graph.take(&kind, Step::Apply(object("b", &["x"], ""), Revision(2)));
        assert_eq!(told(affected), ["b"]);
        let again = graph.take(&kind, Step::Apply(object("b", &["x"], ""), Revision(3)));
        assert!(again.is_empty(), "only changes count");
    }

    #[test]
    fn a_waiting_owner_is_looked_at_as_its_dependents_go() {
        let (kind, mut graph) = (kind(), Graph::default());
        let list = vec![object("a", &[], ""), object("b", &["a"], "")];
        graph.take(&kind, Step::Replace(list, Revision(1)));
        graph.completed();
        let affected = graph.take(&kind, Step::Apply(object("a", &[], GOING), Revision(2)));
        assert_eq!(told(affected), ["a"]);
        assert_eq!(graph.known("a"), Known::Waiting);
        assert_eq!(graph.dependents("a", true).len(), 1);
        let affected = graph.take(&kind, Step::Delete(object("b", &["a"], ""), Revision(3)));
        assert_eq!(told(affected), ["a"]);
        assert!(graph.dependents("a", false).is_empty());
    }

    #[test]
    fn objects_without_owners_cost_no_node() {
        let (kind, mut graph) = (kind(), Graph::default());
        graph.take(&kind, Step::Apply(object("a", &[], ""), Revision(1)));
        assert!(graph.nodes.is_empty() && graph.exists.len() == 1);
        graph.take(&kind, Step::Apply(object("b", &["a"], ""), Revision(2)));
        graph.take(&kind, Step::Apply(object("b", &[], ""), Revision(3)));
        assert!(graph.nodes.is_empty() && graph.dependents.is_empty());
    }
}
