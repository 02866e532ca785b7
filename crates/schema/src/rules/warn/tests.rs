//! Objects, and what is said about them.

use serde_json::json;

use super::*;

#[track_caller]
fn check(group: &str, kind: &str, object: Value, expected: &[&str]) {
    let kind = GroupVersionKind::new(group, "v1", kind);
    assert_eq!(warnings(&kind, &object, None), expected);
}

#[test]
fn tables_are_sorted() {
    assert!(OLD_LABELS.is_sorted_by_key(|(label, _)| *label));
}

#[test]
fn pods() {
    check("", "Pod", json!({"spec": {"containers": [{"name": "a", "image": "b"}]}}), &[]);
    check(
        "",
        "Pod",
        json!({
            "metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}},
            "spec": {
                "nodeSelector": {"beta.kubernetes.io/os": "linux"},
                "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}],
                "volumes": [{"name": "a", "gitRepo": {}}, {"name": "b", "storageos": {}}],
                "imagePullSecrets": [{"name": "x"}, {"name": "x"}, {}],
                "terminationGracePeriodSeconds": -1,
                "hostAliases": [{"ip": "::FF"}, {"ip": "010.0.0.1"}],
                "containers": [{
                    "name": "c", "resources": {"limits": {"memory": "1500m"}},
                    "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP", "name": "w"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 8080, "name": "w"}, {"containerPort": 81, "hostIP": "10.0.0.1"}],
                }],
            },
        }),
        &[
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+",
            "spec.imagePullSecrets[1].name: duplicate name \"x\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:81 Protocol: HostIP:10.0.0.1}",
            "spec.containers[0].ports[1]: duplicate port name \"w\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            "spec.hostAliases[0].ip: IPv6 address \"::FF\" should be in RFC 5952 canonical format (\"::ff\")",
            "spec.hostAliases[1].ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
        ],
    );
}

#[test]
fn templates_are_looked_at_when_something_changed() {
    let kind = GroupVersionKind::new("apps", "v1", "Deployment");
    let object = |generation: i64| json!({"metadata": {"name": "a.b", "generation": generation}, "spec": {"template": {"spec": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}}}}});
    let old = "spec.template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" instead";
    let created = warnings(&kind, &object(1), None);
    assert!(created[0].starts_with(HOSTNAME), "{created:?}");
    assert_eq!(created[1], old);
    assert_eq!(warnings(&kind, &object(2), Some(&object(1))), [old]);
    assert!(warnings(&kind, &object(1), Some(&object(1))).is_empty());
}

#[test]
fn services_and_others() {
    check(
        "",
        "Service",
        json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "sessionAffinity": "None", "externalIPs": ["1.2.3.4"], "trafficDistribution": "PreferClose", "loadBalancerSourceRanges": ["10.1.2.3/8"]}}),
        &[
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.1.2.3/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.2.3/32\"?)",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ],
    );
    check(
        "",
        "PersistentVolume",
        json!({"metadata": {"annotations": {OLD_CLASS: "x"}}, "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}}}),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ],
    );
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}),
        &[
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
        ],
    );
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "::FF00/120", "except": ["10.0.0.0/99"]}}]}]}}),
        &[
            "spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"::FF00/120\" should be in RFC 5952 canonical format (\"::ff00/120\")",
        ],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["01.2.3.4"]}]}),
        &[
            "endpoints[0].addresses[0]: non-standard IP address \"01.2.3.4\" is invalid: use \"1.2.3.4\"",
        ],
    );
}
