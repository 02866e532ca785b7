//! What the runtime says by itself: exits of containers and sandboxes, passed on to the pods they belong to. Listens to
//! the runtime's event stream; where there is none, lists once a second; lists once a minute in any case. Knows
//! nothing of what a pod does about it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use cri::{Runtime, RuntimeError, RuntimeEvent, v1};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::actor::Message;

/// How often everything is listed although the stream works.
const SAFETY: Duration = Duration::from_secs(60);
/// How often everything is listed when there is no stream.
const NO_STREAM: Duration = Duration::from_secs(1);
/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(250);
/// Out-of-memory kills remembered; more than that at once are forgotten.
const KILLS: usize = 1024;

/// Who wants to hear of which container or sandbox.
#[derive(Default)]
struct Registry {
    owners: HashMap<String, mpsc::Sender<Message>>,
    killed: HashSet<String>,
}

/// The runtime's news.
#[derive(Clone)]
pub(crate) struct Monitor {
    runtime: Arc<dyn Runtime>,
    registry: Arc<Mutex<Registry>>,
}

impl Monitor {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, registry: Arc::default() }
    }

    /// From now on `owner` hears when the container or sandbox `id` exits.
    pub(crate) fn register(&self, id: &str, owner: &mpsc::Sender<Message>) {
        self.registry.lock().owners.insert(id.to_owned(), owner.clone());
    }

    /// Nobody cares for `id` any more.
    pub(crate) fn forget(&self, id: &str) {
        let mut registry = self.registry.lock();
        registry.owners.remove(id);
        registry.killed.remove(id);
    }

    /// Whether the kernel killed something in this container for lack of memory.
    pub(crate) fn was_out_of_memory(&self, id: &str) -> bool {
        self.registry.lock().killed.contains(id)
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.listen()).await;
    }

    async fn listen(&self) {
        loop {
            match self.runtime.events().await {
                Ok(mut events) => {
                    // Whatever happened while nobody listened shows in a list.
                    self.list().await;
                    loop {
                        tokio::select! {
                            event = events.next() => match event {
                                Some(event) => self.pass_on(event).await,
                                None => break,
                            },
                            () = sleep(SAFETY) => self.list().await,
                        }
                    }
                    info!("the runtime's event stream ended; opening it again");
                }
                Err(RuntimeError::Unimplemented(_)) => {
                    self.list().await;
                    sleep(NO_STREAM).await;
                    continue;
                }
                Err(error) => debug!(%error, "the runtime's event stream could not be opened"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn pass_on(&self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Exited { id } | RuntimeEvent::Changed { id } => self.tell(&id).await,
            RuntimeEvent::OutOfMemory { id } => {
                let mut registry = self.registry.lock();
                if registry.owners.contains_key(&id) && registry.killed.len() < KILLS {
                    registry.killed.insert(id);
                }
            }
        }
    }

    async fn tell(&self, id: &str) {
        let owner = self.registry.lock().owners.get(id).cloned();
        if let Some(owner) = owner {
            let _ = owner.send(Message::MayHaveExited { id: id.to_owned() }).await;
        }
    }

    /// Tells owners of whatever no longer runs.
    async fn list(&self) {
        let containers = self.runtime.list_containers(v1::ContainerFilter::default()).await;
        let sandboxes = self.runtime.list_pod_sandboxes(v1::PodSandboxFilter::default()).await;
        let (Ok(containers), Ok(sandboxes)) = (containers, sandboxes) else { return };
        let running = containers
            .iter()
            .filter(|c| {
                matches!(
                    c.state(),
                    v1::ContainerState::ContainerRunning | v1::ContainerState::ContainerCreated
                )
            })
            .map(|c| c.id.as_str());
        let ready = sandboxes
            .iter()
            .filter(|s| s.state() == v1::PodSandboxState::SandboxReady)
            .map(|s| s.id.as_str());
        let alive: HashSet<&str> = running.chain(ready).collect();
        let gone: Vec<String> = {
            let registry = self.registry.lock();
            registry.owners.keys().filter(|id| !alive.contains(id.as_str())).cloned().collect()
        };
        for id in gone {
            self.tell(&id).await;
        }
    }
}
