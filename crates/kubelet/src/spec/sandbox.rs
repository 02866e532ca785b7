//! The configuration of a pod's sandbox. Pure.

use std::collections::{BTreeMap, HashMap};

use cri::v1;
use k8s_openapi::api::core::v1 as api;

use super::{NODE, POD_NAME, POD_NAMESPACE, POD_UID, PodId, REPLACED, dns, hosts, security};
use crate::{KubeletOptions, node::fence, resources};

/// What the runtime is asked to make for a pod.
pub(crate) fn config(
    pod: &api::Pod,
    attempt: u32,
    options: &KubeletOptions,
    host: &dns::Resolver,
    cgroup_parent: String,
) -> v1::PodSandboxConfig {
    let id = PodId::of(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network.unwrap_or(false);
    let own: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    let sysctls =
        spec.security_context.as_ref().and_then(|c| c.sysctls.clone()).unwrap_or_default();
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: id.name.clone(),
            uid: id.uid.clone(),
            namespace: id.namespace.clone(),
            attempt,
        }),
        // On the host's network the host's own name is kept.
        hostname: if host_network {
            String::new()
        } else {
            hosts::uts_name(pod, &options.cluster_domain)
        },
        log_directory: options
            .pod_log_dir(&id.namespace, &id.name, &id.uid)
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns::config(pod, host, &options.cluster_dns, &options.cluster_domain)),
        port_mappings: if host_network { Vec::new() } else { ports(&spec) },
        labels: own.into_iter().chain(labels(&id, &options.node_name)).collect(),
        annotations: annotations(pod),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security::sandbox(pod)),
            sysctls: sysctls.into_iter().map(|s| (s.name, s.value)).collect(),
            overhead: None,
            resources: Some(pod_resources(pod)),
        }),
    }
}

/// The labels by which sandboxes and containers of a pod are found again.
pub(super) fn labels(id: &PodId, node: &str) -> [(String, String); 4] {
    [
        (POD_NAME.to_owned(), id.name.clone()),
        (POD_NAMESPACE.to_owned(), id.namespace.clone()),
        (POD_UID.to_owned(), id.uid.clone()),
        (NODE.to_owned(), node.to_owned()),
    ]
}

fn annotations(pod: &api::Pod) -> HashMap<String, String> {
    let own: BTreeMap<String, String> = pod.metadata.annotations.clone().unwrap_or_default();
    let replaced = fence::is_replaced(pod).then(|| (REPLACED.to_owned(), "true".to_owned()));
    own.into_iter()
        .filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/last-applied"))
        .chain(replaced)
        .collect()
}

/// Container ports, with the host ports they are mapped to.
fn ports(spec: &api::PodSpec) -> Vec<v1::PortMapping> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let all = sidecars.chain(&spec.containers).flat_map(|c| c.ports.iter().flatten());
    all.map(|port| v1::PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => v1::Protocol::Udp,
            Some("SCTP") => v1::Protocol::Sctp,
            _ => v1::Protocol::Tcp,
        }
        .into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    })
    .collect()
}

fn pod_resources(pod: &api::Pod) -> v1::LinuxContainerResources {
    let cpu = resources::pod_limit(pod, "cpu").map(|q| q.milli_value());
    v1::LinuxContainerResources {
        cpu_shares: resources::shares(resources::pod_request(pod, "cpu").milli_value()),
        cpu_period: if cpu.is_some() { 100_000 } else { 0 },
        cpu_quota: cpu.map_or(0, resources::quota),
        memory_limit_in_bytes: resources::pod_limit(pod, "memory").map_or(0, |q| q.value()),
        ..Default::default()
    }
}
