//! TaintNodesByCondition: a new node takes no pods before it has said that it is ready.

use registry::{Admit, Attributes, Operation, Row};
use serde_json::{Value, json};

use super::{Admitted, child, decided, is_core, list, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
pub(super) struct TaintNodesByCondition;

impl Admit for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create && is_core(row, "nodes") && subresource.is_none()
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        let taints = list(child(object, "spec"), "taints");
        let known = |taint: &Value| {
            text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule"
        };
        if !taints.iter().any(known) {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        decided(Ok(()))
    }
}
