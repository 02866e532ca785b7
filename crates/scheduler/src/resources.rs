//! Amounts of resources as plain integers, and what a pod requests. Knows no node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// CPU assumed of a container that requests none, when nodes are compared, in millicores.
const UNSAID_CPU: i64 = 100;
/// Memory assumed of a container that requests none, when nodes are compared, in bytes.
const UNSAID_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local storage.
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, by name, sorted.
    pub other: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Reads a resource list; what does not parse counts as nothing. `pods` is left out.
    #[must_use]
    pub fn parse(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(quantity) = quantity.0.parse::<meta::Quantity>() else { continue };
            match name.as_str() {
                "cpu" => out.cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => {}
                other => out.other.push((other.into(), quantity.value())),
            }
        }
        out
    }

    /// How much there is of an extended resource.
    #[must_use]
    pub fn other(&self, name: &str) -> i64 {
        self.other.iter().find(|(one, _)| **one == *name).map_or(0, |(_, amount)| *amount)
    }

    /// Adds another amount.
    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// Raises every resource to at least another amount.
    pub fn raise_to(&mut self, least: &Self) {
        self.combine(least, i64::max);
    }

    fn combine(&mut self, with: &Self, operation: impl Fn(i64, i64) -> i64) {
        self.cpu = operation(self.cpu, with.cpu);
        self.memory = operation(self.memory, with.memory);
        self.ephemeral_storage = operation(self.ephemeral_storage, with.ephemeral_storage);
        for (name, amount) in &with.other {
            match self.other.binary_search_by(|(one, _)| one.as_ref().cmp(name)) {
                Ok(at) => self.other[at].1 = operation(self.other[at].1, *amount),
                Err(at) => self.other.insert(at, (Arc::clone(name), operation(0, *amount))),
            }
        }
    }

    /// Whether another amount is smaller in any resource.
    #[must_use]
    pub fn exceeds(&self, other: &Self) -> bool {
        self.cpu > other.cpu
            || self.memory > other.memory
            || self.ephemeral_storage > other.ephemeral_storage
            || self.other.iter().any(|(name, amount)| *amount > other.other(name))
    }

    /// Whether both have some of any resource in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let both = |a: i64, b: i64| a > 0 && b > 0;
        both(self.cpu, other.cpu)
            || both(self.memory, other.memory)
            || both(self.ephemeral_storage, other.ephemeral_storage)
            || self.other.iter().any(|(name, amount)| both(*amount, other.other(name)))
    }
}

/// What a pod requests in all. Init containers run one after the other, beside the sidecars
/// started before them, so the pod needs the largest of these sums or that of its containers
/// and sidecars (KEP-753). Requests of the pod as a whole come before those of its containers
/// (KEP-2837), its overhead on top (KEP-688).
#[must_use]
pub fn requests(spec: &PodSpec) -> Resources {
    total(spec, false)
}

/// As [`requests`], where a container that requests no CPU or memory counts as a small one:
/// the measure by which nodes are compared, lest pods without requests pile up on one.
#[must_use]
pub fn assumed_requests(spec: &PodSpec) -> Resources {
    total(spec, true)
}

fn total(spec: &PodSpec, assume: bool) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of_container(container, assume));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container, assume);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&own);
            sidecars.add(&own);
            starting.raise_to(&sidecars);
        } else {
            own.add(&sidecars);
            starting.raise_to(&own);
        }
    }
    sum.raise_to(&starting);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let Some(list) = whole {
        let stated = Resources::parse(Some(list));
        if list.contains_key("cpu") {
            sum.cpu = stated.cpu;
        }
        if list.contains_key("memory") {
            sum.memory = stated.memory;
        }
        for (name, amount) in stated.other.iter().filter(|(name, _)| name.starts_with("hugepages-"))
        {
            match sum.other.binary_search_by(|(one, _)| one.cmp(name)) {
                Ok(at) => sum.other[at].1 = *amount,
                Err(at) => sum.other.insert(at, (Arc::clone(name), *amount)),
            }
        }
    }
    sum.add(&Resources::parse(spec.overhead.as_ref()));
    sum
}

fn of_container(container: &Container, assume: bool) -> Resources {
    let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let mut own = Resources::parse(list);
    let says = |name| list.is_some_and(|list| list.contains_key(name));
    if assume && !says("cpu") {
        own.cpu = UNSAID_CPU;
    }
    if assume && !says("memory") {
        own.memory = UNSAID_MEMORY;
    }
    own
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check_cpu(spec: Value, real: i64, assumed: i64) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!((requests(&spec).cpu, assumed_requests(&spec).cpu), (real, assumed));
    }

    fn cpu(amount: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": amount}}})
    }

    fn sidecar(amount: &str) -> Value {
        let mut container = cpu(amount);
        container["restartPolicy"] = "Always".into();
        container
    }

    #[test]
    fn sums_and_maxima() {
        check_cpu(json!({"containers": [cpu("100m"), cpu("1")]}), 1100, 1100);
        check_cpu(json!({"containers": [{"name": "c"}]}), 0, 100);
        check_cpu(json!({"containers": [cpu("0")]}), 0, 0);
        check_cpu(json!({"containers": [cpu("100m")], "initContainers": [cpu("2")]}), 2000, 2000);
        // Sidecars run beside later init containers and beside the containers.
        check_cpu(
            json!({"containers": [cpu("1")], "initContainers": [sidecar("1"), cpu("3")]}),
            4000,
            4000,
        );
        check_cpu(
            json!({"containers": [cpu("1")], "initContainers": [cpu("1"), sidecar("1")]}),
            2000,
            2000,
        );
        check_cpu(
            json!({"containers": [cpu("1")], "overhead": {"cpu": "250m"},
                   "resources": {"requests": {"cpu": "3"}}}),
            3250,
            3250,
        );
    }

    #[test]
    fn arithmetic_by_name() {
        let list = |text: &str| {
            let list: BTreeMap<String, Quantity> = serde_json::from_str(text).unwrap();
            Resources::parse(Some(&list))
        };
        let mut a = list(r#"{"cpu": "1", "memory": "1Ki", "x/a": "2"}"#);
        a.add(&list(r#"{"x/a": "1", "x/b": "5"}"#));
        assert_eq!((a.cpu, a.memory, a.other("x/a"), a.other("x/b")), (1000, 1024, 3, 5));
        a.subtract(&list(r#"{"x/b": "5"}"#));
        assert_eq!(a.other("x/b"), 0);
        assert!(a.exceeds(&list(r#"{"cpu": "1"}"#)) && !list(r#"{"cpu": "1"}"#).exceeds(&a));
        assert!(a.overlaps(&list(r#"{"x/a": "1"}"#)) && !a.overlaps(&list(r#"{"x/c": "1"}"#)));
    }
}
