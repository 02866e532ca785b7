//! Making the kernel's table what it should be: small transactions when something changes, one
//! atomic replacement at the start and after a failure.
//!
//! Knows how to run a transaction; what should be in it comes from `state`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use nix::libc::IPPROTO_UDP;

use super::{
    endpoints::Target,
    plan::DatagramPort,
    stale::stale,
    state::{Delta, State},
};
use crate::{
    cni::{LeaseError, Leases},
    netlink::{NetlinkError, Socket, conntrack, nftables},
    nft::{self, NftError},
    options::NetworkOptions,
    ruleset::{self, Names},
};

/// Why the table was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The transaction was not made.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Host ports could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The kernel could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The blocking thread panicked or was cancelled.
    #[error("the task that changes the table ended early")]
    Task,
}

/// The table in the kernel.
pub(crate) struct Table {
    options: Arc<NetworkOptions>,
}

impl Table {
    pub(crate) fn new(options: Arc<NetworkOptions>) -> Self {
        Self { options }
    }

    /// Makes a change; nothing runs when nothing changes.
    pub(crate) async fn change(&self, delta: &Delta) -> Result<(), TableError> {
        let script = delta.script(&self.options.table);
        if script.is_empty() {
            return Ok(());
        }
        tracing::debug!(bytes = script.len(), "changing the table");
        Ok(nft::apply_async(&self.options.nft, script).await?)
    }

    /// Replaces whatever is there by everything in `state` and the host ports of leased
    /// addresses, in one transaction: packets see the old table or the new one. Which client
    /// belongs to which endpoint is kept, where the table there is one of ours.
    pub(crate) async fn replace(&self, state: &State) -> Result<(), TableError> {
        let options = self.options.clone();
        let everything = state.everything();
        blocking(move || {
            // Held over the transaction, so that no port opened meanwhile is lost.
            let leases = Leases::open(&options.leases_dir())?;
            let mut content = ruleset::fixed(&options);
            let fixed = Names::of(&content);
            let mut wanted = Names::of(&content);
            everything.name(&mut wanted);
            content.push_str(&everything.script(&options.table));
            host_ports(&mut content, &options, &leases)?;
            tracing::debug!(bytes = content.len(), "replacing the table");
            if let Some(text) = nft::list(&options.nft, &options.table)? {
                let present = Names::of(&text);
                let mut script = ruleset::empty(&options.table, &present, &wanted, &fixed);
                script.push_str(&content);
                match nft::apply(&options.nft, &script) {
                    Ok(()) => return Ok(()),
                    Err(error) => tracing::debug!(%error, "cannot reuse the table"),
                }
            }
            let mut script = ruleset::remove(&options.table);
            script.push_str(&content);
            Ok(nft::apply(&options.nft, &script)?)
        })
        .await
    }

    /// Whether the table is still there: others may flush everything.
    pub(crate) fn exists(&self) -> Result<bool, TableError> {
        Ok(nftables::table_exists(&self.options.table)?)
    }
}

/// Adds the host ports of leased addresses. Two pods that claim one port cannot both have it; the
/// first found does.
fn host_ports(
    script: &mut String,
    options: &NetworkOptions,
    leases: &Leases,
) -> Result<(), LeaseError> {
    let mut claimed = BTreeSet::new();
    for lease in leases.list()? {
        for (container, element) in ruleset::host_port_elements(lease.address, &lease.host_ports) {
            let key = element.split(" : ").next().unwrap_or_default().to_owned();
            if claimed.insert((container, key)) {
                ruleset::element(script, "add", &options.table, container, &element);
            }
        }
    }
    Ok(())
}

/// Forgets UDP flows to endpoints that serve no more.
pub(crate) async fn forget_datagrams(
    ports: HashMap<DatagramPort, BTreeSet<Target>>,
) -> Result<(), TableError> {
    if ports.is_empty() {
        return Ok(());
    }
    blocking(move || {
        let mut socket = Socket::netfilter()?;
        let udp = conntrack::Filter::Protocol(IPPROTO_UDP as u8);
        let mut entries = conntrack::list(&mut socket, udp)?;
        // An old kernel may ignore the filter.
        entries.retain(|entry| i32::from(entry.original.protocol) == IPPROTO_UDP);
        let gone = stale(&entries, &ports);
        for entry in &gone {
            conntrack::delete(&mut socket, entry)?;
        }
        if !gone.is_empty() {
            tracing::debug!(flows = gone.len(), "forgot UDP flows to former endpoints");
        }
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TableError> + Send + 'static,
) -> Result<T, TableError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TableError::Task)?
}
