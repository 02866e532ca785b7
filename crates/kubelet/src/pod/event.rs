//! What happens to a pod and what the machine wants done: the words between the machine and its actor.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;

use super::model::Exit;

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The API's object, new or changed.
    Spec(Arc<api::Pod>),
    /// The API no longer has the object.
    Gone,
    /// What the runtime has of this pod, at the start of the actor.
    Adopt(Seen),
    /// The volumes are there, or could not be made.
    VolumesMounted(Result<(), String>),
    /// A sandbox was made, or not.
    SandboxStarted(Result<SeenSandbox, String>),
    /// A sandbox was stopped, or not.
    SandboxStopped(Result<(), String>),
    /// The main process of a sandbox ended by itself.
    SandboxDied {
        /// The runtime's id.
        id: String,
    },
    /// An image is here, or not.
    Pulled {
        /// Which container.
        container: usize,
        /// The image, or what went wrong.
        result: Result<ImageReady, PullProblem>,
    },
    /// A container was started, or not.
    Started {
        /// Which container.
        container: usize,
        /// The container, or what went wrong.
        result: Result<Started, StartProblem>,
    },
    /// A postStart hook has ended.
    PostStarted {
        /// Which container.
        container: usize,
        /// The runtime's id.
        id: String,
        /// Its outcome.
        result: Result<(), String>,
    },
    /// A container has ended.
    Exited {
        /// Which container.
        container: usize,
        /// How.
        exit: Exit,
    },
    /// A probe's verdict changed.
    Probed {
        /// Which container.
        container: usize,
        /// The runtime's id of the container that was probed.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// The verdict, thresholds applied.
        healthy: bool,
    },
    /// The node ends the pod, whatever its deletion.
    End {
        /// CamelCase word for its status.
        reason: &'static str,
        /// Sentence for users.
        message: &'static str,
        /// How long it may take, at the most.
        grace: Duration,
    },
    /// An object the pod depends on (ConfigMap, Secret, …) appeared or changed: what waits for it is tried again.
    SourcesChanged,
    /// Everything that belonged to the pod on this node is gone.
    Cleaned,
    /// Time has passed.
    Tick,
}

/// Something to be done. Effects of one step may run at the same time; their results come back as events.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Make the volumes; answer [`Event::VolumesMounted`].
    MountVolumes,
    /// Make a sandbox; answer [`Event::SandboxStarted`].
    RunSandbox {
        /// Its number.
        attempt: u32,
    },
    /// Stop a sandbox and everything in it; answer [`Event::SandboxStopped`].
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Find or pull an image; answer [`Event::Pulled`].
    Pull {
        /// For which container.
        container: usize,
    },
    /// Create and start a container; answer [`Event::Started`].
    Start {
        /// Which container.
        container: usize,
        /// Its number.
        attempt: u32,
        /// Its image.
        image: ImageReady,
        /// The sandbox it goes into.
        sandbox: String,
    },
    /// Run a postStart hook; answer [`Event::PostStarted`].
    PostStart {
        /// Which container.
        container: usize,
        /// The runtime's id.
        id: String,
    },
    /// Begin probing.
    Probe {
        /// Which container.
        container: usize,
        /// The runtime's id.
        id: String,
        /// When the container started.
        started_at: Timestamp,
        /// Its startup probe has already succeeded.
        startup_passed: bool,
        /// The readiness it is taken to have until probed.
        ready: bool,
    },
    /// Stop a container as planned; its end arrives as [`Event::Exited`].
    Stop(StopPlan),
    /// A container that is being stopped has less time than it was told.
    Hasten {
        /// Which container.
        container: usize,
        /// The runtime's id.
        id: String,
        /// What is left.
        grace: Duration,
    },
    /// Tell the user.
    Record {
        /// Kind of event.
        kind: EventType,
        /// CamelCase word.
        reason: &'static str,
        /// Sentence.
        message: String,
        /// The container it is about.
        container: Option<usize>,
    },
    /// Remove everything that belonged to the pod; answer [`Event::Cleaned`].
    CleanUp,
    /// Delete the object from the API, after its final status is written.
    Delete,
}

/// How a container is stopped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StopPlan {
    /// Which container.
    pub(crate) container: usize,
    /// The runtime's id.
    pub(crate) id: String,
    /// Time until it is killed.
    pub(crate) grace: Duration,
    /// Before the stop signal, wait until proxies have withdrawn the pod.
    pub(crate) drain: bool,
    /// What the `Killing` event says.
    pub(crate) message: String,
}

/// An event's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    /// Expected.
    Normal,
    /// A user may have to act.
    Warning,
}

/// An image on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageReady {
    /// The name in the container's specification, default tag applied.
    pub(crate) name: String,
    /// The runtime's name or id to create containers from.
    pub(crate) reference: String,
    /// What the API shows as `imageID`.
    pub(crate) id: String,
}

/// Why an image is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullProblem {
    /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, …
    pub(crate) reason: &'static str,
    /// Sentence for users.
    pub(crate) message: String,
}

/// A container just started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// The runtime's id.
    pub(crate) id: String,
    /// When it started.
    pub(crate) started_at: Timestamp,
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartProblem {
    /// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`.
    pub(crate) reason: &'static str,
    /// Sentence for users.
    pub(crate) message: String,
    /// How the container ended, if it was created.
    pub(crate) exit: Option<Exit>,
}

/// The kinds of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    /// Is the container up? Others wait for it.
    Startup,
    /// May it get traffic?
    Readiness,
    /// Must it be restarted?
    Liveness,
}

/// What the runtime has of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Its sandboxes.
    pub(crate) sandboxes: Vec<SeenSandbox>,
    /// Its containers.
    pub(crate) containers: Vec<SeenContainer>,
}

/// A sandbox the runtime has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenSandbox {
    /// The runtime's id.
    pub(crate) id: String,
    /// Its number.
    pub(crate) attempt: u32,
    /// It is intact.
    pub(crate) ready: bool,
    /// The pod's addresses.
    pub(crate) ips: Vec<String>,
}

/// A container the runtime has.
#[derive(Debug, Clone)]
pub(crate) struct SeenContainer {
    /// Its name in the pod.
    pub(crate) name: String,
    /// The runtime's id.
    pub(crate) id: String,
    /// Its number.
    pub(crate) attempt: u32,
    /// The image it was made from.
    pub(crate) image: ImageReady,
    /// Where it stands.
    pub(crate) phase: SeenPhase,
}

/// Where a container stands in the runtime.
#[derive(Debug, Clone)]
pub(crate) enum SeenPhase {
    /// Created, never started.
    Created,
    /// Runs since then.
    Running(Timestamp),
    /// Ended.
    Exited(Exit),
}
