//! The asking side: accepting a tunnel, and connections through it.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{LINK_WINDOW, PING_INTERVAL, PING_TIMEOUT, PROTOCOL, STREAM_WINDOW};
use crate::proxy::is_upgrade;
use crate::{Body, Connection};

/// The most of a refusal's text that is read, in bytes.
const MOST_REFUSAL: usize = 4096;

/// A tunnel that has been offered by a request, and not yet taken.
pub struct Offer(OnUpgrade);

/// Runs a tunnel; resolves when the link has ended.
pub type Link = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes a request that offers a tunnel: the answer to send, and what becomes the tunnel once it is sent. None if
/// the request offers none.
pub fn accept(request: &mut Request<Body>) -> Option<(Response<Body>, Offer)> {
    let offered = request.headers().get(UPGRADE).is_some_and(|value| value == PROTOCOL);
    if request.method() != Method::GET || !offered || !is_upgrade(request.headers()) {
        return None;
    }
    let offer = Offer(hyper::upgrade::on(request));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Some((response, offer))
}

impl Offer {
    /// Opens the tunnel; the link must be polled for it to work.
    ///
    /// # Errors
    /// When the peer has gone or speaks another protocol.
    pub async fn open(self) -> Result<(Tunnel, Link), hyper::Error> {
        let connection = self.0.await?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(LINK_WINDOW)
            .max_header_list_size(16 * 1024)
            .handshake(connection)
            .await?;
        let link = async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "tunnel ended");
            }
        };
        Ok((Tunnel(sender), Box::pin(link)))
    }
}

/// A way to connections that the peer makes. Its link ends when every handle and every connection is gone.
#[derive(Clone)]
pub struct Tunnel(SendRequest<Empty<Bytes>>);

/// Why a connection could not be had through a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer answers that it could not connect, or will not.
    #[error("{0}")]
    Refused(String),
    /// The tunnel is broken.
    #[error("the tunnel broke")]
    Lost(#[source] hyper::Error),
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(why) => Self::other(why),
            lost @ ConnectError::Lost(_) => Self::new(io::ErrorKind::BrokenPipe, lost),
        }
    }
}

impl Tunnel {
    /// Whether the link has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// A connection that the peer makes to `authority`, `host:port`. Waits while the tunnel has as many as it may.
    ///
    /// # Errors
    /// When the peer cannot or will not connect, and when the tunnel breaks.
    pub async fn connect(&self, authority: &str) -> Result<Connection, ConnectError> {
        let uri: Uri = authority
            .parse()
            .map_err(|error| ConnectError::Refused(format!("address {authority:?}: {error}")))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        let mut sender = self.0.clone();
        sender.ready().await.map_err(ConnectError::Lost)?;
        let mut response = sender.send_request(request).await.map_err(ConnectError::Lost)?;
        if response.status() == StatusCode::OK {
            let upgraded = hyper::upgrade::on(&mut response).await.map_err(ConnectError::Lost)?;
            return Ok(Box::new(TokioIo::new(upgraded)));
        }
        let status = response.status();
        let why = Body::from(response.into_body()).read(MOST_REFUSAL).await.unwrap_or_default();
        let why = String::from_utf8_lossy(&why).trim().to_owned();
        Err(ConnectError::Refused(if why.is_empty() { status.to_string() } else { why }))
    }
}
