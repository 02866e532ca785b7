//! Pods: first status, quality of service, graceful deletion, and what each subresource may
//! change.

mod parts;

use schema::amounts::qos_class;
use serde_json::{Map, Value, json};

use super::{Strategy, generic};
use crate::object::{child, metadata};
use crate::request::UserInfo;

pub(crate) use parts::{prepare_ephemeral, prepare_resize};

/// `v1 Pod`.
#[derive(Debug)]
pub(super) struct Pod;

impl Strategy for Pod {
    fn prepare_create(&self, object: &mut Value, _: &UserInfo, _: bool) {
        let qos = qos_class(&object["spec"]);
        object["status"] = json!({"phase": "Pending", "qosClass": qos});
        let gates = object["spec"]["schedulingGates"].as_array();
        if gates.is_some_and(|gates| !gates.is_empty()) {
            object["status"]["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": null,
                "lastProbeTime": null,
            }]);
        }
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        generic::keep_all_but_status(object, old);
        generic::keep_metadata(
            object,
            old,
            &["ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"],
        );
        let qos = old["status"]["qosClass"].clone();
        let status = child(object, "status");
        if status.get("qosClass").is_none_or(Value::is_null) && !qos.is_null() {
            status.insert("qosClass".to_owned(), qos);
        }
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let spec = &object["spec"];
        let unscheduled = spec["nodeName"].as_str().unwrap_or_default().is_empty();
        let finished = matches!(object["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        if unscheduled || finished {
            return Some(0);
        }
        let period =
            requested.or_else(|| spec["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
        // A negative period means the shortest one that is still graceful.
        Some(if period < 0 { 1 } else { period })
    }
}

/// What a binding asks of a pod.
pub(crate) struct Binding<'a> {
    /// The node.
    pub(crate) node: &'a str,
    /// Labels to add.
    pub(crate) labels: Option<&'a Map<String, Value>>,
    /// Annotations to add.
    pub(crate) annotations: Option<&'a Map<String, Value>>,
    /// When the binding happens, RFC 3339.
    pub(crate) now: String,
}

/// Binds a pod to a node.
///
/// # Errors
/// What stands against it, in the words of the conflict.
pub(crate) fn bind(pod: &mut Value, name: &str, binding: &Binding<'_>) -> Result<(), String> {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    child(pod, "spec").insert("nodeName".to_owned(), binding.node.into());
    child(pod, "status").remove("nominatedNodeName");
    for (field, added) in [("labels", binding.labels), ("annotations", binding.annotations)] {
        for (key, value) in added.into_iter().flatten() {
            let map = metadata(pod).entry(field).or_insert_with(|| json!({}));
            if let Value::Object(map) = map {
                map.insert(key.clone(), value.clone());
            }
        }
    }
    set_condition(pod, &json!({"type": "PodScheduled", "status": "True"}), &binding.now);
    Ok(())
}

/// Sets a condition of a pod's status; the transition time moves only when the status changes.
pub(crate) fn set_condition(pod: &mut Value, condition: &Value, now: &str) {
    let generation = pod["metadata"]["generation"].clone();
    let conditions = child(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    let mut condition = condition.clone();
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = now.into();
    if !generation.is_null() {
        condition["observedGeneration"] = generation;
    }
    match conditions.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(found) => {
            if found["status"] == condition["status"] {
                condition["lastTransitionTime"] = found["lastTransitionTime"].clone();
            }
            *found = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_period_of_a_pod() {
        let pod = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        assert_eq!(Pod.grace_period(&pod, None), Some(30));
        assert_eq!(Pod.grace_period(&pod, Some(5)), Some(5));
        assert_eq!(Pod.grace_period(&pod, Some(-1)), Some(1));
        let pod = json!({"spec": {"terminationGracePeriodSeconds": 30}});
        assert_eq!(Pod.grace_period(&pod, Some(5)), Some(0));
        let pod = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}});
        assert_eq!(Pod.grace_period(&pod, Some(5)), Some(0));
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {}});
        let binding = Binding {
            node: "n1",
            labels: None,
            annotations: None,
            now: "2026-01-01T00:00:00Z".into(),
        };
        assert_eq!(bind(&mut pod, "web", &binding), Ok(()));
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        let again = bind(&mut pod, "web", &binding);
        assert_eq!(again, Err("pod web is already assigned to node \"n1\"".to_owned()));
    }
}
