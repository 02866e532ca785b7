//! Who gets in and what they may do, as configured: with real certificates, tokens, an issuer and webhooks on loopback.

mod audit;
mod authentication;
mod authorization;
mod flow;
mod metrics;
mod reload;
mod shutdown;
mod tokens;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use pki::{Authority, Identity, Profile};
use serde_json::{Value, json};
use serve::{
    Body, Server, ServerOptions,
    tls::{Certificate, ServerTls},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::Cluster;

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Somebody on loopback who is asked over HTTPS, and what was asked.
struct Other {
    address: SocketAddr,
    authority: Authority,
    directory: TempDir,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    shutdown: CancellationToken,
}

impl Drop for Other {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Other {
    /// Answers what `answer` makes of own address, path and body; null is 500.
    async fn start(
        answer: impl Fn(SocketAddr, &str, &Value) -> Value + Clone + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let authority = Authority::load_or_create(directory.path(), "ca").expect("authority");
        let localhost = "127.0.0.1".parse().expect("address");
        let identity =
            authority.issue(&Profile::server("other", vec![], vec![localhost])).expect("issued");
        let tls = ServerTls::new(certificate(&identity), None).expect("TLS");
        let server = Server::bind((localhost, 0).into(), Some(tls), ServerOptions::default()).await;
        let server = server.expect("listens");
        let address = server.local_address().expect("address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shutdown, seen) = (CancellationToken::new(), asked.clone());
        let handler = move |request: Request<Body>| {
            let (answer, seen) = (answer.clone(), seen.clone());
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().read(1 << 24).await.expect("body");
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let said = answer(address, &path, &body);
                seen.lock().expect("lock").push((path, body));
                let mut response = Response::new(Body::from(said.to_string()));
                if said.is_null() {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                response
            }
        };
        tokio::spawn(server.run(handler, shutdown.clone()));
        Self { address, authority, directory, asked, shutdown }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A kubeconfig that leads here.
    fn kubeconfig(&self, path: &str) -> PathBuf {
        let authority = BASE64_STANDARD.encode(self.authority.certificate());
        let cluster = json!({"server": format!("{}{path}", self.url()), "certificate-authority-data": authority});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": cluster}], "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]
        });
        let file = self.directory.path().join("kubeconfig");
        std::fs::write(&file, config.to_string()).expect("written");
        file
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().expect("lock").clone()
    }
}

fn certificate(identity: &Identity) -> Arc<Certificate> {
    let (chain, key) = (identity.chain().expect("chain"), identity.private_key().expect("key"));
    Certificate::new(chain, key).expect("usable")
}

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client over HTTPS, with a certificate or without, that keeps its connection.
fn https(cluster: &Cluster, identity: Option<&Identity>) -> Https {
    let connector = https_connector(cluster, identity);
    Client::builder(TokioExecutor::new()).http2_only(true).build(connector)
}

fn https_connector(
    cluster: &Cluster,
    identity: Option<&Identity>,
) -> hyper_rustls::HttpsConnector<HttpConnector> {
    let authority = [cluster.authority.certificate_der().expect("certificate")];
    let shown = identity
        .map(|identity| (identity.chain().expect("chain"), identity.private_key().expect("key")));
    let tls = serve::tls::client_config(&authority, shown).expect("TLS");
    hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(Arc::unwrap_or_clone(tls))
        .https_only()
        .enable_http2()
        .build()
}

/// Whom the server takes the client for: a user, or a code.
async fn whoami(
    client: &Https,
    server: SocketAddr,
    headers: &[(&str, &str)],
) -> Result<Value, StatusCode> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let mut request = Request::post(format!("https://{server}{SELF}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(review.to_string().into())).expect("request");
    let response = client.request(request).await.expect("an answer");
    let code = response.status();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    if code != StatusCode::CREATED {
        return Err(code);
    }
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    Ok(review["status"]["userInfo"].clone())
}
