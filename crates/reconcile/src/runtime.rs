//! The loop around a controller: sources of keys, the queue, runs and what follows from them.
//!
//! Knows nothing of what a run does.

use std::{
    collections::HashMap, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc,
    time::Duration,
};

use client::{Cache, Change, EventRecorder, Object, ObjectKey};
use futures::FutureExt;
use jiff::Timestamp;
use kube::Resource;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    Context, Controller, Failure, Guard, Metrics, Outcome, Planned, Reconciler, Wrote,
    apply::ApplyError, queue::Queue,
};

/// Keys run at once unless said otherwise.
const CONCURRENT: usize = 16;

/// What every controller needs.
#[derive(Clone)]
pub struct Deps {
    /// For writes.
    pub client: kube::Client,
    /// For events, in the controller's name.
    pub events: EventRecorder,
    /// Shared by all controllers.
    pub metrics: Metrics,
}

/// Asks for runs of keys. Cheap to clone.
#[derive(Clone)]
pub struct Trigger {
    queue: Arc<Queue>,
}

impl Trigger {
    /// Runs `key` soon.
    pub fn run(&self, key: ObjectKey) {
        self.queue.add(key);
    }
}

type Source = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Builds and runs the loop of one controller.
pub struct Runtime {
    name: &'static str,
    deps: Deps,
    queue: Arc<Queue>,
    sources: Vec<Source>,
    guard: Guard,
    concurrent: usize,
}

impl Runtime {
    /// A runtime without sources. `name` appears in logs and metrics.
    pub fn new(name: &'static str, deps: Deps) -> Self {
        Self {
            name,
            deps,
            queue: Arc::default(),
            sources: Vec::new(),
            guard: Guard::default(),
            concurrent: CONCURRENT,
        }
    }

    /// Runs the keys that `map` names whenever an object in `cache` changes, those there at the
    /// start included; waits for the cache before the first run and after writes to its kind.
    #[must_use]
    pub fn watch<K: Object + Resource<DynamicType = ()>>(
        mut self,
        cache: &Cache<K>,
        map: impl Fn(&Change<K>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        let queue = self.queue.clone();
        let mut changes = cache.subscribe();
        self.sources.push(Box::pin(async move {
            while let Some(change) = changes.next().await {
                for key in map(&change) {
                    queue.add(key);
                }
            }
        }));
        self.reading(cache)
    }

    /// Waits for `cache` before the first run and after writes to its kind.
    #[must_use]
    pub fn reading<K: Object + Resource<DynamicType = ()>>(mut self, cache: &Cache<K>) -> Self {
        self.guard.add(cache);
        self
    }

    /// A handle by which code outside the caches' changes asks for runs.
    pub fn trigger(&self) -> Trigger {
        Trigger { queue: self.queue.clone() }
    }

    /// Sets how many keys run at once.
    #[must_use]
    pub fn concurrent(mut self, keys: usize) -> Self {
        self.concurrent = keys.max(1);
        self
    }

    /// Runs a controller until `shutdown`.
    pub async fn run(self, controller: impl Controller, shutdown: CancellationToken) {
        self.run_reconciler(Planned(controller), shutdown).await;
    }

    /// Runs a reconciler until `shutdown`; returns when no run is under way any more.
    pub async fn run_reconciler(self, reconciler: impl Reconciler, shutdown: CancellationToken) {
        let Self { name, deps, queue, sources, guard, concurrent } = self;
        let mut tasks = JoinSet::new();
        for source in sources {
            tasks.spawn(source);
        }
        let worker = Arc::new(Worker {
            name,
            deps,
            queue,
            guard,
            reconciler,
            failures: Mutex::default(),
            shutdown: shutdown.clone(),
        });
        let looping = async {
            worker.guard.ready().await;
            debug!(controller = name, "started");
            let slots = Arc::new(Semaphore::new(concurrent));
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                let key = worker.queue.take().await;
                worker.deps.metrics.set_depth(name, worker.queue.depth());
                let worker = worker.clone();
                let span = info_span!("reconcile", controller = name, %key);
                let run = async move {
                    worker.run(key).await;
                    drop(slot);
                };
                tasks.spawn(run.instrument(span));
                while tasks.try_join_next().is_some() {}
            }
        };
        shutdown.run_until_cancelled(looping).await;
        tasks.shutdown().await;
    }
}

/// What the runs of one controller share.
struct Worker<R> {
    name: &'static str,
    deps: Deps,
    queue: Arc<Queue>,
    guard: Guard,
    reconciler: R,
    failures: Mutex<HashMap<ObjectKey, Failure>>,
    shutdown: CancellationToken,
}

impl<R: Reconciler> Worker<R> {
    /// One run of `key`, from planning until the caches have seen what it wrote.
    async fn run(&self, key: ObjectKey) {
        let began = Instant::now();
        let failure = self.failures.lock().get(&key).cloned();
        let context = Context { now: Timestamp::now(), failure };
        let result = AssertUnwindSafe(self.reconciler.reconcile(&key, context, &self.deps))
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err((ApplyError::Panic(panic_text(&*panic)), Vec::new())));
        let wrote = match result {
            Ok(outcome) => self.succeeded(&key, outcome, began),
            Err((error, wrote)) => {
                self.failed(&key, &error, began);
                wrote
            }
        };
        self.shutdown.run_until_cancelled(self.guard.caught_up(&wrote)).await;
        self.queue.done(&key);
    }

    fn succeeded(&self, key: &ObjectKey, outcome: Outcome, began: Instant) -> Vec<Wrote> {
        self.deps.metrics.ran(self.name, "success", began.elapsed());
        self.queue.succeeded(key);
        if self.failures.lock().remove(key).is_some() {
            // The plan may have reported the failure: let it take that back.
            self.queue.add(key.clone());
        }
        if let Some(at) = outcome.requeue_at {
            let delay = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            self.queue.add_after(key.clone(), delay);
        }
        outcome.wrote
    }

    fn failed(&self, key: &ObjectKey, error: &ApplyError, began: Instant) {
        self.deps.metrics.ran(self.name, "failure", began.elapsed());
        self.deps.metrics.retried(self.name);
        if error.is_conflict() {
            debug!(%error, "changed meanwhile, trying again");
        } else {
            warn!(%error, "reconcile failed, trying again");
        }
        self.failures.lock().insert(key.clone(), error.failure());
        self.queue.retry(key.clone());
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
