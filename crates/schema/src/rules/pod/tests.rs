//! Pods: what is wrong with them, as upstream words it.

use meta::GroupVersionKind;
use serde_json::{Value, json};

use crate::patch::merge_patch;
use crate::rules;

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

/// A pod that is in order, changed by a merge patch and defaulted.
fn pod(patch: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    });
    merge_patch(&mut pod, patch);
    rules::default(&kind(), &mut pod);
    pod
}

fn said(errors: &[meta::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    assert_eq!(said(&rules::validate(&kind(), &pod(&patch))), expected);
}

/// Checks a pod with one container.
#[track_caller]
fn check_container(container: Value, expected: &[&str]) {
    let mut whole = json!({"name": "c", "image": "i"});
    merge_patch(&mut whole, &container);
    check(json!({"spec": {"containers": [whole]}}), expected);
}

#[track_caller]
fn check_update(old: Value, new: Value, expected: &[&str]) {
    let (old, new) = (pod(&old), pod(&new));
    assert_eq!(said(&rules::validate_update(&kind(), &new, &old)), expected);
}

#[test]
fn pods_in_order() {
    check(json!({}), &[]);
    check(
        json!({"spec": {
            "initContainers": [{"name": "i", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always",
                "readinessProbe": {"tcpSocket": {"port": 80}}}],
            "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "env": [{"name": "A", "value": "1"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}],
                "resources": {"limits": {"cpu": "1", "example.com/gpu": "1"}, "requests": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"port": "http"}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}],
            "serviceAccountName": "default",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
        }}),
        &[],
    );
}

#[test]
fn containers() {
    check(json!({"spec": {"containers": null}}), &["spec.containers: Required value"]);
    check_container(
        json!({"name": "C", "image": null}),
        &[
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
             or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[0].image: Required value",
        ],
    );
    check(
        json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": " i"}]}}),
        &[
            "spec.containers[1].name: Duplicate value: \"c\"",
            "spec.containers[1].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        ],
    );
    check_container(
        json!({"imagePullPolicy": "Sometimes"}),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
           \"IfNotPresent\", \"Never\"",
        ],
    );
    check_container(
        json!({"ports": [{"containerPort": 0}, {"containerPort": 70000, "name": "a"}, {"containerPort": 1, "name": "a"}]}),
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[2].name: Duplicate value: \"a\"",
        ],
    );
}

#[test]
fn environment() {
    check_container(
        json!({"env": [
            {"value": "x"},
            {"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostNetwork"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}},
        ]}),
        &[
            "spec.containers[0].env[0].name: Required value",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.hostNetwork\": error \
             converting fieldPath: field label not supported: spec.hostNetwork",
            "spec.containers[0].env[3].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported \
             values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
             \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ],
    );
    check_container(
        json!({"envFrom": [{"prefix": "P"}]}),
        &[
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ],
    );
}

#[test]
fn probes_and_hooks() {
    check_container(
        json!({
            "livenessProbe": {"successThreshold": 2, "exec": {"command": ["a"]}},
            "readinessProbe": {"terminationGracePeriodSeconds": 1, "httpGet": {"port": 0}},
            "startupProbe": {"periodSeconds": -1}
        }),
        &[
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for \
             readinessProbes",
            "spec.containers[0].startupProbe: Required value: must specify a handler type",
            "spec.containers[0].startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        json!({"spec": {"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"grpc": {"port": 1}}}]}}),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
           restartPolicy=Always",
        ],
    );
}

#[test]
fn volumes_and_mounts() {
    check(
        json!({"spec": {
            "volumes": [
                {"name": "a", "secret": {}},
                {"name": "b", "emptyDir": {}, "hostPath": {"path": "/x"}},
                {"name": "c", "hostPath": {"path": "/a/../b", "type": "Strange"}}
            ],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [
                {"name": "z", "mountPath": "/a"}, {"name": "z", "mountPath": "/a", "subPath": "/abs"}]}]
        }}),
        &[
            "spec.volumes[0].secret.secretName: Required value",
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[2].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.volumes[2].hostPath.type: Unsupported value: \"Strange\": supported values: \"\", \"BlockDevice\", \
             \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
            "spec.containers[0].volumeMounts[0].name: Not found: \"z\"",
            "spec.containers[0].volumeMounts[1].name: Not found: \"z\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/abs\": must be a relative path",
        ],
    );
}

#[test]
fn resources() {
    let [not_standard, not_for_containers] = [
        "must be a standard resource type or fully qualified",
        "must be a standard resource for containers",
    ];
    let at = |list: &str, name: &str, text: &str| {
        format!("spec.containers[0].resources.{list}[{name}]: Invalid value: {text}")
    };
    let expected = [
        at("limits", "gpu", &format!("\"gpu\": {not_standard}")),
        at("limits", "gpu", &format!("\"gpu\": {not_for_containers}")),
        "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
            .to_owned(),
        at("requests", "gpu", &format!("\"gpu\": {not_standard}")),
        at("requests", "gpu", &format!("\"gpu\": {not_for_containers}")),
        at("requests", "memory", "\"-1\": must be greater than or equal to 0"),
    ];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check_container(
        json!({"resources": {"limits": {"cpu": "1", "gpu": "1"}, "requests": {"cpu": "2", "memory": "-1"}}}),
        &expected,
    );
}

#[test]
fn policies_and_names() {
    check(
        json!({"spec": {"restartPolicy": "Maybe", "dnsPolicy": "None", "hostname": "A"}}),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            "spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric \
             characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
             regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}], "activeDeadlineSeconds": 0}}),
        &[
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ],
    );
    check(
        json!({"spec": {"securityContext": {"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}}}),
        &[
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is \
             Localhost",
        ],
    );
}

#[test]
fn scheduling() {
    check(
        json!({"spec": {
            "tolerations": [{"operator": "Equal", "value": "x"}, {"key": "k", "operator": "Exists", "value": "x"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "In"}]}]}},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}},
            "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "Never"}]
        }}),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
             .matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: \
             must be in the range 1-100",
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\"",
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which \
             means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
        ],
    );
}

#[test]
fn updates() {
    let image = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    check_update(image("a"), image("b"), &[]);
    let two =
        json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}});
    check_update(
        json!({}),
        two,
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    let toleration = json!({"key": "k", "operator": "Exists"});
    check_update(json!({}), json!({"spec": {"tolerations": [toleration]}}), &[]);
    check_update(
        json!({"spec": {"tolerations": [toleration]}}),
        json!({}),
        &[
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ],
    );
    let (old, new) = (pod(&json!({})), pod(&json!({"spec": {"hostNetwork": true}})));
    let errors = said(&rules::validate_update(&kind(), &new, &old));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
         `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
         tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
    ));
    assert!(errors[0].ends_with("\n+ hostNetwork: true\n"), "{}", errors[0]);
    check_update(
        json!({"spec": {"activeDeadlineSeconds": 5}}),
        json!({"spec": {"activeDeadlineSeconds": 6}}),
        &[
            "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value",
        ],
    );
}

#[test]
fn gated_pods_may_become_choosier() {
    let gated = |selector: Value| json!({"spec": {"schedulingGates": [{"name": "g"}], "nodeSelector": selector}});
    check_update(gated(json!({"a": "1"})), gated(json!({"a": "1", "b": "2"})), &[]);
    check_update(
        gated(json!({"a": "1"})),
        gated(json!({"b": "2"})),
        &[
            "spec.nodeSelector: Invalid value: {\"b\":\"2\"}: only additions to spec.nodeSelector are allowed (no \
           mutations or deletions)",
        ],
    );
}

#[test]
fn status_updates() {
    let with =
        |status: Value, policy: &str| json!({"spec": {"restartPolicy": policy}, "status": status});
    let ended =
        json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]});
    let running = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
    let check = |policy: &str, expected: &[&str]| {
        let (old, new) = (pod(&with(ended.clone(), policy)), pod(&with(running.clone(), policy)));
        assert_eq!(said(&rules::validate_status(&kind(), &new, &old)), expected);
    };
    check("Always", &[]);
    let refused = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
    check("OnFailure", &[refused]);
    check("Never", &[refused]);
}

/// Thousands of ports, variables, mounts and volumes take no time that grows with their square.
#[test]
fn large_pods() {
    const MANY: usize = 20_000;
    let list = |make: fn(usize) -> Value| (0..MANY).map(make).collect::<Vec<Value>>();
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {
        "volumes": list(|n| json!({"name": format!("v{n}"), "emptyDir": {}})),
        "tolerations": list(|n| json!({"key": format!("k{n}"), "operator": "Exists"})),
        "containers": [{
            "name": "c",
            "image": "i",
            "ports": list(|n| json!({"containerPort": 1 + n, "hostPort": 1 + n, "name": format!("p{n}")})),
            "env": list(|n| json!({"name": format!("E{n}"), "value": "x"})),
            "volumeMounts": list(|n| json!({"name": format!("v{n}"), "mountPath": format!("/v{n}")})),
        }],
    }});
    let kind = GroupVersionKind::new("", "v1", "Pod");
    let begin = std::time::Instant::now();
    rules::default(&kind, &mut pod);
    let errors = rules::validate(&kind, &pod);
    assert_eq!(errors.first().map(ToString::to_string), None);
    assert_eq!(rules::validate_update(&kind, &pod, &pod), []);
    assert_eq!(rules::warnings(&kind, &pod, None), Vec::<String>::new());
    // A walk over the square of any of these lists takes minutes in a build without optimizations.
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
