//! What a write reaches beyond its object: the parameters of a policy, the devices of others, a namespace that
//! is not there yet.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use skiff_apiserver::{AdmissionOptions, ApiServerOptions};

use crate::support::{Answer, Client, Cluster, until};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";

/// Lets a user do something everywhere.
async fn grant(admin: &Client<'_>, user: &str, rules: Value) {
    let name =
        format!("{user}-{}", rules[0]["resources"][0].as_str().expect("text").replace('/', "-"));
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let made = admin.post(&format!("{RBAC}/clusterroles"), &role).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let binding = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": user}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
    let made = admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}

/// Sends again until what was granted counts: something else is answered than 403 to the request itself.
async fn granted(send: impl AsyncFn() -> Answer) -> Answer {
    let mut answer = None;
    until("the permission's effect", async || {
        let code = answer.insert(send().await).code;
        code != StatusCode::FORBIDDEN
    })
    .await;
    answer.expect("an answer")
}

async fn patch(client: &Client<'_>, path: &str, change: &Value) -> Answer {
    let merge = [("content-type", "application/merge-patch+json")];
    client.call(Method::PATCH, path, &merge, change.to_string()).await
}

fn check_refused(answer: &Answer, refusal: &str) {
    assert_eq!(answer.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    assert!(answer.message().contains(refusal), "{}", answer.message());
}

#[tokio::test]
async fn policies_reach_only_what_their_authors_may_read() {
    let cluster = Cluster::start().await;
    let (admin, author) = (cluster.admin(), cluster.user("author", &[]));
    let all = json!(["*"]);
    let rules =
        json!([{"apiGroups": ["admissionregistration.k8s.io"], "resources": all, "verbs": all}]);
    grant(&admin, "author", rules).await;

    let rules = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    let policy = |name: &str, kind: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "paramKind": {"apiVersion": "v1", "kind": kind}, "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": "true"}]}})
    };
    let path = format!("{POLICIES}/validatingadmissionpolicies");
    let refused = granted(async || author.post(&path, &policy("p", "Secret")).await).await;
    check_refused(
        &refused,
        "spec.paramKind: Forbidden: user &{author  [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)",
    );
    assert_eq!(admin.post(&path, &policy("p", "Secret")).await.code, StatusCode::CREATED);
    // What is not changed is not asked about.
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(patch(&author, &format!("{path}/p"), &labels).await.code, StatusCode::OK);
    assert_eq!(admin.post(&path, &policy("toasters", "Toaster")).await.code, StatusCode::CREATED);

    let binding = |policy: &str| {
        json!({"metadata": {"name": "b"}, "spec": {"policyName": policy, "validationActions": ["Deny"],
            "paramRef": {"name": "s", "namespace": "default", "parameterNotFoundAction": "Deny"}}})
    };
    let path = format!("{POLICIES}/validatingadmissionpolicybindings");
    let lacks = "does not have \"get\" permission";
    let refused = author.post(&path, &binding("p")).await;
    check_refused(&refused, &format!("{lacks} on the object referenced by paramRef"));
    let refused = author.post(&path, &binding("none")).await;
    check_refused(&refused, "spec.paramRef: Forbidden: unable to get policy none to determine");
    let refused = author.post(&path, &binding("toasters")).await;
    check_refused(&refused, "unable to resolve paramKind &{v1 Toaster} to determine");
    check_refused(&refused, &format!("{lacks} for all groups, versions and resources"));
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get"]}]);
    grant(&admin, "author", rules).await;
    let secret = "/api/v1/namespaces/default/secrets/s";
    assert_eq!(granted(async || author.get(secret).await).await.code, StatusCode::NOT_FOUND);
    let made = author.post(&path, &binding("p")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}

#[tokio::test]
async fn who_says_what_of_devices_is_asked_for_each_part() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let driver = cluster.user("driver", &[]);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "adminAccess": true}}]}}});
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": claim["spec"]}});
    let refusal = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    check_refused(&admin.post(CLAIMS, &claim).await, refusal);
    let templates = CLAIMS.replace("claims", "claimtemplates");
    check_refused(&admin.post(&templates, &template).await, refusal);
    let labels = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    let labelled = patch(&admin, "/api/v1/namespaces/default", &labels).await;
    assert_eq!(labelled.code, StatusCode::OK, "{}", labelled.text());
    for (path, object) in [(CLAIMS, &claim), (templates.as_str(), &template)] {
        let made = admin.post(path, object).await;
        assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    }

    let right = |resource: &str, verb: &str| json!([{"apiGroups": ["resource.k8s.io"], "resources": [resource], "verbs": [verb]}]);
    grant(&admin, "driver", right("resourceclaims/status", "patch")).await;
    let status = format!("{CLAIMS}/c/status");
    let allocation = json!({"status": {"allocation": {"devices": {"results": [
        {"request": "a", "driver": "d.example.com", "pool": "p", "device": "x", "adminAccess": true}]}}}});
    let refused = granted(async || patch(&driver, &status, &allocation).await).await;
    check_refused(
        &refused,
        "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"patch\" permission: resourceclaims.resource.k8s.io is forbidden: User \"driver\" cannot patch resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope",
    );
    let allocated = patch(&admin, &status, &allocation).await;
    assert_eq!(allocated.code, StatusCode::OK, "{}", allocated.text());

    let said =
        json!({"status": {"devices": [{"driver": "d.example.com", "pool": "p", "device": "x"}]}});
    check_refused(
        &patch(&driver, &status, &said).await,
        "status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:patch]\" permission: resourceclaims.resource.k8s.io \"d.example.com\" is forbidden: User \"driver\" cannot arbitrary-node:patch resource \"resourceclaims/driver\" in API group \"resource.k8s.io\" in the namespace \"default\"",
    );
    grant(&admin, "driver", right("resourceclaims/driver", "arbitrary-node:patch")).await;
    until("the permission's effect", async || {
        patch(&driver, &status, &said).await.code == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn plugins_on_demand_look_after_namespaces_and_distance() {
    let enabled = |name: &str| AdmissionOptions {
        enabled: vec![name.to_owned()],
        disabled: vec!["ServiceAccount".into(), "NamespaceLifecycle".into()],
        ..AdmissionOptions::default()
    };
    let start = async |name: &str| {
        let admission = enabled(name);
        Cluster::start_with(ApiServerOptions { admission, ..ApiServerOptions::default() }).await
    };
    let map = json!({"metadata": {"name": "m"}});
    let maps = "/api/v1/namespaces/new/configmaps";

    let cluster = start("NamespaceAutoProvision").await;
    let admin = cluster.admin();
    assert_eq!(admin.post(&format!("{maps}?dryRun=All"), &map).await.code, StatusCode::CREATED);
    assert_eq!(admin.get("/api/v1/namespaces/new").await.code, StatusCode::NOT_FOUND);
    assert_eq!(admin.post(maps, &map).await.code, StatusCode::CREATED);
    let made = admin.get("/api/v1/namespaces/new").await.json();
    assert_eq!(made["status"]["phase"], "Active");

    let cluster = start("NamespaceExists").await;
    let refused = cluster.admin().post(maps, &map).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (StatusCode::NOT_FOUND, "namespaces \"new\" not found")
    );

    let cluster = start("LimitPodHardAntiAffinityTopology").await;
    let admin = cluster.admin();
    let pod = |name: &str, key: &str| {
        let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}});
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
    };
    let pods = "/api/v1/namespaces/default/pods";
    let refused = admin.post(pods, &pod("p", "zone")).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed"
    );
    let made = admin.post(pods, &pod("p", "kubernetes.io/hostname")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}
