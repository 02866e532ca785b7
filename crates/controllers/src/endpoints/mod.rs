//! From Services and pods to endpoints: what both `EndpointSlice`s (`slices`) and the older
//! `Endpoints` (`legacy`) are made of; and from `Endpoints` that users make to slices (`mirror`).
//!
//! Knows nothing of how proxies or DNS use them.

mod hints;
pub(crate) mod legacy;
pub(crate) mod mirror;
mod pack;
pub(crate) mod slices;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use client::{Cache, Change, ObjectKey};
use k8s_openapi::{
    api::{
        core::v1::{Container, Pod, Service, ServicePort, ServiceSpec},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::objects::is_finished;

/// Set on endpoints objects of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the change that an endpoints object shows happened.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A port as an endpoint offers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    port: i32,
    protocol: String,
    app_protocol: Option<String>,
}

/// The selector of a Service whose endpoints are ours to make.
fn selecting(service: &Service) -> Option<(&ServiceSpec, &BTreeMap<String, String>)> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    Some((spec, spec.selector.as_ref()?))
}

/// The object that a slice of this manager's belongs to: a Service, or Endpoints of the same name.
fn owner_of(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(slices::MANAGED_BY).map(String::as_str) != Some(manager) {
        return None;
    }
    Some(ObjectKey::new(slice.metadata.namespace.as_deref(), labels.get(slices::SERVICE)?.clone()))
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn matches(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pods of the Service's namespace that it selects.
fn selected_pods(
    pods: &Cache<Pod>,
    namespace: &str,
    selector: &BTreeMap<String, String>,
) -> Vec<Arc<Pod>> {
    let mut found = pods.list_in(namespace);
    found.retain(|pod| matches(selector, pod));
    found
}

/// The Services that a changed pod concerns, by its labels before and after.
fn services_of(services: &Cache<Service>, change: &Change<Pod>) -> Vec<ObjectKey> {
    let pods: Vec<&Pod> =
        [&change.before, &change.after].into_iter().flatten().map(|pod| &**pod).collect();
    services_selecting(services, change.key.namespace(), &pods)
}

/// The Services of a namespace that select one of these pods of it.
fn services_selecting(services: &Cache<Service>, namespace: &str, pods: &[&Pod]) -> Vec<ObjectKey> {
    let all = services.list_in(namespace);
    let selects = |service: &&Arc<Service>| {
        selecting(service)
            .is_some_and(|(_, selector)| pods.iter().any(|pod| matches(selector, pod)))
    };
    all.iter().filter(selects).map(|service| ObjectKey::of(&**service)).collect()
}

/// The Services that select one of these pods, of whatever namespaces.
fn services_of_all(services: &Cache<Service>, pods: &[Arc<Pod>]) -> Vec<ObjectKey> {
    let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        by_namespace.entry(namespace).or_default().push(pod);
    }
    let of_one =
        |(namespace, pods): (&str, Vec<&Pod>)| services_selecting(services, namespace, &pods);
    by_namespace.into_iter().flat_map(of_one).collect()
}

/// Whether a pod has an address and containers that have not all ended.
fn may_serve(pod: &Pod) -> bool {
    !is_finished(pod) && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
}

/// The pod's addresses of one IP family.
fn addresses(pod: &Pod, ipv6: bool) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let all: Vec<&str> = if status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        all.collect()
    } else {
        status.pod_ip.as_deref().into_iter().collect()
    };
    all.into_iter()
        .filter(|text| text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == ipv6))
        .map(str::to_owned)
        .collect()
}

/// The ports of a Service as `pod` offers them; named ports the pod does not have are left out.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<Port> {
    let mut ports: Vec<Port> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                port: target(port, pod)?,
                protocol: protocol(port.protocol.as_ref()).to_owned(),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(protocol: Option<&String>) -> &str {
    protocol.map_or("TCP", String::as_str)
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let wanted = protocol(port.protocol.as_ref());
            serving_containers(pod)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|one| {
                    one.name.as_ref() == Some(name) && protocol(one.protocol.as_ref()) == wanted
                })
                .map(|one| one.container_port)
        }
    }
}

/// Containers that run beside each other: the main ones and the sidecars.
fn serving_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        spec.containers
            .iter()
            .chain(sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always")))
    })
}

/// The pod's host name as this Service publishes it.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let published = spec.subdomain.as_deref() == service.metadata.name.as_deref()
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|hostname| published && !hostname.is_empty())
}

/// When what the endpoints show became so: the latest change of readiness, or the birth of the
/// Service.
fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
    pods.iter()
        .filter_map(|pod| {
            crate::objects::pod_condition(pod, "Ready")?.last_transition_time.as_ref()
        })
        .chain(&service.metadata.creation_timestamp)
        .map(|time| time.0)
        .max()
        .map(meta::time::seconds)
}
