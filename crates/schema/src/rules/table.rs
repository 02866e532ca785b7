//! The table from kind to rules: one line a kind that has rules of its own.

use meta::GroupVersionKind;

use super::{Hooks, cluster, config, endpoints, event, metadata, pod, rbac, service, workload};
use crate::types::{self, Type};

/// What kinds without rules of their own do.
const NONE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// The functions of a kind.
pub(super) fn hooks(kind: &GroupVersionKind) -> Hooks {
    own(kind).unwrap_or(NONE)
}

/// The type of a built-in kind whose validation comes from the type graph alone.
pub(super) fn generic(kind: &GroupVersionKind) -> Option<&'static Type> {
    if own(kind).is_some() { None } else { types::by_kind(&kind.group, &kind.version, &kind.kind) }
}

fn own(kind: &GroupVersionKind) -> Option<Hooks> {
    Some(match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Binding") => pod::BINDING,
        ("", "ConfigMap") => config::CONFIG_MAP,
        ("", "Endpoints") => endpoints::ENDPOINTS,
        ("", "Event") => event::EVENT,
        ("", "Namespace") => cluster::NAMESPACE,
        ("", "Node") => cluster::NODE,
        ("", "Pod") => pod::POD,
        ("", "PodTemplate") => pod::POD_TEMPLATE,
        ("", "ReplicationController") => workload::REPLICATION_CONTROLLER,
        ("", "Secret") => config::SECRET,
        ("", "Service") => service::SERVICE,
        ("", "ServiceAccount") => cluster::SERVICE_ACCOUNT,
        ("apps", "DaemonSet") => workload::DAEMON_SET,
        ("apps", "Deployment") => workload::DEPLOYMENT,
        ("apps", "ReplicaSet") => workload::REPLICA_SET,
        ("apps", "StatefulSet") => workload::STATEFUL_SET,
        ("coordination.k8s.io", "Lease") => cluster::LEASE,
        ("discovery.k8s.io", "EndpointSlice") => endpoints::ENDPOINT_SLICE,
        ("events.k8s.io", "Event") => event::NEW_EVENT,
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::CLUSTER_ROLE_BINDING,
        ("rbac.authorization.k8s.io", "Role") => rbac::ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::ROLE_BINDING,
        ("scheduling.k8s.io", "PriorityClass") => cluster::PRIORITY_CLASS,
        _ => return None,
    })
}
