//! Plans as data: what to write, in which order, and what to tell users about it.
//!
//! Building a plan needs no client; `apply` carries it out.

use client::{EventKind, reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::ApiResource};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// Events about an action: one when it succeeds, one when it fails.
///
/// `{name}` in a note stands for the name of the object written, `{error}` for the error.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The object the events are about.
    pub about: ObjectReference,
    /// Reason and note on success (a `Normal` event).
    pub done: Option<(&'static str, String)>,
    /// Reason and note on failure (a `Warning` event).
    pub failed: Option<(&'static str, String)>,
}

/// An event that is recorded once the plan's actions have succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object the event is about.
    pub about: ObjectReference,
    /// Its type.
    pub kind: EventKind,
    /// Short CamelCase word.
    pub reason: &'static str,
    /// A sentence for users.
    pub note: String,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates an object. That it exists already is a failure.
    Create {
        /// What kind.
        resource: ApiResource,
        /// In which namespace.
        namespace: Option<String>,
        /// The whole object.
        object: Value,
        /// Events.
        report: Option<Report>,
    },
    /// Deletes an object. That it is gone already is success.
    Delete {
        /// What kind.
        resource: ApiResource,
        /// In which namespace.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Only if it still has this uid.
        uid: Option<String>,
        /// Seconds to shut down; the kind's default if `None`.
        grace: Option<u32>,
        /// What becomes of its dependents.
        propagation: Propagation,
        /// Events.
        report: Option<Report>,
    },
    /// Applies a JSON merge patch to an object. That it is gone is success.
    Patch {
        /// What kind.
        resource: ApiResource,
        /// In which namespace.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Such as `status`.
        subresource: Option<&'static str>,
        /// The merge patch, with the preconditions (uid, resourceVersion) in its metadata.
        patch: Value,
        /// Events.
        report: Option<Report>,
    },
}

impl Action {
    /// Creates `object`.
    pub fn create<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::Create {
            resource: ApiResource::erase::<K>(&()),
            namespace: object.meta().namespace.clone(),
            object: to_value(object),
            report: None,
        }
    }

    /// Deletes exactly this `object`, dependents in the background.
    pub fn delete<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let meta = object.meta();
        Self::Delete {
            resource: ApiResource::erase::<K>(&()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone(),
            grace: None,
            propagation: Propagation::Background,
            report: None,
        }
    }

    /// Merges `patch` into exactly this `object` (same uid), whatever else changed in it.
    pub fn patch<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::patch_with(object, None, patch, false)
    }

    /// Merges `patch` into `object` only if it is still as seen; a conflict is tried again from
    /// a new snapshot. For patches computed from the object's lists.
    pub fn patch_exact<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::patch_with(object, None, patch, true)
    }

    /// Turns the status of `object` from `old` into `new`; `None` if they are equal.
    ///
    /// The controller must be the only writer of the fields that differ.
    pub fn status<K, S>(object: &K, old: &S, new: &S) -> Option<Self>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let patch = merge_diff(&to_value(old), &to_value(new))?;
        Some(Self::patch_with(object, Some("status"), json!({ "status": patch }), false))
    }

    /// Merges into a subresource; with `exact`, only if the object is still as seen.
    pub fn patch_with<K: Resource<DynamicType = ()>>(
        object: &K,
        subresource: Option<&'static str>,
        mut patch: Value,
        exact: bool,
    ) -> Self {
        let meta = object.meta();
        if !patch["metadata"].is_object() {
            patch["metadata"] = Value::Object(Map::new());
        }
        if let Some(uid) = &meta.uid {
            patch["metadata"]["uid"] = json!(uid);
        }
        if exact && let Some(version) = &meta.resource_version {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        Self::Patch {
            resource: ApiResource::erase::<K>(&()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            subresource,
            patch,
            report: None,
        }
    }

    /// Adds events about this action.
    #[must_use]
    pub fn reporting(mut self, new: Report) -> Self {
        match &mut self {
            Self::Create { report, .. }
            | Self::Delete { report, .. }
            | Self::Patch { report, .. } => *report = Some(new),
        }
        self
    }

    /// Sets the grace period of a deletion, in seconds; nothing for other actions.
    #[must_use]
    pub fn with_grace(mut self, seconds: u32) -> Self {
        if let Self::Delete { grace, .. } = &mut self {
            *grace = Some(seconds);
        }
        self
    }

    /// The name of the object written; empty when it is to be generated.
    pub fn name(&self) -> &str {
        match self {
            Self::Create { object, .. } => object["metadata"]["name"].as_str().unwrap_or_default(),
            Self::Delete { name, .. } | Self::Patch { name, .. } => name,
        }
    }

    /// The kind of the object written.
    pub fn resource(&self) -> &ApiResource {
        match self {
            Self::Create { resource, .. }
            | Self::Delete { resource, .. }
            | Self::Patch { resource, .. } => resource,
        }
    }

    pub(crate) fn report(&self) -> Option<&Report> {
        match self {
            Self::Create { report, .. }
            | Self::Delete { report, .. }
            | Self::Patch { report, .. } => report.as_ref(),
        }
    }
}

/// What a controller wants done now. Empty: all is as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Deletes and patches first, all at once; then creates, in growing batches, each only if
    /// the one before succeeded whole.
    pub actions: Vec<Action>,
    /// The status write. Made beside the actions, and even if they fail.
    pub status: Option<Action>,
    /// Events recorded once everything has succeeded.
    pub notes: Vec<Note>,
    /// When to plan again, if nothing changes earlier.
    pub requeue_at: Option<Timestamp>,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds an action.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Adds an event about `object`.
    pub fn note<K: Resource<DynamicType = ()>>(
        &mut self,
        object: &K,
        kind: EventKind,
        reason: &'static str,
        note: impl Into<String>,
    ) {
        self.notes.push(Note { about: reference(object), kind, reason, note: note.into() });
    }

    /// Asks for another run at `at`, or earlier if asked for before.
    pub fn requeue(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |known| known.min(at)));
    }

    /// Whether there is nothing to do now.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.status.is_none() && self.notes.is_empty()
    }
}

/// The JSON merge patch (RFC 7386) that turns `old` into `new`; `None` if they are equal.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let change = match old.get(key) {
            Some(before) => merge_diff(before, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

/// API types always serialize.
fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("API types serialize to JSON")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

    use super::*;

    #[test]
    fn a_status_patch_holds_what_differs_and_nulls_what_went() {
        let object = ReplicaSet {
            metadata: kube::api::ObjectMeta {
                name: Some("web".into()),
                uid: Some("u".into()),
                resource_version: Some("7".into()),
                ..kube::api::ObjectMeta::default()
            },
            ..ReplicaSet::default()
        };
        let old = ReplicaSetStatus {
            replicas: 3,
            ready_replicas: Some(3),
            ..ReplicaSetStatus::default()
        };
        let new = ReplicaSetStatus { replicas: 2, ..ReplicaSetStatus::default() };
        assert_eq!(Action::status(&object, &old, &old), None);
        let Some(Action::Patch { patch, subresource, .. }) = Action::status(&object, &old, &new)
        else {
            panic!("no patch");
        };
        assert_eq!(subresource, Some("status"));
        assert_eq!(
            patch,
            json!({ "metadata": { "uid": "u" }, "status": { "replicas": 2, "readyReplicas": null } })
        );
    }
}
