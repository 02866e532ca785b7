//! Certificates, static tokens, tokens of other issuers and of a webhook, proxies in front.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use pki::{Authority, Profile, TokenKeys};
use serde_json::{Value, json};
use serve::{Server, ServerOptions, tls::ServerTls};
use skiff_apiserver::{
    ApiServerOptions,
    authn::{
        AuthenticationConfiguration, AuthenticationOptions, FrontProxy, TokenWebhook, static_tokens,
    },
    hook::Hook,
};

use super::{Other, SELF, certificate, https, whoami};
use crate::support::{Cluster, until};

async fn cluster(authentication: AuthenticationOptions) -> Cluster {
    Cluster::start_with(ApiServerOptions { authentication, ..ApiServerOptions::default() }).await
}

/// The user behind a token, as the server says over HTTP semantics.
async fn user(cluster: &Cluster, token: &str) -> Result<Value, StatusCode> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = cluster.token(Some(token)).post(SELF, &review).await;
    if answer.code == StatusCode::CREATED {
        Ok(answer.json()["status"]["userInfo"].clone())
    } else {
        Err(answer.code)
    }
}

#[tokio::test]
async fn a_certificate_ends_in_the_middle_of_a_connection() {
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    // Long enough to be seen before its end.
    let lifetime = Duration::from_secs(8);
    let profile = Profile { lifetime, ..Profile::client("jane", Some("team")) };
    let identity = cluster.authority.issue(&profile).expect("issued");
    let client = https(&cluster, Some(&identity));
    let jane = whoami(&client, address, &[]).await.expect("jane");
    assert_eq!(jane["username"], "jane");
    assert_eq!(jane["groups"], json!(["team", "system:authenticated"]));
    until("the certificate's end", async || {
        whoami(&client, address, &[]).await == Err(StatusCode::UNAUTHORIZED)
    })
    .await;
}

#[tokio::test]
async fn static_tokens_and_anonymous_paths() {
    let configuration = "{apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, anonymous: {enabled: true, conditions: [{path: /readyz}]}}";
    let cluster = cluster(AuthenticationOptions {
        static_tokens: static_tokens("s3cret,jane,7,\"team,other\"").expect("tokens"),
        configuration: AuthenticationConfiguration::parse(configuration, "").expect("good"),
        ..AuthenticationOptions::default()
    })
    .await;
    let jane = user(&cluster, "s3cret").await.expect("jane");
    assert_eq!(
        jane,
        json!({"username": "jane", "uid": "7", "groups": ["team", "other", "system:authenticated"]})
    );
    assert_eq!(user(&cluster, "wrong").await, Err(StatusCode::UNAUTHORIZED));
    let review = async |audiences: Value| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": "s3cret", "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        cluster.admin().post(path, &review).await.json()["status"].clone()
    };
    let own = ApiServerOptions::default().audiences;
    assert_eq!(review(json!(["vault"])).await["authenticated"], false);
    let told = review(json!(["vault", own[0]])).await;
    assert_eq!((&told["authenticated"], &told["audiences"]), (&json!(true), &json!(own)));
    let anonymous = cluster.token(None);
    assert_eq!(anonymous.get("/readyz").await.code, StatusCode::OK);
    assert_eq!(anonymous.get("/version").await.code, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn tokens_of_an_issuer_are_judged_by_its_keys() {
    let directory = tempfile::tempdir().expect("directory");
    let key = |name: &str| TokenKeys::load_or_create(&directory.path().join(name)).expect("key");
    let (keys, rotated) = (key("one"), key("two"));
    let published = std::sync::Arc::new(std::sync::Mutex::new(keys.key_set()));
    let shown = published.clone();
    let issuer = Other::start(move |own, path, _| match path {
        "/.well-known/openid-configuration" => {
            json!({"issuer": format!("https://{own}"), "jwks_uri": format!("https://{own}/keys")})
        }
        "/keys" => shown.lock().expect("lock").clone(),
        _ => Value::Null,
    })
    .await;
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer.url(), "audiences": ["skiff"], "certificateAuthority": issuer.authority.certificate()},
            "claimValidationRules": [{"claim": "hd", "requiredValue": "example.com"}],
            "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"claim": "roles", "prefix": ""}}
        }]
    });
    let configuration =
        AuthenticationConfiguration::parse(&configuration.to_string(), "https://own");
    let configuration = configuration.expect("good");
    let cluster =
        cluster(AuthenticationOptions { configuration, ..AuthenticationOptions::default() }).await;
    let now = jiff::Timestamp::now().as_second();
    let claims = |change: Value| {
        let mut claims = json!({
            "iss": issuer.url(), "sub": "jane", "aud": "skiff", "exp": now + 600, "hd": "example.com", "roles": ["team"]
        });
        for (key, value) in change.as_object().expect("claims") {
            claims[key] = value.clone();
        }
        claims
    };
    let sign = |keys: &TokenKeys, change: Value| keys.sign(&claims(change)).expect("signed");
    let jane = user(&cluster, &sign(&keys, json!({}))).await.expect("jane");
    assert_eq!(jane, json!({"username": "oidc:jane", "groups": ["team", "system:authenticated"]}));
    for wrong in [
        json!({"aud": "x"}),
        json!({"exp": now - 600}),
        json!({"hd": "x"}),
        json!({"iss": "https://x"}),
    ] {
        let refused = user(&cluster, &sign(&keys, wrong.clone())).await;
        assert_eq!(refused, Err(StatusCode::UNAUTHORIZED), "{wrong}");
    }
    let foreign = sign(&rotated, json!({}));
    assert_eq!(user(&cluster, &foreign).await, Err(StatusCode::UNAUTHORIZED));
    let fetched =
        |issuer: &Other| issuer.asked().iter().filter(|(path, _)| path == "/keys").count();
    assert_eq!(fetched(&issuer), 1, "keys are not read again at once, whatever tokens come");
    // The issuer's new key is read when a token names it, after a pause.
    *published.lock().expect("lock") = rotated.key_set();
    until("the new key's use", async || {
        let other = sign(&rotated, json!({"jti": meta_id()}));
        user(&cluster, &other).await.is_ok()
    })
    .await;
}

/// Another token each time: judgements are remembered.
fn meta_id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

#[tokio::test]
async fn a_webhook_judges_tokens_once() {
    let judge = Other::start(|_, _, review| {
        let known = review["spec"]["token"] == "opaque";
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": {
            "authenticated": known,
            "user": {"username": "joe", "uid": "9", "groups": ["remote"], "extra": {"k": ["v"]}}
        }})
    })
    .await;
    let hook = Hook::from_kubeconfig(&judge.kubeconfig("/judge"), Duration::from_secs(10)).await;
    let webhook = TokenWebhook { hook: hook.expect("a hook"), remember: Duration::from_secs(120) };
    let cluster = cluster(AuthenticationOptions {
        webhook: Some(webhook),
        ..AuthenticationOptions::default()
    })
    .await;
    for _ in 0..3 {
        let joe = user(&cluster, "opaque").await.expect("joe");
        assert_eq!((&joe["username"], &joe["extra"]["k"][0]), (&json!("joe"), &json!("v")));
        assert_eq!(joe["groups"], json!(["remote", "system:authenticated"]));
        assert_eq!(user(&cluster, "unknown").await, Err(StatusCode::UNAUTHORIZED));
    }
    let asked = judge.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!((asked[0].0.as_str(), &asked[0].1["kind"]), ("/judge", &json!("TokenReview")));
    assert!(asked[0].1["spec"]["audiences"][0].is_string());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "opaque"}});
    let told =
        cluster.admin().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(told["status"]["user"]["username"], "joe", "{told}");
}

#[tokio::test]
async fn proxies_speak_for_users_and_nobody_else_does() {
    let directory = tempfile::tempdir().expect("directory");
    let fronts = Authority::load_or_create(directory.path(), "front").expect("authority");
    let header = HeaderName::from_static;
    let front = FrontProxy {
        client_ca: fronts.certificate().to_owned(),
        allowed_names: vec!["front".into()],
        username_headers: vec![header("x-remote-user")],
        group_headers: vec![header("x-remote-group")],
        uid_headers: vec![header("x-remote-uid")],
        extra_prefixes: vec!["x-remote-extra-".into()],
    };
    let cluster =
        cluster(AuthenticationOptions { front: Some(front), ..AuthenticationOptions::default() })
            .await;
    let localhost = "127.0.0.1".parse().expect("address");
    let server = cluster
        .authority
        .issue(&Profile::server("server", vec![], vec![localhost]))
        .expect("issued");
    let own = [cluster.authority.certificate_der().expect("certificate")];
    let others = [fronts.certificate_der().expect("certificate")];
    let tls = ServerTls::with_front(certificate(&server), Some(&own), Some(&others)).expect("TLS");
    let server = Server::bind((localhost, 0).into(), Some(tls), ServerOptions::default()).await;
    let server = server.expect("listens");
    let address = server.local_address().expect("address");
    tokio::spawn(server.run(cluster.server.clone(), cluster.shutdown.clone()));
    let headers =
        [("x-remote-user", "jane"), ("x-remote-group", "team"), ("x-remote-extra-scope", "read")];
    let client = |authority: &Authority, name: &str| {
        https(&cluster, Some(&authority.issue(&Profile::client(name, None)).expect("issued")))
    };
    let jane = whoami(&client(&fronts, "front"), address, &headers).await.expect("jane");
    assert_eq!(
        jane,
        json!({"username": "jane", "groups": ["team", "system:authenticated"], "extra": {"scope": ["read"]}})
    );
    // A proxy of another name is no proxy, and its certificate is good for nothing else.
    let other = whoami(&client(&fronts, "other"), address, &headers).await;
    assert_eq!(other, Err(StatusCode::UNAUTHORIZED));
    // A user's headers say nothing about it.
    let joe = whoami(&client(&cluster.authority, "joe"), address, &headers).await.expect("joe");
    assert_eq!(joe["username"], "joe");
    let published = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published = cluster.admin().get(published).await.json();
    assert_eq!(published["data"]["requestheader-allowed-names"], "[\"front\"]");
    assert_eq!(published["data"]["requestheader-username-headers"], "[\"x-remote-user\"]");
}
