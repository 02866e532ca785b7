//! Warnings about deprecated labels of nodes.

use meta::names;

use super::{Warnings, say};
use crate::rules::at::At;

/// What is said of a label of nodes, if it is deprecated.
pub(super) fn deprecated(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Warns of the labels that a term of a node selector asks for and, on demand, of values that no label has.
pub(super) fn term(at: &At<'_>, values: bool, said: &mut Warnings) {
    for expression in at.each("matchExpressions") {
        let key = expression.field("key");
        if let Some(text) = deprecated(key.str()) {
            say(&key.path, &format!("{} is {text}", key.str()), said);
        }
        for value in expression.each("values").filter(|_| values) {
            for problem in names::is_label_value(value.str()) {
                say(&value.path, &format!("{} is invalid, {problem}", value.str()), said);
            }
        }
    }
}
