//! The table from kind to rules: one line a kind that has rules of its own.

use meta::GroupVersionKind;

use super::{
    Hooks, allocation, batch, certificates, cluster, config, endpoints, event, metadata,
    networking, pod, rbac, service, storage, workload,
};
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
    own(kind).or_else(|| added(kind)).unwrap_or(NONE)
}

/// The type of a built-in kind that is validated from the type graph too.
pub(super) fn generic(kind: &GroupVersionKind) -> Option<&'static Type> {
    if own(kind).is_some() { None } else { types::by_kind(&kind.group, &kind.version, &kind.kind) }
}

/// Kinds whose rules are complete.
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

/// Kinds whose rules add to what the type graph says.
fn added(kind: &GroupVersionKind) -> Option<Hooks> {
    Some(match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "PersistentVolume") => storage::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => storage::PERSISTENT_VOLUME_CLAIM,
        ("autoscaling", "HorizontalPodAutoscaler") => storage::POD_AUTOSCALER,
        ("batch", "CronJob") => batch::CRON_JOB,
        ("batch", "Job") => batch::JOB,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::REQUEST,
        ("networking.k8s.io", "IPAddress") => allocation::IP_ADDRESS,
        ("networking.k8s.io", "Ingress") => networking::INGRESS,
        ("networking.k8s.io", "NetworkPolicy") => networking::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => allocation::SERVICE_CIDR,
        ("policy", "PodDisruptionBudget") => storage::POD_DISRUPTION_BUDGET,
        _ => return None,
    })
}
