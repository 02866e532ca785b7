//! port-forward: connections into a pod's network namespace, to its loopback, as upstream does.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, setns};
use serve::Body;
use stream::portforward::{SPDY_PROTOCOL, TUNNEL_PROTOCOL, serve};
use stream::spdy::Connection;
use stream::upgrade::{Transport, negotiate};
use stream::websocket::{self, MOST_PORTS, PORT_PROTOCOLS};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WEBSOCKETS: [&str; 4] =
    [TUNNEL_PROTOCOL, PORT_PROTOCOLS[0], PORT_PROTOCOLS[1], PORT_PROTOCOLS[2]];

/// Answers a port-forward request for a pod whose network namespace is at `namespace` (`None`: the
/// node's own). The forwarding goes on in a task until the client ends it, or `shutdown`.
pub(crate) fn forward(
    pod: String,
    namespace: Option<PathBuf>,
    mut request: Request<Body>,
    shutdown: CancellationToken,
) -> Response<Body> {
    let upgrade = match negotiate(request.headers(), &[SPDY_PROTOCOL], &WEBSOCKETS) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return super::refused(&refusal),
    };
    let messages = upgrade.transport == Transport::WebSocket && upgrade.protocol != TUNNEL_PROTOCOL;
    let ports = match messages.then(|| ports(request.uri().query().unwrap_or_default())) {
        Some(Err(problem)) => return super::text(StatusCode::BAD_REQUEST, problem),
        Some(Ok(ports)) => ports,
        None => Vec::new(),
    };
    if let Some(path) = &namespace
        && let Err(error) = File::open(path)
    {
        return super::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("network namespace of pod {pod}: {error}"),
        );
    }
    let response = upgrade.response();
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let session = async {
            let io = TokioIo::new(client.await.map_err(|e| e.to_string())?);
            let dial = |port| dial(pod.clone(), namespace.clone(), port);
            if messages {
                websocket::forward(io, upgrade.protocol, &ports, dial).await;
                return Ok(());
            }
            let connection = match upgrade.transport {
                Transport::Spdy => Connection::server(io),
                Transport::WebSocket => Connection::server(websocket::tunnel(io).await),
            };
            let connection = connection.map_err(|e| e.to_string())?;
            serve(connection, dial).await;
            Ok::<_, String>(())
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            outcome = session => if let Err(error) = outcome {
                tracing::debug!(%error, "port-forward ended");
            },
        }
    });
    response
}

/// The ports that a WebSocket is to forward: those of SPDY are named by its streams.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let named = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
    let ports = named.map(|port| match port.parse() {
        Ok(0) => Err(format!("port {port:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) if port.is_empty() => Err("query parameter \"port\" cannot be empty".to_owned()),
        Err(_) => Err(format!("unable to parse {port:?} as a port")),
    });
    let ports: Vec<u16> = ports.collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        1..=MOST_PORTS => Ok(ports),
        many => Err(format!("{many} ports are too many for one connection")),
    }
}

/// Connects to a port of the pod's loopback, IPv4 first.
async fn dial(pod: String, namespace: Option<PathBuf>, port: u16) -> Result<TcpStream, String> {
    let socket = match namespace {
        None => connect(port),
        Some(path) => in_namespace(path, port).await,
    };
    let failed = |error| {
        format!(
            "error forwarding port {port} to pod {pod}: failed to connect to localhost:{port} inside the pod: {error}"
        )
    };
    let socket = socket.map_err(failed)?;
    socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)).map_err(failed)
}

/// A thread that has entered another namespace must not be used for anything else: it ends here.
async fn in_namespace(path: PathBuf, port: u16) -> std::io::Result<std::net::TcpStream> {
    let (answer, connected) = oneshot::channel();
    std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        let _ = answer.send(enter(&path).and_then(|()| connect(port)));
    })?;
    connected.await.unwrap_or_else(|_| Err(std::io::Error::other("the connecting thread ended")))
}

fn enter(path: &Path) -> std::io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
}

fn connect(port: u16) -> std::io::Result<std::net::TcpStream> {
    let connect = |address: IpAddr| {
        std::net::TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT)
    };
    connect(Ipv4Addr::LOCALHOST.into())
        .or_else(|refused| connect(Ipv6Addr::LOCALHOST.into()).map_err(|_| refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_names_its_ports() {
        assert_eq!(ports("port=80&port=8080&x=1"), Ok(vec![80, 8080]));
        for (query, problem) in [
            ("", "is required"),
            ("port=", "cannot be empty"),
            ("port=0", "must be > 0"),
            ("port=65536", "unable to parse \"65536\""),
            (&"port=1&".repeat(MOST_PORTS + 1), "too many"),
        ] {
            assert!(ports(query).is_err_and(|error| error.contains(problem)), "{query}");
        }
    }
}
