use serde_json::json;

use super::*;

fn said(group: &str, kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    of(
        &GroupVersionKind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
        },
        object,
        old,
    )
}

#[track_caller]
fn check(group: &str, kind: &str, object: Value, expected: &[&str]) {
    let mut object = object;
    object["metadata"]["name"] = json!("a");
    assert_eq!(said(group, kind, &object, None), expected);
}

#[test]
fn pods_are_warned_of_once_when_they_are_made() {
    let pod = json!({
        "metadata": {"name": "a.b", "annotations": {"security.alpha.kubernetes.io/sysctls": "a=b"}},
        "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}],
            "volumes": [
                {"name": "v", "gitRepo": {}},
                {"name": "w", "projected": {"sources": [
                    {"configMap": {"name": "m", "items": [{"path": "x/"}, {"path": "y"}]}},
                    {"secret": {"name": "s", "items": [{"path": "x/z"}]}},
                    {}]}}],
            "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}, {"ip": "01.2.3.4"}],
            "imagePullSecrets": [{}],
            "containers": [{
                "name": "c",
                "resources": {"limits": {"memory": "1500m"}},
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}],
                "ports": [
                    {"containerPort": 80, "protocol": "TCP", "name": "p"},
                    {"containerPort": 80, "protocol": "TCP", "name": "p"},
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 1},
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 1, "hostIP": "::0"}]}],
            "terminationGracePeriodSeconds": -1,
        },
    });
    let expected = [
        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
         recommended: [must not contain dots]",
        "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since \
         v1.17; use \"topology.kubernetes.io/zone\" instead",
        "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        "metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the \"sysctls\" \
         field instead",
        "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
        "volume \"w\" (Projected): overlapping paths: \"x/z\" (Secret \"s\") with \"x\" (ConfigMap \"m\")",
        "volume \"w\" (Projected) has no sources provided",
        "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
        "spec.imagePullSecrets[0].name: invalid empty name \"\"",
        "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
        "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
        "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
        "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
        "spec.containers[0].ports[3]: overlapping port definition with spec.containers[0].ports[0]",
        "spec.containers[0].ports[3]: overlapping port definition with spec.containers[0].ports[1]",
        "spec.containers[0].ports[3]: dangerously ambiguous port definition with spec.containers[0].ports[2]",
        "spec.containers[0].ports[1]: duplicate port name \"p\" with spec.containers[0].ports[0], services and probes \
         that select ports by name will use spec.containers[0].ports[0]",
        "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        "spec.hostAliases[2].ip: non-standard IP address \"01.2.3.4\" is invalid: use \"1.2.3.4\"",
    ];
    assert_eq!(said("", "Pod", &pod, None), expected);
    assert_eq!(said("", "Pod", &pod, Some(&pod)), Vec::<String>::new());
}

#[test]
fn templates_are_warned_of_when_they_change() {
    let deployment = |generation: i64, name: &str| {
        json!({
            "metadata": {"name": "a.b", "generation": generation},
            "spec": {"template": {"spec": {"imagePullSecrets": [{"name": name}]}}},
        })
    };
    let text = "spec.template.spec.imagePullSecrets[0].name: invalid empty name \"\"";
    let (one, two) = (deployment(1, ""), deployment(2, ""));
    assert_eq!(said("apps", "Deployment", &one, None).len(), 2);
    assert_eq!(said("apps", "Deployment", &one, Some(&one)), Vec::<String>::new());
    assert_eq!(said("apps", "Deployment", &two, Some(&one)), [text]);
    let fine = deployment(2, "x");
    assert_eq!(said("", "ReplicationController", &fine, Some(&one)), [text]);
}

#[test]
fn addresses() {
    let service = |ip: &str, range: &str| json!({"spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "loadBalancerSourceRanges": [range]}});
    let check = |ip: &str, range: &str| said("", "Service", &service(ip, range), None);
    assert_eq!(check("10.0.0.1", "10.0.0.0/8"), Vec::<String>::new());
    assert_eq!(
        check("::ffff:10.0.0.1", "10.0.0.1/8"),
        [
            "spec.clusterIPs[0]: non-standard IP address \"::ffff:10.0.0.1\" is invalid: use \"10.0.0.1\"",
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \
             \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
        ]
    );
    assert_eq!(
        check("FD00::1", "fd00:0::/64"),
        [
            "spec.clusterIPs[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            "spec.loadBalancerSourceRanges[0]: IPv6 CIDR value \"fd00:0::/64\" should be in RFC 5952 canonical format \
             (\"fd00::/64\")",
        ]
    );
}

#[test]
fn other_kinds() {
    let quota = json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1"}}});
    assert_eq!(
        said("", "ResourceQuota", &quota, None),
        ["ResourceQuota cpu (2) should be less than limits.cpu (1)"]
    );
    let job = json!({"metadata": {"name": "a"}, "spec": {"schedule": "TZ=UTC * * * * *"}});
    assert_eq!(said("batch", "CronJob", &job, Some(&job)), [ZONE_IN_SCHEDULE]);
    let volume =
        json!({"spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}, "cephfs": {}}});
    let warnings = said("", "PersistentVolume", &volume, None);
    assert!(warnings[1].starts_with("spec.cephfs: ") && warnings[2].starts_with("spec.rbd: "));
    assert_eq!(warnings.len(), 3);
}

#[test]
fn other_groups() {
    let policy = json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}});
    let warned = said("networking.k8s.io", "NetworkPolicy", &policy, None);
    assert!(warned[0].starts_with("spec.egress[0].to[0].ipBlock.cidr: CIDR value"), "{warned:?}");
    let ingress =
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {}});
    assert_eq!(said("networking.k8s.io", "Ingress", &ingress, None).len(), 1);
    assert_eq!(said("networking.k8s.io", "Ingress", &ingress, Some(&ingress)).len(), 0);
    let slice = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]});
    assert_eq!(
        said("discovery.k8s.io", "EndpointSlice", &slice, None),
        ["spec.addressType: FQDN endpoints are deprecated"]
    );
}

#[test]
fn many_ports_are_no_work() {
    let ports: Vec<Value> =
        (0..30_000).map(|_| json!({"containerPort": 1, "protocol": "TCP"})).collect();
    let pod =
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
    assert!(said("", "Pod", &pod, None).len() <= MOST);
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
        json!({"metadata": {"annotations": {STORAGE_CLASS: "x"}}, "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}}}),
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
