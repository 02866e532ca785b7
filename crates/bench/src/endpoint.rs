//! A TLS server to put load on, and plain HTTP/1.1 connections to it. Knows of Kubernetes only how a
//! kubeconfig and a watch look.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::wire::Wire;

/// No answer takes longer, its body included.
const PATIENCE: Duration = Duration::from_secs(60);
/// No line of a watch is longer.
const LONGEST_LINE: usize = 4 << 20;

/// Where to connect, whom to trust, as whom.
#[derive(Clone)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    tls: TlsConnector,
}

/// One connection, kept alive; its task ends with it.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Endpoint {
    /// Reads a kubeconfig as skiff writes it: JSON, credentials inside.
    pub(crate) fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        let config: Value = serde_json::from_slice(&text).context("the kubeconfig is no JSON")?;
        let field = |pointer: &str| {
            config
                .pointer(pointer)
                .and_then(Value::as_str)
                .with_context(|| format!("the kubeconfig has no {pointer}"))
        };
        let pem = |pointer: &str| Ok::<_, anyhow::Error>(STANDARD.decode(field(pointer)?)?);
        let authority = pem("/clusters/0/cluster/certificate-authority-data")?;
        let certificate = pem("/users/0/user/client-certificate-data")?;
        let key = pem("/users/0/user/client-key-data")?;
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>()?;
        let identity = (chain, PrivateKeyDer::from_pem_slice(&key)?);
        let authority = CertificateDer::from_pem_slice(&authority)?;
        let tls = serve::tls::client_config(&[authority], Some(identity))?;
        let server = field("/clusters/0/cluster/server")?;
        let address = server.strip_prefix("https://").unwrap_or(server).parse()?;
        Ok(Self { address, tls: tls.into() })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let (sender, connection) = handshake(TokioIo::new(self.dial().await?)).await?;
        let task = tokio::spawn(async move {
            // What goes wrong is told to who waits for an answer.
            let _ = connection.await;
        });
        Ok(Connection { sender, _task: tokio_util::task::AbortOnDropHandle::new(task) })
    }

    /// A new connection that costs as little as it can.
    pub(crate) async fn wire(&self) -> anyhow::Result<Wire> {
        self.dial().await.map(Wire::new)
    }

    async fn dial(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let dial = async {
            let socket = TcpStream::connect(self.address).await.context("connect")?;
            socket.set_nodelay(true)?;
            let name = ServerName::IpAddress(self.address.ip().into());
            self.tls.connect(name, socket).await.context("TLS handshake")
        };
        tokio::time::timeout(PATIENCE, dial).await.context("no connection")?
    }
}

/// A request with or without a JSON body.
pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let body = body.into();
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths of this program are valid");
    let headers = request.headers_mut();
    headers.insert(http::header::HOST, http::HeaderValue::from_static("kubernetes"));
    headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    if !body.is_empty() {
        let json = http::HeaderValue::from_static("application/json");
        headers.insert(http::header::CONTENT_TYPE, json);
    }
    request
}

impl Connection {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        self.sender.ready().await.context("the connection was closed")?;
        self.sender.send_request(request).await.context("send a request")
    }

    /// Sends a request and returns the body of the answer. Anything but success is an error that
    /// holds the body.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Bytes> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = async {
            let response = self.send(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await.context("read an answer")?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let (status, body) = answer.with_context(|| format!("{what}: no answer"))??;
        if !status.is_success() {
            bail!("{what}: {status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)]));
        }
        Ok(body)
    }

    /// Watches `path` until `done` returns a value for the type and object of an event.
    pub(crate) async fn watch<T>(
        mut self,
        path: &str,
        mut done: impl FnMut(&str, &Value) -> Option<T>,
    ) -> anyhow::Result<T> {
        let response = self.send(request(Method::GET, path, "")).await?;
        ensure!(response.status().is_success(), "watch {path}: {}", response.status());
        let mut body = response.into_body();
        let mut pending = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.context("read a watch")?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let event: Value = serde_json::from_slice(&pending.split_to(end + 1))?;
                let kind = event["type"].as_str().unwrap_or_default();
                if let Some(value) = done(kind, &event["object"]) {
                    return Ok(value);
                }
            }
            ensure!(pending.len() < LONGEST_LINE, "watch {path}: a line is too long");
        }
        bail!("the watch of {path} ended early")
    }
}
