//! PodTopologyLabels: a pod on a node carries the node's zone and region (KEP-4742).

use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, child, fine, is_core, read, text};

const COPIED: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The plugin.
pub(super) struct PodTopologyLabels;

impl Admit for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create
            && is_core(row, "pods")
            && matches!(subresource, None | Some("binding"))
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        // A binding's labels become the pod's.
        let node = match attributes.subresource {
            None => text(&object["spec"], "nodeName"),
            Some(_) if object["target"]["kind"] == "Node" => text(&object["target"], "name"),
            Some(_) => "",
        };
        if !node.is_empty()
            && let Some(node) = read(attributes, "", "nodes", None, node)
        {
            copy(&node, object);
        }
        fine()
    }
}

fn copy(node: &Value, object: &mut Value) {
    for label in COPIED {
        let value = &node["metadata"]["labels"][label];
        if value.is_string() {
            child(child(object, "metadata"), "labels")[label] = value.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zone_and_region_are_copied_and_nothing_else() {
        let node =
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a", "other": "b"}}});
        let mut pod = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "wrong"}}});
        copy(&node, &mut pod);
        assert_eq!(pod["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "a"}));
    }
}
