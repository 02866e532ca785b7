//! The service proxy: cluster IPs, node ports, external addresses, on one nftables table.
//!
//! `plan` turns one Service into its part of the table, `state` sums the parts and finds what
//! changed, `table` makes it so, `publish` says how far it got, `health` answers load balancers.
//! Connections that are established pass the table untouched: only their first packet is led.

mod catalog;
mod departed;
mod element;
mod endpoints;
mod health;
mod plan;
mod publish;
mod stale;
mod state;
mod sticky;
mod table;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc, time::Duration};

use client::{Caches, Subscription};
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::Api;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    catalog::Catalog,
    plan::{Surroundings, plan},
    publish::Programmed,
    state::{Delta, State},
    table::{Seen, Table},
};
use crate::{
    netlink::{
        NetlinkError,
        events::{Event, Events},
    },
    options::NetworkOptions,
    ruleset::{Container, Family},
};

pub use publish::{LEASE_NAMESPACE, REVISION_ANNOTATION, lease_name};
pub use table::TableError;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The publishing task panicked.
    #[error("the task that publishes revisions panicked")]
    Publisher,
    /// Changes by others could not be followed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The service proxy of one node.
pub struct Proxy {
    options: Arc<NetworkOptions>,
    caches: Caches,
    around: Surroundings,
    catalog: Catalog,
    state: State,
    table: Table,
    health: health::Health,
    /// Names of the maps and sets that nobody else may change.
    ours: HashSet<String>,
    /// Whether the table may differ from `state` and must be replaced.
    unsure: bool,
    /// Whether somebody else changed the table.
    touched: bool,
    retry: Duration,
    first: CancellationToken,
}

impl Proxy {
    /// A proxy that follows `caches`. [`crate::setup()`] must have been called with the same
    /// options.
    pub fn new(options: NetworkOptions, caches: Caches) -> Self {
        let options = Arc::new(options);
        let ours = Container::OF_SERVICES
            .into_iter()
            .flat_map(|container| Family::BOTH.map(|family| container.name(family)));
        Self {
            around: Surroundings { node: options.node_name.clone(), ..Surroundings::default() },
            catalog: Catalog::default(),
            state: State::default(),
            table: Table::new(options.clone()),
            health: health::Health::new(&options),
            ours: ours.collect(),
            unsure: true,
            touched: false,
            retry: FIRST_RETRY,
            first: CancellationToken::new(),
            caches,
            options,
        }
    }

    /// Cancelled when everything that there was at the start has been programmed.
    pub fn programmed(&self) -> CancellationToken {
        self.first.clone()
    }

    /// Programs the kernel as Services and endpoints change, until shutdown. What is programmed
    /// then stays, so that Services answer while the proxy is away.
    ///
    /// # Errors
    /// When the kernel does not tell of changes, or the publishing task panicked.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), ProxyError> {
        let services = self.caches.cache::<Service>();
        let slices = self.caches.cache::<EndpointSlice>();
        let nodes = self.caches.cache::<Node>();
        tokio::select! {
            () = async { tokio::join!(services.ready(), slices.ready()); } => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let mut service_changes = services.subscribe();
        let mut slice_changes = slices.subscribe();
        let mut node_changes = nodes.subscribe();
        let mut events = Events::listen(&self.options.table)?;

        let leases: Api<Lease> = Api::namespaced(self.caches.client(), LEASE_NAMESPACE);
        let (programmed, receiver) = watch::channel(Programmed::default());
        let stop_publisher = shutdown.child_token();
        let publisher = tokio::spawn(publish::publish(
            leases,
            self.options.node_name.clone(),
            receiver,
            stop_publisher.clone(),
        ));

        // Which of the pods that left have exited.
        let mut asking: Option<BoxFuture<'static, departed::Found>> = None;
        loop {
            self.drain(&mut service_changes, &mut slice_changes);
            while let Some(Some(change)) = node_changes.next().now_or_never() {
                if change.key.name == self.options.node_name {
                    self.settle(change.after.as_deref());
                }
            }
            let again = self.program(&events).await;
            self.health.programmed(again.is_none());
            if again.is_none() {
                self.first.cancel();
                let revision = self.catalog.revision();
                let awaited = self.catalog.take_awaited();
                programmed.send_modify(|programmed| {
                    programmed.revision = Some(revision);
                    if awaited {
                        programmed.awaited = revision;
                    }
                });
            }
            let now = Instant::now();
            if again.is_none() && asking.is_none() {
                let due = self.catalog.departures().due(now);
                if !due.is_empty() {
                    asking = Some(departed::ask(self.caches.client(), due).boxed());
                }
            }
            let wake = match (again, &asking) {
                (Some(wait), _) => Some(now + wait),
                (None, Some(_)) => None,
                (None, None) => self.catalog.departures().next(),
            };
            let retry = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = service_changes.next() => match change {
                    Some(change) => self.catalog.service(change),
                    None => break,
                },
                change = slice_changes.next() => match change {
                    Some(change) => self.catalog.slice(change, now),
                    None => break,
                },
                change = node_changes.next() => match change {
                    Some(change) if change.key.name == self.options.node_name => {
                        self.settle(change.after.as_deref());
                    }
                    Some(_) => {}
                    None => break,
                },
                events = events.next(self.table.address()) => self.notice(&events),
                Some(found) = OptionFuture::from(asking.as_mut()) => {
                    asking = None;
                    let departed = self.catalog.departures().take(&found);
                    if let Err(error) = table::forget_departed(departed).await {
                        tracing::warn!(%error, "cannot forget flows to pods that are gone");
                    }
                }
                () = retry => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.health.stop().await;
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
            self.catalog.slice(change, Instant::now());
        }
    }

    /// Takes in what this node is.
    fn settle(&mut self, node: Option<&Node>) {
        self.health.node(node);
        let around = Surroundings::of(&self.options.node_name, node);
        if around != self.around {
            self.around = around;
            self.catalog.touch_all();
        }
    }

    /// Takes in what others changed in the table.
    fn notice(&mut self, events: &[Event]) {
        self.touched |= events.iter().any(|event| match event {
            Event::Elements(set) => self.ours.contains(set),
            Event::Frame | Event::Lost => true,
        });
    }

    /// Makes the table right for what has been taken in. Returns how long to wait before trying
    /// again, if it failed.
    async fn program(&mut self, events: &Events) -> Option<Duration> {
        let mut delta = Delta::default();
        for (key, known) in self.catalog.take_touched() {
            let fragment = known
                .as_ref()
                .map(|known| plan(&self.around, &known.service, &known.slices))
                .unwrap_or_default();
            self.state.replace(&key, fragment, &mut delta);
            let known = known.as_ref().map(|known| (&*known.service, known.slices.as_slice()));
            self.health.service(&key, known);
        }
        let mut outcome = Ok(());
        if !self.unsure {
            match self.table.change(&delta).await {
                Ok(rules) if rules => drop(events.so_far(self.table.address())),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "changing the service table failed; replacing it");
                    outcome = Err(error);
                }
            }
            if outcome.is_ok() && std::mem::take(&mut self.touched) {
                self.look_after().await;
            }
        }
        if self.unsure || outcome.is_err() {
            delta = self.state.frame();
            let state = std::mem::take(&mut self.state);
            let (state, replaced) = match self.table.replace(state).await {
                Ok(state) => (state, Ok(())),
                Err((state, error)) => (state, Err(error)),
            };
            (self.state, outcome) = (state, replaced);
            // What there is to tell so far is our own doing.
            drop(events.so_far(self.table.address()));
        }
        if let Err(error) = outcome {
            if matches!(error, TableError::Task) {
                // What was planned went with it.
                self.catalog.touch_all();
            }
            self.unsure = true;
            let wait = self.retry;
            self.retry = (self.retry * 2).min(LAST_RETRY);
            tracing::error!(%error, retry_seconds = wait.as_secs_f64(), "cannot program Services");
            return Some(wait);
        }
        self.unsure = false;
        self.touched = false;
        self.retry = FIRST_RETRY;
        if let Err(error) = table::forget_datagrams(delta.datagrams).await {
            tracing::warn!(%error, "cannot forget UDP flows to former endpoints");
        }
        None
    }

    /// Looks what somebody else did to the table.
    async fn look_after(&mut self) {
        let state = std::mem::take(&mut self.state);
        let (state, seen) = self.table.verify(state).await;
        self.state = state;
        match seen {
            Ok(Seen::Right) => {}
            Ok(Seen::Repaired(elements)) => {
                tracing::warn!(elements, "somebody changed the service table; repaired");
            }
            Ok(Seen::Broken) => {
                tracing::warn!("somebody changed the rules of the service table; replacing it");
                self.unsure = true;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look up the service table; replacing it");
                if matches!(error, TableError::Task) {
                    self.catalog.touch_all();
                }
                self.unsure = true;
            }
        }
    }
}
