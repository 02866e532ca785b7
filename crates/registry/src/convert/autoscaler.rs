//! HorizontalPodAutoscaler: v1 knows the CPU target alone and keeps the rest of v2 in annotations.

use serde_json::{Map, Value, json};

use crate::object::{child, metadata};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// v1 to v2.
pub(super) fn to_v2(mut object: Value) -> Value {
    let mut metrics = take_annotation(&mut object, METRICS).unwrap_or_else(|| json!([]));
    let behavior = take_annotation(&mut object, BEHAVIOR);
    let current = take_annotation(&mut object, CURRENT_METRICS);
    let conditions = take_annotation(&mut object, CONDITIONS);
    let spec = child(&mut object, "spec");
    if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
        let metric = json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target},
        }});
        if let Value::Array(metrics) = &mut metrics {
            metrics.push(metric);
        }
    }
    if metrics.as_array().is_some_and(|m| !m.is_empty()) {
        spec.insert("metrics".to_owned(), metrics);
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut list = current.unwrap_or_else(|| json!([]));
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
            let metric = json!({"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": percent},
            }});
            if let Value::Array(list) = &mut list {
                list.push(metric);
            }
        }
        if list.as_array().is_some_and(|l| !l.is_empty()) {
            status.insert("currentMetrics".to_owned(), list);
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    object
}

/// v2 to v1.
pub(super) fn to_v1(mut object: Value) -> Value {
    let mut kept = Map::new();
    let spec = child(&mut object, "spec");
    if let Some(Value::Array(metrics)) = spec.remove("metrics") {
        let (cpu, others) = split(metrics, "target");
        if let Some(percent) = cpu {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        if !others.is_empty() {
            kept.insert(METRICS.to_owned(), text(&others.into()));
        }
    }
    if let Some(behavior) = spec.remove("behavior") {
        kept.insert(BEHAVIOR.to_owned(), text(&behavior));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(Value::Array(metrics)) = status.remove("currentMetrics") {
            let (cpu, others) = split(metrics, "current");
            if let Some(percent) = cpu {
                status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
            }
            if !others.is_empty() {
                kept.insert(CURRENT_METRICS.to_owned(), text(&others.into()));
            }
        }
        if let Some(conditions) = status.remove("conditions") {
            kept.insert(CONDITIONS.to_owned(), text(&conditions));
        }
    }
    if !kept.is_empty() {
        let annotations = metadata(&mut object).entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            annotations.extend(kept);
        }
    }
    object
}

/// The average CPU utilization among metrics, and the other metrics.
fn split(metrics: Vec<Value>, part: &str) -> (Option<Value>, Vec<Value>) {
    let mut cpu = None;
    let mut others = Vec::new();
    for metric in metrics {
        let resource = &metric["resource"];
        let percent = &resource[part]["averageUtilization"];
        if metric["type"] == "Resource" && resource["name"] == "cpu" && !percent.is_null() {
            cpu = Some(percent.clone());
        } else {
            others.push(metric);
        }
    }
    (cpu, others)
}

fn text(value: &Value) -> Value {
    value.to_string().into()
}

fn take_annotation(object: &mut Value, name: &str) -> Option<Value> {
    let annotations = metadata(object).get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        metadata(object).remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v1_autoscaler_survives_storage() {
        let v1 = json!({
            "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80},
        });
        let v2 = to_v2(v1.clone());
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(to_v1(v2), v1);
    }

    #[test]
    fn what_v1_lacks_is_kept_in_annotations() {
        let v2 = json!({
            "metadata": {"name": "a"},
            "spec": {"behavior": {"scaleDown": {}}, "metrics": [{"type": "Pods"}]},
            "status": {"conditions": [{"type": "AbleToScale"}]},
        });
        let v1 = to_v1(v2.clone());
        assert!(v1["metadata"]["annotations"][METRICS].is_string());
        assert_eq!(to_v2(v1), v2);
    }
}
