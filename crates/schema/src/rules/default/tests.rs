//! Defaulting, before and after.

use serde_json::{Value, json};

use crate::rules;

fn defaulted(kind: (&str, &str), object: Value) -> Value {
    let mut object = object;
    let kind = meta::GroupVersionKind::new(kind.0, "v1", kind.1);
    rules::default(&kind, &mut object);
    let once = object.clone();
    rules::default(&kind, &mut object);
    assert_eq!(once, object, "defaulting is idempotent");
    object
}

#[test]
fn pods() {
    let pod = defaulted(
        ("", "Pod"),
        json!({"spec": {"hostNetwork": true, "containers": [{
            "name": "a", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        }], "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}}),
    );
    assert_eq!(
        pod,
        json!({"spec": {
            "hostNetwork": true, "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "a", "image": "nginx:1.27", "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}]
            }],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}]
        }})
    );
}

#[test]
fn latest_images_are_always_pulled() {
    let check = |image, expected| assert_eq!(super::pod::is_latest(image), expected, "{image}");
    check("nginx", true);
    check("nginx:latest", true);
    check("localhost:5000/nginx", true);
    check("localhost:5000/nginx:1", false);
    check("nginx@sha256:aa", false);
    check("nginx:latest@sha256:aa", true);
}

#[test]
fn deployments() {
    let deployment = defaulted(
        ("apps", "Deployment"),
        json!({"spec": {"template": {"spec": {"containers": []}}}}),
    );
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(deployment["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert!(deployment["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
}

#[test]
fn services_and_secrets() {
    let service =
        defaulted(("", "Service"), json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
    assert_eq!(
        service["spec"],
        json!({"type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    let secret =
        defaulted(("", "Secret"), json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}}));
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}}));
    let namespace = defaulted(("", "Namespace"), json!({"metadata": {"name": "a"}}));
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    let map = defaulted(("", "ConfigMap"), json!({"metadata": {"name": "a"}}));
    assert_eq!(map, json!({"metadata": {"name": "a"}}));
}
