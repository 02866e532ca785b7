//! PodResizeValidator: a pod is not made larger than its node, and only where nodes can do it.

use meta::{Status, StatusCause};
use registry::{Admit, Attributes, Operation, Row};
use schema::amounts::{Count, amounts, of_pod};
use schema::view::View;
use serde_json::Value;

use super::{Admitted, decided, fine, forbid, is_core, read, text};

/// The plugin.
pub(super) struct PodResizeValidator;

impl Admit for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Update && is_core(row, "pods") && subresource == Some("resize")
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        match (object, attributes.old) {
            (Some(pod), Some(old)) => decided(check(attributes, pod, old)),
            _ => fine(),
        }
    }
}

fn check(attributes: &Attributes<'_>, pod: &Value, old: &Value) -> Result<(), Status> {
    let name = text(&pod["spec"], "nodeName");
    // The generation moves with the specification alone.
    if name.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
        return Ok(());
    }
    let Some(node) = read(attributes, "", "nodes", None, name) else {
        return Err(forbid(attributes, Some(pod), format!("node \"{name}\" not found")));
    };
    refusal(pod, &node).map_or(Ok(()), |(reason, why)| {
        let mut status = forbid(attributes, Some(pod), why);
        let cause =
            StatusCause { reason: reason.to_owned(), message: String::new(), field: String::new() };
        status.details.get_or_insert_default().causes.push(cause);
        Err(status)
    })
}

fn refusal(pod: &Value, node: &Value) -> Option<(&'static str, String)> {
    let metadata = node.at("metadata");
    let system = metadata.at("labels").text("kubernetes.io/os");
    if !matches!(system, "" | "linux") {
        let name = metadata.text("name");
        let why =
            format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{system}\"");
        return Some(("UnsupportedPlatform", why));
    }
    let room = amounts(node.at("status").entries("allocatable"));
    let asked = of_pod(pod, "requests", Count::Whole);
    let told: Vec<String> = ["cpu", "memory"]
        .iter()
        .filter_map(|name| {
            let of = |amounts: &schema::amounts::Amounts| {
                amounts.get(*name).copied().unwrap_or_default()
            };
            let (asked, room) = (of(&asked), of(&room));
            let number = |amount: meta::Quantity| {
                if *name == "cpu" { amount.milli_value() } else { amount.value() }
            };
            (asked > room).then(|| {
                format!("{name}, requested: {}, allocatable: {}", number(asked), number(room))
            })
        })
        .collect();
    (!told.is_empty()).then(|| {
        let why = format!("node didn't have enough allocatable resources: {}", told.join("; "));
        ("NodeCapacity", why)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_must_be_able_to_hold_the_pod() {
        let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let pod = |cpu: &str, memory: &str| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
        assert_eq!(refusal(&pod("2", "1Gi"), &node), None);
        let why = "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; \
                   memory, requested: 2147483648, allocatable: 1073741824";
        assert_eq!(refusal(&pod("2500m", "2Gi"), &node), Some(("NodeCapacity", why.to_owned())));
        let windows = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "windows"}}});
        let why = "pod resize is only supported on linux nodes, node \"n\" is \"windows\"";
        assert_eq!(
            refusal(&pod("1", "1"), &windows),
            Some(("UnsupportedPlatform", why.to_owned()))
        );
    }
}
