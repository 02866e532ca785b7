//! Serving HTTP: listeners, TLS, the life of a connection, bounded bodies, reverse proxying, reverse tunnels.
//!
//! Owns what every HTTPS server of skiff has in common (API server, kubelet). Knows nothing of
//! Kubernetes: no users, no objects, no paths.

pub mod body;
mod io;
mod peer;
pub mod proxy;
mod server;
mod stall;
pub mod tls;
pub mod tunnel;

pub use body::Body;
pub use io::{Connection, Io, dial, upgraded};
pub use peer::{ClientCertificate, Peer};
pub use server::{Handler, ServeError, Server, ServerOptions};

/// The error type of bodies: whatever the producer of a stream reports.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
