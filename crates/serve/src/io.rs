//! What carries bytes both ways, whatever it is: a socket, TLS, a stream of a tunnel.

use std::io;

use futures::future::BoxFuture;
use http::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection of whatever kind.
pub type Connection = Box<dyn Io>;

/// Connects to `host:port` (an IPv6 host in brackets) from this process.
///
/// # Errors
/// The kernel's or the resolver's answer.
pub async fn dial(authority: &str) -> io::Result<Connection> {
    let socket = TcpStream::connect(authority).await?;
    // Small answers must not wait for the peer's acknowledgements.
    let _ = socket.set_nodelay(true);
    Ok(Box::new(socket))
}

/// The connection under a request that asks for another protocol, once the answer that grants it is sent.
///
/// # Errors
/// When the connection carries only HTTP, or breaks before.
pub fn upgraded<B>(request: &mut Request<B>) -> BoxFuture<'static, io::Result<Connection>> {
    let upgrade = hyper::upgrade::on(request);
    Box::pin(async move {
        let connection = upgrade.await.map_err(io::Error::other)?;
        Ok(Box::new(TokioIo::new(connection)) as Connection)
    })
}
