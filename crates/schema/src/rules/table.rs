//! The table from kind to rules: one line a kind that has rules of its own.

use meta::GroupVersionKind;

use super::{
    Hooks, admission, allocation, autoscaling, batch, certificates, claim, classes, cluster,
    config, csi, devices, disruption, endpoints, event, flow, ingress, networking, node,
    persistent, pod, policies, quota, rbac, registration, reviews, service, workload,
};

/// The functions of a kind.
pub(super) fn hooks(kind: &GroupVersionKind) -> Hooks {
    own(kind).unwrap_or(Hooks::BASE)
}

/// The functions of kinds with rules of their own.
pub(super) fn own(kind: &GroupVersionKind) -> Option<Hooks> {
    Some(match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Binding") => pod::BINDING,
        ("", "ConfigMap") => config::CONFIG_MAP,
        ("", "Endpoints") => endpoints::ENDPOINTS,
        ("", "Event") => event::EVENT,
        ("", "LimitRange") => quota::LIMIT_RANGE,
        ("", "Namespace") => cluster::NAMESPACE,
        ("", "Node") => node::NODE,
        ("", "PersistentVolume") => persistent::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => claim::PERSISTENT_VOLUME_CLAIM,
        ("", "Pod") => pod::POD,
        ("", "PodTemplate") => pod::POD_TEMPLATE,
        ("", "ReplicationController") => workload::REPLICATION_CONTROLLER,
        ("", "ResourceQuota") => quota::RESOURCE_QUOTA,
        ("", "Secret") => config::SECRET,
        ("", "Service") => service::SERVICE,
        ("", "ServiceAccount") => cluster::SERVICE_ACCOUNT,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => policies::MUTATING,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding") => {
            policies::MUTATING_BINDING
        }
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => admission::WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => policies::VALIDATING,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            policies::VALIDATING_BINDING
        }
        ("apiregistration.k8s.io", "APIService") => registration::API_SERVICE,
        ("apps", "ControllerRevision") => workload::CONTROLLER_REVISION,
        ("apps", "DaemonSet") => workload::DAEMON_SET,
        ("apps", "Deployment") => workload::DEPLOYMENT,
        ("apps", "ReplicaSet") => workload::REPLICA_SET,
        ("apps", "StatefulSet") => workload::STATEFUL_SET,
        ("authentication.k8s.io", "TokenRequest") => reviews::TOKEN,
        ("authorization.k8s.io", "LocalSubjectAccessReview") => reviews::LOCAL,
        ("authorization.k8s.io", "SelfSubjectAccessReview") => reviews::SELF,
        ("authorization.k8s.io", "SubjectAccessReview") => reviews::SUBJECT,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::REQUEST,
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::POD_AUTOSCALER,
        ("batch", "CronJob") => batch::CRON_JOB,
        ("batch", "Job") => batch::JOB,
        ("coordination.k8s.io", "Lease") => classes::LEASE,
        ("discovery.k8s.io", "EndpointSlice") => endpoints::ENDPOINT_SLICE,
        ("events.k8s.io", "Event") => event::NEW_EVENT,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flow::PRIORITY_LEVEL,
        ("networking.k8s.io", "IPAddress") => allocation::IP_ADDRESS,
        ("networking.k8s.io", "Ingress") => ingress::INGRESS,
        ("networking.k8s.io", "IngressClass") => ingress::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => networking::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => allocation::SERVICE_CIDR,
        ("node.k8s.io", "RuntimeClass") => classes::RUNTIME_CLASS,
        ("policy", "Eviction") => disruption::EVICTION,
        ("policy", "PodDisruptionBudget") => disruption::POD_DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::CLUSTER_ROLE_BINDING,
        ("rbac.authorization.k8s.io", "Role") => rbac::ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::ROLE_BINDING,
        ("resource.k8s.io", "DeviceClass") => devices::CLASS,
        ("resource.k8s.io", "ResourceClaim") => devices::CLAIM,
        ("resource.k8s.io", "ResourceClaimTemplate") => devices::TEMPLATE,
        ("resource.k8s.io", "ResourceSlice") => devices::SLICE,
        ("scheduling.k8s.io", "PriorityClass") => classes::PRIORITY_CLASS,
        ("storage.k8s.io", "CSIDriver") => csi::CSI_DRIVER,
        ("storage.k8s.io", "CSINode") => csi::CSI_NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => csi::STORAGE_CAPACITY,
        ("storage.k8s.io", "StorageClass") => csi::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => csi::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => csi::ATTRIBUTES_CLASS,
        _ => return None,
    })
}
