//! The hash of a pod template that names its ReplicaSet.
//!
//! Stable across runs and releases: FNV-1a over the template's canonical JSON (sorted keys). Its
//! values need not be upstream's, since ReplicaSets are found by their template and not by name.

use std::hash::Hasher;

use fnv::FnvHasher;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use meta::names::safe_encode;

/// The hash of `template`, varied by the number of collisions met so far.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // `serde_json` without `preserve_order` keeps objects sorted by key.
    let canonical = serde_json::to_value(template).unwrap_or_default().to_string();
    let mut hasher = FnvHasher::default();
    hasher.write(canonical.as_bytes());
    if let Some(collisions) = collisions {
        hasher.write(&collisions.to_le_bytes());
    }
    let hash = hasher.finish();
    // Fold to 32 bits: ten characters at most, as in upstream's names.
    let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
    safe_encode(&folded.to_string())
}
