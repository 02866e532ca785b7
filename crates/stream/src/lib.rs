//! The protocols of exec, attach and port-forward: SPDY/3.1, and channels in a WebSocket.
//!
//! Owns framing, negotiation and half-closing. Knows nothing of pods, commands or who may run them:
//! bytes go in on named channels and come out on named channels.
//!
//! - [`spdy`]: multiplexed streams with headers over one connection, both roles.
//! - [`websocket`]: the channel subprotocols (`v4.channel.k8s.io`, `v5.channel.k8s.io`, base64 ones),
//!   and SPDY tunnelled through a WebSocket.
//! - [`portforward`]: pairs of data and error streams.
//! - [`session`]: a remote command's five channels over any of them.
//! - [`upgrade`]: what a request asks for and how to accept it.

pub mod portforward;
pub mod session;
pub mod spdy;
pub mod upgrade;
pub mod websocket;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection broke.
    #[error("connection broke")]
    Io(#[from] std::io::Error),
    /// The peer broke the protocol's rules.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The peer has gone.
    #[error("connection is closed")]
    Closed,
}

/// What a connection must be to carry streams.
pub trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static> Io for T {}
