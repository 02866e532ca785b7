//! Rows of the apps, batch, autoscaling and policy groups, and of replication controllers.

use jiff::Timestamp;
use schema::View;
use serde_json::Value;

use super::Cells;
use super::core::{count, scaled};
use super::format::{
    age, condition, containers, duration, int_or_string, labels, name, number, or, seconds_between,
    selector, since,
};

/// The table of a kind of this file.
pub(super) fn printer(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    Some(match key {
        ("apps", "Deployment") => ("deployment", deployment),
        ("apps", "ReplicaSet") => ("replicaSet", |object, now| {
            let mut cells = scaled(object);
            cells.push(age(object, now));
            cells.extend(wide(object.at("spec").at("template").at("spec")));
            cells.push(selector(object.at("spec").at("selector")).into());
            cells
        }),
        ("", "ReplicationController") => ("replicationController", |object, now| {
            let mut cells = scaled(object);
            cells.push(age(object, now));
            cells.extend(wide(object.at("spec").at("template").at("spec")));
            cells.push(labels(object.at("spec").entries("selector")).into());
            cells
        }),
        ("apps", "DaemonSet") => ("daemonSet", daemon_set),
        ("apps", "StatefulSet") => ("statefulSet", |object, now| {
            let mut cells = vec![name(object), ready(object).into(), age(object, now)];
            cells.extend(wide(object.at("spec").at("template").at("spec")));
            cells
        }),
        ("apps", "ControllerRevision") => ("controllerRevision", controller_revision),
        ("batch", "Job") => ("job", job),
        ("batch", "CronJob") => ("cronJob", cron_job),
        ("autoscaling", "HorizontalPodAutoscaler") => ("horizontalPodAutoscaler", pod_autoscaler),
        ("autoscaling", "Scale") => ("scale", |object, now| {
            let (spec, status) = (object.at("spec"), object.at("status"));
            vec![
                name(object),
                number(spec, "replicas"),
                number(status, "replicas"),
                age(object, now),
            ]
        }),
        ("policy", "PodDisruptionBudget") => ("podDisruptionBudget", |object, now| {
            let bound = |field: &str| match object.at("spec").at(field) {
                Value::Null => Value::from("N/A"),
                value => int_or_string(value).into(),
            };
            let allowed = number(object.at("status"), "disruptionsAllowed");
            vec![
                name(object),
                bound("minAvailable"),
                bound("maxUnavailable"),
                allowed,
                age(object, now),
            ]
        }),
        _ => return None,
    })
}

fn wide(spec: &Value) -> [Value; 2] {
    let (names, images) = containers(spec);
    [names, images]
}

/// `ready/desired`.
fn ready(object: &Value) -> String {
    let desired = object.at("spec").int("replicas").unwrap_or_default();
    format!("{}/{desired}", object.at("status").int("readyReplicas").unwrap_or_default())
}

fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (deployment.at("spec"), deployment.at("status"));
    let mut cells = vec![
        name(deployment),
        ready(deployment).into(),
        number(status, "updatedReplicas"),
        number(status, "availableReplicas"),
        age(deployment, now),
    ];
    cells.extend(wide(spec.at("template").at("spec")));
    cells.push(selector(spec.at("selector")).into());
    cells
}

fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (set.at("spec"), set.at("status"));
    let counts = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    let mut cells = vec![name(set)];
    cells.extend(counts.map(|field| number(status, field)));
    cells.push(labels(spec.at("template").at("spec").entries("nodeSelector")).into());
    cells.push(age(set, now));
    cells.extend(wide(spec.at("template").at("spec")));
    cells.push(selector(spec.at("selector")).into());
    cells
}

fn controller_revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owners = revision.at("metadata").items("ownerReferences");
    let controller = owners.iter().find(|owner| owner.flag("controller")).map(|owner| {
        let kind = owner.text("kind").to_lowercase();
        let name = owner.text("name");
        match owner.text("apiVersion").split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{name}"),
            None => format!("{kind}/{name}"),
        }
    });
    let controller = controller.unwrap_or_else(|| "<none>".to_owned());
    vec![name(revision), controller.into(), number(revision, "revision"), age(revision, now)]
}

fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (job.at("spec"), job.at("status"));
    let succeeded = status.int("succeeded").unwrap_or_default();
    let completions = match (spec.int("completions"), spec.int("parallelism").unwrap_or_default()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let started = meta::time::parse(status.text("startTime"));
    let ended = meta::time::parse(status.text("completionTime")).unwrap_or(now);
    let took = started.map(|started| duration(seconds_between(started, ended))).unwrap_or_default();
    let states = [("Complete", "Complete"), ("Failed", "Failed")];
    let later = [
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    let terminating = job.at("metadata").has("deletionTimestamp");
    let first = states.iter().find(|(kind, _)| condition(status, kind)).map(|(_, word)| *word);
    let word = first
        .or(terminating.then_some("Terminating"))
        .or_else(|| later.iter().find(|(kind, _)| condition(status, kind)).map(|(_, word)| *word))
        .unwrap_or("Running");
    let mut cells = vec![name(job), word.into(), completions.into(), took.into(), age(job, now)];
    cells.extend(wide(spec.at("template").at("spec")));
    cells.push(selector(spec.at("selector")).into());
    cells
}

fn cron_job(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (job.at("spec"), job.at("status"));
    let template = spec.at("jobTemplate").at("spec");
    let last = match status.at("lastScheduleTime") {
        Value::Null => "<none>".to_owned(),
        time => since(time, now),
    };
    let suspend = match spec.at("suspend") {
        Value::Bool(true) => "True",
        Value::Bool(false) => "False",
        _ => "<unset>",
    };
    let mut cells = vec![
        name(job),
        spec.text("schedule").into(),
        or(spec.text("timeZone"), "<none>").into(),
        suspend.into(),
        count(status, "active"),
        last.into(),
        age(job, now),
    ];
    cells.extend(wide(template.at("template").at("spec")));
    cells.push(selector(template.at("selector")).into());
    cells
}

fn pod_autoscaler(scaler: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (scaler.at("spec"), scaler.at("status"));
    let target = spec.at("scaleTargetRef");
    let minimum =
        spec.int("minReplicas").map_or_else(|| "<unset>".to_owned(), |number| number.to_string());
    vec![
        name(scaler),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics(spec, status).into(),
        minimum.into(),
        number(spec, "maxReplicas"),
        number(status, "currentReplicas"),
        age(scaler, now),
    ]
}

/// The first two metrics of a scaler: current and target.
fn metrics(spec: &Value, status: &Value) -> String {
    const MOST: usize = 2;
    if let Some(target) = spec.int("targetCPUUtilizationPercentage") {
        let current = status.int("currentCPUUtilizationPercentage");
        let current =
            current.map_or_else(|| "<unknown>".to_owned(), |percent| format!("{percent}%"));
        return format!("cpu: {current}/{target}%");
    }
    let specs = spec.items("metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let nothing = Value::Null;
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            self::metric(metric, status.items("currentMetrics").get(index).unwrap_or(&nothing))
        })
        .collect();
    let shown = all[..all.len().min(MOST)].join(", ");
    if all.len() > MOST { format!("{shown} + {} more...", all.len() - MOST) } else { shown }
}

fn metric(spec: &Value, status: &Value) -> String {
    let (field, per_resource) = match spec.text("type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (spec.at(field).at("target"), status.at(field).at("current"));
    let known = |field: &str| or(current.text(field), "<unknown>").to_owned();
    let average = target.text("averageValue");
    if per_resource {
        let resource = spec.at(field).text("name");
        if !average.is_empty() {
            return format!("{resource}: {}/{average}", known("averageValue"));
        }
        let percent = |value: &Value, instead: &str| {
            value
                .int("averageUtilization")
                .map_or_else(|| instead.to_owned(), |percent| format!("{percent}%"))
        };
        return format!(
            "{resource}: {}/{}",
            percent(current, "<unknown>"),
            percent(target, "<auto>")
        );
    }
    match (field, average) {
        ("pods", _) => format!("{}/{average}", known("averageValue")),
        (_, "") => format!("{}/{}", known("value"), target.text("value")),
        _ => format!("{}/{average} (avg)", known("averageValue")),
    }
}
