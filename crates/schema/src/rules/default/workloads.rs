//! Defaults of the apps, batch and autoscaling groups.

use serde_json::{Map, Value, json};

use super::{Fill, fill_in, make, object_in};
use crate::view::View;

/// The defaults of a type of this file.
pub(super) fn of(name: &str) -> Option<Fill> {
    Some(match name.strip_prefix("io.k8s.api.")? {
        "apps.v1.Deployment" => deployment,
        "apps.v1.ReplicaSet" => |set| {
            if let Some(spec) = object_in(set, "spec") {
                fill_in(spec, "replicas", 1);
            }
        },
        "apps.v1.DaemonSet" => daemon_set,
        "apps.v1.DeploymentSpec"
        | "apps.v1.ReplicaSetSpec"
        | "apps.v1.DaemonSetSpec"
        | "apps.v1.StatefulSetSpec"
        | "batch.v1.JobSpec" => |spec| make(spec, "template"),
        "batch.v1.CronJobSpec" => |spec| make(spec, "jobTemplate"),
        "batch.v1.JobTemplateSpec" => |template| make(template, "spec"),
        "apps.v1.StatefulSet" => stateful_set,
        "batch.v1.Job" => job,
        "batch.v1.CronJob" => |job| {
            if let Some(spec) = object_in(job, "spec") {
                fill_in(spec, "concurrencyPolicy", "Allow");
                fill_in(spec, "suspend", false);
                fill_in(spec, "successfulJobsHistoryLimit", 3);
                fill_in(spec, "failedJobsHistoryLimit", 1);
            }
        },
        "batch.v1.PodFailurePolicyOnPodConditionsPattern" => {
            |pattern| fill_in(pattern, "status", "True")
        }
        "autoscaling.v1.HorizontalPodAutoscaler" => |scaler| {
            if let Some(spec) = object_in(scaler, "spec") {
                fill_in(spec, "minReplicas", 1);
            }
        },
        "autoscaling.v2.HorizontalPodAutoscaler" => pod_autoscaler,
        _ => return None,
    })
}

fn deployment(deployment: &mut Map<String, Value>) {
    let Some(spec) = object_in(deployment, "spec") else { return };
    fill_in(spec, "replicas", 1);
    if let Some(strategy) = object_in(spec, "strategy") {
        fill_in(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_in(strategy, "rollingUpdate")
        {
            fill_in(rolling, "maxUnavailable", "25%");
            fill_in(rolling, "maxSurge", "25%");
        }
    }
    fill_in(spec, "revisionHistoryLimit", 10);
    fill_in(spec, "progressDeadlineSeconds", 600);
}

fn daemon_set(set: &mut Map<String, Value>) {
    let Some(spec) = object_in(set, "spec") else { return };
    if let Some(strategy) = object_in(spec, "updateStrategy") {
        fill_in(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_in(strategy, "rollingUpdate")
        {
            fill_in(rolling, "maxUnavailable", 1);
            fill_in(rolling, "maxSurge", 0);
        }
    }
    fill_in(spec, "revisionHistoryLimit", 10);
}

fn stateful_set(set: &mut Map<String, Value>) {
    let Some(spec) = object_in(set, "spec") else { return };
    fill_in(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object_in(spec, "updateStrategy") {
        if strategy.text("type").is_empty() {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
            fill_in(strategy, "rollingUpdate", json!({}));
        }
        let rolling = strategy.text("type") == "RollingUpdate";
        if let (true, Some(Value::Object(update))) = (rolling, strategy.get_mut("rollingUpdate")) {
            fill_in(update, "partition", 0);
        }
    }
    if let Some(policy) = object_in(spec, "persistentVolumeClaimRetentionPolicy") {
        fill_in(policy, "whenDeleted", "Retain");
        fill_in(policy, "whenScaled", "Retain");
    }
    fill_in(spec, "replicas", 1);
    fill_in(spec, "revisionHistoryLimit", 10);
}

fn job(job: &mut Map<String, Value>) {
    let labels = job.at("spec").at("template").at("metadata").entries("labels").clone();
    if let Some(spec) = object_in(job, "spec") {
        if !spec.has("completions") && !spec.has("parallelism") {
            fill_in(spec, "completions", 1);
        }
        fill_in(spec, "parallelism", 1);
        let limit = if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        fill_in(spec, "backoffLimit", limit);
        fill_in(spec, "completionMode", "NonIndexed");
        fill_in(spec, "suspend", false);
        let replace = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        fill_in(spec, "podReplacementPolicy", replace);
        fill_in(spec, "manualSelector", false);
    }
    if labels.is_empty() {
        return;
    }
    if let Some(metadata) = object_in(job, "metadata")
        && metadata.entries("labels").is_empty()
    {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
}

fn pod_autoscaler(scaler: &mut Map<String, Value>) {
    let Some(spec) = object_in(scaler, "spec") else { return };
    fill_in(spec, "minReplicas", 1);
    if spec.items("metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".to_owned(), json!([metric]));
    }
    let Some(Value::Object(behavior)) = spec.get_mut("behavior") else { return };
    if let Some(up) = object_in(behavior, "scaleUp") {
        fill_in(up, "stabilizationWindowSeconds", 0);
        fill_in(up, "selectPolicy", "Max");
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        fill_in(
            up,
            "policies",
            json!([pods, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
    if let Some(down) = object_in(behavior, "scaleDown") {
        fill_in(down, "selectPolicy", "Max");
        fill_in(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}
