//! Reverse proxying of one request, upgrades included: after a 101 the bytes are copied both ways.
//!
//! Where the target is, and whether the caller may reach it, is decided elsewhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{Body, Connection};

/// How long a target may take to accept a connection and finish its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that speak of one connection and must not travel further (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRAILER,
    TRANSFER_ENCODING,
];

/// Why a request could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The target's URL lacks a host or has a scheme other than http and https.
    #[error("proxy target {0} is no http or https URL with a host")]
    Target(Uri),
    /// The target cannot be reached.
    #[error("dial {authority}: {source}")]
    Dial {
        /// Host and port.
        authority: String,
        /// The kernel's or TLS's answer.
        source: io::Error,
    },
    /// The target answers no HTTP.
    #[error("proxy to {authority}: {source}")]
    Http {
        /// Host and port.
        authority: String,
        /// What went wrong on the connection.
        source: hyper::Error,
    },
    /// The target answers with another protocol that the request did not ask for.
    #[error("proxy to {0}: switches protocols without being asked")]
    Unasked(String),
}

/// Passes requests on to targets, each over a connection of its own.
#[derive(Clone)]
pub struct Proxy {
    tls: Arc<ClientConfig>,
    shutdown: CancellationToken,
}

impl Proxy {
    /// `tls` says whom to trust and what to present on https targets; upgraded connections end
    /// with `shutdown`.
    pub fn new(tls: Arc<ClientConfig>, shutdown: CancellationToken) -> Self {
        Self { tls, shutdown }
    }

    /// Passes `request` on to `target` (scheme, host, port, path and query) over what `dial` connects to, and
    /// returns its answer. An upgrade that the target accepts is carried on in a task until either side ends it.
    ///
    /// # Errors
    /// When the target cannot be reached or speaks no HTTP.
    pub async fn forward(
        &self,
        mut request: Request<Body>,
        target: &Uri,
        dial: impl Future<Output = io::Result<Connection>>,
    ) -> Result<Response<Body>, ProxyError> {
        let downstream = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let authority = authority(target)?;
        let connection = self.connect(target, &authority, dial).await?;
        let http = |source| ProxyError::Http { authority: authority.clone(), source };
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(http)?;
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = driver.with_upgrades() => {}
            }
        });
        let outgoing = prepare(request, target, &authority, downstream.is_some());
        let mut response = sender.send_request(outgoing).await.map_err(http)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(downstream) = downstream else { return Err(ProxyError::Unasked(authority)) };
            let upstream = hyper::upgrade::on(&mut response);
            tokio::spawn(copy(downstream, upstream, self.shutdown.clone()));
            return Ok(response.map(Body::from));
        }
        strip(response.headers_mut());
        Ok(response.map(Body::from))
    }

    async fn connect(
        &self,
        target: &Uri,
        authority: &str,
        dial: impl Future<Output = io::Result<Connection>>,
    ) -> Result<Connection, ProxyError> {
        let connect = async {
            let connection = dial.await?;
            if target.scheme() != Some(&Scheme::HTTPS) {
                return Ok(connection);
            }
            let host = target.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let stream = TlsConnector::from(self.tls.clone()).connect(name, connection).await?;
            Ok(Box::new(stream) as Connection)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ProxyError::Dial { authority: authority.to_owned(), source })
    }
}

/// Host and port of a URL, the scheme's port where it names none.
///
/// # Errors
/// When it lacks a host or has a scheme other than http and https.
pub fn authority(target: &Uri) -> Result<String, ProxyError> {
    let default = match target.scheme() {
        Some(s) if *s == Scheme::HTTPS => 443,
        Some(s) if *s == Scheme::HTTP => 80,
        _ => return Err(ProxyError::Target(target.clone())),
    };
    let host = target.host().ok_or_else(|| ProxyError::Target(target.clone()))?;
    Ok(format!("{host}:{}", target.port_u16().unwrap_or(default)))
}

/// Whether the headers ask for another protocol on this connection.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    headers.contains_key(UPGRADE)
        && connection
            .flat_map(|v| v.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

fn prepare(request: Request<Body>, target: &Uri, authority: &str, upgrade: bool) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let upgrade_to = parts.headers.get(UPGRADE).cloned().filter(|_| upgrade);
    strip(&mut parts.headers);
    parts.headers.remove(UPGRADE);
    if let Some(protocol) = upgrade_to {
        parts.headers.insert(UPGRADE, protocol);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if let Ok(host) = HeaderValue::from_str(authority) {
        parts.headers.insert(HOST, host);
    }
    let path = target.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    Request::from_parts(parts, body)
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name| *name != UPGRADE)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

async fn copy(downstream: OnUpgrade, upstream: OnUpgrade, shutdown: CancellationToken) {
    let (downstream, upstream) = match futures::future::try_join(downstream, upstream).await {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "upgrade a proxied connection"),
    };
    let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
    tokio::select! {
        () = shutdown.cancelled() => {}
        copied = tokio::io::copy_bidirectional(&mut downstream, &mut upstream) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "proxied connection ended");
            }
        }
    }
}
