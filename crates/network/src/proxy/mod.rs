//! The service proxy: cluster IPs, node ports, external addresses, on one nftables table.
//!
//! `plan` turns one Service into its part of the table, `state` sums the parts and finds what
//! changed, `table` makes it so, `publish` says how far it got. Established connections are never
//! touched: only the first packet of a connection passes the table.

mod catalog;
mod endpoints;
mod plan;
mod publish;
mod stale;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use client::{Caches, Subscription};
use futures::FutureExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service, discovery::v1::EndpointSlice};
use kube::Api;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    catalog::Catalog,
    plan::{Surroundings, plan},
    publish::Programmed,
    state::{Delta, State},
    table::Table,
};
use crate::options::NetworkOptions;

pub use publish::{LEASE_NAMESPACE, REVISION_ANNOTATION, lease_name};
pub use table::TableError;

/// How often it is made sure that nobody removed the table.
const WATCH_OVER: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The publishing task panicked.
    #[error("the task that publishes revisions panicked")]
    Publisher,
}

/// The service proxy of one node.
pub struct Proxy {
    options: Arc<NetworkOptions>,
    caches: Caches,
    around: Surroundings,
    catalog: Catalog,
    state: State,
    table: Table,
    /// Whether the table may differ from `state` and must be replaced.
    unsure: bool,
    retry: Duration,
}

impl Proxy {
    /// A proxy that follows `caches`. [`crate::setup()`] must have been called with the same
    /// options.
    pub fn new(options: NetworkOptions, caches: Caches) -> Self {
        let options = Arc::new(options);
        Self {
            around: Surroundings {
                node: options.node_name.clone(),
                cluster_network: options.cluster_network,
                masquerade_mark: options.masquerade_mark,
            },
            catalog: Catalog::default(),
            state: State::default(),
            table: Table::new(options.clone()),
            unsure: true,
            retry: FIRST_RETRY,
            caches,
            options,
        }
    }

    /// Programs the kernel as Services and endpoints change, until shutdown. What is programmed
    /// then stays, so that Services answer while the proxy is away.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), ProxyError> {
        let services = self.caches.cache::<Service>();
        let slices = self.caches.cache::<EndpointSlice>();
        tokio::select! {
            () = async { tokio::join!(services.ready(), slices.ready()); } => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let mut service_changes = services.subscribe();
        let mut slice_changes = slices.subscribe();

        let leases: Api<Lease> = Api::namespaced(self.caches.client(), LEASE_NAMESPACE);
        let (programmed, receiver) = watch::channel(Programmed::default());
        let stop_publisher = shutdown.child_token();
        let publisher = tokio::spawn(publish::publish(
            leases,
            self.options.node_name.clone(),
            receiver,
            stop_publisher.clone(),
        ));

        let mut watch_over = tokio::time::interval(WATCH_OVER);
        watch_over.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.drain(&mut service_changes, &mut slice_changes);
            let again = self.program().await;
            if again.is_none() {
                let revision = self.catalog.revision();
                let awaited = self.catalog.take_awaited();
                programmed.send_modify(|programmed| {
                    programmed.revision = Some(revision);
                    if awaited {
                        programmed.awaited = revision;
                    }
                });
            }
            let retry = async {
                match again {
                    Some(wait) => tokio::time::sleep_until(Instant::now() + wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = service_changes.next() => match change {
                    Some(change) => self.catalog.service(change),
                    None => break,
                },
                change = slice_changes.next() => match change {
                    Some(change) => self.catalog.slice(change),
                    None => break,
                },
                () = retry => {}
                _ = watch_over.tick() => self.look_after(),
                () = shutdown.cancelled() => break,
            }
        }
        stop_publisher.cancel();
        publisher.await.map_err(|_| ProxyError::Publisher)
    }

    /// Takes in everything that has changed so far.
    fn drain(
        &mut self,
        services: &mut Subscription<Service>,
        slices: &mut Subscription<EndpointSlice>,
    ) {
        while let Some(Some(change)) = services.next().now_or_never() {
            self.catalog.service(change);
        }
        while let Some(Some(change)) = slices.next().now_or_never() {
            self.catalog.slice(change);
        }
    }

    /// Makes the table right for what has been taken in. Returns how long to wait before trying
    /// again, if it failed.
    async fn program(&mut self) -> Option<Duration> {
        let mut delta = Delta::default();
        for (key, known) in self.catalog.take_touched() {
            let fragment = known
                .map(|known| plan(&self.around, &known.service, &known.slices))
                .unwrap_or_default();
            self.state.replace(&key, fragment, &mut delta);
        }
        let mut outcome = Ok(());
        if !self.unsure {
            outcome = self.table.change(&delta).await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "changing the service table failed; replacing it");
            }
        }
        if self.unsure || outcome.is_err() {
            delta = self.state.everything();
            outcome = self.table.replace(&self.state).await;
        }
        if let Err(error) = outcome {
            self.unsure = true;
            let wait = self.retry;
            self.retry = (self.retry * 2).min(LAST_RETRY);
            tracing::error!(%error, retry_seconds = wait.as_secs_f64(), "cannot program Services");
            return Some(wait);
        }
        self.unsure = false;
        self.retry = FIRST_RETRY;
        if let Err(error) = table::forget_datagrams(delta.datagrams).await {
            tracing::warn!(%error, "cannot forget UDP flows to former endpoints");
        }
        None
    }

    /// Notices when someone removed the table.
    fn look_after(&mut self) {
        match self.table.exists() {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("the service table was removed; making it again");
                self.unsure = true;
            }
            Err(error) => tracing::debug!(%error, "cannot look up the service table"),
        }
    }
}
