//! The only part that does I/O: it follows pods and nodes, makes one decision after the other,
//! assumes each at once, binds in parallel, and reports.

use std::sync::Arc;
use std::time::Instant;

use client::{Caches, Change, Election, ErrorExt, LeaderElection};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PostParams;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::algorithm::{Algorithm, Decision};
use crate::cluster::{Cluster, NodeChange};
use crate::error::SchedulerError;
use crate::event::Event;
use crate::node::NodeFacts;
use crate::options::SchedulerOptions;
use crate::plugin::Bind;
use crate::plugins::{ALL, BINDER, Order};
use crate::pod::{PodInfo, PodKey};
use crate::queue::{Attempt, Queue};
use crate::report::{Reporter, SCHEDULER_ERROR, UNSCHEDULABLE};

/// Steps after which other tasks of the process get a turn.
const STEPS: u32 = 16;

/// The scheduler as a component.
pub struct Scheduler {
    options: SchedulerOptions,
    caches: Caches,
}

impl Scheduler {
    /// A scheduler that watches and binds through `caches`.
    #[must_use]
    pub fn new(options: SchedulerOptions, caches: Caches) -> Self {
        Self { options, caches }
    }

    /// Schedules until `shutdown`; while another instance leads, only waits.
    ///
    /// # Errors
    /// When a watch ends for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), SchedulerError> {
        let Some(identity) = self.options.leader_identity.clone() else {
            return self.lead(shutdown).await;
        };
        let election = Election::new("kube-system", "kube-scheduler", identity);
        let elected = LeaderElection::new(self.caches.client(), election);
        let this = &self;
        let ended = elected.run(shutdown, |term| this.lead(term)).await;
        ended.unwrap_or(Ok(()))
    }

    async fn lead(&self, shutdown: CancellationToken) -> Result<(), SchedulerError> {
        let client = self.caches.client();
        let (reporter, writer) = Reporter::new(client, &self.options.name, &shutdown);
        let driver = Driver::new(&self.options, &self.caches, reporter);
        // The writer ends when the driver drops its reporter, or with the term.
        let writer = shutdown.run_until_cancelled(writer);
        let (result, _) = tokio::join!(driver.run(shutdown.clone()), writer);
        result
    }
}

struct Driver {
    options: SchedulerOptions,
    caches: Caches,
    algorithm: Algorithm,
    cluster: Cluster,
    queue: Queue<Order>,
    reporter: Reporter,
    bindings: JoinSet<Bound>,
}

/// A binding that came back.
struct Bound {
    attempt: Attempt,
    node: Arc<str>,
    result: Result<(), kube::Error>,
}

impl Driver {
    fn new(options: &SchedulerOptions, caches: &Caches, reporter: Reporter) -> Self {
        Self {
            options: options.clone(),
            caches: caches.clone(),
            algorithm: Algorithm::new(&ALL, rand::random()),
            cluster: Cluster::default(),
            queue: Queue::new(&ALL, options),
            reporter,
            bindings: JoinSet::new(),
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), SchedulerError> {
        let (pods, nodes) = (self.caches.cache::<Pod>(), self.caches.cache::<Node>());
        let ready = async { tokio::join!(pods.ready(), nodes.ready()) };
        if shutdown.run_until_cancelled(ready).await.is_none() {
            return Ok(());
        }
        let (mut pod_changes, mut node_changes) = (pods.subscribe(), nodes.subscribe());
        info!(nodes = nodes.len(), pods = pods.len(), "scheduling");
        let mut steps = 0;
        loop {
            let deadline = self.deadline();
            // News come before decisions: a decision is made on all that is known.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(bound) = self.bindings.join_next() => match bound {
                    Ok(bound) => self.bound(bound),
                    Err(error) => warn!(%error, "a binding did not end properly"),
                },
                change = node_changes.next() => match change {
                    Some(change) => self.node_changed(&change),
                    None if shutdown.is_cancelled() => return Ok(()),
                    None => return Err(SchedulerError::WatchEnded("nodes")),
                },
                change = pod_changes.next() => match change {
                    Some(change) => self.pod_changed(&change),
                    None if shutdown.is_cancelled() => return Ok(()),
                    None => return Err(SchedulerError::WatchEnded("pods")),
                },
                () = std::future::ready(()), if self.may_schedule() => self.schedule_one(),
                () = deadline => self.queue.advance(Instant::now()),
            }
            steps += 1;
            if steps % STEPS == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn may_schedule(&self) -> bool {
        self.queue.has_active() && self.bindings.len() < self.options.parallel_bindings
    }

    fn deadline(&self) -> impl Future<Output = ()> + use<> {
        let deadline = self.queue.next_deadline();
        async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    fn schedule_one(&mut self) {
        let Some(mut attempt) = self.queue.pop() else { return };
        let pod = Arc::clone(&attempt.pod);
        match self.algorithm.decide(&pod, self.cluster.snapshot()) {
            Decision::Node(at) => {
                let node = Arc::clone(&self.cluster.snapshot().nodes()[at].facts.name);
                debug!(pod = %pod.key, %node, attempt = attempt.number, "binding");
                self.cluster.place(pod, &node, true);
                self.bindings.spawn(bind(self.caches.client(), attempt, node));
            }
            Decision::Nowhere(diagnosis) => {
                let message = diagnosis.message();
                debug!(pod = %pod.key, message, attempt = attempt.number, "unschedulable");
                self.reporter.failed(&pod, UNSCHEDULABLE, &message, &mut attempt.reported);
                self.queue.park(attempt, diagnosis.plugins, Instant::now());
            }
        }
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { mut attempt, node, result } = bound;
        let pod = Arc::clone(&attempt.pod);
        let Err(error) = result else {
            self.reporter.scheduled(&pod, &node);
            return;
        };
        if self.cluster.is_assumed(&pod.key, &pod.uid) {
            self.free(&pod.key);
        }
        // The pod may be gone, or be another, or have a node by now.
        let current = self.caches.cache::<Pod>().get(Some(pod.key.namespace()), pod.key.name());
        let current = current.map(|pod| Arc::new(PodInfo::new(&pod)));
        let Some(current) = current.filter(|now| now.uid == pod.uid && self.is_mine(now)) else {
            debug!(pod = %pod.key, %error, "not bound, and no longer to be bound");
            return;
        };
        if error.is_not_found() {
            return;
        }
        warn!(pod = %pod.key, %node, %error, "not bound");
        let message = format!("binding rejected: {error}");
        self.reporter.failed(&current, SCHEDULER_ERROR, &message, &mut attempt.reported);
        attempt.pod = current;
        self.queue.retry(attempt, Instant::now());
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let Some(node) = &change.after else {
            self.cluster.remove_node(&change.key.name);
            return;
        };
        let now = Instant::now();
        let (cluster, queue) = (&mut self.cluster, &mut self.queue);
        let change = cluster.set_node(NodeFacts::new(node));
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let Some(after) = cluster.snapshot().node(name) else { return };
        match change {
            NodeChange::Same => {}
            NodeChange::Added => queue.wake(&Event::NodeAdded(after), now),
            NodeChange::Changed { before } => {
                queue.wake(&Event::NodeChanged { before: &before, after }, now);
            }
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let namespace = change.key.namespace.as_deref().unwrap_or_default();
        let key = PodKey::new(namespace, &change.key.name);
        let Some(pod) = &change.after else {
            self.queue.remove(&key);
            self.free(&key);
            return;
        };
        let pod = Arc::new(PodInfo::new(pod));
        // A successor of the same name: what is known is about another pod.
        if self.queue.uid(&key).is_some_and(|uid| *uid != *pod.uid) {
            self.queue.remove(&key);
        }
        if self.cluster.pod(&key).is_some_and(|known| known.uid != pod.uid) {
            self.free(&key);
        }
        if pod.finished {
            self.queue.remove(&key);
            self.free(&key);
        } else if let Some(node) = pod.node.clone() {
            self.queue.remove(&key);
            let before = self.cluster.place(Arc::clone(&pod), &node, false);
            let shrunk = before.filter(|before| before.wants.requests.exceeds(&pod.wants.requests));
            if let Some(before) = shrunk {
                self.queue.wake(&Event::PodFreed(&before), Instant::now());
            }
        } else if !self.is_mine(&pod) {
            self.queue.remove(&key);
        } else if !self.cluster.is_assumed(&key, &pod.uid) {
            let held = self.algorithm.held(&pod).map(|(_, gate)| gate);
            self.queue.set(pod, held, Instant::now());
        }
    }

    /// Whether a pod is to be scheduled, and by this scheduler.
    fn is_mine(&self, pod: &PodInfo) -> bool {
        pod.node.is_none() && !pod.finished && !pod.deleting && *pod.scheduler == *self.options.name
    }

    /// Takes a pod off its node and wakes those that may profit.
    fn free(&mut self, key: &PodKey) {
        if let Some(freed) = self.cluster.remove(key) {
            self.queue.wake(&Event::PodFreed(&freed), Instant::now());
        }
    }
}

async fn bind(client: kube::Client, attempt: Attempt, node: Arc<str>) -> Bound {
    let pod = &attempt.pod;
    let binding = Bind::binding(BINDER, pod, &node);
    let api: Api<Pod> = Api::namespaced(client, pod.key.namespace());
    let result = api
        .create_subresource::<_, serde_json::Value>(
            "binding",
            pod.key.name(),
            &PostParams::default(),
            &binding,
        )
        .await
        .map(|_| ());
    Bound { attempt, node, result }
}
