//! DefaultTolerationSeconds: pods stay for a while, five minutes by default, on nodes that became unready or
//! unreachable, unless they say otherwise. ExtendedResourceToleration: pods that ask for a device go where nodes
//! are kept for it.

mod merge;
pub(super) mod restriction;

pub(super) use merge::{merge, tolerated};

use registry::{Admit, Attributes, Operation, Row};
use serde_json::{Value, json};

use super::{Admitted, child, decided, each, fine, is_pod, list, text};

/// How long pods stay on nodes that do not work, in seconds, unless they say so themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultTolerationSeconds {
    /// On nodes that say that they are not ready.
    pub not_ready: u32,
    /// On nodes that say nothing.
    pub unreachable: u32,
}

impl Default for DefaultTolerationSeconds {
    fn default() -> Self {
        Self { not_ready: 300, unreachable: 300 }
    }
}

impl Admit for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && is_pod(row, subresource)
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        add(object, *self);
        decided(Ok(()))
    }
}

fn add(pod: &mut Value, seconds: DefaultTolerationSeconds) {
    let tolerations = list(child(pod, "spec"), "tolerations");
    for (taint, seconds) in [
        ("node.kubernetes.io/not-ready", seconds.not_ready),
        ("node.kubernetes.io/unreachable", seconds.unreachable),
    ] {
        let tolerated = tolerations.iter().any(|known| {
            matches!(text(known, "key"), key if key == taint || key.is_empty())
                && matches!(text(known, "effect"), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds
            }));
        }
    }
}

/// The plugin for devices.
pub(super) struct ExtendedResourceToleration;

impl Admit for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && is_pod(row, subresource)
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, pod: &'a mut Value) -> Admitted<'a> {
        tolerate_devices(pod);
        fine()
    }
}

fn tolerate_devices(pod: &mut Value) {
    let containers =
        ["containers", "initContainers"].iter().flat_map(|list| each(&pod["spec"], list));
    let asked: std::collections::BTreeSet<String> = containers
        .flat_map(|one| one["resources"]["requests"].as_object().into_iter().flatten())
        .map(|(name, _)| name.clone())
        .filter(|name| schema::amounts::is_extended(name))
        .collect();
    if asked.is_empty() {
        return;
    }
    let tolerations = list(child(pod, "spec"), "tolerations");
    for key in asked {
        let wanted = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        let same = |known: &&mut Value| {
            ["key", "operator", "effect", "value"]
                .iter()
                .all(|f| text(known, f) == text(&wanted, f))
        };
        match tolerations.iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => tolerations.push(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_tolerates_already_stays() {
        let mut pod = json!({"spec": {"tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]}});
        add(&mut pod, DefaultTolerationSeconds::default());
        let tolerations = pod["spec"]["tolerations"].as_array().expect("list");
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
        add(&mut pod, DefaultTolerationSeconds::default());
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add(&mut all, DefaultTolerationSeconds::default());
        assert_eq!(all["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn devices_are_tolerated_once() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "1", "example.com/gpu": "1"}}}]}});
        tolerate_devices(&mut pod);
        tolerate_devices(&mut pod);
        let wanted =
            json!([{"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]);
        assert_eq!(pod["spec"]["tolerations"], wanted);
    }
}
