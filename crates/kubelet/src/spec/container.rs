//! The configuration of a container. Pure.

use std::path::Path;

use cri::v1;
use k8s_openapi::api::core::v1 as api;

use super::{CONTAINER_NAME, IMAGE, IMAGE_ID, PodId, env::expand_all, sandbox, security};
use crate::{pod::ImageReady, resources};

/// Everything a container is made from beside its specification.
pub(crate) struct Ingredients<'a> {
    pub(crate) attempt: u32,
    pub(crate) image: &'a ImageReady,
    pub(crate) image_user: &'a security::ImageUser,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<v1::Mount>,
    /// The node's memory, bytes.
    pub(crate) memory: i64,
    pub(crate) node: &'a str,
    /// Where the node keeps seccomp profiles.
    pub(crate) seccomp_root: &'a Path,
    /// The runtime's id of the container whose processes this one sees.
    pub(crate) target: Option<&'a str>,
}

/// What the runtime is asked to make.
///
/// # Errors
/// The sentence that Kubernetes shows with `CreateContainerConfigError`.
pub(crate) fn config(
    pod: &api::Pod,
    container: &api::Container,
    ingredients: Ingredients<'_>,
) -> Result<v1::ContainerConfig, String> {
    let id = PodId::of(pod);
    let Ingredients { attempt, image, image_user, env, mounts, memory, node, seccomp_root, target } =
        ingredients;
    let mut security_context = security::container(pod, container, image_user, seccomp_root)?;
    if let (Some(target), Some(namespaces)) = (target, &mut security_context.namespace_options) {
        security::look_into(namespaces, target);
    }
    let labels = sandbox::labels(&id, node)
        .into_iter()
        .chain([(CONTAINER_NAME.to_owned(), container.name.clone())]);
    let annotations = [
        (IMAGE.to_owned(), image.name.clone()),
        (IMAGE_ID.to_owned(), image.id.clone()),
        ("io.kubernetes.container.restartCount".to_owned(), attempt.to_string()),
    ];
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(v1::ImageSpec { image: image.reference.clone(), ..Default::default() }),
        command: expand_all(container.command.as_ref(), &env),
        args: expand_all(container.args.as_ref(), &env),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env
            .into_iter()
            .map(|(key, value)| v1::KeyValue { key, value: value.into_bytes() })
            .collect(),
        mounts,
        devices: Vec::new(),
        labels: labels.collect(),
        annotations: annotations.into_iter().collect(),
        log_path: log_path(&container.name, attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::container_resources(pod, container, memory)),
            security_context: Some(security_context),
        }),
    })
}

/// The log's path below the pod's log directory.
pub(crate) fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}
