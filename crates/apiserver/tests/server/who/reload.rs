//! Configuration that changes while the server runs.

use std::{path::PathBuf, time::Duration};

use http::StatusCode;
use pki::TokenKeys;
use serde_json::{Value, json};
use skiff_apiserver::{
    ApiServerOptions, ConfigurationFile, ReloadOptions,
    authn::{AuthenticationConfiguration, AuthenticationOptions},
    authz::AuthorizationConfiguration,
};

use super::Other;
use crate::support::{Cluster, until};

fn file(path: PathBuf, text: &Value) -> ConfigurationFile {
    let text = text.to_string();
    std::fs::write(&path, &text).expect("written");
    ConfigurationFile { path, text }
}

#[tokio::test]
async fn issuers_and_authorizers_come_and_go_with_their_files() {
    let directory = tempfile::tempdir().expect("directory");
    let keys = TokenKeys::load_or_create(&directory.path().join("key")).expect("key");
    let published = keys.key_set();
    let issuer = Other::start(move |own, path, _| match path {
        "/.well-known/openid-configuration" => {
            json!({"issuer": format!("https://{own}"), "jwks_uri": format!("https://{own}/keys")})
        }
        _ => published.clone(),
    })
    .await;
    let kind = |kind: &str| json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": kind});
    let nobody = kind("AuthenticationConfiguration");
    let mut trusting = nobody.clone();
    trusting["jwt"] = json!([{
        "issuer": {"url": issuer.url(), "audiences": ["skiff"], "certificateAuthority": issuer.authority.certificate()},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}}
    }]);
    let mut rbac = kind("AuthorizationConfiguration");
    rbac["authorizers"] = json!([{"type": "RBAC", "name": "rbac"}]);
    let mut open = rbac.clone();
    open["authorizers"] = json!([{"type": "AlwaysAllow", "name": "all"}]);
    let authn = file(directory.path().join("authn"), &nobody);
    let authz = file(directory.path().join("authz"), &rbac);
    let configuration = AuthenticationConfiguration::parse(&authn.text, "").expect("good");
    let cluster = Cluster::start_with(ApiServerOptions {
        authentication: AuthenticationOptions { configuration, ..AuthenticationOptions::default() },
        authorization: Some(AuthorizationConfiguration::parse(&authz.text).expect("good")),
        reload: ReloadOptions {
            authentication: Some(authn.clone()),
            authorization: Some(authz.clone()),
            every: Duration::from_millis(10),
        },
        ..ApiServerOptions::default()
    })
    .await;
    let exp = jiff::Timestamp::now().as_second() + 600;
    let claims = json!({"iss": issuer.url(), "sub": "jane", "aud": "skiff", "exp": exp});
    let token = keys.sign(&claims).expect("signed");
    let code =
        async || cluster.token(Some(&token)).get("/api/v1/namespaces/default/secrets").await.code;
    assert_eq!(code().await, StatusCode::UNAUTHORIZED);
    file(authn.path.clone(), &trusting);
    until("the issuer's trust", async || code().await == StatusCode::FORBIDDEN).await;
    file(authz.path.clone(), &open);
    until("the open door", async || code().await == StatusCode::OK).await;
    let failures = async |what: &str| {
        let name = format!("apiserver_{what}_config_controller_automatic_reloads_total");
        let text = cluster.admin().get("/metrics").await.text();
        let failed = !text.contains(&format!("{name}{{status=\"failure\"}} 0\n"));
        (failed, text.contains(&format!("{name}{{status=\"success\"}} 1\n")))
    };
    // What cannot be used changes nothing; neither may anonymous requests be let in or kept out.
    let mut anonymous = nobody.clone();
    anonymous["anonymous"] = json!({"enabled": false});
    file(authn.path.clone(), &anonymous);
    file(authz.path, &json!({"authorizers": []}));
    for what in ["authentication", "authorization"] {
        until("the failure", async || failures(what).await == (true, true)).await;
    }
    assert_eq!(code().await, StatusCode::OK);
    file(authn.path, &nobody);
    until("the issuer's end", async || code().await == StatusCode::UNAUTHORIZED).await;
}
