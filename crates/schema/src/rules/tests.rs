//! Rules of the other kinds: object in, errors out.

use meta::GroupVersionKind;
use serde_json::{Value, json};

use super::*;

fn kind(api_version: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::from_api_version(api_version, kind).expect("an api version")
}

fn said(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(kind: &GroupVersionKind, object: Value, expected: &[&str]) {
    let mut object = object;
    default(kind, &mut object);
    assert_eq!(said(&validate(kind, &object)), expected);
}

#[track_caller]
fn check_update(kind: &GroupVersionKind, old: Value, new: Value, expected: &[&str]) {
    let (mut old, mut new) = (old, new);
    default(kind, &mut old);
    default(kind, &mut new);
    assert_eq!(said(&validate_update(kind, &new, &old)), expected);
}

fn template(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn deployment(change: &Value) -> Value {
    let mut object = json!({"spec": {
        "selector": {"matchLabels": {"app": "a"}}, "template": template(json!({"app": "a"}))}});
    crate::patch::merge_patch(&mut object["spec"], change);
    object
}

#[test]
fn deployments() {
    let of = kind("apps/v1", "Deployment");
    check(&of, deployment(&json!({})), &[]);
    check(
        &of,
        deployment(&json!({"selector": null})),
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        &of,
        deployment(&json!({"replicas": -1, "selector": {"matchLabels": {"app": "b"}}})),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        &of,
        deployment(
            &json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}),
        ),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ],
    );
    check(
        &of,
        deployment(&json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}})),
        &[
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ],
    );
    check(
        &of,
        deployment(&json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5})),
        &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
    );
    check(
        &of,
        deployment(&json!({"template": {"spec": {"restartPolicy": "Never"}}})),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    check_update(
        &of,
        deployment(&json!({})),
        deployment(
            &json!({"selector": {"matchLabels": {"app": "b"}}, "template": template(json!({"app": "b"}))}),
        ),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"],
    );
}

#[test]
fn stateful_and_daemon_sets() {
    let of = kind("apps/v1", "StatefulSet");
    let set = json!({"spec": {"serviceName": "s", "selector": {"matchLabels": {"app": "a"}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}}}});
    check(&of, set.clone(), &[]);
    let mut renamed = set.clone();
    renamed["spec"]["serviceName"] = json!("t");
    check_update(
        &of,
        set,
        renamed,
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
           'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
           forbidden",
        ],
    );
    let of = kind("apps/v1", "DaemonSet");
    check(&of, deployment(&json!({})), &[]);
    check(
        &of,
        deployment(&json!({"selector": {"matchLabels": null}})),
        &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
    );
}

fn service(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn services() {
    let of = kind("v1", "Service");
    check(&of, service(json!({"ports": [{"port": 80}]})), &[]);
    check(&of, service(json!({"clusterIP": "None", "clusterIPs": ["None"]})), &[]);
    check(&of, service(json!({})), &["spec.ports: Required value"]);
    check(
        &of,
        service(json!({"ports": [{"port": 80}, {"port": 81, "name": "A", "nodePort": 30000}]})),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
             or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
    check(
        &of,
        service(json!({"type": "Strange", "ports": [{"port": 0, "protocol": "ICMP"}]})),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.type: Unsupported value: \"Strange\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        &of,
        service(
            json!({"type": "ExternalName", "clusterIPs": ["10.0.0.1"], "clusterIP": "10.0.0.1"}),
        ),
        &[
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.externalName: Required value",
        ],
    );
    let with =
        |ip: &str| service(json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}));
    check_update(
        &of,
        with("10.96.0.1"),
        with("10.96.0.2"),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"],
    );
}

#[test]
fn endpoint_slices() {
    let of = kind("discovery.k8s.io/v1", "EndpointSlice");
    check(
        &of,
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        &[],
    );
    check(
        &of,
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}, {"addresses": []}]}),
        &[
            "endpoints[0].addresses: Invalid value: \"::1\": must be an IPv4 address",
            "endpoints[0].addresses[0]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "endpoints[1].addresses: Required value: must contain at least 1 address",
        ],
    );
    check_update(
        &of,
        json!({"addressType": "IPv4"}),
        json!({"addressType": "IPv6"}),
        &["addressType: Invalid value: \"IPv6\": field is immutable"],
    );
}

#[test]
fn config_maps_and_secrets() {
    let of = kind("v1", "ConfigMap");
    check(
        &of,
        json!({"data": {"a/b": "1", "c": "2"}, "binaryData": {"c": "eA=="}}),
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or \
             '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            "data[c]: Invalid value: \"c\": duplicate of key present in binaryData",
        ],
    );
    check(
        &of,
        json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    check_update(
        &of,
        json!({"immutable": true, "data": {"a": "1"}}),
        json!({"immutable": true, "data": {"a": "2"}}),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    let of = kind("v1", "Secret");
    check(
        &of,
        json!({"type": "kubernetes.io/tls"}),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    check_update(
        &of,
        json!({"type": "Opaque"}),
        json!({"type": "custom"}),
        &["type: Invalid value: \"custom\": field is immutable"],
    );
}

#[test]
fn nodes_priorities_and_leases() {
    check(
        &kind("v1", "Node"),
        json!({"spec": {"taints": [{"key": "k", "effect": "Never"}]}}),
        &[
            "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \
           \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    check(
        &kind("scheduling.k8s.io/v1", "PriorityClass"),
        json!({"metadata": {"name": "high"}, "value": 2_000_000_000}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    check(
        &kind("coordination.k8s.io/v1", "Lease"),
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
}

#[test]
fn events() {
    check(
        &kind("v1", "Event"),
        json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
        &["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"],
    );
}

#[test]
fn kinds_without_rules_of_their_own() {
    check(&kind("storage.k8s.io/v1", "StorageClass"), json!({}), &["provisioner: Required value"]);
    check(&kind("node.k8s.io/v1", "RuntimeClass"), json!({"handler": "runc"}), &[]);
    check(&kind("example.com/v1", "Thing"), json!({}), &[]);
}

#[test]
fn jobs() {
    let of = kind("batch/v1", "Job");
    let job = |policy: &str| {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": template(json!({}))}});
        job["spec"]["template"]["spec"]["restartPolicy"] = json!(policy);
        assert_eq!(prepare_create(&of, &mut job), Vec::<String>::new());
        job
    };
    check(&of, job("Never"), &[]);
    assert_eq!(job("Never")["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    check(
        &of,
        job("Always"),
        &[
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    );
    let mut other = job("Never");
    other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    let errors = {
        let (mut old, mut new) = (job("Never"), other);
        default(&of, &mut old);
        default(&of, &mut new);
        said(&validate_update(&of, &new, &old))
    };
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with("spec.template: Invalid value: ")
            && errors[0].ends_with("field is immutable")
    );
}

#[test]
fn ingresses_and_policies() {
    let path =
        |path: Value| json!({"spec": {"rules": [{"host": "a.b", "http": {"paths": [path]}}]}});
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let of = kind("networking.k8s.io/v1", "Ingress");
    check(&of, path(json!({"path": "/", "pathType": "Prefix", "backend": backend})), &[]);
    check(
        &of,
        path(json!({"path": "x", "pathType": "Exact", "backend": {"service": {"name": "s"}}})),
        &[
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
        ],
    );
    let of = kind("networking.k8s.io/v1", "NetworkPolicy");
    check(
        &of,
        json!({"spec": {"podSelector": {}, "policyTypes": ["Both"],
            "ingress": [{"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
        &[
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\"",
        ],
    );
}

#[test]
fn claims_budgets_and_autoscalers() {
    let claim = |size: &str| json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let of = kind("v1", "PersistentVolumeClaim");
    check(&of, claim("1Gi"), &[]);
    check(
        &of,
        json!({"spec": {}}),
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    );
    check_update(
        &of,
        claim("1Gi"),
        claim("2Gi"),
        &["spec: Forbidden: spec is immutable after creation except resources.requests and \
           volumeAttributesClassName for bound claims\n- resources.requests.storage: \"1Gi\"\n+ resources.requests.storage: \"2Gi\"\n"],
    );
    check(
        &kind("policy/v1", "PodDisruptionBudget"),
        json!({"spec": {"minAvailable": "120%"}}),
        &["spec.minAvailable: Invalid value: \"120%\": must not be greater than 100%"],
    );
    check(
        &kind("autoscaling/v2", "HorizontalPodAutoscaler"),
        json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 3, "maxReplicas": 2}}),
        &["spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"],
    );
}

#[test]
fn fields_that_stay() {
    check_update(
        &kind("storage.k8s.io/v1", "StorageClass"),
        json!({"provisioner": "a"}),
        json!({"provisioner": "b"}),
        &["provisioner: Invalid value: \"b\": field is immutable"],
    );
    check(
        &kind("storage.k8s.io/v1", "StorageClass"),
        json!({"provisioner": "a", "reclaimPolicy": "Keep"}),
        &["reclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\""],
    );
}

#[test]
fn names_depend_on_the_kind() {
    assert!(check_name(&kind("v1", "Service"), "1a", false).is_empty());
    assert!(!check_name(&kind("v1", "Namespace"), "a.b", false).is_empty());
    assert!(check_name(&kind("v1", "Pod"), "a.b", false).is_empty());
    assert!(
        check_name(&kind("rbac.authorization.k8s.io/v1", "Role"), "system:x", false).is_empty()
    );
    assert!(check_name(&kind("v1", "Pod"), "a-", true).is_empty());
    assert!(!check_name(&kind("v1", "Pod"), "a-", false).is_empty());
}
