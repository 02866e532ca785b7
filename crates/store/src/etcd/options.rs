//! How a store in etcd is opened. Knows nothing of the protocol.

use std::time::Duration;

use crate::SealOptions;

/// Options of [`Etcd::open`](super::Etcd::open).
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// Addresses of the members, such as `https://10.0.0.1:2379`. Any that
    /// answers is used.
    pub endpoints: Vec<String>,
    /// Certificates; needed for `https` endpoints.
    pub tls: Option<EtcdTls>,
    /// Name of this server among those that share the store; no two that run
    /// may have the same.
    pub name: String,
    /// What all keys in etcd begin with. Default `/skiff`.
    pub prefix: String,
    /// Values that are sealed at rest; none if nothing. All servers need the
    /// same key file.
    pub seal: Option<SealOptions>,
    /// Bytes of superseded values that memory keeps for watches and reads of
    /// older revisions. Default 64 MB.
    pub recent_bytes: usize,
    /// Age at which superseded values leave the memory. Default five minutes.
    pub recent_age: Duration,
    /// How often etcd is told to forget what is older than that interval.
    /// Default five minutes.
    pub compact_every: Duration,
    /// How long reads and writes look for a member that works. Default 15 s.
    pub patience: Duration,
}

impl EtcdOptions {
    /// The defaults, for the server `name`.
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            name: name.into(),
            prefix: "/skiff".to_owned(),
            seal: None,
            recent_bytes: 64 << 20,
            recent_age: Duration::from_secs(300),
            compact_every: Duration::from_secs(300),
            patience: Duration::from_secs(15),
        }
    }
}

/// Certificates for the connection to etcd, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// The authority that the members' certificates come from.
    pub authority: Vec<u8>,
    /// This client's certificate and key, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls")
            .field("identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}
