//! DefaultTolerationSeconds: pods stay five minutes on nodes that became unready or unreachable, unless they
//! say otherwise.

use registry::{Admit, Attributes, Operation, Row};
use serde_json::{Value, json};

use super::{Admitted, child, decided, is_core, list, text};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// How long pods stay, in seconds.
const SECONDS: u32 = 300;

/// The plugin.
pub(super) struct DefaultTolerationSeconds;

impl Admit for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && is_core(row, "pods")
            && subresource.is_none()
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        add(object);
        decided(Ok(()))
    }
}

fn add(pod: &mut Value) {
    let tolerations = list(child(pod, "spec"), "tolerations");
    for taint in TAINTS {
        let tolerated = tolerations.iter().any(|known| {
            matches!(text(known, "key"), key if key == taint || key.is_empty())
                && matches!(text(known, "effect"), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS
            }));
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
        add(&mut pod);
        let tolerations = pod["spec"]["tolerations"].as_array().expect("list");
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
        add(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
    }
}
