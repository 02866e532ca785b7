//! Who is at the other end of a connection, as far as TCP and TLS can tell.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;

/// The other end of a connection. Every request carries it as an extension, `Arc<Peer>`.
pub struct Peer {
    /// The address that connected; `None` for requests from within the process.
    pub address: Option<SocketAddr>,
    /// What the peer proved by TLS.
    pub certificate: ClientCertificate,
    /// The leaf by which the peer proved to be a proxy that may speak for others.
    pub front: Option<CertificateDer<'static>>,
    memo: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The outcome of asking the peer for a client certificate.
pub enum ClientCertificate {
    /// It showed none, or the connection has no TLS.
    None,
    /// Its chain leads to a trusted authority, and it holds the key. The leaf stands first.
    Verified(Vec<CertificateDer<'static>>),
    /// It showed one that does not verify, for this reason.
    Rejected(String),
}

impl Peer {
    /// A peer with nothing remembered yet.
    pub fn new(address: Option<SocketAddr>, certificate: ClientCertificate) -> Self {
        Self { address, certificate, front: None, memo: OnceLock::new() }
    }

    /// Computes something about the peer once a connection; all callers must ask for the same `T`.
    /// A caller that asks for another type gets its own answer, uncached.
    pub fn memo<T: Send + Sync + 'static>(&self, compute: impl Fn(&Self) -> T) -> Arc<T> {
        let stored = self.memo.get_or_init(|| Arc::new(compute(self)));
        stored.clone().downcast::<T>().unwrap_or_else(|_| Arc::new(compute(self)))
    }
}
