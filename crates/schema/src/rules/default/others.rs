//! Defaults of the remaining groups: networking, discovery, RBAC, storage, scheduling, admission, flow control.

use serde_json::{Map, Value, json};

use super::{Fill, fill_in, fill_zero};
use crate::view::View;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The defaults of a type of this file.
pub(super) fn of(name: &str) -> Option<Fill> {
    Some(match name.strip_prefix("io.k8s.api.")? {
        "networking.v1.NetworkPolicyPort" => |port| fill_in(port, "protocol", "TCP"),
        "networking.v1.NetworkPolicySpec" => |spec| {
            if spec.items("policyTypes").is_empty() {
                let egress = !spec.items("egress").is_empty();
                let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
                spec.insert("policyTypes".to_owned(), types);
            }
        },
        "networking.v1.IngressClassParametersReference" => {
            |reference| fill_in(reference, "scope", "Cluster")
        }
        "discovery.v1.EndpointPort" => |port| {
            fill_in(port, "name", "");
            fill_in(port, "protocol", "TCP");
        },
        "rbac.v1.RoleRef" => |reference| fill_in(reference, "apiGroup", RBAC),
        "rbac.v1.Subject" => |subject| {
            if matches!(subject.text("kind"), "User" | "Group") {
                fill_in(subject, "apiGroup", RBAC);
            }
        },
        "scheduling.v1.PriorityClass" => {
            |class| fill_in(class, "preemptionPolicy", "PreemptLowerPriority")
        }
        "storage.v1.StorageClass" => |class| {
            fill_in(class, "reclaimPolicy", "Delete");
            fill_in(class, "volumeBindingMode", "Immediate");
        },
        "storage.v1.CSIDriverSpec" => csi_driver,
        "authentication.v1.TokenRequestSpec" => |spec| fill_in(spec, "expirationSeconds", 3600),
        "admissionregistration.v1.ValidatingWebhook" => webhook,
        "admissionregistration.v1.MutatingWebhook" => |hook| {
            webhook(hook);
            fill_in(hook, "reinvocationPolicy", "Never");
        },
        "admissionregistration.v1.RuleWithOperations"
        | "admissionregistration.v1.NamedRuleWithOperations" => |rule| fill_in(rule, "scope", "*"),
        "admissionregistration.v1.ServiceReference" => |service| fill_in(service, "port", 443),
        "admissionregistration.v1.ValidatingAdmissionPolicySpec"
        | "admissionregistration.v1.MutatingAdmissionPolicySpec" => {
            |spec| fill_in(spec, "failurePolicy", "Fail")
        }
        "admissionregistration.v1.MatchResources" => |resources| {
            fill_in(resources, "matchPolicy", "Equivalent");
            fill_in(resources, "namespaceSelector", json!({}));
            fill_in(resources, "objectSelector", json!({}));
        },
        "flowcontrol.v1.FlowSchemaSpec" => |spec| fill_zero(spec, "matchingPrecedence", 1000),
        "flowcontrol.v1.ExemptPriorityLevelConfiguration" => |level| {
            fill_in(level, "nominalConcurrencyShares", 0);
            fill_in(level, "lendablePercent", 0);
        },
        "flowcontrol.v1.LimitedPriorityLevelConfiguration" => |level| {
            fill_in(level, "nominalConcurrencyShares", 30);
            fill_in(level, "lendablePercent", 0);
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
    fill_in(spec, "attachRequired", true);
    for flag in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        fill_in(spec, flag, false);
    }
    fill_in(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.items("volumeLifecycleModes").is_empty() {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

fn webhook(hook: &mut Map<String, Value>) {
    fill_in(hook, "failurePolicy", "Fail");
    fill_in(hook, "matchPolicy", "Equivalent");
    fill_in(hook, "namespaceSelector", json!({}));
    fill_in(hook, "objectSelector", json!({}));
    fill_in(hook, "timeoutSeconds", 10);
}
