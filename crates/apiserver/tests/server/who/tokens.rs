//! Tokens of service accounts: what they are bound to, those in Secrets, and how others verify them.

use http::{Method, StatusCode};
use pki::{KeySet, TokenKeys};
use serde_json::{Value, json};

use super::SELF;
use crate::support::{Client, Cluster};

const PATH: &str = "/api/v1/namespaces/default";

async fn create(client: &Client<'_>, path: &str, object: Value) -> Value {
    let made = client.post(path, &object).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text());
    made.json()
}

async fn account(admin: &Client<'_>) -> Value {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    create(admin, &format!("{PATH}/serviceaccounts"), account).await
}

/// The user behind a token, if there is one.
async fn user(cluster: &Cluster, token: &str) -> Option<Value> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = cluster.token(Some(token)).post(SELF, &review).await;
    (answer.code == StatusCode::CREATED).then(|| answer.json()["status"]["userInfo"].clone())
}

#[tokio::test]
async fn tokens_end_with_the_secret_or_node_they_are_bound_to() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin).await;
    for (kind, path) in [("Secret", format!("{PATH}/secrets")), ("Node", "/api/v1/nodes".into())] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "b"}});
        let uid = create(&admin, &path, object.clone()).await["metadata"]["uid"].clone();
        let request = |uid: &Value| {
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
                "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": "b", "uid": uid}}})
        };
        let tokens = format!("{PATH}/serviceaccounts/robot/token");
        let wrong = admin.post(&tokens, &request(&json!("other"))).await;
        assert_eq!(wrong.code, StatusCode::CONFLICT, "{}", wrong.text());
        let token = create(&admin, &tokens, request(&uid)).await["status"]["token"].clone();
        let token = token.as_str().expect("a token");
        let found = user(&cluster, token).await.expect("a user");
        let node = &found["extra"]["authentication.kubernetes.io/node-name"];
        assert_eq!(node.is_null(), kind == "Secret", "{found}");
        admin.delete(&format!("{path}/b")).await;
        assert_eq!(user(&cluster, token).await, None, "{kind}");
        // Another one of the same name is another one.
        create(&admin, &path, object).await;
        assert_eq!(user(&cluster, token).await, None, "{kind}");
    }
}

#[tokio::test]
async fn a_token_in_a_secret_holds_as_long_as_it_is_there() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let uid = account(&admin).await["metadata"]["uid"].clone();
    let keys = TokenKeys::load_or_create(&cluster.directory.path().join("sa.key")).expect("keys");
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "long",
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": uid,
    });
    let token = keys.sign(&claims).expect("signed");
    assert_eq!(user(&cluster, &token).await, None, "the secret is not there");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "long", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "stringData": {"token": token}});
    create(&admin, &format!("{PATH}/secrets"), secret).await;
    let found = user(&cluster, &token).await.expect("a user");
    assert_eq!(
        (&found["username"], &found["uid"]),
        (&json!("system:serviceaccount:default:robot"), &uid)
    );
    let patch = async |patch: Value| {
        let headers = [("content-type", "application/merge-patch+json")];
        let path = format!("{PATH}/secrets/long");
        let code = admin.call(Method::PATCH, &path, &headers, patch.to_string()).await.code;
        assert_eq!(code, StatusCode::OK);
    };
    const INVALID: &str = "kubernetes.io/legacy-token-invalid-since";
    patch(json!({"metadata": {"labels": {INVALID: "2026-01-01"}}})).await;
    assert_eq!(user(&cluster, &token).await, None);
    patch(json!({"metadata": {"labels": {INVALID: null}}})).await;
    assert!(user(&cluster, &token).await.is_some());
    patch(json!({"data": {"token": "eA=="}})).await;
    assert_eq!(user(&cluster, &token).await, None, "another token is there");
}

#[tokio::test]
async fn others_verify_tokens_by_discovery() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    account(&admin).await;
    let discovery = admin.get("/.well-known/openid-configuration").await.json();
    let own = skiff_apiserver::ApiServerOptions::default();
    assert_eq!(discovery["issuer"], own.issuer);
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert!(discovery["jwks_uri"].as_str().expect("a URI").ends_with("/openid/v1/jwks"));
    let keys = admin.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let keys = KeySet::parse(&keys.body).expect("keys");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["vault"]}});
    let token = create(&admin, &format!("{PATH}/serviceaccounts/robot/token"), request).await;
    let claims = keys.verify(token["status"]["token"].as_str().expect("a token")).expect("good");
    assert_eq!(
        (&claims["aud"], &claims["iss"], &claims["sub"]),
        (&json!(["vault"]), &json!(own.issuer), &json!("system:serviceaccount:default:robot"))
    );
    // Service accounts may look, others not.
    let robot = cluster.user("system:serviceaccount:default:robot", &["system:serviceaccounts"]);
    assert_eq!(robot.get("/openid/v1/jwks").await.code, StatusCode::OK);
    assert_eq!(cluster.user("jane", &[]).get("/openid/v1/jwks").await.code, StatusCode::FORBIDDEN);
}
