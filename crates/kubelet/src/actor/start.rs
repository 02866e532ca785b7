//! Creating and starting one container: environment, mounts, configuration, the two calls.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cri::{RuntimeError, v1};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{Message, stop};
use crate::{
    context::Context,
    pod::{Event, Exit, ImageReady, StartProblem, Started},
    sources::Sources,
    spec::{self, PodId, container, env, hosts, services},
    volumes::{self, SubPaths},
};

/// How long the first list of Services may take.
const SERVICES: Duration = Duration::from_secs(10);

/// How long removing what a crash left is tried, and the pause between two attempts.
const LEFTOVER: Duration = Duration::from_secs(5);
const LEFTOVER_PAUSE: Duration = Duration::from_millis(50);

/// One start.
pub(super) struct Job {
    pub(super) index: usize,
    pub(super) pod: Arc<api::Pod>,
    pub(super) spec: api::Container,
    pub(super) about: api::ObjectReference,
    pub(super) attempt: u32,
    pub(super) image: ImageReady,
    pub(super) sandbox: String,
    pub(super) ips: Vec<String>,
    /// Container whose processes this one is to see.
    pub(super) target: Option<String>,
    pub(super) sources: Arc<Sources>,
    pub(super) sender: mpsc::Sender<Message>,
}

/// Runs it.
pub(super) async fn run(context: Arc<Context>, job: Job) -> Option<Event> {
    let result = start(&context, &job).await;
    if let Err(problem) = &result {
        context.recorder.warning(&job.about, "Failed", format!("Error: {}", problem.message));
    }
    Some(Event::Started { container: job.index, result })
}

async fn start(context: &Context, job: &Job) -> Result<Started, StartProblem> {
    let config = configure(context, job).await.map_err(|message| StartProblem {
        reason: "CreateContainerConfigError",
        message,
        exit: None,
    })?;
    let id = create(context, job, config).await.map_err(|error| StartProblem {
        reason: "CreateContainerError",
        message: error.message().to_owned(),
        exit: None,
    })?;
    context.recorder.normal(&job.about, "Created", "Container created");
    context.monitor.register(&id, &job.sender);
    if let Err(error) = context.runtime.start_container(id.clone()).await {
        context.monitor.forget(&id);
        let message = error.message().to_owned();
        let exit = stop::exit_of(context, &job.pod, &job.spec.name, &id)
            .await
            .unwrap_or_else(|| unstarted(job, &id, &message));
        return Err(StartProblem { reason: "RunContainerError", message, exit: Some(exit) });
    }
    context.recorder.normal(&job.about, "Started", "Container started");
    let status = context
        .runtime
        .container_status(id.clone(), false)
        .await
        .ok()
        .and_then(|answer| answer.status);
    let started_at = status.and_then(|s| stop::time(s.started_at)).unwrap_or_else(Timestamp::now);
    Ok(Started { id, started_at })
}

fn unstarted(job: &Job, id: &str, message: &str) -> Exit {
    Exit {
        id: id.to_owned(),
        image: job.image.name.clone(),
        image_id: job.image.id.clone(),
        code: 128,
        reason: "StartError".to_owned(),
        message: message.to_owned(),
        started_at: None,
        finished_at: Timestamp::now(),
    }
}

/// Creates the container. A crash may have left one of the same name that was never started; it goes first.
async fn create(
    context: &Context,
    job: &Job,
    config: v1::ContainerConfig,
) -> Result<String, RuntimeError> {
    let sandbox_config = spec::sandbox::config(
        &job.pod,
        0,
        &context.options,
        &context.resolver,
        context.cgroups.pod_path(&job.pod),
    );
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: job.sandbox.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    match context.runtime.create_container(request.clone()).await {
        Err(error) if error.message().contains("is reserved for") => {
            remove_leftover(context, job).await?;
            context.runtime.create_container(request).await
        }
        result => result,
    }
}

async fn remove_leftover(context: &Context, job: &Job) -> Result<(), RuntimeError> {
    let uid = PodId::of(&job.pod).uid;
    let labels =
        [(spec::POD_UID.to_owned(), uid), (spec::CONTAINER_NAME.to_owned(), job.spec.name.clone())];
    let filter = v1::ContainerFilter { label_selector: labels.into(), ..Default::default() };
    for container in context.runtime.list_containers(filter).await? {
        if container.metadata.as_ref().is_some_and(|m| m.attempt == job.attempt) {
            remove_started(context, container.id).await?;
        }
    }
    Ok(())
}

/// Removes a container that the runtime may still be starting for whoever was killed: it refuses until that is over.
async fn remove_started(context: &Context, id: String) -> Result<(), RuntimeError> {
    let since = Instant::now();
    loop {
        match context.runtime.remove_container(id.clone()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(_) if since.elapsed() < LEFTOVER => sleep(LEFTOVER_PAUSE).await,
            result => return result,
        }
    }
}

async fn configure(context: &Context, job: &Job) -> Result<v1::ContainerConfig, String> {
    let id = PodId::of(&job.pod);
    if timeout(SERVICES, context.services.ready()).await.is_err() {
        return Err(
            "services have not yet been read at least once, cannot construct envvars".to_owned()
        );
    }
    let links = job.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let listed = context.services.list();
    let services = services::variables(listed.iter().map(|s| &**s), &id.namespace, links);
    let facts = context.facts_of(&job.pod, &job.ips);
    let env = env::environment(&job.pod, &job.spec, services, &*job.sources, &facts)?;
    let mounts = mounts(context, job, &id, &env, &facts.pod_ips)?;
    let image_user = context.images.user(&job.image.reference).await;
    let ingredients = container::Ingredients {
        attempt: job.attempt,
        image: &job.image,
        image_user: &image_user,
        env,
        mounts,
        memory: context.memory,
        node: &context.options.node_name,
        seccomp_root: &context.options.root_dir.join("seccomp"),
        target: job.target.as_deref(),
    };
    container::config(&job.pod, &job.spec, ingredients)
}

/// Volumes, `/etc/hosts` and the termination message file.
fn mounts(
    context: &Context,
    job: &Job,
    id: &PodId,
    env: &[(String, String)],
    ips: &[String],
) -> Result<Vec<v1::Mount>, String> {
    let pod_dir = context.options.pod_dir(&id.uid);
    let sub_paths = SubPaths::new(&pod_dir, &job.spec.name);
    let volumes = job.pod.spec.as_ref().and_then(|s| s.volumes.clone()).unwrap_or_default();
    let mut mounts = Vec::new();
    for (index, mount) in job.spec.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.iter().find(|v| v.name == mount.name);
        let source = volume.and_then(|v| volumes::path_of(&context.options, &id.uid, v));
        let Some(source) = source else {
            return Err(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, job.spec.name
            ));
        };
        mounts.push(volume_mount(index, mount, source, env, &sub_paths)?);
    }
    let io =
        |what: &'static str| move |error: io::Error| format!("failed to write {what}: {error}");
    if !mounts.iter().any(|m| m.container_path == "/etc/hosts") {
        let file = hosts_file(context, job, &pod_dir, ips).map_err(io("the hosts file"))?;
        mounts.push(plain_mount("/etc/hosts", &file, false));
    }
    let message = job.spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message.is_empty() {
        let file = message_file(&pod_dir, &job.spec.name, job.attempt);
        make_message_file(&file).map_err(io("the termination message file"))?;
        mounts.push(plain_mount(message, &file, false));
    }
    Ok(mounts)
}

fn volume_mount(
    index: usize,
    mount: &api::VolumeMount,
    source: PathBuf,
    env: &[(String, String)],
    sub_paths: &SubPaths,
) -> Result<v1::Mount, String> {
    let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expression), _) if !expression.is_empty() => env::expand_path(expression, env)?,
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    let source = if sub_path.is_empty() {
        source
    } else {
        sub_paths.bind(index, &source, &sub_path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => error.to_string(),
            _ => format!("failed to prepare subPath for volumeMount {:?}: {error}", mount.name),
        })?
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    let mut made = plain_mount(&mount.mount_path, &source, mount.read_only.unwrap_or(false));
    made.propagation = propagation.into();
    Ok(made)
}

fn plain_mount(container_path: &str, host_path: &Path, readonly: bool) -> v1::Mount {
    let container_path = if container_path.starts_with('/') {
        container_path.to_owned()
    } else {
        format!("/{container_path}")
    };
    v1::Mount {
        container_path,
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    }
}

fn hosts_file(context: &Context, job: &Job, pod_dir: &Path, ips: &[String]) -> io::Result<PathBuf> {
    let host_network = spec::host_network(&job.pod);
    let own = host_network.then(|| fs::read_to_string("/etc/hosts").unwrap_or_default());
    let text = hosts::file(&job.pod, ips, &context.options.cluster_domain, own.as_deref());
    let file = pod_dir.join("etc-hosts");
    fs::create_dir_all(pod_dir)?;
    // Written in place: containers that run already have this very file mounted.
    fs::write(&file, text)?;
    Ok(file)
}

/// Where a container's termination message is on the host.
pub(super) fn message_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(format!("{attempt:08x}"))
}

fn make_message_file(file: &Path) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(file, b"")?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))
}
