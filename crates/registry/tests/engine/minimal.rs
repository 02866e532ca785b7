//! The least that an object of each built-in kind needs to be created, for tests that walk all of them.

use serde_json::{Value, json};

/// What a minimal object of a kind needs beside its metadata.
pub(crate) fn content(group: &str, kind: &str) -> Value {
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    let selector = json!({"matchLabels": {"a": "b"}});
    let workload = json!({"spec": {"selector": selector, "template": template}});
    let webhook = json!({"webhooks": [{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com"},
    }]});
    match kind {
        "APIService" => {
            json!({"spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15, "service": {"name": "s", "namespace": "d"}, "insecureSkipTLSVerify": true}})
        }
        "CertificateSigningRequest" => {
            json!({"spec": {"request": CSR, "signerName": "example.com/s", "usages": ["client auth"]}})
        }
        "ClusterRoleBinding" | "RoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}})
        }
        "ControllerRevision" => json!({"revision": 1, "data": {"a": 1}}),
        "CronJob" => {
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}})
        }
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "s"}),
        "CSIDriver" => json!({"spec": {}}),
        "CustomResourceDefinition" => json!({"spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        }}),
        "DaemonSet" | "Deployment" | "ReplicaSet" => workload,
        "StatefulSet" => {
            json!({"spec": {"selector": selector, "serviceName": "s", "template": template}})
        }
        "DeviceClass" => json!({"spec": {}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "Event" if group.is_empty() => {
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "message": "m"})
        }
        "Event" => {
            json!({"regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "note": "m", "type": "Normal", "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i"})
        }
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "p"}}}),
        "PriorityLevelConfiguration" => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}})
        }
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
        }
        "Ingress" => {
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
        }
        "IngressClass" => json!({"spec": {"controller": "example.com/c"}}),
        "IPAddress" => {
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "d", "name": "s"}}})
        }
        "Job" => {
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
        }
        "LimitRange" => json!({"spec": {"limits": []}}),
        "MutatingAdmissionPolicy" => json!({"spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}],
            "reinvocationPolicy": "Never",
        }}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p"}}),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhook,
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "PersistentVolume" => {
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}})
        }
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "Pod" => json!({"spec": pod}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "PodTemplate" => json!({"template": template}),
        "PriorityClass" => json!({"value": 5}),
        "ReplicationController" => json!({"spec": {"selector": {"a": "b"}, "template": template}}),
        "ResourceClaim" => json!({"spec": {"devices": {}}}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": {"devices": {}}}}),
        "ResourceSlice" => {
            json!({"spec": {"driver": "example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
        }
        "RuntimeClass" => json!({"handler": "runc"}),
        "Service" => json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.200.0.0/16"]}}),
        "StorageClass" => json!({"provisioner": "example.com/p"}),
        "ValidatingAdmissionPolicy" => json!({"spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]},
            "validations": [{"expression": "true"}],
        }}),
        "ValidatingAdmissionPolicyBinding" => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "VolumeAttributesClass" => json!({"driverName": "example.com/d", "parameters": {"a": "b"}}),
        _ => json!({}),
    }
}

/// A PEM request of jane in team, signed, base64 as JSON carries bytes.
const CSR: &str = concat!(
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIYU1JR0FBZ0VBTUI0eERUQUxCZ05WQkFvTUJIUm",
    "xZVzB4RFRBTEJnTlZCQU1NQkdwaGJtVXdXVEFUQmdjcQpoa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVNGY3dEYXFs",
    "ZUc2OXJwVmZSYzNGeWM1eGVtTVZHbk13YlBFcHd6CmVNakFWcFloaUc2MTBERlYzWmNyZldlc3NWYlFCb083VDBMQT",
    "VleHdqVjRCRjBXY29BQXdDZ1lJS29aSXpqMEUKQXdJRFNRQXdSZ0loQU5nRHJuTTRGVkRVWHYxRVZyNEp4a2habm9E",
    "OFhwMWZXbnEycEhYbzJnSEFBaUVBNFA1Vwpmc001WkhuVExidlR4K2RGcnFuN0Fudkk4WFFOSHR2Y2U0Y0RWcnM9Ci",
    "0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=",
);

/// The name of that object.
pub(crate) fn name(kind: &str) -> &'static str {
    match kind {
        "APIService" => "v1.example.com",
        "CustomResourceDefinition" => "foos.example.com",
        "IPAddress" => "10.96.0.5",
        _ => "thing",
    }
}
