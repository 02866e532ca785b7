//! The container-runtime trait: what a kubelet needs of any runtime, image service included. Knows nothing of gRPC
//! or of a particular runtime.

use std::{pin::Pin, time::Duration};

use futures::{Stream, future::BoxFuture};

use crate::{RuntimeError, v1};

/// What a call to a runtime resolves to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// The runtime's stream of changes; it ends when the connection breaks.
pub type RuntimeEvents = Pin<Box<dyn Stream<Item = RuntimeEvent> + Send>>;

/// A change of a container or sandbox, as soon as the runtime tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// The main process of a container or of a sandbox has ended. The runtime's own status may lag by milliseconds.
    Exited {
        /// Id of the container or sandbox.
        id: String,
    },
    /// The kernel killed a process of this container for lack of memory.
    OutOfMemory {
        /// Id of the container.
        id: String,
    },
    /// Something else changed; ask for the status.
    Changed {
        /// Id of the container or sandbox.
        id: String,
    },
}

/// A container runtime. Calls may be made concurrently; every call is bounded in time by the implementation.
pub trait Runtime: Send + Sync + 'static {
    /// Name and versions of the runtime.
    fn version(&self) -> Answer<'_, v1::VersionResponse>;
    /// Conditions `RuntimeReady` and `NetworkReady`.
    fn status(&self) -> Answer<'_, v1::RuntimeStatus>;
    /// Tells the runtime which addresses its pods get (used by runtimes that write their own network configuration).
    fn update_pod_cidr(&self, cidr: String) -> Answer<'_, ()>;

    /// Creates and starts a sandbox and returns its id.
    fn run_pod_sandbox(&self, config: v1::PodSandboxConfig) -> Answer<'_, String>;
    /// Stops a sandbox and every container in it, and releases its network. Idempotent.
    fn stop_pod_sandbox(&self, id: String) -> Answer<'_, ()>;
    /// Removes a sandbox and every container in it. Idempotent.
    fn remove_pod_sandbox(&self, id: String) -> Answer<'_, ()>;
    /// Status of one sandbox; with `verbose` also the runtime's own details.
    fn pod_sandbox_status(
        &self,
        id: String,
        verbose: bool,
    ) -> Answer<'_, v1::PodSandboxStatusResponse>;
    /// Sandboxes that match.
    fn list_pod_sandboxes(&self, filter: v1::PodSandboxFilter) -> Answer<'_, Vec<v1::PodSandbox>>;

    /// Creates a container in a sandbox and returns its id.
    fn create_container(&self, request: v1::CreateContainerRequest) -> Answer<'_, String>;
    /// Starts a created container.
    fn start_container(&self, id: String) -> Answer<'_, ()>;
    /// Sends the stop signal, waits at most `grace` (whole seconds), then kills. Idempotent.
    fn stop_container(&self, id: String, grace: Duration) -> Answer<'_, ()>;
    /// Removes a container, killing it if it runs. Idempotent.
    fn remove_container(&self, id: String) -> Answer<'_, ()>;
    /// Containers that match.
    fn list_containers(&self, filter: v1::ContainerFilter) -> Answer<'_, Vec<v1::Container>>;
    /// Status of one container; with `verbose` also the runtime's own details.
    fn container_status(
        &self,
        id: String,
        verbose: bool,
    ) -> Answer<'_, v1::ContainerStatusResponse>;
    /// Makes the runtime open the container's log file anew, after it was moved away.
    fn reopen_container_log(&self, id: String) -> Answer<'_, ()>;

    /// Runs a command in a container and waits for it, at most `timeout` (zero: without limit).
    fn exec_sync(
        &self,
        id: String,
        command: Vec<String>,
        timeout: Duration,
    ) -> Answer<'_, v1::ExecSyncResponse>;
    /// Prepares a streaming exec; the answer is the URL of the runtime's streaming server.
    fn exec(&self, request: v1::ExecRequest) -> Answer<'_, String>;
    /// Prepares a streaming attach; the answer is a URL.
    fn attach(&self, request: v1::AttachRequest) -> Answer<'_, String>;
    /// Prepares port forwarding into a sandbox; the answer is a URL.
    fn port_forward(&self, request: v1::PortForwardRequest) -> Answer<'_, String>;

    /// CPU, memory and disk use of running containers.
    fn container_stats(
        &self,
        filter: v1::ContainerStatsFilter,
    ) -> Answer<'_, Vec<v1::ContainerStats>>;
    /// Changes from now on. `Unimplemented` when the runtime has no such stream: then list again and again.
    fn events(&self) -> Answer<'_, RuntimeEvents>;

    /// Images on this node.
    fn list_images(&self) -> Answer<'_, Vec<v1::Image>>;
    /// One image by name, digest or id; `None` when it is not here.
    fn image_status(&self, image: String) -> Answer<'_, Option<v1::Image>>;
    /// Pulls an image and returns the reference it has in the runtime. The caller bounds the time.
    fn pull_image(&self, image: String, auth: Option<v1::AuthConfig>) -> Answer<'_, String>;
    /// Removes an image. Idempotent.
    fn remove_image(&self, image: String) -> Answer<'_, ()>;
    /// Disk use of images.
    fn image_fs_info(&self) -> Answer<'_, v1::ImageFsInfoResponse>;
}
