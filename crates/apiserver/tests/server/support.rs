//! A server over an embedded store in a temporary directory, and requests to it without TCP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode};
use pki::{Authority, Profile, TokenKeys};
use registry::{Rows, UserInfo, header_reader};
use serde_json::Value;
use serve::{
    Body, Handler, Server, ServerOptions,
    tls::{Certificate, ServerTls},
};
use skiff_apiserver::{ApiServer, ApiServerOptions, Dependencies, authenticated};
use store::Embedded;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{client::TlsStream, rustls::ClientConfig};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what} did not happen");
}

/// A running server; everything ends when it is dropped.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) authority: Authority,
    pub(crate) directory: TempDir,
    pub(crate) shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    /// A server with all system objects written.
    pub(crate) async fn start() -> Self {
        let advertise = "192.0.2.1:6443".parse().expect("address");
        Self::start_with(ApiServerOptions { advertise, ..ApiServerOptions::default() }).await
    }

    pub(crate) async fn start_with(options: ApiServerOptions) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let rows = Arc::new(Rows::builtin());
        let store = Embedded::open(
            store::Options::new(directory.path().join("store")),
            header_reader(rows.clone()),
        )
        .expect("store opens");
        let authority = Authority::load_or_create(directory.path(), "ca").expect("authority");
        let identity = authority
            .issue(&Profile::client("kube-apiserver-kubelet-client", None))
            .expect("client certificate");
        let kubelet_tls = serve::tls::client_config(
            &[authority.certificate_der().expect("certificate")],
            Some((identity.chain().expect("chain"), identity.private_key().expect("key"))),
        )
        .expect("TLS configuration");
        let shutdown = CancellationToken::new();
        let dependencies = Dependencies {
            store: Arc::new(store),
            rows,
            token_keys: TokenKeys::load_or_create(&directory.path().join("sa.key"))
                .expect("token key"),
            kubelet_tls,
        };
        let server = ApiServer::new(options, dependencies, shutdown.clone()).await.expect("server");
        server.bootstrap().await.expect("bootstrap");
        tokio::spawn(server.clone().run());
        Self { server, authority, directory, shutdown }
    }

    /// Listens with TLS on loopback, with a certificate of the cluster's authority.
    pub(crate) async fn listen(&self, handler: impl Handler) -> SocketAddr {
        self.listen_with(handler, ServerOptions::default()).await
    }

    pub(crate) async fn listen_with(
        &self,
        handler: impl Handler,
        options: ServerOptions,
    ) -> SocketAddr {
        let localhost = "127.0.0.1".parse().expect("address");
        let profile = Profile::server("server", vec![], vec![localhost]);
        let identity = self.authority.issue(&profile).expect("certificate");
        let certificate = Certificate::new(
            identity.chain().expect("chain"),
            identity.private_key().expect("key"),
        );
        let authority = [self.authority.certificate_der().expect("certificate")];
        let tls = ServerTls::new(certificate.expect("usable"), Some(&authority)).expect("TLS");
        let server = Server::bind((localhost, 0).into(), Some(tls), options).await;
        let server = server.expect("listens");
        let address = server.local_address().expect("address");
        tokio::spawn(server.run(handler, self.shutdown.clone()));
        address
    }

    /// What a client shows whose certificate names this user.
    pub(crate) fn client_tls(&self, user: &str, group: &str) -> Arc<ClientConfig> {
        let identity = self.authority.issue(&Profile::client(user, Some(group))).expect("issued");
        serve::tls::client_config(
            &[self.authority.certificate_der().expect("certificate")],
            Some((identity.chain().expect("chain"), identity.private_key().expect("key"))),
        )
        .expect("TLS")
    }

    pub(crate) fn admin(&self) -> Client<'_> {
        self.user("admin", &["system:masters"])
    }

    pub(crate) fn user(&self, name: &str, groups: &[&str]) -> Client<'_> {
        Client {
            server: &self.server,
            user: Some(authenticated(name, groups.iter().copied())),
            token: None,
        }
    }

    /// Requests that carry a token, or nothing at all.
    pub(crate) fn token(&self, token: Option<&str>) -> Client<'_> {
        Client { server: &self.server, user: None, token: token.map(str::to_owned) }
    }
}

/// A connection over TLS.
pub(crate) async fn connect(server: SocketAddr, tls: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(server).await.expect("connects");
    let connector = tokio_rustls::TlsConnector::from(tls);
    connector.connect(server.ip().into(), socket).await.expect("handshake")
}

/// Sends requests as one user.
pub(crate) struct Client<'a> {
    server: &'a ApiServer,
    user: Option<Arc<UserInfo>>,
    token: Option<String>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The message of a failure.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client<'_> {
    pub(crate) async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        match &self.user {
            Some(user) => {
                self.server.in_process(user.clone()).oneshot(request).await.expect("never fails")
            }
            None => self.server.handle(request).await,
        }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = self.send(request.body(Body::full(body.into())).expect("request")).await;
        let (parts, body) = response.into_parts();
        let body = body.read(1 << 26).await.expect("body").to_vec();
        Answer { code: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, &[("content-type", "application/json")], body.to_string())
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, &[("content-type", "application/json")], body.to_string())
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], "").await
    }
}
