//! Every connection that the API server makes to nodes, pods and Services, and how it gets there: through the tunnel
//! of the node that has the address, or directly where the server is on the pod network itself or no tunnel knows
//! better.
//!
//! Owns the choice of the way. Refuses to know what is spoken on the connection: [`resolve`] says where a node, a pod
//! or a Service is, callers put TLS and HTTP on top.

pub(crate) mod resolve;
mod tunnels;

use std::{io, time::Duration};

use serve::{Connection, tunnel::ConnectError};

pub(crate) use tunnels::Tunnels;

/// How long a node that cannot be dialled may take to open its tunnel, as it does after a server's start.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a connection goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Destination {
    /// `host:port`, an IPv6 host in brackets.
    pub(crate) authority: String,
    /// The node that has the address, as far as one does.
    pub(crate) node: Option<String>,
    /// The Service's own address and port, which any node reaches.
    pub(crate) service: Option<String>,
}

/// Makes the API server's connections.
#[derive(Default)]
pub(crate) struct Egress {
    /// The node in the server's own process, if there is one: then the server is on the pod network.
    local: Option<String>,
    /// What nodes have opened.
    pub(crate) tunnels: Tunnels,
}

impl Egress {
    /// Connections of a server that shares its machine with the node `local`, if with any.
    pub(crate) fn new(local: Option<String>) -> Self {
        Self { local, ..Self::default() }
    }

    /// Connects. Callers bound the time.
    ///
    /// # Errors
    /// When no way leads there.
    pub(crate) async fn connect(&self, to: &Destination) -> io::Result<Connection> {
        let Some(node) = to.node.as_deref().filter(|node| self.local.as_deref() != Some(*node))
        else {
            return serve::dial(&to.authority).await;
        };
        if let Some(outcome) = self.through(node, &to.authority).await {
            return outcome;
        }
        if let Some(service) = to.service.as_deref().filter(|_| self.local.is_none()) {
            for other in self.tunnels.nodes() {
                if let Some(outcome) = self.through(&other, service).await {
                    return outcome;
                }
            }
        }
        self.directly(node, &to.authority).await
    }

    /// Through a node's tunnel; none if it has none that works.
    async fn through(&self, node: &str, authority: &str) -> Option<io::Result<Connection>> {
        while let Some((id, tunnel)) = self.tunnels.of(node) {
            match tunnel.connect(authority).await {
                Ok(connection) => return Some(Ok(connection)),
                Err(ConnectError::Lost(error)) => {
                    tracing::debug!(node, %error, "tunnel is lost");
                    self.tunnels.remove(node, id);
                }
                Err(refused) => return Some(Err(refused.into())),
            }
        }
        None
    }

    /// Without a tunnel, unless one appears before the answer does.
    async fn directly(&self, node: &str, authority: &str) -> io::Result<Connection> {
        let opened = self.tunnels.opened(node);
        tokio::pin!(opened);
        let refused = tokio::select! {
            dialled = serve::dial(authority) => match dialled {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            },
            () = &mut opened => return self.opened(node, authority).await,
        };
        match tokio::time::timeout(PATIENCE, opened).await {
            Ok(()) => self.opened(node, authority).await,
            Err(_) => Err(refused),
        }
    }

    async fn opened(&self, node: &str, authority: &str) -> io::Result<Connection> {
        let outcome = self.through(node, authority).await;
        outcome.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }
}
