//! The way to a cluster's API servers over HTTPS: several addresses, one HTTP/2 connection at a time,
//! and the next server where one fails.
//!
//! Trust and identity come as a TLS configuration; knows nothing of certificates' files or renewal.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use http::header::{AUTHORIZATION, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

/// How long the other servers wait for one that does not answer.
const STAGGER: Duration = Duration::from_millis(500);
/// How long one server may take to accept a connection and finish its handshake.
const CONNECT: Duration = Duration::from_secs(3);
/// How often a connection is asked whether it lives, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(3));
/// After this many failures of a server in a row another one is tried.
const FAILURES: u32 = 3;

/// Why a server's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no server: it looks like https://host:6443")]
pub struct BadServer(String);

/// A server: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress(Authority);

impl ServerAddress {
    /// The server's URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.0)
    }

    /// Host and port, as one dials them.
    pub fn authority(&self) -> &str {
        self.0.as_str()
    }

    /// The host without brackets.
    pub fn host(&self) -> &str {
        self.0.host().trim_start_matches('[').trim_end_matches(']')
    }

    fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(443)
    }
}

impl std::str::FromStr for ServerAddress {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<Self, BadServer> {
        let bad = || BadServer(text.to_owned());
        let uri: Uri = text.trim().trim_end_matches('/').parse().map_err(|_| bad())?;
        let authority = uri.authority().filter(|_| {
            uri.scheme() == Some(&Scheme::HTTPS)
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        });
        let authority = authority.filter(|authority| !authority.as_str().contains('@'));
        authority.cloned().map(Self).ok_or_else(bad)
    }
}

/// The servers of a cluster, shared by all identities that talk to them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Servers(Arc<List>);

#[derive(Debug)]
struct List {
    addresses: RwLock<Vec<ServerAddress>>,
    preferred: AtomicUsize,
}

impl Servers {
    /// Begins with the first of `addresses`.
    pub fn new(addresses: Vec<ServerAddress>) -> Self {
        Self(Arc::new(List { addresses: RwLock::new(addresses), preferred: AtomicUsize::new(0) }))
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<ServerAddress> {
        self.0.addresses.read().clone()
    }

    /// Replaces the addresses; the server in use stays so if it is among them.
    pub fn replace(&self, addresses: Vec<ServerAddress>) {
        let mut known = self.0.addresses.write();
        let used = known.get(self.0.preferred.load(Ordering::Relaxed)).cloned();
        let at = addresses.iter().position(|address| Some(address) == used.as_ref());
        *known = addresses;
        self.0.preferred.store(at.unwrap_or(0), Ordering::Relaxed);
    }

    /// All addresses, the preferred one first.
    fn in_order(&self) -> Vec<ServerAddress> {
        let addresses = self.0.addresses.read();
        let first = self.0.preferred.load(Ordering::Relaxed).min(addresses.len().saturating_sub(1));
        addresses[first..].iter().chain(&addresses[..first]).cloned().collect()
    }

    fn prefer(&self, server: &ServerAddress) {
        if let Some(at) = self.0.addresses.read().iter().position(|address| address == server) {
            self.0.preferred.store(at, Ordering::Relaxed);
        }
    }

    /// Begins with the next server from now on; whether there is another.
    fn avoid_preferred(&self) -> bool {
        let count = self.0.addresses.read().len();
        let _ = self
            .0
            .preferred
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some((at + 1) % count.max(1)));
        count > 1
    }

    /// Connects to the first server that answers: the preferred one, and one more whenever those
    /// tried so far have failed or kept silent for a while.
    async fn connect(&self, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
        let mut rest = self.in_order().into_iter();
        let mut running = FuturesUnordered::new();
        let mut last = io::Error::other("no server's address is known");
        loop {
            if let Some(server) = rest.next() {
                running.push(dial(tls, server));
            }
            tokio::select! {
                Some((server, outcome)) = running.next() => match outcome {
                    Ok(stream) => {
                        self.prefer(&server);
                        return Ok(stream);
                    }
                    Err(error) => {
                        last = io::Error::new(error.kind(), format!("{}: {error}", server.authority()));
                    }
                },
                () = tokio::time::sleep(STAGGER), if rest.len() > 0 => {}
                else => return Err(last),
            }
        }
    }
}

async fn dial(
    tls: &TlsConnector,
    server: ServerAddress,
) -> (ServerAddress, io::Result<TlsStream<TcpStream>>) {
    let connect = async {
        let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
        let tcp = TcpStream::connect((server.host(), server.port())).await?;
        tcp.set_nodelay(true)?;
        tls.connect(name, tcp).await
    };
    let outcome = tokio::time::timeout(CONNECT, connect)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "does not answer")));
    (server, outcome)
}

/// One identity's way to the servers. Cheap to clone.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    servers: Servers,
    tls: Arc<ClientConfig>,
    token: Option<HeaderValue>,
    http: Mutex<Client<Connector, Body>>,
    failures: AtomicU32,
}

impl Remote {
    /// `tls` says whom to trust and what to present; `token`, if any, goes with each request.
    pub fn new(servers: Servers, tls: &ClientConfig, token: Option<&str>) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Arc::new(tls);
        let token = token.and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let http = Mutex::new(http_client(&servers, &tls));
        Self(Arc::new(Inner { servers, tls, token, http, failures: AtomicU32::new(0) }))
    }

    /// A client of the API.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// The servers it talks to.
    pub fn servers(&self) -> &Servers {
        &self.0.servers
    }

    /// Makes new connections from now on, as after a change of certificate. Requests under way,
    /// watches included, end on the connection they began on.
    pub fn reconnect(&self) {
        *self.0.http.lock() = http_client(&self.0.servers, &self.0.tls);
    }

    /// Notes whether the server in use works.
    fn note(&self, failed: bool) {
        if !failed {
            self.0.failures.store(0, Ordering::Relaxed);
        } else if self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.0.failures.store(0, Ordering::Relaxed);
            if self.0.servers.avoid_preferred() {
                self.reconnect();
            }
        }
    }
}

fn http_client(servers: &Servers, tls: &Arc<ClientConfig>) -> Client<Connector, Body> {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING.0)
        .http2_keep_alive_timeout(PING.1)
        .http2_keep_alive_while_idle(true)
        .build(Connector { servers: servers.clone(), tls: TlsConnector::from(tls.clone()) })
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Incoming>, legacy::Error>> + Send>>;

impl Service<Request<Body>> for Remote {
    type Response = Response<Incoming>;
    type Error = legacy::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        // One pool for all servers: which one it is, the connector decides.
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(Authority::from_static("kubernetes.default.svc"));
        let path = request.uri().path_and_query().cloned();
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        if let Some(token) = &self.0.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let answer = self.0.http.lock().request(request);
        let this = self.clone();
        Box::pin(async move {
            let outcome = answer.await;
            // What could not connect has tried all servers already.
            let failed = match &outcome {
                Ok(response) => matches!(response.status().as_u16(), 500 | 502..=504),
                Err(error) => !error.is_connect(),
            };
            this.note(failed);
            outcome
        })
    }
}

/// Makes the pool's connections.
#[derive(Clone)]
struct Connector {
    servers: Servers,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.servers.connect(&this.tls).await.map(TokioIo::new).map(Link) })
    }
}

/// A connection, as the pool wants to see it.
struct Link(TokioIo<TlsStream<TcpStream>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl hyper::rt::Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(urls: &[&str]) -> Servers {
        Servers::new(urls.iter().map(|url| url.parse().expect("a server")).collect())
    }

    #[test]
    fn servers_are_urls() {
        let good = |text: &str| text.parse::<ServerAddress>().ok().map(|server| server.url());
        assert_eq!(good("https://a:6443/").as_deref(), Some("https://a:6443"));
        assert_eq!(good("https://[fd00::1]:6443").as_deref(), Some("https://[fd00::1]:6443"));
        for bad in ["", "a:6443", "http://a:6443", "https://a/x", "https://u@a:6443", "https://"] {
            assert_eq!(good(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_server_in_use_stays_so() {
        let servers = servers(&["https://a:1", "https://b:1"]);
        let first = |servers: &Servers| servers.in_order()[0].authority().to_owned();
        assert!(servers.avoid_preferred());
        assert_eq!(first(&servers), "b:1");
        let more = ["https://c:1", "https://b:1"].map(|url| url.parse().expect("a server"));
        servers.replace(more.to_vec());
        assert_eq!(first(&servers), "b:1");
        servers.replace(vec!["https://c:1".parse().expect("a server")]);
        assert_eq!(first(&servers), "c:1");
        assert!(!servers.avoid_preferred());
    }
}
