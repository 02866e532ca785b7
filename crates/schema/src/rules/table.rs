//! The table from kind to rules: one line a kind that has rules of its own.

use std::sync::LazyLock;

use super::{Hooks, Rules, metadata};
use crate::types;

/// Kinds that live outside namespaces, by group.
const CLUSTER_SCOPED: &[(&str, &[&str])] = &[
    ("", &["ComponentStatus", "Namespace", "Node", "PersistentVolume"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("authentication.k8s.io", &["SelfSubjectReview", "TokenReview"]),
    (
        "authorization.k8s.io",
        &["SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"],
    ),
    ("certificates.k8s.io", &["CertificateSigningRequest"]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io", &["IPAddress", "IngressClass", "ServiceCIDR"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("resource.k8s.io", &["DeviceClass", "ResourceSlice"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    (
        "storage.k8s.io",
        &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"],
    ),
];

type Key = (&'static str, &'static str, &'static str);

static TABLE: LazyLock<Vec<Rules>> = LazyLock::new(table);

/// The rules of a built-in kind; the core group is `""`.
#[must_use]
pub fn of(group: &str, version: &str, kind: &str) -> Option<&'static Rules> {
    let at = TABLE.binary_search_by(|rules| rules.kind.cmp(&(group, version, kind))).ok()?;
    Some(&TABLE[at])
}

/// What kinds without rules of their own do.
const NONE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

fn table() -> Vec<Rules> {
    let kinds = types::kinds().filter(|(key, of)| {
        of.field("metadata").is_some() && !key.2.ends_with("List") && !key.2.ends_with("Options")
    });
    kinds
        .map(|(key, of)| {
            let cluster = CLUSTER_SCOPED
                .iter()
                .any(|(group, kinds)| *group == key.0 && kinds.contains(&key.2));
            Rules { kind: key, namespaced: !cluster, of, hooks: hooks(key) }
        })
        .collect()
}

fn hooks(_key: Key) -> Hooks {
    NONE
}
