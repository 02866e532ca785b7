//! The gRPC client of a container runtime on a unix socket. Knows nothing of how the runtime was started.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::{
    Request,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    RuntimeError,
    proto::events::{self, events_client::EventsClient},
    runtime::{Answer, Runtime, RuntimeEvent, RuntimeEvents},
    v1::{
        self, image_service_client::ImageServiceClient,
        runtime_service_client::RuntimeServiceClient,
    },
};

/// Largest answer accepted, bytes: what containerd itself allows.
const MAX_MESSAGE: usize = 16 << 20;
/// Time a plain call may take.
const CALL: Duration = Duration::from_secs(120);
/// Time the creation of a sandbox may take: it includes the network plugin.
const SANDBOX: Duration = Duration::from_secs(240);
/// A pull has no deadline of its own here, but no call may last for ever.
const PULL: Duration = Duration::from_secs(3600);
/// The containerd namespace of the CRI plugin.
const NAMESPACE: &str = "k8s.io";

/// A runtime reached by gRPC over a unix socket. Cheap to clone; connects when first used and again after a break.
#[derive(Debug, Clone)]
pub struct GrpcRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    events: EventsClient<Channel>,
}

impl GrpcRuntime {
    /// A client of the runtime that listens, or will listen, on `socket`. Must be called within a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        let socket = PathBuf::from(socket);
        // The address only fills the authority; the connector decides where the bytes go.
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }));
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            events: EventsClient::new(channel),
        }
    }

    /// containerd's own events; a runtime that is not containerd answers `Unimplemented`.
    async fn containerd_events(&self) -> Result<RuntimeEvents, RuntimeError> {
        let filters = ["/tasks/exit", "/tasks/oom"]
            .map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\""))
            .to_vec();
        let stream =
            self.events.clone().subscribe(events::SubscribeRequest { filters }).await?.into_inner();
        Ok(Box::pin(stream.take_while(|item| futures::future::ready(item.is_ok())).filter_map(
            |item| futures::future::ready(item.ok().and_then(|e| containerd_event(&e))),
        )))
    }

    /// The CRI's event stream, which newer runtimes have.
    async fn cri_events(&self) -> Result<RuntimeEvents, RuntimeError> {
        let stream =
            self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await?.into_inner();
        Ok(Box::pin(stream.take_while(|item| futures::future::ready(item.is_ok())).filter_map(
            |item| {
                futures::future::ready(item.ok().map(|event| match event.container_event_type() {
                    v1::ContainerEventType::ContainerStoppedEvent => {
                        RuntimeEvent::Exited { id: event.container_id }
                    }
                    _ => RuntimeEvent::Changed { id: event.container_id },
                }))
            },
        )))
    }
}

/// Reads one envelope; exits of exec processes are nobody's business.
fn containerd_event(envelope: &events::Envelope) -> Option<RuntimeEvent> {
    let payload = envelope.event.as_ref()?;
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = events::TaskExit::decode(payload.value.as_slice()).ok()?;
            (exit.id == exit.container_id).then_some(RuntimeEvent::Exited { id: exit.container_id })
        }
        "/tasks/oom" => {
            let oom = events::TaskOom::decode(payload.value.as_slice()).ok()?;
            Some(RuntimeEvent::OutOfMemory { id: oom.container_id })
        }
        _ => None,
    }
}

/// A request that gives up after `limit`.
fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// Whole seconds, rounded up, as the CRI counts.
fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// Declares one method: which client, which call, how long, and what part of the answer matters.
macro_rules! call {
    ($self:ident . $client:ident . $method:ident ($message:expr), $limit:expr, $answer:expr) => {{
        let mut client = $self.$client.clone();
        Box::pin(async move {
            let request = within($limit, $message);
            let response =
                tokio::time::timeout($limit, client.$method(request)).await.map_err(|_| {
                    RuntimeError::DeadlineExceeded("context deadline exceeded".into())
                })??;
            Ok(($answer)(response.into_inner()))
        })
    }};
}

impl Runtime for GrpcRuntime {
    fn version(&self) -> Answer<'_, v1::VersionResponse> {
        call!(self.runtime.version(v1::VersionRequest { version: "v1".into() }), CALL, |r| r)
    }

    fn status(&self) -> Answer<'_, v1::RuntimeStatus> {
        call!(
            self.runtime.status(v1::StatusRequest { verbose: false }),
            CALL,
            |r: v1::StatusResponse| { r.status.unwrap_or_default() }
        )
    }

    fn update_pod_cidr(&self, cidr: String) -> Answer<'_, ()> {
        let config =
            v1::RuntimeConfig { network_config: Some(v1::NetworkConfig { pod_cidr: cidr }) };
        let request = v1::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        call!(self.runtime.update_runtime_config(request), CALL, |_| ())
    }

    fn run_pod_sandbox(&self, config: v1::PodSandboxConfig) -> Answer<'_, String> {
        let request =
            v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        call!(self.runtime.run_pod_sandbox(request), SANDBOX, |r: v1::RunPodSandboxResponse| r
            .pod_sandbox_id)
    }

    fn stop_pod_sandbox(&self, id: String) -> Answer<'_, ()> {
        call!(
            self.runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id }),
            CALL,
            |_| ()
        )
    }

    fn remove_pod_sandbox(&self, id: String) -> Answer<'_, ()> {
        call!(
            self.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id }),
            CALL,
            |_| ()
        )
    }

    fn pod_sandbox_status(
        &self,
        id: String,
        verbose: bool,
    ) -> Answer<'_, v1::PodSandboxStatusResponse> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id, verbose };
        call!(self.runtime.pod_sandbox_status(request), CALL, |r| r)
    }

    fn list_pod_sandboxes(&self, filter: v1::PodSandboxFilter) -> Answer<'_, Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        call!(self.runtime.list_pod_sandbox(request), CALL, |r: v1::ListPodSandboxResponse| r.items)
    }

    fn create_container(&self, request: v1::CreateContainerRequest) -> Answer<'_, String> {
        call!(self.runtime.create_container(request), CALL, |r: v1::CreateContainerResponse| r
            .container_id)
    }

    fn start_container(&self, id: String) -> Answer<'_, ()> {
        call!(
            self.runtime.start_container(v1::StartContainerRequest { container_id: id }),
            CALL,
            |_| ()
        )
    }

    fn stop_container(&self, id: String, grace: Duration) -> Answer<'_, ()> {
        let request = v1::StopContainerRequest { container_id: id, timeout: seconds(grace) };
        call!(self.runtime.stop_container(request), grace.saturating_add(CALL), |_| ())
    }

    fn remove_container(&self, id: String) -> Answer<'_, ()> {
        call!(
            self.runtime.remove_container(v1::RemoveContainerRequest { container_id: id }),
            CALL,
            |_| ()
        )
    }

    fn list_containers(&self, filter: v1::ContainerFilter) -> Answer<'_, Vec<v1::Container>> {
        let request = v1::ListContainersRequest { filter: Some(filter) };
        call!(self.runtime.list_containers(request), CALL, |r: v1::ListContainersResponse| r
            .containers)
    }

    fn container_status(
        &self,
        id: String,
        verbose: bool,
    ) -> Answer<'_, v1::ContainerStatusResponse> {
        let request = v1::ContainerStatusRequest { container_id: id, verbose };
        call!(self.runtime.container_status(request), CALL, |r| r)
    }

    fn reopen_container_log(&self, id: String) -> Answer<'_, ()> {
        call!(
            self.runtime.reopen_container_log(v1::ReopenContainerLogRequest { container_id: id }),
            CALL,
            |_| ()
        )
    }

    fn exec_sync(
        &self,
        id: String,
        command: Vec<String>,
        timeout: Duration,
    ) -> Answer<'_, v1::ExecSyncResponse> {
        let limit =
            if timeout.is_zero() { PULL } else { timeout.saturating_add(Duration::from_secs(10)) };
        let request =
            v1::ExecSyncRequest { container_id: id, cmd: command, timeout: seconds(timeout) };
        call!(self.runtime.exec_sync(request), limit, |r| r)
    }

    fn exec(&self, request: v1::ExecRequest) -> Answer<'_, String> {
        call!(self.runtime.exec(request), CALL, |r: v1::ExecResponse| r.url)
    }

    fn attach(&self, request: v1::AttachRequest) -> Answer<'_, String> {
        call!(self.runtime.attach(request), CALL, |r: v1::AttachResponse| r.url)
    }

    fn port_forward(&self, request: v1::PortForwardRequest) -> Answer<'_, String> {
        call!(self.runtime.port_forward(request), CALL, |r: v1::PortForwardResponse| r.url)
    }

    fn container_stats(
        &self,
        filter: v1::ContainerStatsFilter,
    ) -> Answer<'_, Vec<v1::ContainerStats>> {
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        call!(
            self.runtime.list_container_stats(request),
            CALL,
            |r: v1::ListContainerStatsResponse| r.stats
        )
    }

    fn events(&self) -> Answer<'_, RuntimeEvents> {
        Box::pin(async move {
            match self.containerd_events().await {
                Err(RuntimeError::Unimplemented(_)) => self.cri_events().await,
                answer => answer,
            }
        })
    }

    fn list_images(&self) -> Answer<'_, Vec<v1::Image>> {
        let request = v1::ListImagesRequest { filter: None };
        call!(self.images.list_images(request), CALL, |r: v1::ListImagesResponse| r.images)
    }

    fn image_status(&self, image: String) -> Answer<'_, Option<v1::Image>> {
        let request = v1::ImageStatusRequest { image: Some(spec(image)), verbose: false };
        call!(self.images.image_status(request), CALL, |r: v1::ImageStatusResponse| r.image)
    }

    fn pull_image(&self, image: String, auth: Option<v1::AuthConfig>) -> Answer<'_, String> {
        let request = v1::PullImageRequest { image: Some(spec(image)), auth, sandbox_config: None };
        call!(self.images.pull_image(request), PULL, |r: v1::PullImageResponse| r.image_ref)
    }

    fn remove_image(&self, image: String) -> Answer<'_, ()> {
        call!(
            self.images.remove_image(v1::RemoveImageRequest { image: Some(spec(image)) }),
            CALL,
            |_| ()
        )
    }

    fn image_fs_info(&self) -> Answer<'_, v1::ImageFsInfoResponse> {
        call!(self.images.image_fs_info(v1::ImageFsInfoRequest {}), CALL, |r| r)
    }
}

/// An image named and nothing more.
fn spec(image: String) -> v1::ImageSpec {
    v1::ImageSpec { image, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn envelope(topic: &str, message: &impl Message) -> events::Envelope {
        events::Envelope {
            timestamp: None,
            namespace: NAMESPACE.into(),
            topic: topic.into(),
            event: Some(Any { type_url: String::new(), value: message.encode_to_vec() }),
        }
    }

    #[test]
    fn only_main_processes_count_as_exits() {
        let main =
            events::TaskExit { container_id: "a".into(), id: "a".into(), pid: 7, exit_status: 1 };
        let exec = events::TaskExit { id: "b".into(), ..main.clone() };
        let expected = Some(RuntimeEvent::Exited { id: "a".into() });
        assert_eq!(containerd_event(&envelope("/tasks/exit", &main)), expected);
        assert_eq!(containerd_event(&envelope("/tasks/exit", &exec)), None);
        assert_eq!(containerd_event(&envelope("/images/create", &main)), None);
    }

    #[test]
    fn grace_is_counted_in_whole_seconds_rounded_up() {
        assert_eq!(seconds(Duration::from_millis(1500)), 2);
        assert_eq!(seconds(Duration::ZERO), 0);
    }
}
