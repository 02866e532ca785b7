//! From a pod's specification to what the runtime is asked for: sandbox and container configurations, environment,
//! name resolution. Pure, given what was looked up.

pub(crate) mod container;
pub(crate) mod dns;
pub(crate) mod env;
mod expand;
pub(crate) mod fields;
pub(crate) mod hosts;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod services;

use k8s_openapi::api::core::v1 as api;

/// Label with the pod's name, on sandboxes and containers.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label with the pod's namespace.
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label with the pod's uid.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label with the container's name.
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation with the image as the container's specification names it.
pub(crate) const IMAGE: &str = "skiff.dev/image";
/// Annotation with what the API shows as the image's id.
pub(crate) const IMAGE_ID: &str = "skiff.dev/image-id";
/// Label of the node that a sandbox or container belongs to, so that several nodes may share a runtime.
pub(crate) const NODE: &str = "skiff.dev/node";

/// Annotation of a sandbox whose pod is replaced elsewhere if it is lost.
pub(crate) const REPLACED: &str = "skiff.dev/replaced";

/// Name, namespace and uid of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PodId {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
}

impl PodId {
    pub(crate) fn of(pod: &api::Pod) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            name: text(&pod.metadata.name),
            namespace: text(&pod.metadata.namespace),
            uid: text(&pod.metadata.uid),
        }
    }
}

/// Whether the pod uses the host's network.
pub(crate) fn host_network(pod: &api::Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}
