//! What the kubelet knows of one pod. Data only.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;

use super::backoff::BackOff;

/// Everything known of one pod.
#[derive(Debug, Clone)]
pub(crate) struct PodState {
    /// The object as the API has it, as far as the kubelet has heard.
    pub(crate) pod: Arc<api::Pod>,
    /// Where the pod stands in its life.
    pub(crate) life: Life,
    /// Its volumes.
    pub(crate) volumes: Volumes,
    /// Its sandbox.
    pub(crate) sandbox: Sandbox,
    /// Init containers in order, then the others in order, then the ephemeral ones in order.
    pub(crate) containers: Vec<Container>,
    /// Specifications of the ephemeral containers, as those of containers that never restart.
    pub(crate) ephemeral: Vec<api::Container>,
    /// When the kubelet took the pod up.
    pub(crate) start_time: Timestamp,
    /// All init containers have done their work in this sandbox.
    pub(crate) initialised: bool,
    /// Everything on this node that belonged to the pod is gone.
    pub(crate) cleaned: Cleaning,
    /// The API no longer has the object.
    pub(crate) gone: bool,
}

/// The stages of a pod's life on this node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Life {
    /// Not admitted; never runs.
    Rejected {
        /// CamelCase word, such as `OutOfcpu`.
        reason: String,
        /// Sentence for users.
        message: String,
    },
    /// Runs, or is on its way to.
    Active,
    /// Its containers are being stopped.
    Ending(Ending),
    /// Nothing of it runs any more.
    Ended(Cause),
    /// It had ended before this kubelet started; its status stays as the API has it.
    Finished(Box<api::PodStatus>),
}

/// A pod being stopped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// Why.
    pub(crate) cause: Cause,
    /// When it began.
    pub(crate) since: Timestamp,
    /// How long containers may take, from `since`.
    pub(crate) grace: Duration,
    /// Wait until proxies no longer send connections before containers are asked to end.
    pub(crate) drain: bool,
}

/// Why a pod ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its deletion was asked for, or the object is gone.
    Deleted,
    /// Its containers have ended and none is to be restarted.
    Completed,
    /// The kubelet stops it for this reason.
    Failed {
        /// CamelCase word, such as `DeadlineExceeded`.
        reason: String,
        /// Sentence for users.
        message: String,
        /// It is not the pod's fault: it is the target of a disruption (KEP-3329).
        disrupted: bool,
    },
}

/// The pod's volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Volumes {
    /// Not there; tried again at the given time, or at once if it is `None`.
    Pending {
        /// When to try (again).
        retry_at: Option<Timestamp>,
        /// Failures so far.
        failures: u32,
    },
    /// Being made.
    Mounting {
        /// Failures so far.
        failures: u32,
    },
    /// All there.
    Ready,
}

/// The pod's sandbox: its namespaces and network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// None.
    Absent {
        /// Number of the next one.
        attempt: u32,
        /// When to try again after a failure.
        retry_at: Option<Timestamp>,
        /// Failures since the last success.
        failures: u32,
    },
    /// Being made.
    Starting {
        /// Its number.
        attempt: u32,
        /// Failures since the last success.
        failures: u32,
    },
    /// There.
    Ready {
        /// The runtime's id.
        id: String,
        /// Its number.
        attempt: u32,
        /// Addresses of the pod, primary first; empty on the host's network.
        ips: Vec<String>,
    },
    /// Its main process is gone, or stopping it failed: it is stopped (again) before another is made.
    Broken {
        /// The runtime's id.
        id: String,
        /// Its number.
        attempt: u32,
        /// When to stop it; `None`: now.
        retry_at: Option<Timestamp>,
    },
    /// Being stopped.
    Stopping {
        /// The runtime's id.
        id: String,
        /// Its number.
        attempt: u32,
    },
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before what follows.
    Init,
    /// Starts among the init containers and runs along (KEP-753).
    Sidecar,
    /// An ordinary container.
    Main,
    /// Joins a running pod for somebody who looks into it; its end means nothing to the pod (KEP-277).
    Ephemeral,
}

/// One container of the pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    /// Its name in the pod.
    pub(crate) name: String,
    /// Its role.
    pub(crate) role: Role,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// How often it has been restarted.
    pub(crate) restarts: u32,
    /// Whether a container of this name has ever existed in the runtime.
    pub(crate) existed: bool,
    /// How the previous one ended.
    pub(crate) last: Option<Exit>,
    /// Wait between restarts.
    pub(crate) back_off: BackOff,
    /// Wait between pulls.
    pub(crate) pull_back_off: BackOff,
    /// The latest failure to pull, shown while waiting.
    pub(crate) pull_problem: Option<String>,
}

/// The phases of one container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    /// Nothing is under way.
    Waiting(Waiting),
    /// Its image is looked for or pulled.
    Pulling,
    /// Its image is here.
    Pulled(super::ImageReady),
    /// It is being created and started.
    Starting(super::ImageReady),
    /// It runs.
    Running(Running),
    /// It has ended.
    Exited(Exit),
}

/// A container that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Why, such as `CrashLoopBackOff`; empty: nothing has been tried.
    pub(crate) reason: &'static str,
    /// Sentence for users.
    pub(crate) message: String,
    /// When to try again.
    pub(crate) retry_at: Option<Timestamp>,
    /// Since when.
    pub(crate) since: Option<Timestamp>,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Running {
    /// The runtime's id.
    pub(crate) id: String,
    /// The image it was made from.
    pub(crate) image: super::ImageReady,
    /// When it started.
    pub(crate) started_at: Timestamp,
    /// Its postStart hook.
    pub(crate) post_start: Hook,
    /// Its startup probe has succeeded, or it has none.
    pub(crate) startup_passed: bool,
    /// Its readiness probe succeeds, or it has none.
    pub(crate) ready: bool,
    /// It is being stopped.
    pub(crate) stopping: bool,
}

impl Running {
    /// What the API calls `started`.
    pub(crate) fn started(&self) -> bool {
        self.startup_passed && self.post_start == Hook::Done
    }
}

/// A postStart hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Under way.
    Running,
    /// Done, or none.
    Done,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The runtime's id.
    pub(crate) id: String,
    /// The image's name, as the runtime reports it.
    pub(crate) image: String,
    /// The image's id.
    pub(crate) image_id: String,
    /// Exit code; 128 + signal when killed by one.
    pub(crate) code: i32,
    /// `Completed`, `Error`, `OOMKilled`, …
    pub(crate) reason: String,
    /// The termination message.
    pub(crate) message: String,
    /// When it started, if it did.
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished_at: Timestamp,
}

/// The removal of everything that belonged to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleaning {
    /// Not begun.
    Not,
    /// Under way.
    Running,
    /// Done.
    Done,
}

impl PodState {
    /// The container's specification.
    pub(crate) fn spec_of(&self, index: usize) -> Option<&api::Container> {
        let spec = self.pod.spec.as_ref()?;
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let Some(index) = index.checked_sub(init.len()) else { return init.get(index) };
        match index.checked_sub(spec.containers.len()) {
            None => spec.containers.get(index),
            Some(index) => self.ephemeral.get(index),
        }
    }

    /// The runtime's id of the container whose processes an ephemeral one asks to see, if that runs.
    pub(crate) fn target_of(&self, index: usize) -> Option<&str> {
        let name = &self.containers.get(index).filter(|c| c.role == Role::Ephemeral)?.name;
        let spec = self.pod.spec.as_ref()?;
        let spec = spec.ephemeral_containers.iter().flatten().find(|c| c.name == *name)?;
        let target = spec.target_container_name.as_ref()?;
        let target = self.containers.iter().find(|c| c.name == *target)?;
        target.running().map(|running| running.id.as_str())
    }

    /// The addresses of the pod.
    pub(crate) fn ips(&self) -> &[String] {
        match &self.sandbox {
            Sandbox::Ready { ips, .. } => ips,
            _ => &[],
        }
    }
}

impl Container {
    /// The running container, if it runs.
    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Something of it exists or is coming to be in the runtime.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running(_) | Phase::Starting(_))
    }
}
