//! A listener and the connections it accepts, with or without TLS, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::stall::{Impatient, Patience};
use crate::tls::ServerTls;
use crate::{Body, ClientCertificate, Peer};

/// The longest head of a request over HTTP/1, and what is read of a body and kept of an answer at once, in bytes.
const MOST_BUFFERED: usize = 128 * 1024;

/// Answers requests. Each carries its [`Peer`] as an `Arc<Peer>` extension.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request; whatever goes wrong is an answer too.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

impl<F, R> Handler for F
where
    F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
        self(request)
    }
}

/// The bounds of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// How long a peer may take for its TLS handshake.
    pub handshake_timeout: Duration,
    /// How long a peer may take to send the head of a request, and to begin with its first one.
    pub header_timeout: Duration,
    /// How long a peer may take nothing of an answer. Connections that were upgraded to another protocol may wait.
    pub write_timeout: Duration,
    /// HTTP/2 streams a connection may have open at once.
    pub max_streams: u32,
    /// How long requests under way may take to finish once the server stops.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(300),
            max_streams: 250,
            drain_timeout: Duration::from_secs(2),
        }
    }
}

/// Why a server could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("listen on {address}{}", hint(.source))]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process has it: stop that, or choose another port)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has the address)",
        _ => "",
    }
}

/// A socket that listens, before it serves.
pub struct Server {
    listener: TcpListener,
    tls: Option<ServerTls>,
    options: ServerOptions,
}

impl Server {
    /// Listens on `address`. Connections queue in the kernel until [`Server::run`].
    ///
    /// # Errors
    /// [`ServeError::Bind`] when the address is taken or not this machine's.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<ServerTls>,
        options: ServerOptions,
    ) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Bind { address, source })?;
        Ok(Self { listener, tls, options })
    }

    /// The address that is listened on; its port is real where 0 was asked for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then lets requests under way finish within the drain timeout.
    pub async fn run(self, handler: impl Handler, shutdown: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(self.options.max_connections));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let Some((socket, address, place)) = accepted else { continue };
            let connection = Connection {
                tls: self.tls.clone(),
                options: self.options.clone(),
                handler: handler.clone(),
                watcher: graceful.watcher(),
            };
            tokio::spawn(async move {
                connection.serve(socket, address).await;
                drop(place);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(self.options.drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::debug!("connections still open when the drain timeout passed");
        }
    }
}

/// The answer to HEAD: the headers of the answer to GET, and not one byte of its body (RFC 9110, 9.3.2).
/// HTTP/2 clients take anything more for a broken connection.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Response::from_parts(head, Body::empty())
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, address)) => Some((socket, address, place)),
        Err(error) => {
            // Out of descriptors or a connection reset before it was accepted: go on, not too fast.
            tracing::warn!(%error, "accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

struct Connection<H> {
    tls: Option<ServerTls>,
    options: ServerOptions,
    handler: H,
    watcher: hyper_util::server::graceful::Watcher,
}

impl<H: Handler> Connection<H> {
    async fn serve(self, socket: TcpStream, address: SocketAddr) {
        // Small answers must not wait for the peer's acknowledgements.
        let _ = socket.set_nodelay(true);
        let Some(tls) = self.tls.clone() else {
            return self.http(socket, Peer::new(Some(address), ClientCertificate::None)).await;
        };
        let handshake = TlsAcceptor::from(tls.config.clone()).accept(socket);
        match tokio::time::timeout(self.options.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates();
                let mut peer = Peer::new(Some(address), tls.judge(shown));
                peer.front = tls.judge_front(shown);
                self.http(stream, peer).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake"),
            Err(_) => tracing::debug!(%address, "TLS handshake timed out"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, peer: Peer) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_buf_size(MOST_BUFFERED);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.options.max_streams)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_header_list_size(64 * 1024);
        let (handler, peer) = (self.handler, Arc::new(peer));
        let begun = Arc::new(AtomicBool::new(false));
        let first = begun.clone();
        let patience = Patience::default();
        let stream = Impatient::new(stream, self.options.write_timeout, patience.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            first.store(true, Ordering::Relaxed);
            let (handler, peer, patience) = (handler.clone(), peer.clone(), patience.clone());
            async move {
                let mut request = request.map(Body::from);
                request.extensions_mut().insert(peer);
                let only_head = request.method() == Method::HEAD;
                let response = handler.call(request).await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    patience.grant();
                }
                Ok::<_, Infallible>(if only_head { without_body(response) } else { response })
            }
        });
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let idle = async {
            tokio::time::sleep(self.options.header_timeout).await;
            if begun.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        // Which version a peer speaks is found out by waiting for its first bytes, however long that takes.
        tokio::select! {
            ended = self.watcher.watch(connection) => if let Err(error) = ended {
                tracing::debug!(error, "connection ended");
            },
            () = idle => tracing::debug!("a connection was opened for nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_head_says_how_long_the_body_would_be() {
        let answer = without_body(Response::new(Body::full("twelve bytes")));
        assert_eq!(answer.headers()[CONTENT_LENGTH], "12");
        assert!(answer.body().is_end_stream());
    }
}
