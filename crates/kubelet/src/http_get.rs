//! One HTTP(S) GET as probes and hooks make it: certificates are not checked, redirects count as success, the body is
//! read only as far as it is shown. Knows nothing of thresholds.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::util::intstr::IntOrString};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// The most that is read of an answer, bytes (upstream's).
const BODY: usize = 10 * 1024;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
}

/// The number of a container port given by number or by name.
pub(crate) fn port(container: &api::Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

/// Sends the request to `host` (or the action's own host) and waits at most `limit` for the answer.
///
/// # Errors
/// The sentence a probe shows.
pub(crate) async fn get(
    action: &api::HTTPGetAction,
    container: &api::Container,
    host: &str,
    agent: &str,
    limit: Duration,
) -> Result<Answer, String> {
    let port = port(container, &action.port)
        .ok_or_else(|| format!("couldn't find port: {:?}", action.port))?;
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(host);
    let tls = action.scheme.as_deref() == Some("HTTPS");
    let scheme = if tls { "https" } else { "http" };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{bracketed}:{port}{slash}{path}");
    let named = |error: String| format!("Get {url:?}: {error}");
    let exchange = async {
        let stream = TcpStream::connect((host, port)).await.map_err(|e| dial(host, port, &e))?;
        let request =
            request(action, &format!("{slash}{path}"), &format!("{bracketed}:{port}"), agent)?;
        if tls {
            let stream = connect_tls(stream, host).await?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    };
    match timeout(limit, exchange).await {
        Ok(result) => result.map_err(named),
        Err(_) => Err(named(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        )),
    }
}

/// Go's words for a failed connection.
pub(crate) fn dial(host: &str, port: u16, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("dial tcp {bracketed}:{port}: {why}")
}

fn request(
    action: &api::HTTPGetAction,
    path: &str,
    authority: &str,
    agent: &str,
) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut request = http::Request::get(path);
    let (mut has_host, mut has_agent, mut has_accept) = (false, false, false);
    for header in action.http_headers.iter().flatten() {
        has_host |= header.name.eq_ignore_ascii_case("host");
        has_agent |= header.name.eq_ignore_ascii_case("user-agent");
        has_accept |= header.name.eq_ignore_ascii_case("accept");
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    if !has_host {
        request = request.header("host", authority);
    }
    if !has_agent {
        request = request.header("user-agent", agent);
    }
    if !has_accept {
        request = request.header("accept", "*/*");
    }
    request.header("connection", "close").body(Empty::new()).map_err(|error| error.to_string())
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| explain(&error))?;
        let status = response.status().as_u16();
        // Read to the end, so that the other side does not log a reset; what is too long is cut off.
        let _ = Limited::new(response.into_body(), BODY).collect().await;
        Ok(Answer { status })
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut exchange => result,
        _ = &mut connection => exchange.await,
    }
}

fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() }
}

async fn connect_tls(
    stream: TcpStream,
    host: &str,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, String> {
    // A probe asks whether the container answers, not who it is (upstream's rule).
    let config = serve::tls::unverified_client_config().map_err(|error| error.to_string())?;
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?,
    };
    let connector = tokio_rustls::TlsConnector::from(config);
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}
