//! Who gets in and what they may do: tokens, RBAC, kubelets, impersonation, reviews, admission.

use crate::support::{self, Client, Cluster};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Rights follow their objects in a moment.
async fn until(condition: impl AsyncFnMut() -> bool) {
    support::until("what an object should lead to", condition).await;
}

async fn account(admin: &Client<'_>, name: &str) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let made = admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}

async fn node(admin: &Client<'_>, name: &str) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let made = admin.post("/api/v1/nodes", &node).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}

async fn pod(admin: &Client<'_>, name: &str, node: &str) -> Value {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "serviceAccountName": "robot",
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "mine"}}]}]
        }
    });
    let made = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    made.json()
}

async fn token(client: &Client<'_>, spec: Value) -> support::Answer {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    client.post("/api/v1/namespaces/default/serviceaccounts/robot/token", &request).await
}

#[tokio::test]
async fn a_role_counts_as_soon_as_it_is_bound() {
    let cluster = Cluster::start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &["team"]));
    let path = "/api/v1/namespaces/default/pods";
    let refused = jane.get(path).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    assert_eq!(refused.json()["details"]["kind"], "pods");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "subjects": [{"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    });
    let made = admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    until(async || jane.get(path).await.code == StatusCode::OK).await;
    assert_eq!(jane.get("/api/v1/namespaces/kube-system/pods").await.code, StatusCode::FORBIDDEN);
    assert_eq!(jane.get("/api/v1/namespaces/default/secrets").await.code, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let cluster = Cluster::start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &[]));
    let binding = |name: &str, user: &str, role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        })
    };
    let path = format!("{RBAC}/namespaces/default/rolebindings");
    admin.post(&path, &binding("a", "jane", "admin")).await;
    until(async || jane.get(&path).await.code == StatusCode::OK).await;
    let allowed = jane.post(&path, &binding("b", "joe", "view")).await;
    assert_eq!(allowed.code, StatusCode::CREATED, "{}", allowed.text());
    let refused = jane.post(&path, &binding("c", "jane", "cluster-admin")).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.text());
    assert!(
        refused.message().contains("is attempting to grant RBAC permissions not currently held"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn who_may_bind_or_escalate_grants_what_they_do_not_hold() {
    let cluster = Cluster::start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &[]));
    let group = "rbac.authorization.k8s.io";
    let rule = |resources: &[&str], verbs: &[&str], names: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs, "resourceNames": names});
    let role = json!({"metadata": {"name": "granter"}, "rules": [
        rule(&["roles", "rolebindings"], &["create", "get"], &[]),
        rule(&["clusterroles"], &["bind"], &["cluster-admin"]),
        rule(&["roles"], &["escalate"], &[])]});
    assert_eq!(admin.post(&format!("{RBAC}/clusterroles"), &role).await.code, StatusCode::CREATED);
    let binding = |name: &str, role: &str| {
        json!({"metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "jane"}]})
    };
    let path = format!("{RBAC}/namespaces/default");
    let made = admin.post(&format!("{path}/rolebindings"), &binding("g", "granter")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    until(async || jane.get(&format!("{path}/roles/none")).await.code == StatusCode::NOT_FOUND)
        .await;
    let all = jane.post(&format!("{path}/rolebindings"), &binding("all", "cluster-admin")).await;
    assert_eq!(all.code, StatusCode::CREATED, "{}", all.text());
    let other = cluster.user("joe", &[]);
    admin
        .post(&format!("{path}/rolebindings"), &{
            let mut joe = binding("joe", "granter");
            joe["subjects"][0]["name"] = "joe".into();
            joe
        })
        .await;
    until(async || other.get(&format!("{path}/roles/none")).await.code == StatusCode::NOT_FOUND)
        .await;
    let edit = other.post(&format!("{path}/rolebindings"), &binding("e", "edit")).await;
    assert_eq!(edit.code, StatusCode::FORBIDDEN, "{}", edit.text());
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]});
    let role = json!({"metadata": {"name": "pods"}, "rules": [pods]});
    let role = other.post(&format!("{path}/roles"), &role).await;
    assert_eq!(role.code, StatusCode::CREATED, "{}", role.text());
}

#[tokio::test]
async fn a_start_puts_default_roles_right() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let (view, basic) = (
        format!("{RBAC}/clusterroles/system:discovery"),
        format!("{RBAC}/clusterrolebindings/system:basic-user"),
    );
    let change = async |path: &str, part: &str, value: Value| {
        let mut object = admin.get(path).await.json();
        object[part] = value;
        let changed = admin.put(path, &object).await;
        assert_eq!(changed.code, StatusCode::OK, "{}", changed.text());
    };
    let more = json!([{"verbs": ["get"], "nonResourceURLs": ["/more"]}]);
    change(&view, "rules", more.clone()).await;
    change(&basic, "subjects", json!([])).await;
    let frozen = format!("{RBAC}/clusterroles/system:public-info-viewer");
    let mut object = admin.get(&frozen).await.json();
    object["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] =
        "false".into();
    object["rules"] = json!([]);
    assert_eq!(admin.put(&frozen, &object).await.code, StatusCode::OK);
    admin.delete(&format!("{RBAC}/clusterroles/system:monitoring")).await;
    cluster.server.bootstrap().await.expect("again");
    let rules = admin.get(&view).await.json()["rules"].clone();
    let rules = rules.as_array().expect("rules");
    assert!(rules.len() > 1 && rules.contains(&more[0]), "added to, not replaced: {rules:?}");
    assert_eq!(admin.get(&basic).await.json()["subjects"][0]["name"], "system:authenticated");
    assert!(admin.get(&frozen).await.json()["rules"].as_array().is_none_or(Vec::is_empty));
    let monitoring = admin.get(&format!("{RBAC}/clusterroles/system:monitoring")).await;
    assert_eq!(monitoring.code, StatusCode::OK);
}

#[tokio::test]
async fn tokens_live_and_die_with_their_objects() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin, "robot").await;
    node(&admin, "n1").await;
    let pod = pod(&admin, "p", "n1").await;
    assert_eq!(
        pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(pod["spec"]["priority"], 0);
    assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    let bound =
        json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
    let made = token(&admin, json!({"boundObjectRef": bound, "expirationSeconds": 600})).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let secret = made.json()["status"]["token"].as_str().expect("a token").to_owned();
    let robot = cluster.token(Some(&secret));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let seen = robot.post(path, &review).await;
    assert_eq!(seen.code, StatusCode::CREATED, "{}", seen.text());
    let user = seen.json()["status"]["userInfo"].clone();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"][0], "p");
    assert_eq!(user["extra"]["authentication.kubernetes.io/node-name"][0], "n1");
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": secret}});
    let told = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &ask).await.json();
    assert_eq!(told["status"]["authenticated"], true, "{told}");
    admin.delete("/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0").await;
    assert_eq!(robot.post(path, &review).await.code, StatusCode::UNAUTHORIZED);
    let short = token(&admin, json!({"expirationSeconds": 5})).await;
    assert_eq!(short.code, StatusCode::UNPROCESSABLE_ENTITY);
    let elsewhere = token(&admin, json!({"audiences": ["vault"]})).await.json();
    let elsewhere = elsewhere["status"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(cluster.token(Some(&elsewhere)).get("/api").await.code, StatusCode::UNAUTHORIZED);
    assert_eq!(
        cluster.token(Some("nonsense")).get("/version").await.code,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn kubelets_see_and_change_what_is_theirs() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin, "robot").await;
    node(&admin, "n1").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}});
    admin.post("/api/v1/namespaces/default/secrets", &secret).await;
    let pod = pod(&admin, "p", "n1").await;
    let (n1, n2) = (
        cluster.user("system:node:n1", &["system:nodes"]),
        cluster.user("system:node:n2", &["system:nodes"]),
    );
    let path = "/api/v1/namespaces/default/secrets/mine";
    assert_eq!(n1.get(path).await.code, StatusCode::OK);
    let refused = n2.get(path).await;
    assert_eq!(
        refused.message(),
        r#"secrets "mine" is forbidden: User "system:node:n2" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'n2' and this object"#
    );
    assert_eq!(n1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.code, StatusCode::OK);
    assert_eq!(n1.get("/api/v1/pods").await.code, StatusCode::FORBIDDEN);
    // What the drain contract needs, the node's network sees.
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let network = cluster.user("skiff:network:n1", &["skiff:network"]);
    for path in ["/api/v1/nodes", "/apis/discovery.k8s.io/v1/endpointslices", leases] {
        assert_eq!(network.get(path).await.code, StatusCode::OK, "{path}");
        assert_eq!(n1.get(path).await.code, StatusCode::FORBIDDEN, "{path}");
    }
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}});
    assert_eq!(n2.post(leases, &lease).await.code, StatusCode::FORBIDDEN);
    assert_eq!(n1.post(leases, &lease).await.code, StatusCode::CREATED);
    let mut status = pod.clone();
    status["status"]["phase"] = "Running".into();
    let path = "/api/v1/namespaces/default/pods/p/status";
    let theirs = n2.put(path, &status).await;
    assert_eq!(theirs.code, StatusCode::FORBIDDEN, "{}", theirs.text());
    let own = n1.put(path, &status).await;
    assert_eq!(own.code, StatusCode::OK, "{}", own.text());
    let bound =
        json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
    assert_eq!(token(&n1, json!({"boundObjectRef": bound})).await.code, StatusCode::CREATED);
    assert_eq!(token(&n1, json!({})).await.code, StatusCode::FORBIDDEN);
    assert_eq!(token(&n2, json!({"boundObjectRef": bound})).await.code, StatusCode::FORBIDDEN);
    let label = [("content-type", "application/merge-patch+json")];
    let label = n1
        .call(
            Method::PATCH,
            "/api/v1/nodes/n1",
            &label,
            r#"{"metadata":{"labels":{"node-restriction.kubernetes.io/x":"y"}}}"#,
        )
        .await;
    assert_eq!(
        label.message(),
        "nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x"
    );
}

/// Who may change requests for certificates, with `more` rules.
async fn certifier(admin: &Client<'_>, name: &str, more: &[Value]) {
    let rule = |resource: &str, verb: &str, name: &str| {
        json!({"apiGroups": ["certificates.k8s.io"], "resources": [resource], "verbs": [verb],
               "resourceNames": [name]})
    };
    let mut rules = vec![
        rule("certificatesigningrequests/approval", "update", "jane"),
        rule("certificatesigningrequests/status", "update", "jane"),
    ];
    rules.extend(more.iter().cloned());
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let made = admin.post(&format!("{RBAC}/clusterroles"), &role).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}]});
    let made = admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
}

#[tokio::test]
async fn certificates_are_approved_and_signed_by_whom_the_signer_allows() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let key = pki::NewKey::generate().expect("a key");
    let request = key.request(&pki::Profile::client("jane", None)).expect("a request");
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let wanted = json!({"metadata": {"name": "jane"}, "spec": {
        "request": BASE64_STANDARD.encode(request), "usages": ["client auth"],
        "signerName": "kubernetes.io/kube-apiserver-client"}});
    let made = admin.post(path, &wanted).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    certifier(&admin, "careless", &[]).await;
    let signers = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "verbs": ["approve"], "resourceNames": ["kubernetes.io/*"]});
    certifier(&admin, "approver", &[signers]).await;
    let approved = async |user: &str| {
        let mut request = admin.get(&format!("{path}/jane")).await.json();
        request["status"] = json!({"conditions": [
            {"type": "Approved", "status": "True", "reason": "r", "message": "m"}]});
        cluster.user(user, &[]).put(&format!("{path}/jane/approval"), &request).await
    };
    let refusal = "user not permitted to approve requests with signerName";
    until(async || approved("careless").await.message().contains(refusal)).await;
    until(async || approved("approver").await.code == StatusCode::OK).await;
    let mut signed = admin.get(&format!("{path}/jane")).await.json();
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    signed["status"]["certificate"] = BASE64_STANDARD.encode(certificate).into();
    let refused = cluster.user("approver", &[]).put(&format!("{path}/jane/status"), &signed).await;
    let refusal = "user not permitted to sign requests with signerName";
    assert!(refused.message().contains(refusal), "{}", refused.message());
}

#[tokio::test]
async fn questions_are_checked_by_the_rules_of_their_kinds() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let ask = async |path: &str, spec: Value| {
        let answer = admin.post(path, &json!({"spec": spec})).await;
        (answer.code.as_u16(), answer.message().to_owned())
    };
    let reviews = "/apis/authorization.k8s.io/v1";
    assert_eq!(
        ask(&format!("{reviews}/subjectaccessreviews"), json!({})).await,
        (
            422,
            format!(
                "{}{}",
                ".authorization.k8s.io \"\" is invalid: ",
                "[spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified]"
            )
        )
    );
    let local = format!("{reviews}/namespaces/default/localsubjectaccessreviews");
    let elsewhere = json!({"user": "u", "resourceAttributes": {"namespace": "other"}});
    assert_eq!(
        ask(&local, elsewhere).await,
        (
            422,
            format!(
                "{}{}",
                ".authorization.k8s.io \"\" is invalid: ",
                "spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace"
            )
        )
    );
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    until(async || {
        ask(token, json!({"expirationSeconds": 1})).await
            == (422, format!("{}{}", "TokenRequest.authentication.k8s.io \"\" is invalid: ", "spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes"))
    })
    .await;
    let (code, message) =
        ask(&format!("{reviews}/selfsubjectaccessreviews"), json!({"resourceAttributes": 1})).await;
    assert_eq!(code, 400, "{message}");
    let request = BASE64_STANDARD
        .encode("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n");
    let spec =
        json!({"request": request, "usages": ["client auth"], "signerName": "example.com/s"});
    let wanted = json!({"metadata": {"name": "odd"}, "spec": spec});
    let refused =
        admin.post("/apis/certificates.k8s.io/v1/certificatesigningrequests", &wanted).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.message().contains("spec.request: Invalid value"), "{}", refused.message());
}

#[tokio::test]
async fn impersonation_needs_permission() {
    let cluster = Cluster::start().await;
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "team"),
        ("content-type", "application/json"),
    ];
    let seen = cluster.admin().call(Method::POST, path, &headers, review.clone()).await.json();
    assert_eq!(
        seen["status"]["userInfo"]["groups"],
        json!(["team", "system:authenticated"]),
        "{seen}"
    );
    let whole = [
        ("impersonate-user", "system:serviceaccount:default:robot"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-example.com%2fscope", "read"),
        ("content-type", "application/json"),
    ];
    let seen = cluster.admin().call(Method::POST, path, &whole, review.clone()).await.json();
    assert_eq!(
        seen["status"]["userInfo"],
        json!({"username": "system:serviceaccount:default:robot", "uid": "7",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
            "extra": {"example.com/scope": ["read"]}})
    );
    // Each part takes a permission of its own.
    let group = "rbac.authorization.k8s.io";
    let rule = |groups: &str, resources: &str, names: &[&str]| json!({"verbs": ["impersonate"], "apiGroups": [groups], "resources": [resources], "resourceNames": names});
    let role = json!({"metadata": {"name": "actor"}, "rules": [
        rule("", "serviceaccounts", &["robot"]),
        rule("authentication.k8s.io", "uids", &["7"]),
        rule("authentication.k8s.io", "userextras/example.com/scope", &["read"])]});
    let admin = cluster.admin();
    admin.post(&format!("{RBAC}/clusterroles"), &role).await;
    let binding = json!({"metadata": {"name": "actor"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "actor"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "proxy"}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await;
    let proxy = cluster.user("proxy", &[]);
    until(async || {
        proxy.call(Method::POST, path, &whole, review.clone()).await.code == StatusCode::CREATED
    })
    .await;
    for (at, value, refusal) in [
        (0, "system:serviceaccount:default:other", "serviceaccounts \"other\" is forbidden"),
        (1, "8", "uids.authentication.k8s.io \"8\" is forbidden"),
        (2, "write", "userextras.authentication.k8s.io \"write\" is forbidden"),
    ] {
        let mut other = whole;
        other[at].1 = value;
        let refused = proxy.call(Method::POST, path, &other, review.clone()).await.message();
        assert!(refused.starts_with(refusal), "{refused}");
    }
    let nobody = [("impersonate-group", "team"), ("content-type", "application/json")];
    let refused = cluster.admin().call(Method::POST, path, &nobody, review.clone()).await;
    assert_eq!(refused.code, StatusCode::INTERNAL_SERVER_ERROR);
    let refused = cluster.user("joe", &[]).call(Method::POST, path, &headers, review).await;
    assert_eq!(
        refused.message(),
        r#"users "jane" is forbidden: User "joe" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
}

#[tokio::test]
async fn access_reviews_say_why() {
    let cluster = Cluster::start().await;
    let path = "/apis/authorization.k8s.io/v1";
    let ask = |user: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": user, "resourceAttributes": {"verb": "list", "resource": "nodes"}}})
    };
    let admin = cluster.admin();
    let scheduler = admin
        .post(&format!("{path}/subjectaccessreviews"), &ask("system:kube-scheduler"))
        .await
        .json();
    assert_eq!(scheduler["status"]["allowed"], true, "{scheduler}");
    assert_eq!(
        scheduler["status"]["reason"],
        r#"RBAC: allowed by ClusterRoleBinding "system:kube-scheduler" of ClusterRole "system:kube-scheduler" to User "system:kube-scheduler""#
    );
    let jane = admin.post(&format!("{path}/subjectaccessreviews"), &ask("jane")).await.json();
    assert_eq!(jane["status"], json!({"allowed": false}));
    let own = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}}});
    let own = cluster
        .user("jane", &[])
        .post(&format!("{path}/selfsubjectaccessreviews"), &own)
        .await
        .json();
    assert_eq!(own["status"]["allowed"], true, "{own}");
    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let rules = cluster
        .user("jane", &[])
        .post(&format!("{path}/selfsubjectrulesreviews"), &rules)
        .await
        .json();
    assert!(
        rules["status"]["resourceRules"].as_array().is_some_and(|rules| !rules.is_empty()),
        "{rules}"
    );
}

#[tokio::test]
async fn nothing_new_comes_into_a_namespace_that_goes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let path = "/api/v1/namespaces/old/configmaps";
    let missing = admin.post(path, &map).await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND);
    assert_eq!(missing.message(), r#"namespaces "old" not found"#);
    assert_eq!(admin.post("/api/v1/namespaces", &namespace).await.code, StatusCode::CREATED);
    assert_eq!(admin.post(path, &map).await.code, StatusCode::CREATED);
    assert_eq!(admin.delete("/api/v1/namespaces/old").await.code, StatusCode::OK);
    let refused = admin.post(path, &map).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        r#"configmaps "m" is forbidden: unable to create new content in namespace old because it is being terminated"#
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
}
