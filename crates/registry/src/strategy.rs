//! What data cannot say about a kind: hooks of the pipeline, most of which most kinds leave alone.
//!
//! Owns the trait and the choice of a kind's strategy. Hooks are pure: they see values, never the
//! store.

pub(crate) mod certificate;
mod device;
pub(crate) mod generic;
pub(crate) mod namespace;
mod node;
pub(crate) mod pod;
pub(crate) mod service;
mod workload;

use meta::{FieldError, GroupVersionKind};
use serde_json::Value;

use crate::request::UserInfo;

pub(crate) use generic::Generic;

/// Hooks around a write. `object` is the object about to be stored, in its storage version.
pub(crate) trait Strategy: Send + Sync + std::fmt::Debug {
    /// Whether objects take addresses and ports of the cluster, in the transaction that writes them.
    fn allocates(&self) -> bool {
        false
    }

    /// Puts a new object into its first state. By default the status is emptied where the kind
    /// has a status subresource, which `has_status` says.
    fn prepare_create(&self, object: &mut Value, user: &UserInfo, has_status: bool) {
        let _ = user;
        if has_status {
            object["status"] = Value::Object(serde_json::Map::new());
        }
    }

    /// Restores what an update of the object itself may not change. By default the status.
    fn prepare_update(&self, object: &mut Value, old: &Value, has_status: bool) {
        if has_status {
            crate::object::set_or_remove(object, "status", &old["status"]);
        }
    }

    /// Restores what a write of the status may not change. By default everything but the status
    /// and the metadata that the row does not keep.
    fn prepare_status(&self, object: &mut Value, old: &Value) {
        generic::keep_all_but_status(object, old);
    }

    /// Writes the time of a write where one is wanted and none is said.
    fn stamp(&self, object: &mut Value, old: &Value, now: &dyn Fn() -> String) {
        let _ = (object, old, now);
    }

    /// Whether the change of specification between the two objects bumps the generation.
    fn specification_changed(&self, object: &Value, old: &Value) -> bool {
        object["spec"] != old["spec"]
    }

    /// Rules beside those of the schema for a new object.
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let _ = object;
        Vec::new()
    }

    /// Rules beside those of the schema for a changed object.
    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = (object, old);
        Vec::new()
    }

    /// For kinds that are deleted gracefully: the grace period in seconds, given the one asked
    /// for. `None` deletes at once.
    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let _ = (object, requested);
        None
    }

    /// Says in an object whose deletion was asked for what that makes of it.
    fn terminate(&self, object: &mut Value) {
        let _ = object;
    }

    /// Whether dependents are orphaned or collected at all by default.
    fn collected(&self) -> bool {
        true
    }

    /// Whether the object may go once it is marked as deleted and has no finalizers left.
    fn may_vanish(&self, object: &Value) -> bool {
        let _ = object;
        true
    }
}

/// The strategy of a kind.
pub(crate) fn of(kind: &GroupVersionKind) -> &'static dyn Strategy {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &pod::Pod,
        ("", "Service") => &service::Service,
        ("", "Namespace") => &namespace::Namespace,
        ("", "Node") => &node::Node,
        ("", "Event") | ("events.k8s.io", "Event") => &generic::Event,
        ("", "PersistentVolume" | "PersistentVolumeClaim") => &generic::Volume,
        ("apps", "Deployment") => &workload::Deployment,
        ("certificates.k8s.io", "CertificateSigningRequest") => &certificate::Request,
        ("admissionregistration.k8s.io", _) => &generic::Whole,
        ("apiregistration.k8s.io", _) => &generic::ApiService,
        ("discovery.k8s.io", _) => &generic::EndpointSlice,
        ("resource.k8s.io", "ResourceClaim") => &device::Claim,
        ("resource.k8s.io", "ResourceSlice") => &device::Slice,
        ("scheduling.k8s.io", _) => &generic::Unchanging,
        ("", "PodTemplate") => &generic::Whole,
        _ => &Generic,
    }
}
