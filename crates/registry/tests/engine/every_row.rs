//! Walks every row: create, get, list, watch, patch, update, delete of a minimal object, and the
//! declared subresources that the engine carries out.

use std::time::Duration;

use crate::common::{Bench, json_of};
use futures::StreamExt as _;
use serde_json::{Value, json};
use skiff_registry::{EventType, Outcome, Row};

/// What a minimal object of a kind needs beside its metadata.
pub(crate) fn content(row: &Row) -> Value {
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    let selector = json!({"matchLabels": {"a": "b"}});
    let workload = json!({"spec": {"selector": selector, "template": template}});
    let webhook = json!({"webhooks": [{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com"},
    }]});
    match row.kind.kind.as_str() {
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
        "Event" if row.kind.group.is_empty() => {
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

/// A PEM request, base64 as JSON carries bytes; its content is not looked at here.
const CSR: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIUAotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

pub(crate) fn name(row: &Row) -> &'static str {
    match row.kind.kind.as_str() {
        "APIService" => "v1.example.com",
        "CustomResourceDefinition" => "foos.example.com",
        "IPAddress" => "10.96.0.5",
        _ => "thing",
    }
}

async fn check(bench: &Bench, row: &Row) {
    let place = format!("{} {}", row.api_version(), row.kind.kind);
    let path = format!("{}.{}@{}", row.resource.resource, row.resource.group, row.resource.version);
    let namespace = if row.namespaced() { "default" } else { "" };
    let named = format!("{path}/{}", name(row));
    let mut object = content(row);
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.kind.as_str().into();
    object["metadata"] = json!({"name": name(row)});
    let body = object.to_string();

    let Ok(Outcome::Watch(mut watch)) =
        bench.run("watch", &path, namespace, "timeoutSeconds=30", "").await
    else {
        panic!("{place}: no watch")
    };
    let created = match bench.run("create", &path, namespace, "fieldValidation=Strict", &body).await
    {
        Ok(outcome) => json_of(outcome),
        Err(status) => panic!("{place}: {status}"),
    };
    assert_eq!(created.0, 201, "{place}");
    let got = bench.json("get", &named, namespace, "", "").await;
    assert_eq!(got, created.1, "{place}: get after create");
    let list = bench.json("list", &path, namespace, "", "").await;
    assert_eq!(list["kind"], format!("{}List", row.kind.kind), "{place}");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{place}");
    assert!(list["items"][0].get("kind").is_none(), "{place}: items carry no kind");

    let patched = bench
        .json("patch:merge", &named, namespace, "", r#"{"metadata":{"labels":{"x":"y"}}}"#)
        .await;
    assert_eq!(patched["metadata"]["labels"]["x"], "y", "{place}");
    let updated = match bench.run("update", &named, namespace, "", &patched.to_string()).await {
        Ok(outcome) => json_of(outcome).1,
        Err(status) => panic!("{place}: update with itself: {status}"),
    };
    assert_eq!(updated, patched, "{place}: an update with what is there changes nothing");
    for subresource in &row.subresources {
        if ["status", "scale"].contains(&subresource.name.as_str()) {
            let path = format!("{named}/{}", subresource.name);
            let part = bench.json("get", &path, namespace, "", "").await;
            assert_eq!(part["kind"], subresource.kind.kind, "{place}");
            bench.json("update", &path, namespace, "", &part.to_string()).await;
        }
    }
    bench.json("delete", &named, namespace, "", "").await;
    if row.kind.kind == "Namespace" {
        bench.json("update", &format!("{named}/finalize"), "", "", &body).await;
    }
    let gone = bench.run("get", &named, namespace, "", "").await.expect_err("gone");
    assert_eq!(gone.code, 404, "{place}");

    let mut seen = Vec::new();
    while seen.last() != Some(&EventType::Deleted) {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        let event = event
            .expect("in time")
            .unwrap_or_else(|| panic!("{place}: the watch ended after {seen:?}"));
        let object: Value = serde_json::from_slice(&event.object).expect("JSON");
        assert_eq!(object["kind"], row.kind.kind.as_str(), "{place}: {object}");
        assert_eq!(object["apiVersion"], row.api_version(), "{place}");
        seen.push(event.event_type);
    }
    assert_eq!(seen[..2], [EventType::Added, EventType::Modified], "{place}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stored_kind_lives_its_life() {
    let bench = Bench::new();
    let rows: Vec<_> =
        bench.engine.rows().iter().filter(|r| r.storage.is_some()).cloned().collect();
    assert!(rows.len() > 55, "{}", rows.len());
    for row in rows {
        check(&bench, &row).await;
    }
}
