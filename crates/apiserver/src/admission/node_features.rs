//! NodeDeclaredFeatureValidator: a pod is not changed in a way that its node did not say it can carry out
//! (KEP-5328).

use meta::Status;
use registry::{Admit, Attributes, Operation, Row};
use schema::view::{View, same};
use serde_json::Value;

use super::{Admitted, decided, fine, forbid, is_core, read, text};

/// The plugin.
pub(super) struct NodeDeclaredFeatureValidator;

impl Admit for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Update
            && is_core(row, "pods")
            && matches!(subresource, None | Some("resize"))
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
    let features = needed(pod, old);
    if name.is_empty() || features.is_empty() {
        return Ok(());
    }
    let Some(node) = read(attributes, "", "nodes", None, name) else {
        return Err(forbid(attributes, Some(pod), format!("node \"{name}\" not found")));
    };
    let declared = node["status"].items("declaredFeatures");
    let missing: Vec<&str> =
        features.into_iter().filter(|feature| !declared.iter().any(|one| one == feature)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    let why = format!(
        "pod update requires features {missing} which are not available on node \"{name}\""
    );
    Err(forbid(attributes, Some(pod), why))
}

/// What a node must be able to do for the change, by the names of features.
fn needed(pod: &Value, old: &Value) -> Vec<&'static str> {
    let (new_spec, old_spec) = (pod.at("spec"), old.at("spec"));
    let mut features = Vec::new();
    let init = old_spec.items("initContainers").iter().zip(new_spec.items("initContainers"));
    let resized = |(old, new): (&Value, &Value)| {
        old.text("restartPolicy") != "Always" && !same(old.at("resources"), new.at("resources"))
    };
    if init.into_iter().any(resized) {
        features.push("InPlacePodVerticalScalingInitContainers");
    }
    if !same(old_spec.at("resources"), new_spec.at("resources")) {
        features.push("InPlacePodLevelResourcesVerticalScaling");
    }
    features
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_need_features() {
        let pod = |init: Value, whole: Value| json!({"spec": {"initContainers": [init], "resources": whole}});
        let small = json!({"name": "i", "resources": {"requests": {"cpu": "1"}}});
        let large = json!({"name": "i", "resources": {"requests": {"cpu": "2"}}});
        assert!(
            needed(&pod(small.clone(), json!(null)), &pod(small.clone(), json!({}))).is_empty()
        );
        assert_eq!(
            needed(&pod(large, json!({"requests": {"cpu": "1"}})), &pod(small, json!(null))),
            ["InPlacePodVerticalScalingInitContainers", "InPlacePodLevelResourcesVerticalScaling"]
        );
    }
}
