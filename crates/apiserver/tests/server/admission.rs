//! Admission through the server: quotas that clients race for, pod security with its warnings, limits, classes,
//! and the plugins that are asked on demand.

use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use skiff_apiserver::{
    AdmissionOptions, ApiServerOptions,
    audit::{AuditOptions, LogOptions},
};

use crate::support::{Answer, Client, Cluster, until};

const DEFAULT: &str = "/api/v1/namespaces/default";
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

/// A quota that was counted already.
async fn quota(admin: &Client<'_>, name: &str, hard: Value, used: Value) {
    let object = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
        "spec": {"hard": hard}});
    assert_eq!(admin.post(&format!("{DEFAULT}/resourcequotas"), &object).await.code, 201);
    let status = json!({"status": {"hard": hard, "used": used}});
    let path = format!("{DEFAULT}/resourcequotas/{name}/status");
    let counted = admin.call(Method::PATCH, &path, &MERGE, status.to_string()).await;
    assert_eq!(counted.code, 200, "{}", counted.text());
}

async fn used(admin: &Client<'_>, name: &str) -> Value {
    admin.get(&format!("{DEFAULT}/resourcequotas/{name}")).await.json()["status"]["used"].clone()
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|value| value.to_str().expect("text").to_owned()).collect()
}

/// Creates an account for the namespace's pods, which no controller does here.
async fn account(admin: &Client<'_>, namespace: &str) {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let made =
        admin.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account).await;
    assert_eq!(made.code, 201, "{}", made.text());
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().expect("object") {
        pod["spec"][key] = value.clone();
    }
    pod
}

async fn start_with(admission: AdmissionOptions) -> Cluster {
    let advertise = "192.0.2.1:6443".parse().expect("address");
    Cluster::start_with(ApiServerOptions { advertise, admission, ..ApiServerOptions::default() })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_the_last_unit_twice() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let hard = json!({"count/configmaps": "5", "configmaps": "7"});
    quota(&admin, "q", hard, json!({"count/configmaps": "0", "configmaps": "0"})).await;
    let path = format!("{DEFAULT}/configmaps");
    let answers = join_all((0..24).map(|number| {
        let (admin, path) = (&admin, &path);
        // Half of them leave the name to the server.
        let object = if number % 2 == 0 {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}})
        } else {
            config_map(&format!("n{number}"))
        };
        async move { admin.post(path, &object).await }
    }))
    .await;
    let made = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(made, 5);
    for refused in answers.iter().filter(|answer| answer.code != 201) {
        assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.text());
        assert!(
            refused.message().contains(
                "is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=5, limited: count/configmaps=5"
            ),
            "{}",
            refused.message()
        );
    }
    assert_eq!(used(&admin, "q").await, json!({"count/configmaps": "5", "configmaps": "5"}));
    let there = admin.get(&path).await.json()["items"].as_array().expect("list").len();
    assert_eq!(there, 5);
}

#[tokio::test]
async fn what_is_not_stored_is_not_charged() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    quota(&admin, "q", json!({"configmaps": "3"}), json!({"configmaps": "0"})).await;
    let path = format!("{DEFAULT}/configmaps");
    assert_eq!(admin.post(&path, &config_map("a")).await.code, 201);
    assert_eq!(admin.post(&path, &config_map("a")).await.code, 409, "it is there already");
    assert_eq!(admin.post(&path, &config_map("Not_Valid")).await.code, 422);
    assert_eq!(admin.post(&format!("{path}?dryRun=All"), &config_map("b")).await.code, 201);
    assert_eq!(used(&admin, "q").await, json!({"configmaps": "1"}));
    assert_eq!(admin.delete(&format!("{path}/a")).await.code, 200);
    assert_eq!(used(&admin, "q").await, json!({"configmaps": "1"}), "a controller counts anew");
    // What is not counted yet is not guessed.
    quota(&admin, "new", json!({"configmaps": "9", "secrets": "9"}), json!({"secrets": "0"})).await;
    let refused = admin.post(&path, &config_map("c")).await;
    assert!(
        refused.message().ends_with("status unknown for quota: new, resources: configmaps"),
        "{}",
        refused.message()
    );
    assert_eq!(
        used(&admin, "q").await,
        json!({"configmaps": "1"}),
        "one quota's refusal charges no other"
    );
}

#[tokio::test]
async fn changes_are_charged_by_what_they_add() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let hard = json!({"services": "5", "services.nodeports": "2"});
    quota(&admin, "q", hard, json!({"services": "0", "services.nodeports": "0"})).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    let path = format!("{DEFAULT}/services");
    assert_eq!(admin.post(&path, &service).await.code, 201);
    assert_eq!(used(&admin, "q").await, json!({"services": "1", "services.nodeports": "0"}));
    let open = json!({"spec": {"type": "NodePort"}}).to_string();
    let changed = admin.call(Method::PATCH, &format!("{path}/s"), &MERGE, open).await;
    assert_eq!(changed.code, 200, "{}", changed.text());
    assert_eq!(used(&admin, "q").await, json!({"services": "1", "services.nodeports": "2"}));
    let more = json!({"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}, {"name": "c", "port": 3}]}});
    let refused = admin.call(Method::PATCH, &format!("{path}/s"), &MERGE, more.to_string()).await;
    assert_eq!(
        refused.message(),
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=2, limited: services.nodeports=2"
    );
    let label = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    assert_eq!(admin.call(Method::PATCH, &format!("{path}/s"), &MERGE, label).await.code, 200);
    assert_eq!(used(&admin, "q").await, json!({"services": "1", "services.nodeports": "2"}));
}

#[tokio::test]
async fn a_namespaces_level_is_enforced_warned_of_and_compared() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin, "default").await;
    let (pods, namespaces) = (format!("{DEFAULT}/pods"), "/api/v1/namespaces");
    let shared =
        admin.post(&pods, &pod("shared", json!({"hostNetwork": true, "hostPID": true}))).await;
    assert_eq!(
        (shared.code, warnings(&shared)),
        (StatusCode::CREATED, vec![]),
        "{}",
        shared.text()
    );
    admin.post(&pods, &pod("another", json!({"hostNetwork": true, "hostPID": true}))).await;

    let label = |labels: Value| json!({"metadata": {"labels": labels}}).to_string();
    let path = format!("{namespaces}/default");
    let labels = label(json!({"pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/warn-version": "v1.7"}));
    let labelled = admin.call(Method::PATCH, &path, &MERGE, labels).await;
    assert_eq!(labelled.code, 200, "{}", labelled.text());
    assert_eq!(
        warnings(&labelled),
        [
            r#"299 - "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"""#,
            r#"299 - "another (and 1 other pod): host namespaces""#,
        ]
    );

    let refused = admin.post(&pods, &pod("again", json!({"hostNetwork": true}))).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "pods \"again\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let warned = "299 - \"would violate PodSecurity \\\"restricted:v1.7\\\": runAsNonRoot != true (pod or container \\\"c\\\" must set securityContext.runAsNonRoot=true)\"";
    let modest = admin.post(&pods, &pod("modest", json!({}))).await;
    assert_eq!((modest.code, warnings(&modest)), (StatusCode::CREATED, vec![warned.to_owned()]));
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostPID": true, "containers": [{"name": "c", "image": "i"}]}}}});
    let workload = admin.post("/apis/apps/v1/namespaces/default/replicasets", &set).await;
    assert_eq!(workload.code, StatusCode::CREATED, "workloads are warned of, not refused");
    assert!(
        warnings(&workload)[0].contains("host namespaces (hostPID=true), runAsNonRoot"),
        "{:?}",
        warnings(&workload)
    );

    let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}}).to_string();
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let refused = admin.call(Method::PATCH, &format!("{pods}/shared"), &strategic, image).await;
    assert_eq!(
        refused.code,
        StatusCode::FORBIDDEN,
        "another image is another pod: {}",
        refused.text()
    );
    let kept = label(json!({"x": "y"}));
    assert_eq!(admin.call(Method::PATCH, &format!("{pods}/shared"), &MERGE, kept).await.code, 200);

    let wrong = label(json!({"pod-security.kubernetes.io/enforce": "strict"}));
    let refused = admin.call(Method::PATCH, &path, &MERGE, wrong).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.message(),
        "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
    let fresh = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n",
        "labels": {"pod-security.kubernetes.io/warn-version": "1.2"}}});
    assert_eq!(admin.post(namespaces, &fresh).await.code, 422);
}

#[tokio::test]
async fn exemptions_and_defaults_come_from_the_configuration() {
    let configuration = json!({"defaults": {"enforce": "baseline"},
        "exemptions": {"namespaces": ["free"], "usernames": ["root"], "runtimeClasses": []}});
    let plugins = [("PodSecurity".to_owned(), configuration)].into();
    let cluster = start_with(AdmissionOptions { plugins, ..AdmissionOptions::default() }).await;
    let (admin, root) = (cluster.admin(), cluster.user("root", &["system:masters"]));
    let free = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free",
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let made = admin.post("/api/v1/namespaces", &free).await;
    assert_eq!(
        warnings(&made),
        [
            r#"299 - "namespace \"free\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored""#
        ]
    );
    account(&admin, "free").await;
    account(&admin, "default").await;
    let shared = pod("shared", json!({"hostNetwork": true}));
    assert_eq!(admin.post(&format!("{DEFAULT}/pods"), &shared).await.code, 403);
    assert_eq!(admin.post("/api/v1/namespaces/free/pods", &shared).await.code, 201);
    assert_eq!(root.post(&format!("{DEFAULT}/pods"), &shared).await.code, 201);
}

#[tokio::test]
async fn pods_get_what_their_namespace_class_and_node_say() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin, "default").await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    assert_eq!(admin.post(&format!("{DEFAULT}/limitranges"), &range).await.code, 201);
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "vm"},
        "handler": "vm", "overhead": {"podFixed": {"cpu": "50m"}}, "scheduling": {"nodeSelector": {"vm": "yes"}}});
    assert_eq!(admin.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.code, 201);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n",
        "labels": {"topology.kubernetes.io/zone": "a"}}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}});
    assert_eq!(admin.post("/api/v1/nodes", &node).await.code, 201);

    let pods = format!("{DEFAULT}/pods");
    let made = admin.post(&pods, &pod("p", json!({"runtimeClassName": "vm"}))).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let spec = &made.json()["spec"];
    assert_eq!(
        spec["containers"][0]["resources"],
        json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        (&spec["overhead"], &spec["nodeSelector"]),
        (&json!({"cpu": "50m"}), &json!({"vm": "yes"}))
    );
    assert_eq!(
        made.json()["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let refused = admin.post(&pods, &pod("q", json!({"runtimeClassName": "none"}))).await;
    assert_eq!(
        refused.message(),
        "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    let large =
        json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]});
    let refused = admin.post(&pods, &pod("q", large)).await;
    assert_eq!(
        refused.message(),
        "pods \"q\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );

    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n"}});
    assert_eq!(admin.post(&format!("{pods}/p/binding"), &binding).await.code, 201);
    let bound = admin.get(&format!("{pods}/p")).await.json();
    assert_eq!(bound["metadata"]["labels"]["topology.kubernetes.io/zone"], "a");

    let resize = |cpu: &str| {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}]}}).to_string()
    };
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let path = format!("{pods}/p/resize");
    let refused = admin.call(Method::PATCH, &path, &strategic, resize("1")).await;
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 1050, allocatable: 1000"
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NodeCapacity");
    let refused = admin.call(Method::PATCH, &path, &strategic, resize("1200m")).await;
    assert!(
        refused.message().contains("maximum cpu usage per Container is 1, but limit is 1200m"),
        "{}",
        refused.text()
    );
    let resized = admin.call(Method::PATCH, &path, &strategic, resize("300m")).await;
    assert_eq!(resized.code, 200, "{}", resized.text());
}

#[tokio::test]
async fn claims_are_protected_classed_and_grow_where_they_may() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/p",
        "metadata": {"name": "usual", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    assert_eq!(admin.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.code, 201);
    let claims = format!("{DEFAULT}/persistentvolumeclaims");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = admin.post(&claims, &claim).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(made["spec"]["storageClassName"], "usual");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}).to_string();
    let path = format!("{claims}/c");
    let refused = admin.call(Method::PATCH, &path, &MERGE, grow.clone()).await;
    assert!(!refused.code.is_success(), "only bound claims grow");
    let bound = json!({"status": {"phase": "Bound"}}).to_string();
    assert_eq!(admin.call(Method::PATCH, &format!("{path}/status"), &MERGE, bound).await.code, 200);
    let name = json!({"spec": {"volumeName": "v"}}).to_string();
    assert_eq!(admin.call(Method::PATCH, &path, &MERGE, name).await.code, 200);
    let refused = admin.call(Method::PATCH, &path, &MERGE, grow.clone()).await;
    assert_eq!(
        refused.message(),
        "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    );
    let allow = json!({"allowVolumeExpansion": true}).to_string();
    let class = "/apis/storage.k8s.io/v1/storageclasses/usual";
    assert_eq!(admin.call(Method::PATCH, class, &MERGE, allow).await.code, 200);
    let grown = admin.call(Method::PATCH, &path, &MERGE, grow).await;
    assert_eq!(grown.code, 200, "{}", grown.text());
}

#[tokio::test]
async fn plugins_are_asked_on_demand_or_not_at_all() {
    let events = json!({"limits": [{"type": "User", "qps": 1, "burst": 2}]});
    let selectors =
        json!({"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "pool=usual"}});
    let enabled = [
        "AlwaysPullImages",
        "EventRateLimit",
        "PodNodeSelector",
        "ExtendedResourceToleration",
        "PodTolerationRestriction",
        "DenyServiceExternalIPs",
    ];
    let cluster = start_with(AdmissionOptions {
        enabled: enabled.map(str::to_owned).to_vec(),
        disabled: vec!["ServiceAccount".to_owned()],
        plugins: [("EventRateLimit".to_owned(), events), ("PodNodeSelector".to_owned(), selectors)]
            .into(),
        ..AdmissionOptions::default()
    })
    .await;
    let admin = cluster.admin();
    let gpu = json!({"containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"example.com/gpu": "1"}}}]});
    let made = admin.post(&format!("{DEFAULT}/pods"), &pod("p", gpu)).await;
    assert_eq!(made.code, 201, "no account is needed: {}", made.text());
    let spec = made.json()["spec"].clone();
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(spec["nodeSelector"], json!({"pool": "usual"}));
    let tolerations = spec["tolerations"].as_array().expect("list");
    assert!(tolerations.iter().any(|one| one["key"] == "example.com/gpu"), "{tolerations:?}");
    let elsewhere = admin
        .post(&format!("{DEFAULT}/pods"), &pod("q", json!({"nodeSelector": {"pool": "mine"}})))
        .await;
    assert_eq!(
        elsewhere.message(),
        "pods \"q\" is forbidden: pod node label selector conflicts with its namespace node label selector"
    );
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 1}], "externalIPs": ["192.0.2.9"]}});
    let refused = admin.post(&format!("{DEFAULT}/services"), &service).await;
    assert_eq!(
        refused.message(),
        "services \"s\" is forbidden: Use of external IPs is denied by admission control"
    );
    let event = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"}, "reason": "R", "type": "Normal"})
    };
    let mut codes = Vec::new();
    for name in ["a", "b", "c"] {
        codes.push(admin.post(&format!("{DEFAULT}/events"), &event(name)).await.code.as_u16());
    }
    assert_eq!(codes, [201, 201, 429]);
    let refused = admin.post(&format!("{DEFAULT}/events"), &event("d")).await;
    assert_eq!(refused.message(), "Too many requests: limit reached on type User for key admin");
}

#[tokio::test]
async fn who_makes_dependents_may_delete_them_and_hold_their_owners() {
    let enabled = vec!["OwnerReferencesPermissionEnforcement".to_owned()];
    let cluster = start_with(AdmissionOptions { enabled, ..AdmissionOptions::default() }).await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &["system:authenticated"]));
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules});
    assert_eq!(admin.post(&format!("{rbac}/roles"), &role).await.code, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    assert_eq!(admin.post(&format!("{rbac}/rolebindings"), &binding).await.code, 201);
    let path = format!("{DEFAULT}/configmaps");
    let owned = |name: &str, blocks: bool| {
        let mut object = config_map(name);
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment",
            "name": "d", "uid": "u", "blockOwnerDeletion": blocks}]);
        object
    };
    until("the role's effect", async || jane.post(&path, &config_map("plain")).await.code == 201)
        .await;
    assert_eq!(jane.post(&path, &owned("a", false)).await.code, 201);
    let refused = jane.post(&path, &owned("b", true)).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert!(
        refused.message().contains("refers to a resource you can't set finalizers on"),
        "{}",
        refused.text()
    );
    let refused = jane.put(&format!("{path}/plain"), &owned("plain", false)).await;
    assert!(
        refused.message().contains("cannot set an ownerRef on a resource you can't delete"),
        "{}",
        refused.text()
    );
    assert_eq!(admin.post(&path, &owned("b", true)).await.code, 201);
}

#[tokio::test]
async fn what_pod_security_finds_is_in_the_audit_log() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("audit.log");
    let audit = AuditOptions { log: Some(LogOptions::new(&file)), ..AuditOptions::default() };
    let cluster =
        Cluster::start_with(ApiServerOptions { audit, ..ApiServerOptions::default() }).await;
    let admin = cluster.admin();
    account(&admin, "default").await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/audit-version": "v1.7"}}});
    let labelled =
        admin.call(Method::PATCH, "/api/v1/namespaces/default", &MERGE, labels.to_string()).await;
    assert_eq!(labelled.code, 200);
    let pods = format!("{DEFAULT}/pods");
    assert_eq!(admin.post(&pods, &pod("p", json!({}))).await.code, 201);
    assert_eq!(admin.post(&pods, &pod("q", json!({"hostPID": true}))).await.code, 403);
    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is = |event: &Value| {
            event["objectRef"]["resource"] == "pods" && event["stage"] == "ResponseComplete"
        };
        events.filter(is).collect()
    };
    until("both events", async || events().len() == 2).await;
    let said = |index: usize, key: &str| {
        let events = events();
        events[index]["annotations"][format!("pod-security.kubernetes.io/{key}")]
            .as_str()
            .map(str::to_owned)
    };
    let audited = "would violate PodSecurity \"restricted:v1.7\": runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)";
    assert_eq!(said(0, "audit-violations").as_deref(), Some(audited));
    assert_eq!(said(0, "enforce-policy").as_deref(), Some("baseline:latest"));
    assert_eq!(said(1, "enforce-policy").as_deref(), Some("baseline:latest"));
}
