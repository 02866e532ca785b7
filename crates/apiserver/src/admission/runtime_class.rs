//! RuntimeClass: what a pod's runtime needs beside the pod, and where it is installed, follows from its runtime
//! class.

use meta::Status;
use registry::{Admit, Attributes, Operation, Row};
use schema::amounts::amounts;
use schema::view::View;
use serde_json::Value;

use super::{Admitted, child, decided, fine, forbid, is_pod, read, text, tolerations::merge};

/// The plugin.
pub(super) struct RuntimeClass;

impl Admit for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create && is_pod(row, subresource)
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, pod: &'a mut Value) -> Admitted<'a> {
        decided(class(attributes, pod).and_then(|class| match class {
            Some(class) => complete(pod, &class).map_err(|why| forbid(attributes, Some(pod), why)),
            None => Ok(()),
        }))
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        let Some(pod) = object else { return fine() };
        decided(class(attributes, pod).and_then(|class| {
            overhead(pod, &class.unwrap_or_default())
                .map_err(|why| forbid(attributes, Some(pod), why))
        }))
    }
}

/// The class that a pod names.
fn class(attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    if pod["spec"]["runtimeClassName"].is_null() {
        return Ok(None);
    }
    let name = text(&pod["spec"], "runtimeClassName");
    let class = read(attributes, "node.k8s.io", "runtimeclasses", None, name);
    let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
    Ok(Some(class.ok_or_else(|| forbid(attributes, Some(pod), why))?))
}

const DIFFERS: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// Puts into the pod what its class says.
fn complete(pod: &mut Value, class: &Value) -> Result<(), String> {
    let spec = child(pod, "spec");
    if class.has("overhead") {
        let (own, fixed) = (spec.entries("overhead"), class.at("overhead").entries("podFixed"));
        if !own.is_empty() && amounts(own) != amounts(fixed) {
            return Err(DIFFERS.to_owned());
        }
        if !fixed.is_empty() {
            spec["overhead"] = fixed.clone().into();
        }
    }
    let scheduling = class.at("scheduling");
    for (key, value) in scheduling.entries("nodeSelector") {
        let own = &spec["nodeSelector"][key];
        if !own.is_null() && own != value {
            let (value, own) =
                (value.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        child(spec, "nodeSelector")[key] = value.clone();
    }
    let more = scheduling.items("tolerations");
    if !more.is_empty() || (scheduling.is_object() && spec.has("tolerations")) {
        spec["tolerations"] = merge(spec.items("tolerations"), more).into();
    }
    Ok(())
}

/// A pod's overhead is that of its class.
fn overhead(pod: &Value, class: &Value) -> Result<(), &'static str> {
    let own = pod.at("spec").at("overhead");
    match class.at("overhead") {
        Value::Null if own.is_null() => Ok(()),
        Value::Null => Err(
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        defined
            if amounts(defined.entries("podFixed"))
                == amounts(pod.at("spec").entries("overhead")) =>
        {
            Ok(())
        }
        _ => Err(DIFFERS),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_gives_overhead_and_place() {
        let class = json!({
            "overhead": {"podFixed": {"memory": "10Mi"}},
            "scheduling": {"nodeSelector": {"runtime": "vm"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}
        });
        let mut pod = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
        complete(&mut pod, &class).expect("fits");
        assert_eq!(pod["spec"]["overhead"], json!({"memory": "10Mi"}));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"disk": "ssd", "runtime": "vm"}));
        assert_eq!(pod["spec"]["tolerations"][0]["key"], "vm");
        assert_eq!(overhead(&pod, &class), Ok(()));
        assert_eq!(overhead(&json!({"spec": {}}), &class), Err(DIFFERS));
        assert!(
            overhead(&pod, &json!(null)).is_err_and(|why| why.contains("without corresponding"))
        );
        let mut other = json!({"spec": {"overhead": {"memory": "1Mi"}}});
        assert_eq!(complete(&mut other, &class), Err(DIFFERS.to_owned()));
        let mut elsewhere = json!({"spec": {"nodeSelector": {"runtime": "c"}}});
        let why = "conflict: runtimeClass.scheduling.nodeSelector[runtime] = vm; pod.spec.nodeSelector[runtime] = c";
        assert_eq!(complete(&mut elsewhere, &class), Err(why.to_owned()));
    }
}
