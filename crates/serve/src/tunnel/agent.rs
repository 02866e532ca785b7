//! The serving side: keeps a tunnel to every server, and dials what it is asked for as far as [`Dial`] allows.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{LINK_WINDOW, PING_INTERVAL, PING_TIMEOUT, PROTOCOL, STREAM_WINDOW, STREAMS};
use crate::Body;

/// How long each step towards a server may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a dial on a server's behalf may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// The first and the longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A tunnel that lasted as long as this was a good one: the next attempt comes at once.
const LASTING: Duration = Duration::from_secs(10);

/// Decides what a server may reach through the tunnel, and connects to it.
pub trait Dial: Send + Sync + 'static {
    /// Connects to a port of `address`. An error of kind `PermissionDenied` says that nobody may.
    fn dial(&self, address: IpAddr, port: u16) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// Where tunnels go.
#[derive(Clone)]
pub struct AgentOptions {
    /// The servers, `host:port` each; a tunnel is kept to every one of them. May change at any time.
    pub servers: watch::Receiver<Vec<String>>,
    /// Whom to trust, and who this is. Must offer no protocol but HTTP/1.1.
    pub tls: Arc<ClientConfig>,
    /// The path that takes tunnels.
    pub path: &'static str,
}

/// Keeps the tunnels.
pub struct Agent<D> {
    options: AgentOptions,
    dial: Arc<D>,
}

impl<D: Dial> Agent<D> {
    /// An agent that has not begun.
    pub fn new(options: AgentOptions, dial: Arc<D>) -> Self {
        Self { options, dial }
    }

    /// Keeps a tunnel to every server until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut servers = self.options.servers.clone();
        let mut kept: HashMap<String, tokio_util::sync::DropGuard> = HashMap::new();
        loop {
            let wanted = servers.borrow_and_update().clone();
            kept.retain(|server, _| wanted.contains(server));
            for server in wanted {
                kept.entry(server).or_insert_with_key(|server| {
                    let stop = shutdown.child_token();
                    let (options, dial) = (self.options.clone(), self.dial.clone());
                    let keeper = keep(server.clone(), options, dial, stop.clone());
                    tokio::spawn(stop.clone().run_until_cancelled_owned(keeper));
                    stop.drop_guard()
                });
            }
            let changed = shutdown.run_until_cancelled(servers.changed()).await;
            match changed {
                Some(Ok(())) => {}
                // The list stays as it is.
                Some(Err(_)) => return shutdown.cancelled().await,
                None => return,
            }
        }
    }
}

/// Opens the tunnel to one server again whenever it ends.
async fn keep<D: Dial>(
    server: String,
    options: AgentOptions,
    dial: Arc<D>,
    stop: CancellationToken,
) {
    let mut pause = PAUSE.0;
    loop {
        let begun = Instant::now();
        match open(&server, &options).await {
            Ok(connection) => {
                tracing::info!(server, "tunnel is open");
                let outcome = serve(connection, &dial, &stop).await;
                tracing::info!(server, outcome, "tunnel has ended; opening another");
            }
            Err(error) => tracing::debug!(server, %error, "tunnel cannot be opened"),
        }
        if begun.elapsed() > LASTING {
            pause = PAUSE.0;
        }
        sleep(pause.mul_f64(1.0 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Dials a server and has the connection upgraded.
async fn open(server: &str, options: &AgentOptions) -> io::Result<hyper::upgrade::Upgraded> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let socket = step(TcpStream::connect(server)).await?;
    let _ = socket.set_nodelay(true);
    let stream = step(TlsConnector::from(options.tls.clone()).connect(name, socket)).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, driver) = step(other(handshake)).await?;
    tokio::spawn(driver.with_upgrades());
    let request = Request::builder()
        .uri(options.path)
        .header(HOST, server)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, PROTOCOL)
        .body(Body::empty())
        .map_err(io::Error::other)?;
    let mut response = step(other(sender.send_request(request))).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(format!("the server answers {}", response.status())));
    }
    step(other(hyper::upgrade::on(&mut response))).await
}

async fn other<T>(step: impl Future<Output = Result<T, hyper::Error>>) -> io::Result<T> {
    step.await.map_err(io::Error::other)
}

async fn step<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Serves one tunnel until it ends; returns why it did.
async fn serve<D: Dial>(
    connection: hyper::upgrade::Upgraded,
    dial: &Arc<D>,
    stop: &CancellationToken,
) -> String {
    let (dial, ended) = (dial.clone(), stop.child_token());
    let _end_streams = ended.clone().drop_guard();
    let service = service_fn(move |request: Request<Incoming>| {
        let (dial, ended) = (dial.clone(), ended.clone());
        async move { Ok::<_, Infallible>(answer(&*dial, request, ended).await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(LINK_WINDOW)
        .max_header_list_size(16 * 1024)
        .serve_connection(connection, service)
        .await;
    served.map_or_else(|error| error.to_string(), |()| "closed by the server".to_owned())
}

/// Answers one CONNECT: dials, then carries bytes both ways in a task until either side or the tunnel ends.
async fn answer(
    dial: &impl Dial,
    mut request: Request<Incoming>,
    ended: CancellationToken,
) -> Response<Body> {
    if request.method() != Method::CONNECT {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "a tunnel takes CONNECT only".to_owned());
    }
    let authority = request.uri().to_string();
    let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let (Ok(address), Some(port)) = (host.parse::<IpAddr>(), request.uri().port_u16()) else {
        return refusal(StatusCode::BAD_REQUEST, format!("{authority:?} is no address and port"));
    };
    let dialled = timeout(DIAL_TIMEOUT, dial.dial(address, port))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match dialled {
        Ok(mut socket) => {
            let _ = socket.set_nodelay(true);
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(ended.run_until_cancelled_owned(async move {
                let Ok(stream) = upgrade.await else { return };
                let mut stream = TokioIo::new(stream);
                if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut socket).await {
                    tracing::debug!(%error, authority, "tunnelled connection ended");
                }
            }));
            Response::new(Body::empty())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            refusal(StatusCode::FORBIDDEN, format!("dial {authority}: {error}"))
        }
        Err(error) => refusal(StatusCode::BAD_GATEWAY, format!("dial {authority}: {error}")),
    }
}

fn refusal(status: StatusCode, why: String) -> Response<Body> {
    let mut response = Response::new(Body::from(why));
    *response.status_mut() = status;
    response
}
