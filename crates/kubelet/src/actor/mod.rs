//! One pod, alive: feeds the state machine with what happens, runs the effects it asks for, and publishes the status.
//! Knows the order of things only through the machine.

mod dispatch;
mod effects;
mod probing;
mod publish;
mod start;
mod stop;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    context::Context,
    pod::{self, Event, Life, PodState, ProbeKind, Sandbox},
    sources::{References, Sources},
    spec::PodId,
    volumes,
};

pub(crate) use self::{
    effects::{remove_sandboxes, seen_sandbox},
    stop::{read_exit, time},
};
use self::{probing::Probing, publish::Publisher};

/// Messages a pod may have waiting.
const INBOX: usize = 64;
/// The most a pod sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What an actor hears from outside.
#[derive(Debug)]
pub(crate) enum Message {
    /// The API's object, new or changed.
    Spec(Arc<api::Pod>),
    /// The API no longer has the object.
    Gone,
    /// A container or sandbox may have exited.
    MayHaveExited {
        /// The runtime's id.
        id: String,
    },
    /// Something for the machine itself.
    Event(Event),
}

/// A handle on a running actor.
pub(crate) struct Handle {
    inbox: mpsc::Sender<Message>,
    pub(crate) uid: String,
}

impl Handle {
    /// Sends a message, waiting while the actor is busy.
    pub(crate) async fn send(&self, message: Message) {
        let _ = self.inbox.send(message).await;
    }
}

/// A pod's actor.
pub(crate) struct Actor {
    context: Arc<Context>,
    id: PodId,
    state: PodState,
    inbox: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    /// Effects under way; each may end with an event.
    tasks: JoinSet<Option<Event>>,
    publisher: Publisher,
    sources: Option<(References, Arc<Sources>)>,
    keeper: Option<AbortHandle>,
    /// The newest object, for what renders it again and again.
    object: watch::Sender<Arc<api::Pod>>,
    probes: HashMap<usize, Probing>,
    /// Exits heard of before the machine knew the container.
    early_exits: HashSet<String>,
    /// The object is to be deleted from the API once its final status is written.
    delete: bool,
}

impl Actor {
    /// Makes the actor of a pod in the state it is taken up in.
    pub(crate) fn new(context: Arc<Context>, state: PodState) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let id = PodId::of(&state.pod);
        let handle = Handle { inbox: sender.clone(), uid: id.uid.clone() };
        let publisher = Publisher::new(context.client.clone(), state.pod.clone());
        let object = watch::Sender::new(state.pod.clone());
        let actor = Self {
            context,
            id,
            state,
            inbox,
            sender,
            tasks: JoinSet::new(),
            publisher,
            sources: None,
            keeper: None,
            object,
            probes: HashMap::new(),
            early_exits: HashSet::new(),
            delete: false,
        };
        (actor, handle)
    }

    /// Runs until the pod is gone from the API and from this node, or until `shutdown`; then everything is left as it
    /// is. Begins with what the runtime has of the pod.
    pub(crate) async fn run(mut self, seen: pod::Seen, shutdown: CancellationToken) {
        let span = info_span!("pod", namespace = self.id.namespace, name = self.id.name);
        async move {
            self.watch_runtime(&seen);
            self.take(Event::Adopt(seen));
            let stopped = loop {
                self.publish();
                if self.is_over() {
                    break false;
                }
                let wake = self.wake();
                tokio::select! {
                    () = shutdown.cancelled() => break true,
                    Some(message) = self.inbox.recv() => self.hear(message),
                    Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                        Ok(Some(event)) => self.take(event),
                        Ok(None) => {}
                        Err(error) => self.task_failed(&error),
                    },
                    result = self.publisher.next() => self.published(result),
                    () = tokio::time::sleep(wake) => self.take(Event::Tick),
                }
            };
            self.close(stopped);
        }
        .instrument(span)
        .await;
    }

    /// The pod is gone everywhere.
    fn is_over(&self) -> bool {
        self.state.gone && self.state.cleaned == pod::Cleaning::Done
    }

    fn close(mut self, stopped: bool) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
        for (_, probing) in self.probes.drain() {
            probing.tasks.iter().for_each(|(_, task)| task.abort());
        }
        if !stopped {
            self.context.tokens.forget(&self.id.uid);
        }
        self.context.pods.lock().remove(&self.id.uid);
    }

    fn wake(&self) -> Duration {
        let now = Timestamp::now();
        let at = pod::wake_at(&self.state, now);
        at.map_or(IDLE, |at| {
            Duration::try_from(at.duration_since(now)).unwrap_or_default().min(IDLE)
        })
    }

    /// Whatever the runtime already has is watched.
    fn watch_runtime(&self, seen: &pod::Seen) {
        for sandbox in seen.sandboxes.iter().filter(|s| s.ready) {
            self.context.monitor.register(&sandbox.id, &self.sender);
        }
        for container in &seen.containers {
            if matches!(container.phase, pod::SeenPhase::Running(_)) {
                self.context.monitor.register(&container.id, &self.sender);
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Spec(pod) => {
                self.publisher.heard(&pod);
                self.object.send_replace(pod.clone());
                self.take(Event::Spec(pod));
            }
            Message::Gone => {
                self.publisher.gone();
                self.take(Event::Gone);
            }
            Message::MayHaveExited { id } => self.may_have_exited(id),
            Message::Event(event) => self.take(event),
        }
    }

    /// Asks the runtime about a container or sandbox that is said to have exited.
    fn may_have_exited(&mut self, id: String) {
        if matches!(&self.state.sandbox, Sandbox::Ready { id: own, .. } if *own == id) {
            self.tasks.spawn(effects::sandbox_died(self.context.clone(), id));
            return;
        }
        let index =
            self.state.containers.iter().position(|c| c.running().is_some_and(|r| r.id == id));
        match index {
            Some(index) => {
                let name = self.state.containers[index].name.clone();
                let job =
                    stop::exited(self.context.clone(), self.state.pod.clone(), index, name, id);
                self.tasks.spawn(job);
            }
            None => {
                // Mostly news of containers whose end is known already: these pile up and are worth nothing.
                if self.early_exits.len() >= INBOX {
                    self.early_exits.clear();
                }
                self.early_exits.insert(id);
            }
        }
    }

    /// One step of the machine, and what it asks for.
    fn take(&mut self, event: Event) {
        match &event {
            // A pod may have passwords in its environment, and is long.
            Event::Spec(pod) => debug!(revision = pod.metadata.resource_version, "event: new spec"),
            event => debug!(?event, "event"),
        }
        self.notice(&event);
        let state = self.state.clone();
        let (state, effects) = pod::step(state, event, Timestamp::now());
        self.state = state;
        for effect in effects {
            self.run_effect(effect);
        }
        self.after_step();
    }

    /// Side tables that follow events.
    fn notice(&mut self, event: &Event) {
        match event {
            Event::Exited { container, exit } => {
                self.context.monitor.forget(&exit.id);
                self.stop_probes(*container, None);
            }
            Event::Probed { container, kind: ProbeKind::Startup, healthy: true, .. } => {
                if let Some(probing) = self.probes.get(container) {
                    probing.startup.send_replace(true);
                }
            }
            Event::VolumesMounted(Ok(())) => self.keep_volumes(),
            _ => {}
        }
    }

    /// Whatever the new state makes due.
    fn after_step(&mut self) {
        let known: Vec<(usize, String)> = self
            .state
            .containers
            .iter()
            .enumerate()
            .filter_map(|(i, c)| c.running().map(|r| (i, r.id.clone())))
            .filter(|(_, id)| self.early_exits.contains(id))
            .collect();
        for (_, id) in known {
            self.early_exits.remove(&id);
            self.may_have_exited(id);
        }
        self.context.pods.lock().insert(self.id.uid.clone(), Arc::new(self.state.clone()));
    }

    fn task_failed(&mut self, error: &tokio::task::JoinError) {
        if error.is_panic() {
            // Its event will never come; the pod would wait for ever. Better to say so loudly than to hide it.
            warn!(%error, "an effect panicked");
        }
    }

    fn publish(&mut self) {
        let context = &self.context;
        let latest = self.publisher.latest();
        let previous = latest.status.clone().unwrap_or_default();
        let status = pod::project(
            &self.state,
            &previous,
            &context.host_ips(),
            &context.runtime_name,
            Timestamp::now(),
        );
        self.publisher.want(status, self.delete);
    }

    fn published(&mut self, result: publish::Outcome) {
        match result {
            publish::Outcome::Written => {}
            publish::Outcome::Gone => self.take(Event::Gone),
        }
    }

    /// The pod's sources, opened when first needed.
    fn sources(&mut self) -> Arc<Sources> {
        let references = References::of(&self.state.pod);
        // Ephemeral containers may refer to more than the pod did.
        if let Some((known, sources)) = &self.sources
            && *known == references
        {
            return sources.clone();
        }
        let sources =
            Arc::new(Sources::open(&self.context.caches, &self.id.namespace, &references));
        let mut changes = sources.changes();
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            loop {
                changes.next().await;
                if sender.send(Message::Event(Event::SourcesChanged)).await.is_err() {
                    return None;
                }
            }
        });
        self.sources = Some((references, sources.clone()));
        sources
    }

    /// Volumes are there: from now on they are kept current.
    fn keep_volumes(&mut self) {
        if self.keeper.is_some() || !volumes::changes(&self.state.pod) {
            return;
        }
        let sources = self.sources();
        let context = &self.context;
        let job = volumes::keep(
            context.options.clone(),
            sources,
            context.tokens.clone(),
            self.object.subscribe(),
            context.facts.clone(),
        );
        let handle = self.tasks.spawn(async move {
            job.await;
            None
        });
        self.keeper = Some(handle);
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        for container in &self.state.containers {
            if let Some(running) = container.running() {
                self.context.monitor.forget(&running.id);
            }
        }
    }
}

/// Whether a pod's containers use the node's resources: finished pods do not.
pub(crate) fn occupies(state: &PodState) -> bool {
    !matches!(state.life, Life::Rejected { .. } | Life::Ended(_) | Life::Finished(_))
}
