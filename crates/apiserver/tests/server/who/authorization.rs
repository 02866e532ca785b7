//! A webhook beside RBAC, aggregated roles, reviews.

use http::StatusCode;
use serde_json::{Value, json};
use skiff_apiserver::{ApiServerOptions, authz::AuthorizationConfiguration};

use super::Other;
use crate::support::{Cluster, until};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn a_webhook_allows_refuses_and_leaves_to_others() {
    let judge = Other::start(|_, _, review| {
        let spec = &review["spec"];
        let status = match (spec["user"].as_str(), spec["resourceAttributes"]["resource"].as_str()) {
            (Some("jane"), Some("pods")) => json!({"allowed": true, "reason": "jane may"}),
            (_, Some("secrets")) => json!({"allowed": false, "denied": true, "reason": "never"}),
            (Some("broken"), _) => return Value::Null,
            _ => json!({"allowed": false, "reason": "who knows"}),
        };
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status})
    })
    .await;
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "judge", "webhook": {
                "timeout": "30s", "subjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": judge.kubeconfig("/authorize")}
            }},
            {"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}
        ]
    });
    let authorization =
        Some(AuthorizationConfiguration::parse(&configuration.to_string()).expect("good"));
    let cluster =
        Cluster::start_with(ApiServerOptions { authorization, ..ApiServerOptions::default() })
            .await;
    let admin = cluster.admin();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
        "subjects": [{"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    });
    assert_eq!(
        admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.code,
        StatusCode::CREATED
    );
    let (jane, joe) = (cluster.user("jane", &[]), cluster.user("joe", &["team"]));
    let path = |resource: &str| format!("/api/v1/namespaces/default/{resource}");
    for _ in 0..3 {
        assert_eq!(jane.get(&path("pods")).await.code, StatusCode::OK);
    }
    let pods = |asked: &[(String, Value)]| {
        asked
            .iter()
            .filter(|(_, review)| review["spec"]["resourceAttributes"]["resource"] == "pods")
            .count()
    };
    assert_eq!(pods(&judge.asked()), 1, "permissions are remembered");
    until("the binding's effect", async || {
        joe.get(&path("configmaps")).await.code == StatusCode::OK
    })
    .await;
    let refused = joe.get(&path("secrets")).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN, "RBAC is not asked any more");
    assert!(refused.message().ends_with(": never"), "{}", refused.message());
    let unknown = jane.get(&path("configmaps")).await.message();
    assert!(unknown.ends_with(": who knows"), "{unknown}");
    assert_eq!(cluster.user("broken", &["team"]).get(&path("pods")).await.code, StatusCode::OK);
    assert_eq!(
        admin.get(&path("secrets")).await.code,
        StatusCode::OK,
        "masters are not asked about"
    );
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let told =
        admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await.json();
    assert_eq!(told["status"], json!({"allowed": true, "reason": "jane may"}));
    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let told =
        jane.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &rules).await.json();
    assert_eq!(told["status"]["incomplete"], true);
}

#[tokio::test]
async fn aggregated_roles_are_filled_for_all_to_read() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "crontabs", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["get"]}]
    });
    let roles = format!("{RBAC}/clusterroles");
    assert_eq!(admin.post(&roles, &role).await.code, StatusCode::CREATED);
    let holds = async |name: &str| {
        let role = admin.get(&format!("{roles}/{name}")).await.json();
        role["rules"].as_array().is_some_and(|rules| rules.contains(&role_rule()))
    };
    for name in ["view", "edit", "admin"] {
        until(name, async || holds(name).await).await;
    }
    admin.delete(&format!("{roles}/crontabs")).await;
    until("the rule's end", async || !holds("admin").await && !holds("view").await).await;
}

fn role_rule() -> Value {
    json!({"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["get"]})
}

#[tokio::test]
async fn a_binding_that_leads_nowhere_says_so() {
    let cluster = Cluster::start().await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "lost"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gone"}
    });
    let admin = cluster.admin();
    let made = admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    let jane = cluster.user("jane", &[]);
    until("the reason", async || {
        let refused = jane.get("/api/v1/namespaces/default/pods").await.message();
        refused.ends_with(": RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found")
    })
    .await;
}
