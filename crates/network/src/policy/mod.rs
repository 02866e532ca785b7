//! Network policy: which pods of this node may talk to whom.
//!
//! `model` reads policies, `state` and its helpers turn pods, namespaces and policies into what
//! the tables are to hold, `table` makes it so, `gate` keeps new pods waiting until it is. While
//! there are no policies, nothing is watched but policies, and no packet meets a rule.

mod content;
mod gate;
mod model;
mod programs;
mod ranges;
mod render;
mod sets;
mod state;
mod subject;
mod table;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use client::{Cache, Caches, Subscription};
use futures::FutureExt;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    networking::v1::NetworkPolicy,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    gate::Request,
    state::State,
    subject::{Attachment, Facts},
    table::Tables,
};
use crate::{cni::Leases, netlink::events::Events, options::NetworkOptions};

pub(crate) use gate::{Waiting, announce, retire, socket};
pub(crate) use subject::Attachment as Attached;
pub use table::PolicyTableError;
pub(crate) use table::remove;

/// How often it is made sure that nobody removed the tables, beside listening to what happens.
const WATCH_OVER: Duration = Duration::from_secs(15);
/// The shortest time between two repairs of what others do.
const CALM: Duration = Duration::from_secs(1);
/// No socket has this address: nobody's changes are left out.
const EVERYBODY: u32 = u32::MAX;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why the policy part ended.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// New pods could not be made to wait.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Enforces NetworkPolicies for the pods of one node.
pub struct Policy {
    options: Arc<NetworkOptions>,
    caches: Caches,
}

/// What is followed while there are policies.
struct Active {
    feed: Feed,
    /// What happens to the table; `None` if the kernel does not tell.
    events: Option<Events>,
    /// What others do to the table is answered not before.
    calm: Instant,
    /// Whether the tables may differ from the state and must be replaced.
    unsure: bool,
}

/// What is known, and what changes it.
struct Feed {
    pods: Subscription<Pod>,
    namespaces: Subscription<Namespace>,
    state: State,
}

/// The work under way.
struct Work {
    options: Arc<NetworkOptions>,
    caches: Caches,
    policies: Cache<NetworkPolicy>,
    policy_changes: Subscription<NetworkPolicy>,
    tables: Tables,
    active: Option<Active>,
    /// Whether tables may be left of an earlier run or from before the last policy went.
    leftover: bool,
    waiting: Vec<(Attachment, oneshot::Sender<()>)>,
    retry: Duration,
}

impl Policy {
    /// A policy part that follows `caches`. [`crate::setup()`] must have been called with the same
    /// options.
    pub fn new(options: NetworkOptions, caches: Caches) -> Self {
        Self { options: Arc::new(options), caches }
    }

    /// Programs the kernel as policies, namespaces and pods change, until shutdown. What is
    /// programmed then stays.
    ///
    /// # Errors
    /// When new pods cannot be made to wait for their policies.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), PolicyError> {
        let path = socket(&self.options.data_dir);
        let (mut requests, _listener) =
            gate::listen(&path).map_err(|source| PolicyError::Listen { path, source })?;
        let policies = self.caches.cache::<NetworkPolicy>();
        tokio::select! {
            () = policies.ready() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let work = Work {
            policy_changes: policies.subscribe(),
            policies,
            tables: Tables::new(self.options.clone()),
            active: None,
            leftover: true,
            waiting: Vec::new(),
            retry: FIRST_RETRY,
            options: self.options,
            caches: self.caches,
        };
        tokio::select! {
            () = work.run(&mut requests) => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }
}

impl Work {
    async fn run(mut self, requests: &mut mpsc::Receiver<Request>) {
        let mut watch_over = tokio::time::interval(WATCH_OVER);
        watch_over.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let again = self.settle(requests).await;
            let retry = async {
                match again {
                    Some(wait) => tokio::time::sleep_until(Instant::now() + wait).await,
                    None => std::future::pending().await,
                }
            };
            let Self { active, policy_changes, .. } = &mut self;
            let (feed, meddled) = match active {
                Some(Active { feed, events, calm, unsure }) => {
                    (Some(feed), Some((events.as_mut(), calm, unsure)))
                }
                None => (None, None),
            };
            tokio::select! {
                change = policy_changes.next() => match change {
                    Some(change) => {
                        let policy = change.after.as_deref().map(model::read);
                        if let Some(active) = active {
                            active.feed.state.policy(&change.key, policy);
                        }
                    }
                    None => break,
                },
                open = next(feed) => if !open { break },
                () = meddling(meddled) => {}
                Some(request) = requests.recv() => self.take(request),
                () = retry => {}
                _ = watch_over.tick() => self.look_after(),
            }
        }
    }

    /// Takes in everything that waits, and makes the tables right for it. Returns how long to wait
    /// before trying again, if that failed.
    async fn settle(&mut self, requests: &mut mpsc::Receiver<Request>) -> Option<Duration> {
        if self.policies.is_empty() {
            self.active = None;
        } else if self.active.is_none() {
            self.active = Some(self.activate().await);
            self.leftover = true;
        }
        while let Ok(request) = requests.try_recv() {
            self.take(request);
        }
        self.drain();
        let outcome = match &mut self.active {
            None if self.leftover => self.tables.remove().await,
            None => Ok(()),
            Some(active) => active.program(&mut self.tables).await,
        };
        // What has happened to the table until here was our doing.
        if let Some(events) = self.active.as_ref().and_then(|active| active.events.as_ref()) {
            events.so_far(EVERYBODY);
        }
        match outcome {
            Ok(()) => {
                self.leftover = self.active.is_some();
                self.retry = FIRST_RETRY;
                self.answer();
                None
            }
            Err(error) => {
                let wait = self.retry;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                let retry_seconds = wait.as_secs_f64();
                tracing::error!(%error, retry_seconds, "cannot program network policies");
                Some(wait)
            }
        }
    }

    /// Begins to follow pods and namespaces.
    async fn activate(&self) -> Active {
        let pods = self.caches.cache::<Pod>();
        let namespaces = self.caches.cache::<Namespace>();
        tokio::join!(pods.ready(), namespaces.ready());
        let mut state = State::new(&self.options.node_name);
        for attachment in attachments(self.options.clone()).await {
            state.attach(attachment);
        }
        for policy in self.policies.list() {
            state.policy(&client::ObjectKey::of(&*policy), Some(model::read(&policy)));
        }
        let events = Events::listen(&table::name(&self.options));
        Active {
            feed: Feed { pods: pods.subscribe(), namespaces: namespaces.subscribe(), state },
            events: events
                .inspect_err(|error| tracing::warn!(%error, "looking after policies by the clock"))
                .ok(),
            calm: Instant::now(),
            unsure: true,
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Attach(attachment, done) => {
                if let Some(active) = &mut self.active {
                    active.feed.state.attach(attachment.clone());
                }
                self.waiting.push((attachment, done));
            }
            Request::Detach(addresses) => {
                if let Some(active) = &mut self.active {
                    for address in addresses {
                        active.feed.state.detach(address);
                    }
                }
            }
        }
    }

    /// Takes in every change that has arrived so far.
    fn drain(&mut self) {
        let Some(active) = &mut self.active else { return };
        while let Some(Some(change)) = self.policy_changes.next().now_or_never() {
            let policy = change.after.as_deref().map(model::read);
            active.feed.state.policy(&change.key, policy);
        }
        while next_of(&mut active.feed).now_or_never() == Some(true) {}
    }

    /// Lets those go on whose pods are policed.
    fn answer(&mut self) {
        let active = &self.active;
        let known = |attachment: &Attachment| {
            active.as_ref().is_none_or(|active| active.feed.state.knows(attachment))
        };
        for (attachment, done) in std::mem::take(&mut self.waiting) {
            if known(&attachment) {
                // Who has gone needs no answer.
                let _ = done.send(());
            } else if !done.is_closed() {
                self.waiting.push((attachment, done));
            }
        }
    }

    /// Notices when someone removed the tables.
    fn look_after(&mut self) {
        let Some(active) = &mut self.active else { return };
        match self.tables.exists() {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("the table of network policies was removed; making it again");
                active.unsure = true;
            }
            Err(error) => tracing::debug!(%error, "cannot look up the table of network policies"),
        }
    }
}

impl Active {
    async fn program(&mut self, tables: &mut Tables) -> Result<(), PolicyTableError> {
        self.feed.state.sweep();
        let State { content, guard, .. } = &mut self.feed.state;
        if !self.unsure {
            match tables.change(content, guard).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "changing network policies failed; replacing them");
                    self.unsure = true;
                }
            }
        }
        tables.replace(content, guard).await?;
        self.unsure = false;
        Ok(())
    }
}

/// Waits until somebody else changes the table.
async fn meddling(watched: Option<(Option<&mut Events>, &mut Instant, &mut bool)>) {
    let Some((Some(events), calm, unsure)) = watched else { return std::future::pending().await };
    tokio::time::sleep_until(*calm).await;
    events.next(EVERYBODY).await;
    tracing::warn!("somebody changed the table of network policies; making it again");
    *calm = Instant::now() + CALM;
    *unsure = true;
}

/// Takes in one change of a pod or namespace, waiting for it; false at the end.
async fn next(feed: Option<&mut Feed>) -> bool {
    match feed {
        Some(feed) => next_of(feed).await,
        None => std::future::pending().await,
    }
}

async fn next_of(Feed { pods, namespaces, state }: &mut Feed) -> bool {
    tokio::select! {
        change = pods.next() => match change {
            Some(change) => state.pod(&change.key, change.after.as_deref().and_then(Facts::read)),
            None => return false,
        },
        change = namespaces.next() => match change {
            Some(change) => {
                let labels = |namespace: &Namespace| namespace.metadata.labels.clone();
                let labels = change.after.as_deref().map(|one| labels(one).unwrap_or_default());
                state.namespace(&change.key.name, labels);
            }
            None => return false,
        },
    }
    true
}

/// Who has which address, as the leases say.
async fn attachments(options: Arc<NetworkOptions>) -> Vec<Attachment> {
    let read = move || {
        let leases = Leases::open(&options.leases_dir()).and_then(|leases| leases.list());
        let leases = leases.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read which pods have which addresses");
            Vec::new()
        });
        leases.iter().map(|lease| lease.attachment()).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}
