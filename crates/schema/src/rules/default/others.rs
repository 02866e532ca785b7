//! Defaults of the remaining groups: networking, discovery, RBAC, storage, scheduling, admission, flow control.

use serde_json::{Map, Value, json};

use super::{Fill, fill_in, fill_nil, fill_zero};
use crate::view::View;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The defaults of a type of this file.
pub(super) fn of(name: &str) -> Option<Fill> {
    if name == "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference" {
        return Some(|service| fill_nil(service, "port", 443));
    }
    Some(match name.strip_prefix("io.k8s.api.")? {
        "networking.v1.NetworkPolicyPort" => |port| fill_nil(port, "protocol", "TCP"),
        "networking.v1.NetworkPolicySpec" => |spec| {
            if spec.items("policyTypes").is_empty() {
                let egress = !spec.items("egress").is_empty();
                let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
                spec.insert("policyTypes".to_owned(), types);
            }
        },
        "networking.v1.IngressClassParametersReference" => {
            |reference| fill_nil(reference, "scope", "Cluster")
        }
        "discovery.v1.EndpointPort" => |port| {
            fill_nil(port, "name", "");
            fill_nil(port, "protocol", "TCP");
        },
        "rbac.v1.RoleRef" => |reference| fill_in(reference, "apiGroup", RBAC),
        "rbac.v1.Subject" => |subject| {
            if matches!(subject.text("kind"), "User" | "Group") {
                fill_in(subject, "apiGroup", RBAC);
            }
        },
        "scheduling.v1.PriorityClass" => {
            |class| fill_nil(class, "preemptionPolicy", "PreemptLowerPriority")
        }
        "storage.v1.StorageClass" => |class| {
            fill_nil(class, "reclaimPolicy", "Delete");
            fill_nil(class, "volumeBindingMode", "Immediate");
        },
        "storage.v1.CSIDriverSpec" => csi_driver,
        "authentication.v1.TokenRequestSpec" => |spec| fill_nil(spec, "expirationSeconds", 3600),
        "admissionregistration.v1.ValidatingWebhook" => webhook,
        "admissionregistration.v1.MutatingWebhook" => |hook| {
            webhook(hook);
            fill_nil(hook, "reinvocationPolicy", "Never");
        },
        "admissionregistration.v1.RuleWithOperations"
        | "admissionregistration.v1.NamedRuleWithOperations" => |rule| fill_nil(rule, "scope", "*"),
        "admissionregistration.v1.ServiceReference" => |service| fill_nil(service, "port", 443),
        "admissionregistration.v1.ValidatingAdmissionPolicySpec"
        | "admissionregistration.v1.MutatingAdmissionPolicySpec" => {
            |spec| fill_nil(spec, "failurePolicy", "Fail")
        }
        "admissionregistration.v1.MatchResources" => |resources| {
            fill_nil(resources, "matchPolicy", "Equivalent");
            fill_nil(resources, "namespaceSelector", json!({}));
            fill_nil(resources, "objectSelector", json!({}));
        },
        "flowcontrol.v1.FlowSchemaSpec" => |spec| fill_zero(spec, "matchingPrecedence", 1000),
        "flowcontrol.v1.ExemptPriorityLevelConfiguration" => |level| {
            fill_nil(level, "nominalConcurrencyShares", 0);
            fill_nil(level, "lendablePercent", 0);
        },
        "flowcontrol.v1.LimitedPriorityLevelConfiguration" => |level| {
            fill_nil(level, "nominalConcurrencyShares", 30);
            fill_nil(level, "lendablePercent", 0);
        },
        "flowcontrol.v1.QueuingConfiguration" => |queuing| {
            fill_zero(queuing, "handSize", 8);
            fill_zero(queuing, "queues", 64);
            fill_zero(queuing, "queueLengthLimit", 50);
        },
        "resource.v1.ExactDeviceRequest" | "resource.v1.DeviceSubRequest" => |request| {
            fill_in(request, "allocationMode", "ExactCount");
            if request.text("allocationMode") == "ExactCount" {
                fill_zero(request, "count", 1);
            }
        },
        _ => return None,
    })
}

fn csi_driver(spec: &mut Map<String, Value>) {
    fill_nil(spec, "attachRequired", true);
    for flag in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        fill_nil(spec, flag, false);
    }
    fill_nil(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.items("volumeLifecycleModes").is_empty() {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

fn webhook(hook: &mut Map<String, Value>) {
    fill_nil(hook, "failurePolicy", "Fail");
    fill_nil(hook, "matchPolicy", "Equivalent");
    fill_nil(hook, "namespaceSelector", json!({}));
    fill_nil(hook, "objectSelector", json!({}));
    fill_nil(hook, "timeoutSeconds", 10);
}
