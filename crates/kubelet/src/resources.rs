//! Quality of service and the arithmetic from resource requests and limits to cgroup figures. Pure.

use std::collections::BTreeMap;

use cri::v1;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::api::resource::Quantity};

/// Length of a CPU quota's period, microseconds.
const PERIOD: i64 = 100_000;
/// The kernel's bounds of CPU shares.
const SHARES: (i64, i64) = (2, 262_144);
/// The smallest CPU quota the kernel takes, microseconds.
const QUOTA_LEAST: i64 = 1_000;

/// Quality-of-service classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Qos {
    /// Every container's limits equal its requests.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// The API's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// A quantity read; an unreadable one counts as zero (the API validates them).
pub(crate) fn quantity(quantity: &Quantity) -> meta::Quantity {
    quantity.0.parse().unwrap_or(meta::Quantity::ZERO)
}

fn get(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<meta::Quantity> {
    map?.get(name).map(quantity).filter(|q| !q.is_zero())
}

/// The request of one container for a resource, the limit standing in for it.
pub(crate) fn request(container: &api::Container, name: &str) -> Option<meta::Quantity> {
    let resources = container.resources.as_ref()?;
    get(resources.requests.as_ref(), name).or_else(|| get(resources.limits.as_ref(), name))
}

/// The limit of one container for a resource.
pub(crate) fn limit(container: &api::Container, name: &str) -> Option<meta::Quantity> {
    get(container.resources.as_ref()?.limits.as_ref(), name)
}

/// The class of a pod.
pub(crate) fn qos_class(pod: &api::Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let containers: Vec<_> =
        spec.init_containers.iter().flatten().chain(&spec.containers).collect();
    let names = ["cpu", "memory"];
    let any = containers
        .iter()
        .any(|c| names.iter().any(|n| request(c, n).is_some() || limit(c, n).is_some()));
    if !any {
        return Qos::BestEffort;
    }
    let equal = |c: &api::Container, name: &str| {
        let limit = limit(c, name);
        limit.is_some() && request(c, name) == limit
    };
    if containers.iter().all(|c| names.iter().all(|n| equal(c, n))) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// What the whole pod requests: the sum of its containers and sidecars, or the largest need during initialisation,
/// plus overhead (upstream's rule).
pub(crate) fn pod_request(pod: &api::Pod, name: &str) -> meta::Quantity {
    total(pod, |c| request_only(c, name), name)
}

/// What the whole pod is limited to; `None` if some container is not limited.
pub(crate) fn pod_limit(pod: &api::Pod, name: &str) -> Option<meta::Quantity> {
    let spec = pod.spec.as_ref()?;
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .all(|c| limit(c, name).is_some());
    all.then(|| total(pod, |c| limit(c, name).unwrap_or(meta::Quantity::ZERO), name))
}

fn request_only(container: &api::Container, name: &str) -> meta::Quantity {
    request(container, name).unwrap_or(meta::Quantity::ZERO)
}

fn total(
    pod: &api::Pod,
    of: impl Fn(&api::Container) -> meta::Quantity,
    name: &str,
) -> meta::Quantity {
    let Some(spec) = &pod.spec else { return meta::Quantity::ZERO };
    let mut sidecars = meta::Quantity::ZERO;
    let mut init_peak = meta::Quantity::ZERO;
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += of(container);
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(sidecars + of(container));
        }
    }
    let running = spec.containers.iter().fold(sidecars, |sum, c| sum + of(c));
    let overhead = get(spec.overhead.as_ref(), name).unwrap_or(meta::Quantity::ZERO);
    running.max(init_peak) + overhead
}

/// CPU shares of a request in thousandths of a core.
pub(crate) fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(SHARES.0, SHARES.1)
}

/// CPU quota per period of a limit in thousandths of a core.
pub(crate) fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(PERIOD) / 1000).max(QUOTA_LEAST)
}

/// cgroup v2's weight for v1's shares.
pub(crate) fn weight(shares: i64) -> i64 {
    1 + ((shares - SHARES.0).max(0) * 9_999) / (SHARES.1 - SHARES.0)
}

/// A container's resources as the runtime takes them. `memory` is the node's memory in bytes, for the oom score.
pub(crate) fn container_resources(
    pod: &api::Pod,
    container: &api::Container,
    memory: i64,
) -> v1::LinuxContainerResources {
    let cpu_limit = limit(container, "cpu").map(|q| q.milli_value());
    let cpu_request = request(container, "cpu").map_or(0, |q| q.milli_value());
    v1::LinuxContainerResources {
        cpu_shares: shares(cpu_request),
        cpu_period: if cpu_limit.is_some() { PERIOD } else { 0 },
        cpu_quota: cpu_limit.map_or(0, quota),
        memory_limit_in_bytes: limit(container, "memory").map_or(0, |q| q.value()),
        oom_score_adj: oom_score(pod, container, memory),
        ..Default::default()
    }
}

/// How readily the kernel kills a container's processes when memory is short (upstream's formula).
fn oom_score(pod: &api::Pod, container: &api::Container, memory: i64) -> i64 {
    let critical = pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= 2_000_000_000);
    match qos_class(pod) {
        Qos::Guaranteed => -997,
        _ if critical => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = request_only(container, "memory").value();
            let score = 1000 - 1000 * request / memory.max(1);
            score.clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: serde_json::Value) -> api::Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}),
        )
        .unwrap()
    }

    #[test]
    fn classes() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
        assert_eq!(qos_class(&pod(json!([{"name": "a", "resources": full}]))), Qos::Guaranteed);
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(qos_class(&pod(json!([{"name": "a", "resources": limits}]))), Qos::Guaranteed);
        assert_eq!(
            qos_class(&pod(json!([{"name": "a", "resources": full}, {"name": "b"}]))),
            Qos::Burstable
        );
        assert_eq!(qos_class(&pod(json!([{"name": "a"}]))), Qos::BestEffort);
    }

    #[test]
    fn cgroup_figures() {
        assert_eq!((shares(100), shares(0), shares(1000)), (102, 2, 1024));
        assert_eq!((quota(500), quota(1)), (50_000, 1_000));
        assert_eq!((weight(2), weight(262_144), weight(1024)), (1, 10_000, 39));
    }

    #[test]
    fn a_pod_requests_the_larger_of_initialisation_and_running() {
        let value = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "300m"}}}]}});
        let pod: api::Pod = serde_json::from_value(value).unwrap();
        assert_eq!(pod_request(&pod, "cpu").milli_value(), 1100);
    }
}
