//! Changes that are no changes, of what may not change, and of what somebody else has changed.

use serde_json::json;
use testkit::Cluster;

use super::{
    CONFIG_MAPS, Case, DEPLOYMENTS, JSON_PATCH, MERGE, PODS, SECRETS, SERVICES, STRATEGIC, patch,
    post, put,
};

pub(super) fn wrong_patches(cluster: &Cluster) -> Vec<Case> {
    cluster.kubectl(&["create", "configmap", "patched", "--from-literal=a=b"]);
    let path = format!("{CONFIG_MAPS}/patched");
    vec![
        patch(&path, MERGE, "{").bad("error decoding patch: …"),
        patch(&path, STRATEGIC, "nonsense")
            .bad("invalid character 'o' in literal null (expecting 'u')"),
        patch(&path, JSON_PATCH, r#"[{"op":"test","path":"/data/a","value":"c"}]"#).is(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        patch(&path, JSON_PATCH, r#"[{"op":"remove","path":"/data/none"}]"#).is(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        patch(&path, MERGE, r#"{"metadata":{"name":"other"}}"#)
            .bad("the name of the object (other) does not match the name on the URL (patched)"),
        patch(&path, MERGE, r#"{"data":{"a":1}}"#).bad("…"),
        patch(&format!("{CONFIG_MAPS}/nothing"), MERGE, "{}").is(
            404,
            "NotFound",
            "configmaps \"nothing\" not found",
        ),
        patch(&path, MERGE, r#"{"metadata":{"resourceVersion":"1"}}"#).is(
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"patched\": the object has been \
             modified; please apply your changes to the latest version and try again",
        ),
    ]
}

pub(super) fn immutable(cluster: &Cluster) -> Vec<Case> {
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: fixed}
immutable: true
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: typed}
type: example.com/one
stringData: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: addressed}
spec:
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: selecting}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b, c: d}}
    spec: {containers: [{name: c, image: skiff.local/none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: running}
spec:
  nodeSelector: {no: where}
  containers: [{name: c, image: skiff.local/none}]
"#;
    cluster.apply(manifest).expect("what is fixed afterwards");
    vec![
        patch(&format!("{CONFIG_MAPS}/fixed"), MERGE, r#"{"data":{"a":"c"}}"#).invalid(
            "ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` \
             is set",
            &["FieldValueForbidden data"],
        ),
        patch(&format!("{CONFIG_MAPS}/fixed"), MERGE, r#"{"immutable":false}"#).invalid(
            "ConfigMap \"fixed\" is invalid: immutable: Forbidden: field is immutable when \
             `immutable` is set",
            &["FieldValueForbidden immutable"],
        ),
        patch(&format!("{SECRETS}/typed"), MERGE, r#"{"type":"example.com/two"}"#).invalid(
            "Secret \"typed\" is invalid: type: Invalid value: \"example.com/two\": field is \
             immutable",
            &["FieldValueInvalid type"],
        ),
        patch(&format!("{SERVICES}/addressed"), MERGE, r#"{"spec":{"clusterIP":"10.96.9.9"}}"#)
            .invalid(
                "Service \"addressed\" is invalid: spec.clusterIPs[0]: Invalid value: \
             [\"10.96.9.9\"]: may not change once set",
                &["FieldValueInvalid spec.clusterIPs[0]"],
            ),
        patch(
            &format!("{DEPLOYMENTS}/selecting"),
            MERGE,
            r#"{"spec":{"selector":{"matchLabels":{"c":"d"}}}}"#,
        )
        .invalid(
            "Deployment.apps \"selecting\" is invalid: spec.selector: Invalid value: \
             {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable",
            &["FieldValueInvalid spec.selector"],
        ),
        patch(&format!("{PODS}/running"), STRATEGIC, r#"{"spec":{"hostNetwork":true}}"#).invalid(
            "Pod \"running\" is invalid: spec: Forbidden: pod updates may not change fields other \
             than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)\n…",
            &["FieldValueForbidden spec"],
        ),
        patch("/api/v1/namespaces/default", MERGE, r#"{"metadata":{"uid":"other"}}"#).is(
            409,
            "Conflict",
            "Operation cannot be fulfilled on namespaces \"default\": StorageError: invalid object, Code: 4, \
             Key: /registry/namespaces/default, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
             precondition: other, UID in object meta: …",
        ),
    ]
}

pub(super) fn concurrency(cluster: &Cluster) -> Vec<Case> {
    cluster.kubectl(&["create", "configmap", "contended", "--from-literal=a=b"]);
    let path = format!("{CONFIG_MAPS}/contended");
    let stale = super::super::field(cluster, "configmap/contended", "{.metadata.resourceVersion}");
    cluster.kubectl(&["label", "configmap", "contended", "touched=yes"]);
    let conflict = "Operation cannot be fulfilled on configmaps \"contended\": the object has been \
                    modified; please apply your changes to the latest version and try again";
    let with = |version: &str| {
        json!({"metadata": {"name": "contended", "resourceVersion": version}}).to_string()
    };
    let delete = |preconditions: serde_json::Value| Case {
        method: "DELETE",
        ..post(&path, &json!({"preconditions": preconditions}).to_string())
    };
    vec![
        put(&path, &with(&stale)).is(409, "Conflict", conflict),
        put(&path, r#"{"metadata":{"name":"other"}}"#)
            .bad("the name of the object (other) does not match the name on the URL (contended)"),
        put(&format!("{CONFIG_MAPS}/absent"), r#"{"metadata":{"name":"absent"}}"#).is(
            404,
            "NotFound",
            "configmaps \"absent\" not found",
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"new","resourceVersion":"5"}}"#).is(
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        delete(json!({"resourceVersion": stale})).is(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on ConfigMap \"contended\": the ResourceVersion in \
                 the precondition ({stale}) does not match the ResourceVersion in record …"
            ),
        ),
        delete(json!({"uid": "other"})).is(
            409,
            "Conflict",
            "Operation cannot be fulfilled on ConfigMap \"contended\": the UID in the \
             precondition (other) does not match the UID in record …",
        ),
    ]
}
