//! The garbage collector: deletes what has lost its owners, dependents before or after them as
//! asked.
//!
//! Follows the metadata of every deletable resource that discovery names; knows no kind. `graph`
//! remembers who owns whom, `decide` judges one object, `collect` acts on it.

mod collect;
mod decide;
mod graph;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::{Metadata, Select, Step, follow};
use parking_lot::Mutex;
use reconcile::{Deps, Runtime};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{
    collect::{Collector, Shared},
    graph::{Graph, Kind},
};
use crate::discover::{Served, discover};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "garbage-collector-controller";

/// Objects looked at at once.
const CONCURRENT: usize = 20;
/// How long the first lists may take before the collector begins without some of them.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a change of the served APIs, and between attempts to discover them.
const SETTLE: Duration = Duration::from_secs(2);

/// Runs the collector until `shutdown`, beginning after `delay`.
pub(crate) async fn run(deps: Deps, delay: Duration, shutdown: CancellationToken) {
    if shutdown.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
        return;
    }
    let runtime = Runtime::new(NAME, deps.clone()).concurrent(CONCURRENT);
    let shared = Arc::new(Shared {
        graph: Mutex::new(Graph::default()),
        kinds: RwLock::default(),
        trigger: runtime.trigger(),
    });
    let mut followers = Followers {
        client: deps.client,
        shared: shared.clone(),
        running: HashMap::new(),
        tasks: JoinSet::new(),
        waiting: Arc::new(Waiting::default()),
        apis_changed: Arc::new(Notify::new()),
    };
    let collecting = runtime.run_reconciler(Collector { shared }, shutdown.clone());
    let following = async {
        shutdown.run_until_cancelled(followers.run()).await;
        followers.tasks.shutdown().await;
    };
    tokio::join!(collecting, following);
}

/// Counts the resources that have not been listed yet.
#[derive(Default)]
struct Waiting {
    count: AtomicUsize,
    changed: Notify,
}

impl Waiting {
    async fn done(&self) {
        while self.count.load(Ordering::Acquire) > 0 {
            self.changed.notified().await;
        }
    }
}

/// The watches that feed the graph.
struct Followers {
    client: kube::Client,
    shared: Arc<Shared>,
    /// Stops of the running watches, by group and plural.
    running: HashMap<(String, String), (Arc<Kind>, CancellationToken)>,
    tasks: JoinSet<()>,
    waiting: Arc<Waiting>,
    apis_changed: Arc<Notify>,
}

impl Followers {
    /// Keeps the followed resources those that are served.
    async fn run(&mut self) {
        let mut first = true;
        loop {
            match discover(&self.client).await {
                Ok(discovered) => self.adjust(discovered.served),
                Err(error) => {
                    debug!(%error, "discovery failed, trying again");
                    tokio::time::sleep(SETTLE).await;
                    continue;
                }
            }
            if tokio::time::timeout(PATIENCE, self.waiting.done()).await.is_err() {
                warn!("some resources cannot be listed; their objects count as unknown");
            }
            let suspects = {
                let mut graph = self.shared.graph.lock();
                if first { graph.completed() } else { graph.suspects() }
            };
            debug!(resources = self.running.len(), suspects = suspects.len(), "following");
            self.shared.look_at(suspects);
            first = false;
            self.apis_changed.notified().await;
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn adjust(&mut self, served: Vec<Served>) {
        let wanted: HashMap<_, _> = served
            .into_iter()
            .filter(|one| one.can(&["delete", "list", "watch"]) && one.resource.plural != "events")
            .map(|one| ((one.resource.group.clone(), one.resource.plural.clone()), one))
            .collect();
        let gone: Vec<_> =
            self.running.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some((kind, stop)) = self.running.remove(&name) {
                stop.cancel();
                let affected = self.shared.graph.lock().drop_kind(&kind);
                self.shared.look_at(affected);
            }
        }
        for (name, served) in wanted {
            if !self.running.contains_key(&name) {
                self.start(name, served);
            }
        }
        let mut kinds = self.shared.kinds.write().unwrap_or_else(PoisonError::into_inner);
        *kinds = self.running.values().map(|(kind, _)| kind.clone()).collect();
        while self.tasks.try_join_next().is_some() {}
    }

    fn start(&mut self, name: (String, String), served: Served) {
        let kind = Arc::new(Kind { resource: served.resource, namespaced: served.namespaced });
        let stop = CancellationToken::new();
        self.waiting.count.fetch_add(1, Ordering::AcqRel);
        let tells_of_apis = matches!(name.1.as_str(), "customresourcedefinitions" | "apiservices");
        let (shared, waiting) = (self.shared.clone(), self.waiting.clone());
        let (changed, of) = (self.apis_changed.clone(), kind.clone());
        let mut listed = false;
        let sink = move |step: Step<Metadata>| {
            let is_list = matches!(step, Step::Replace(..));
            if listed && tells_of_apis && !matches!(step, Step::Progress(_)) {
                changed.notify_one();
            }
            let affected = shared.graph.lock().take(&of, step);
            shared.look_at(affected);
            if is_list && !listed {
                listed = true;
                waiting.count.fetch_sub(1, Ordering::AcqRel);
                waiting.changed.notify_one();
            }
        };
        let resource = kind.resource.clone();
        self.tasks.spawn(follow(self.client.clone(), resource, Select::all(), stop.clone(), sink));
        self.running.insert(name, (kind, stop));
    }
}
