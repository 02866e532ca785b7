//! What pods ask for: sums of resources over their containers, with the rules for init containers and sidecars
//! (KEP-753), for resources of the whole pod (KEP-2837) and for resizes under way (KEP-1287), and the class of
//! service that follows.
//!
//! Pure; knows neither nodes nor quotas.

use std::collections::BTreeMap;

use meta::Quantity;
use serde_json::{Map, Value};

use crate::view::View;

/// What pods use of nodes, by the names in quotas; huge pages and extended resources apart.
pub(crate) const OF_PODS: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// What is counted in whole numbers.
pub(crate) const COUNTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a map of quantities; what does not parse is left out.
#[must_use]
pub fn amounts(map: &Map<String, Value>) -> Amounts {
    map.iter()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

/// Adds amounts to others, name by name.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |old| *old + *amount);
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        if total.get(name).is_none_or(|old| old < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// What a pod's containers need together of `requests` or `limits`, overhead and pod-level resources apart.
pub(crate) fn aggregate(spec: &Map<String, Value>, what: &str) -> Amounts {
    sum(spec, |container| amounts(container.at("resources").entries(what)))
}

fn sum(spec: &Map<String, Value>, of: impl Fn(&Value) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    for container in spec.items("containers") {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.items("initContainers") {
        let mut here = of(container);
        if is_sidecar(container) {
            add(&mut total, &here);
            add(&mut sidecars, &here);
            here = sidecars.clone();
        } else {
            add(&mut here, &sidecars);
        }
        raise(&mut peak, &here);
    }
    raise(&mut total, &peak);
    total
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

/// Which amounts of a pod are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// What is written in the specification, without overhead.
    Written,
    /// The same with the overhead of its runtime class.
    Whole,
    /// What it may have at this moment: of the specification and what a resize left behind, the larger.
    Actual,
}

/// A pod's `requests` or `limits`.
#[must_use]
pub fn of_pod(pod: &Value, what: &str, count: Count) -> Amounts {
    let spec = pod.at("spec");
    let mut total = match count {
        Count::Actual => {
            let fixed = is_infeasible(pod);
            sum(spec.as_object().unwrap_or(&Map::new()), |container| {
                actual(pod, container, what, fixed)
            })
        }
        _ => aggregate(spec.as_object().unwrap_or(&Map::new()), what),
    };
    for (name, amount) in amounts(spec.at("resources").entries(what)) {
        if is_pod_level(&name) {
            total.insert(name, amount);
        }
    }
    if count != Count::Written {
        let mut overhead = amounts(spec.entries("overhead"));
        // A limit that there is not is not made by overhead.
        if what == "limits" {
            overhead.retain(|name, _| total.get(name).is_some_and(|limit| !limit.is_zero()));
        }
        add(&mut total, &overhead);
    }
    total
}

/// Whether a pod has resources as a whole.
#[must_use]
pub fn has_pod_level(pod: &Value) -> bool {
    let resources = pod.at("spec").at("resources");
    ["requests", "limits"]
        .iter()
        .any(|what| resources.entries(what).keys().any(|k| is_pod_level(k)))
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// The larger of what a container asks for, what it was promised and what it has.
fn actual(pod: &Value, container: &Value, what: &str, fixed: bool) -> Amounts {
    let asked = amounts(container.at("resources").entries(what));
    let status = pod.at("status");
    let lists = ["containerStatuses", "initContainerStatuses"];
    let known = lists
        .iter()
        .flat_map(|list| status.items(list))
        .find(|known| known.text("name") == container.text("name") && known.has("resources"));
    let runs = pod.at("spec").items("containers").iter().any(|one| std::ptr::eq(one, container));
    let Some(known) = known.filter(|_| runs || is_sidecar(container)) else { return asked };
    let mut most = if fixed { Amounts::new() } else { asked };
    raise(&mut most, &amounts(known.at("resources").entries(what)));
    if what == "requests" {
        raise(&mut most, &amounts(known.entries("allocatedResources")));
    }
    most
}

fn is_infeasible(pod: &Value) -> bool {
    let conditions = pod.at("status").items("conditions");
    let pending = conditions.iter().find(|one| one.text("type") == "PodResizePending");
    pending.is_some_and(|one| one.text("reason") == "Infeasible")
}

/// The quality of service class of a pod's specification: `Guaranteed` when every container
/// limits CPU and memory and requests just that, `BestEffort` when none says anything of either,
/// `Burstable` otherwise.
#[must_use]
pub fn qos_class(spec: &Value) -> &'static str {
    let pod_level = &spec["resources"];
    let containers = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .map(|container| &container["resources"]);
    let whole = ["requests", "limits"]
        .iter()
        .any(|what| pod_level.entries(what).keys().any(|name| is_pod_level(name)));
    let resources: Vec<&Value> = if whole { vec![pod_level] } else { containers.collect() };
    let amount = |resources: &Value, list: &str, name: &str| -> Option<Quantity> {
        let amount: Quantity = resources[list][name].as_str()?.parse().ok()?;
        (!amount.is_zero()).then_some(amount)
    };
    let (mut any, mut all) = (false, !resources.is_empty());
    for resources in resources {
        for name in ["cpu", "memory"] {
            let limit = amount(resources, "limits", name);
            let request = amount(resources, "requests", name);
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The class a pod has: the one in its status, or the one that follows from its specification.
#[must_use]
pub fn qos_of(pod: &Value) -> &str {
    match pod.at("status").text("qosClass") {
        "" => qos_class(pod.at("spec")),
        known => known,
    }
}

/// Whether a resource is an extended one, such as `example.com/gpu`.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    let quota = format!("requests.{name}");
    !is_native(name)
        && !name.starts_with("requests.")
        && meta::names::is_qualified_name(&quota).is_empty()
}

/// Whether a resource is one of Kubernetes' own.
#[must_use]
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(pod: &Value, what: &str, count: Count) -> String {
        let all = of_pod(pod, what, count);
        all.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn quality_of_service() {
        let check = |resources: Value, expected| {
            assert_eq!(qos_class(&json!({"containers": [{"resources": resources}]})), expected);
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "0"}}), "BestEffort");
        check(json!({"requests": {"cpu": "10m"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
            "Guaranteed",
        );
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}}),
            "Burstable",
        );
    }

    #[test]
    fn pods_are_summed_with_sidecars_overhead_and_their_own_resources() {
        let mut pod = json!({"spec": {
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "900m", "memory": "1Mi"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m"}}}],
            "overhead": {"cpu": "50m", "memory": "2Mi"}
        }});
        assert_eq!(told(&pod, "requests", Count::Written), "cpu=1 memory=1Mi");
        assert_eq!(told(&pod, "requests", Count::Whole), "cpu=1050m memory=3Mi");
        assert_eq!(told(&pod, "limits", Count::Whole), "cpu=1050m");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "3", "example.com/x": "1"}});
        assert_eq!(told(&pod, "requests", Count::Written), "cpu=3 memory=1Mi");
        assert!(has_pod_level(&pod));
    }

    #[test]
    fn a_resize_counts_as_the_larger_until_it_is_done() {
        let mut pod = json!({
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"containerStatuses": [{"name": "a", "allocatedResources": {"cpu": "2"},
                "resources": {"requests": {"cpu": "1500m"}}}]}
        });
        assert_eq!(told(&pod, "requests", Count::Actual), "cpu=2");
        assert_eq!(told(&pod, "requests", Count::Whole), "cpu=1");
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "9".into();
        assert_eq!(told(&pod, "requests", Count::Actual), "cpu=9");
        pod["status"]["conditions"] =
            json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(told(&pod, "requests", Count::Actual), "cpu=2");
    }
}
