//! The tunnels that nodes have opened to this server, by node. Knows nothing of who may open one.

use std::collections::HashMap;

use parking_lot::Mutex;
use serve::tunnel::Tunnel;
use tokio::sync::watch;

/// The tunnels that are open.
#[derive(Default)]
pub(crate) struct Tunnels {
    open: Mutex<HashMap<String, Entry>>,
    changed: watch::Sender<u64>,
}

struct Entry {
    id: u64,
    tunnel: Tunnel,
}

impl Tunnels {
    /// Takes a node's newest tunnel. An older one ends with the last of its connections.
    pub(crate) fn insert(&self, node: &str, tunnel: Tunnel) -> u64 {
        let mut open = self.open.lock();
        let id = *self.changed.borrow() + 1;
        open.insert(node.to_owned(), Entry { id, tunnel });
        self.changed.send_replace(id);
        id
    }

    /// Forgets a tunnel that has ended, unless the node has opened another since.
    pub(crate) fn remove(&self, node: &str, id: u64) {
        let mut open = self.open.lock();
        if open.get(node).is_some_and(|entry| entry.id == id) {
            open.remove(node);
        }
    }

    /// How many nodes have a tunnel.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// The tunnel of a node.
    pub(super) fn of(&self, node: &str) -> Option<(u64, Tunnel)> {
        let open = self.open.lock();
        let entry = open.get(node).filter(|entry| !entry.tunnel.is_closed())?;
        Some((entry.id, entry.tunnel.clone()))
    }

    /// The nodes that have a tunnel.
    pub(super) fn nodes(&self) -> Vec<String> {
        self.open.lock().keys().cloned().collect()
    }

    /// Waits until the node has a tunnel.
    pub(super) async fn opened(&self, node: &str) {
        let mut changed = self.changed.subscribe();
        while self.of(node).is_none() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
