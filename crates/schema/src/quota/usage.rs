//! What one object uses, by the names of limits.

use jiff::{SignedDuration, Timestamp};
use meta::{Quantity, time};
use serde_json::Value;

use super::{Devices, Kind, Meter, OF_CLASS, OF_DEVICES, is_extended};
use crate::amounts::{Amounts, Count, add, amounts, has_pod_level, of_pod};
use crate::view::View;

/// The most devices a claim can get.
const MOST_DEVICES: i64 = 32;

/// Names that every container must say something of, if a quota limits them.
const REQUIRED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

fn number(value: i64) -> Quantity {
    Quantity::new(value, meta::quantity::Format::DecimalSi)
}

impl Meter {
    /// What the object uses now.
    #[must_use]
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        let mut used = Amounts::from([(self.counted_as(), number(1))]);
        match self.kind {
            Kind::Pods => pod(object, now, &mut used),
            Kind::Services => service(object, &mut used),
            Kind::VolumeClaims => claim(object, &mut used),
            Kind::DeviceClaims => devices(object, &mut used),
            Kind::Others => {
                if let Some(short) = self.short() {
                    used.insert(short.to_owned(), number(1));
                }
            }
        }
        used
    }

    /// What the object uses now, where it may be a claim of devices.
    #[must_use]
    pub fn usage_among(&self, object: &Value, now: Timestamp, devices: &Devices) -> Amounts {
        let mut used = self.usage(object, now);
        if self.is_of_devices() {
            devices.extend(object, &mut used);
        }
        used
    }

    /// What the object must say because quotas limit it, and does not: a message, or nothing.
    pub(super) fn missing(&self, limited: &[&str], object: &Value) -> Option<String> {
        if self.kind != Kind::Pods || has_pod_level(object) {
            return None;
        }
        let mut names: Vec<&str> =
            limited.iter().copied().filter(|name| REQUIRED.contains(name)).collect();
        names.sort_unstable();
        let spec = object.at("spec");
        let containers: Vec<&Value> =
            spec.items("containers").iter().chain(spec.items("initContainers")).collect();
        let mut told = Vec::new();
        for name in names {
            let (what, plain) = name.split_once('.').unwrap_or(("requests", name));
            let lacks = |one: &&&Value| !one.at("resources").entries(what).contains_key(plain);
            let mut without: Vec<&str> =
                containers.iter().filter(lacks).map(|one| one.text("name")).collect();
            without.sort_unstable();
            without.dedup();
            if !without.is_empty() {
                told.push(format!("{name} for: {}", without.join(",")));
            }
        }
        (!told.is_empty()).then(|| format!("must specify {}", told.join("; ")))
    }
}

/// Whether a pod still has what it asked for: it has not ended, and is not overdue.
fn is_alive(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.at("status").text("phase"), "Failed" | "Succeeded") {
        return false;
    }
    let meta = pod.at("metadata");
    match (time::parse(meta.text("deletionTimestamp")), meta.int("deletionGracePeriodSeconds")) {
        (Some(end), Some(grace)) => {
            now <= end.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX)
        }
        _ => true,
    }
}

fn pod(pod: &Value, now: Timestamp, used: &mut Amounts) {
    if !is_alive(pod, now) {
        return;
    }
    used.insert("pods".to_owned(), number(1));
    for (name, amount) in of_pod(pod, "requests", Count::Actual) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
        {
            used.insert(format!("requests.{name}"), amount);
            used.insert(name, amount);
        } else if is_extended(&format!("requests.{name}")) {
            used.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in of_pod(pod, "limits", Count::Actual) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn service(service: &Value, used: &mut Amounts) {
    let spec = service.at("spec");
    let ports = spec.items("ports");
    let all = i64::try_from(ports.len()).unwrap_or(i64::MAX);
    let (balancers, node_ports) = match spec.text("type") {
        "NodePort" => (0, all),
        "LoadBalancer" if spec.at("allocateLoadBalancerNodePorts") == false => {
            let explicit = ports.iter().filter(|port| port.int("nodePort").is_some_and(|p| p != 0));
            (1, i64::try_from(explicit.count()).unwrap_or(i64::MAX))
        }
        "LoadBalancer" => (1, all),
        _ => (0, 0),
    };
    used.insert("services".to_owned(), number(1));
    used.insert("services.loadbalancers".to_owned(), number(balancers));
    used.insert("services.nodeports".to_owned(), number(node_ports));
}

fn claim(claim: &Value, used: &mut Amounts) {
    let spec = claim.at("spec");
    let beta =
        claim.at("metadata").at("annotations").text("volume.beta.kubernetes.io/storage-class");
    let class = if beta.is_empty() { spec.text("storageClassName") } else { beta };
    let mut take = |name: &str, amount: Quantity| {
        if !class.is_empty() {
            used.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
        used.insert(name.to_owned(), amount);
    };
    take("persistentvolumeclaims", number(1));
    let storage = |map: &Value| amounts(map.as_object()?).get("storage").copied();
    let asked = storage(spec.at("resources").at("requests"));
    let given = storage(claim.at("status").at("allocatedResources"));
    if let Some(asked) = asked {
        let most = given.filter(|given| *given > asked).unwrap_or(asked);
        let whole = most.nanos() % 1_000_000_000 == 0;
        take(
            "requests.storage",
            if whole { most } else { Quantity::new(most.value(), most.format()) },
        );
    }
}

fn devices(claim: &Value, used: &mut Amounts) {
    let wanted = |request: &Value| {
        let number = match request.text("allocationMode") {
            "ExactCount" => request.int("count").unwrap_or(0),
            "All" => MOST_DEVICES,
            _ => 0,
        };
        (format!("{}{OF_DEVICES}", request.text("deviceClassName")), number)
    };
    for request in claim.at("spec").at("devices").items("requests") {
        let choices = request.items("firstAvailable");
        let mut most = Amounts::new();
        for (name, count) in choices.iter().map(wanted) {
            let known = most.get(&name).copied().unwrap_or(Quantity::ZERO);
            most.insert(name, known.max(number(count)));
        }
        if choices.is_empty() && request.has("exactly") {
            let (name, count) = wanted(request.at("exactly"));
            most.insert(name, number(count));
        }
        add(used, &most);
    }
}
