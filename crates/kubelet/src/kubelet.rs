//! The kubelet as a whole: takes up the pods that are bound to this node, gives each an actor, and keeps the node's
//! own objects. Knows nothing of what an actor does.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use client::{Cache, Caches, Change, EventRecorder, ObjectKey, Select, Subscription};
use cri::Runtime;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use serve::tunnel::{Agent, AgentOptions};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    KubeletError, KubeletOptions,
    actor::{self, Actor, Handle, Message},
    admission::{self, Room},
    adopt,
    cgroups::Cgroups,
    context::Context,
    drain::Drain,
    gc,
    images::Images,
    logs,
    monitor::Monitor,
    node::{self, Capacity, Heartbeat, Pulse, Registrar},
    pod::{self, Event, PodState, Seen},
    server::{self, ServerIdentity},
    spec::{PodId, dns, fields::Facts},
    tunnel::Reach,
    volumes::Tokens,
};

/// How long the runtime may take to answer for the first time.
const RUNTIME: Duration = Duration::from_secs(60);

/// Orders that may wait.
const ORDERS: usize = 64;

/// What a kubelet is given.
pub struct KubeletDependencies {
    /// Caches of the API, as the node may see it.
    pub caches: Caches,
    /// Caches of the API, as the node's network may see it: endpoint slices, nodes, and what proxies publish.
    pub network: Caches,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// What the kubelet's HTTPS API presents and whom it trusts.
    pub identity: ServerIdentity,
    /// The servers to which the node opens a tunnel, if it does.
    pub tunnel: Option<AgentOptions>,
    /// Cancelled when the machine goes down: pods are ended in order, then the kubelet ends.
    pub going_down: CancellationToken,
    /// What other parts of the node count, in the text format of Prometheus: `/metrics` tells it too.
    pub others: OtherMetrics,
}

/// Metrics of other parts of the node, as text.
pub type OtherMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// A kubelet.
pub struct Kubelet {
    options: Arc<KubeletOptions>,
    dependencies: KubeletDependencies,
}

impl Kubelet {
    /// A kubelet that has done nothing yet.
    pub fn new(options: KubeletOptions, dependencies: KubeletDependencies) -> Self {
        Self { options: Arc::new(options), dependencies }
    }

    /// Runs until `shutdown`; then pods are left running, for the next kubelet to take over.
    ///
    /// # Errors
    /// When the node cannot be prepared: directories, control groups, the runtime or the listening port.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), KubeletError> {
        let Self { options, dependencies } = self;
        let KubeletDependencies { caches, network, runtime, identity, tunnel, going_down, others } =
            dependencies;
        let shutdown = shutdown.child_token();
        for dir in [options.root_dir.join("pods"), options.log_dir.clone()] {
            fs::create_dir_all(&dir)
                .map_err(|source| KubeletError::Directory { path: dir, source })?;
        }
        let listener = server::bind(&options, identity).await?;
        let port = listener.port();
        let version = wait_for_runtime(&runtime, &shutdown).await?;
        let cgroups = Cgroups::prepare(&options.cgroup_root).map_err(|source| {
            KubeletError::Cgroups { root: options.cgroup_root.clone(), source }
        })?;
        let capacity = Capacity::read(&options);
        let runtime_name = version.runtime_name.clone();
        let runtime_version = format!("{runtime_name}://{}", version.runtime_version);
        let machine = Machine { runtime, runtime_name, cgroups, capacity: &capacity, others };
        let drain = Drain::open(&network);
        let context = context(&options, &caches, drain, machine, &shutdown, going_down);

        let mut parts = JoinSet::new();
        let (orders, ordered) = mpsc::channel(ORDERS);
        let uid = watch::Sender::new(None);
        let select = Select::all().fields(format!("metadata.name={}", options.node_name));
        let own: Cache<api::Node> = caches.selected(select);
        let heartbeat = start_heartbeat(&context, &own, uid.subscribe(), &orders, &shutdown);
        heartbeat.into_iter().for_each(|part| drop(parts.spawn(part)));
        parts.spawn(end_with_machine(context.clone(), orders, shutdown.clone()));
        let registrar = Registrar {
            context: context.clone(),
            capacity: capacity.clone(),
            runtime_version,
            port,
            own,
            uid,
        };
        parts.spawn(registrar.run(shutdown.clone()));
        parts.spawn(context.monitor.clone().run(shutdown.clone()));
        parts.spawn(logs::rotate_forever(context.clone(), shutdown.clone()));
        parts.spawn(gc::collect_forever(context.clone(), shutdown.clone()));
        parts.spawn(listener.run(context.clone(), shutdown.clone()));
        if let Some(options) = tunnel {
            let reach = Arc::new(Reach { context: context.clone(), kubelet_port: port });
            parts.spawn(Agent::new(options, reach).run(shutdown.clone()));
        }
        let room = Room {
            cpu_milli: capacity.allocatable_cpu(),
            memory: capacity.allocatable_memory(),
            pods: options.max_pods,
        };
        Pods {
            context,
            room,
            handles: HashMap::new(),
            actors: JoinSet::new(),
            seen: HashMap::new(),
            orders: ordered,
        }
        .run(&caches, shutdown)
        .await;
        while parts.join_next().await.is_some() {}
        Ok(())
    }
}

/// Something for a pod that does not come from the API.
#[derive(Debug)]
pub(crate) struct Order {
    /// Which pod.
    pub(crate) uid: String,
    /// What happens to it.
    pub(crate) event: Event,
}

/// Renews the node's lease, and fences the node when that fails, if it is to.
fn start_heartbeat(
    context: &Arc<Context>,
    node: &Cache<api::Node>,
    uid: watch::Receiver<Option<String>>,
    orders: &mpsc::Sender<Order>,
    shutdown: &CancellationToken,
) -> Vec<BoxFuture<'static, ()>> {
    let options = &context.options;
    let pulse = Pulse { renewed: None, duration: options.lease_duration };
    let pulse = watch::Sender::new(pulse);
    let mut parts: Vec<BoxFuture<'static, ()>> = Vec::new();
    if options.self_fence {
        let (pulse, orders) = (pulse.subscribe(), orders.clone());
        parts.push(node::fence::run(context.clone(), pulse, orders, shutdown.clone()).boxed());
    }
    let heartbeat = Heartbeat {
        client: context.client.clone(),
        options: options.clone(),
        node: node.clone(),
        uid,
        pulse,
    };
    parts.push(heartbeat.run(shutdown.clone()).boxed());
    parts
}

/// Ends all pods when the machine goes down, and then the kubelet.
async fn end_with_machine(
    context: Arc<Context>,
    orders: mpsc::Sender<Order>,
    shutdown: CancellationToken,
) {
    let down = context.going_down.clone();
    if shutdown.run_until_cancelled(down.cancelled()).await.is_some() {
        shutdown.run_until_cancelled(node::shutdown::run(context, orders)).await;
        shutdown.cancel();
    }
}

/// The runtime's version, once it answers.
async fn wait_for_runtime(
    runtime: &Arc<dyn Runtime>,
    shutdown: &CancellationToken,
) -> Result<cri::v1::VersionResponse, KubeletError> {
    let since = tokio::time::Instant::now();
    loop {
        match runtime.version().await {
            Ok(version) => return Ok(version),
            Err(error) if since.elapsed() > RUNTIME || shutdown.is_cancelled() => {
                return Err(error.into());
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What the machine has to run pods with.
struct Machine<'a> {
    runtime: Arc<dyn Runtime>,
    runtime_name: String,
    cgroups: Cgroups,
    capacity: &'a Capacity,
    others: OtherMetrics,
}

fn context(
    options: &Arc<KubeletOptions>,
    caches: &Caches,
    drain: Drain,
    machine: Machine<'_>,
    shutdown: &CancellationToken,
    going_down: CancellationToken,
) -> Arc<Context> {
    let Machine { runtime, runtime_name, cgroups, capacity, others } = machine;
    let client = caches.client();
    let facts = Facts {
        host_ips: options.node_ips.iter().map(ToString::to_string).collect(),
        cpu_milli: capacity.allocatable_cpu(),
        memory: capacity.allocatable_memory(),
        ..Facts::default()
    };
    let resolver = dns::parse(&fs::read_to_string(&options.resolv_conf).unwrap_or_default());
    let recorder =
        EventRecorder::new(client.clone(), "kubelet", Some(&options.node_name), shutdown.clone());
    Arc::new(Context {
        options: options.clone(),
        runtime: runtime.clone(),
        runtime_name,
        caches: caches.clone(),
        services: caches.cache(),
        recorder,
        images: Images::new(runtime.clone(), client.clone(), options.max_pulls),
        monitor: Monitor::new(runtime),
        drain,
        tokens: Tokens::new(client.clone()),
        cgroups,
        resolver,
        facts: watch::Sender::new(facts).subscribe(),
        memory: capacity.memory,
        listed: AtomicBool::new(false),
        going_down,
        others,
        pods: parking_lot::Mutex::default(),
        client,
    })
}

/// The pods of this node and their actors.
struct Pods {
    context: Arc<Context>,
    room: Room,
    /// By the objects' names; an object of the same name and another uid is another pod.
    handles: HashMap<ObjectKey, Handle>,
    actors: JoinSet<()>,
    /// What the runtime had when the kubelet started and nobody has taken up yet.
    seen: HashMap<String, Seen>,
    orders: mpsc::Receiver<Order>,
}

impl Pods {
    async fn run(mut self, caches: &Caches, shutdown: CancellationToken) {
        self.seen = loop {
            match adopt::look(&self.context).await {
                Ok(seen) => break seen,
                Err(error) => warn!(%error, "the runtime cannot be listed; trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(Duration::from_millis(200)) => {}
            }
        };
        let select =
            Select::all().fields(format!("spec.nodeName={}", self.context.options.node_name));
        let pods = caches.selected::<api::Pod>(select);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = pods.ready() => {}
        }
        let mut subscription = pods.subscribe();
        self.take_first(&mut subscription, &shutdown).await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                change = subscription.next() => match change {
                    Some(change) => self.change(change, &shutdown).await,
                    None => break,
                },
                Some(order) = self.orders.recv() => self.obey(order).await,
                Some(ended) = self.actors.join_next(), if !self.actors.is_empty() => {
                    if let Err(error) = ended {
                        warn!(%error, "a pod's actor ended badly");
                    }
                }
            }
        }
        while self.actors.join_next().await.is_some() {}
    }

    /// Takes up what the API has now, then removes from the runtime what the API no longer knows.
    async fn take_first(
        &mut self,
        subscription: &mut Subscription<api::Pod>,
        shutdown: &CancellationToken,
    ) {
        while let Some(Some(change)) = subscription.next().now_or_never() {
            self.change(change, shutdown).await;
        }
        self.context.listed.store(true, Ordering::Release);
        let orphans: Vec<String> = self.seen.drain().map(|(uid, _)| uid).collect();
        if !orphans.is_empty() {
            info!(count = orphans.len(), "removing pods that the API no longer has");
        }
        for uid in orphans {
            let context = self.context.clone();
            self.actors.spawn(async move {
                gc::remove_orphan(&context, &uid).await;
            });
        }
    }

    async fn obey(&mut self, order: Order) {
        if let Some(handle) = self.handles.values().find(|handle| handle.uid == order.uid) {
            handle.send(Message::Event(order.event)).await;
        }
    }

    async fn change(&mut self, change: Change<api::Pod>, shutdown: &CancellationToken) {
        let known = self.handles.get(&change.key);
        match (known, change.after) {
            (Some(handle), Some(pod)) if pod.metadata.uid.as_deref() == Some(&handle.uid) => {
                handle.send(Message::Spec(pod)).await;
            }
            (known, after) => {
                if let Some(handle) = known {
                    handle.send(Message::Gone).await;
                    self.handles.remove(&change.key);
                }
                if let Some(pod) = after {
                    self.take_up(change.key, pod, shutdown);
                }
            }
        }
    }

    /// Gives a pod an actor.
    fn take_up(&mut self, key: ObjectKey, pod: Arc<api::Pod>, shutdown: &CancellationToken) {
        let seen = self.seen.remove(&PodId::of(&pod).uid).unwrap_or_default();
        let state = self.state_of(pod, &seen);
        self.context.pods.lock().insert(PodId::of(&state.pod).uid, Arc::new(state.clone()));
        let (actor, handle) = Actor::new(self.context.clone(), state);
        self.actors.spawn(actor.run(seen, shutdown.clone()));
        self.handles.insert(key, handle);
    }

    /// A pod that has run here is not asked again whether there is room for it.
    fn state_of(&self, pod: Arc<api::Pod>, seen: &Seen) -> PodState {
        let now = Timestamp::now();
        if !seen.sandboxes.is_empty() {
            return pod::new(pod, now);
        }
        let states: Vec<Arc<PodState>> = self.context.pods.lock().values().cloned().collect();
        let uid = PodId::of(&pod).uid;
        let others = states.iter().filter(|s| actor::occupies(s)).map(|s| &*s.pod);
        let others = others.filter(|other| other.metadata.uid.as_deref() != Some(&uid));
        let verdict = match self.context.going_down.is_cancelled() {
            true => Err(admission::going_down()),
            false => admission::admit(&pod, others, self.room),
        };
        match verdict {
            Ok(()) => pod::new(pod, now),
            Err(refusal) => {
                let about = client::reference(&*pod);
                self.context.recorder.warning(&about, &refusal.reason, refusal.message.clone());
                pod::rejected(pod, refusal.reason, refusal.message, now)
            }
        }
    }
}

/// Uids of the pods that have actors.
pub(crate) fn known_uids(context: &Context) -> HashSet<String> {
    context.pods.lock().keys().cloned().collect()
}
