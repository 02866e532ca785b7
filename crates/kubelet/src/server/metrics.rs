//! `/metrics` and `/metrics/resource`, in the text format of Prometheus.

use std::fmt::Write;

use http::{Response, StatusCode};
use serve::Body;

use super::{respond::with_type, stats};
use crate::{
    context::Context,
    pod::Phase,
    spec::{CONTAINER_NAME, PodId},
};

const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric with its samples.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(String, f64)>,
}

fn render(metrics: &[Metric], mut text: String) -> Response<Body> {
    for Metric { name, kind, help, samples } in metrics {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    with_type(StatusCode::OK, TYPE, Body::full(text.into_bytes()))
}

/// The kubelet's own figures.
pub(super) fn kubelet(context: &Context) -> Response<Body> {
    let pods = context.pods.lock();
    let mut states = [("created", 0.0), ("running", 0.0), ("exited", 0.0)];
    for container in pods.values().flat_map(|state| &state.containers) {
        let slot = match container.phase {
            Phase::Waiting(_) | Phase::Pulling | Phase::Pulled(_) | Phase::Starting(_) => 0,
            Phase::Running(_) => 1,
            Phase::Exited(_) => 2,
        };
        states[slot].1 += 1.0;
    }
    let running =
        pods.values().filter(|s| s.containers.iter().any(|c| c.running().is_some())).count();
    render(
        &[
            Metric {
                name: "kubelet_node_name",
                kind: "gauge",
                help: "The node's name. The count is always 1.",
                samples: vec![(format!("{{node=\"{}\"}}", context.options.node_name), 1.0)],
            },
            Metric {
                name: "kubelet_running_pods",
                kind: "gauge",
                help: "Number of pods that have a running container.",
                samples: vec![(String::new(), running as f64)],
            },
            Metric {
                name: "kubelet_running_containers",
                kind: "gauge",
                help: "Number of containers by state.",
                samples: states
                    .iter()
                    .map(|(s, n)| (format!("{{container_state=\"{s}\"}}"), *n))
                    .collect(),
            },
        ],
        (context.others)(),
    )
}

/// Use of resources, as autoscalers read it.
pub(super) async fn resource(context: &Context) -> Response<Body> {
    let by_id = stats::containers(context).await;
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let (mut cpu, mut memory, mut start) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pod_cpu, mut pod_memory) = (Vec::new(), Vec::new());
    let states: Vec<_> = context.pods.lock().values().cloned().collect();
    for state in &states {
        let id = PodId::of(&state.pod);
        let pod = format!("namespace=\"{}\",pod=\"{}\"", id.namespace, id.name);
        for running in state.containers.iter().filter_map(|c| c.running()) {
            let Some(s) = by_id.get(&running.id) else { continue };
            let name = s
                .attributes
                .as_ref()
                .and_then(|a| a.labels.get(CONTAINER_NAME))
                .cloned()
                .unwrap_or_default();
            let labels = format!("{{container=\"{name}\",{pod}}}");
            let used = s.cpu.as_ref().and_then(|c| c.usage_core_nano_seconds.as_ref());
            let set = s.memory.as_ref().and_then(|m| m.working_set_bytes.as_ref());
            cpu.push((labels.clone(), seconds(stats::value(used))));
            memory.push((labels.clone(), stats::value(set) as f64));
            start.push((labels, running.started_at.as_second() as f64));
        }
        let (used, _, set) = context.cgroups.usage(&context.cgroups.pod_path(&state.pod));
        pod_cpu.push((format!("{{{pod}}}"), seconds(used)));
        pod_memory.push((format!("{{{pod}}}"), set as f64));
    }
    let (used, _, set) = context.cgroups.usage("/");
    let metric = |name, kind, help, samples| Metric { name, kind, help, samples };
    render(
        &[
            metric(
                "container_cpu_usage_seconds_total",
                "counter",
                "CPU time used by a container, in core-seconds",
                cpu,
            ),
            metric(
                "container_memory_working_set_bytes",
                "gauge",
                "Working set of a container, in bytes",
                memory,
            ),
            metric(
                "container_start_time_seconds",
                "gauge",
                "Start of a container, in seconds since 1970",
                start,
            ),
            metric(
                "node_cpu_usage_seconds_total",
                "counter",
                "CPU time used by the node, in core-seconds",
                vec![(String::new(), seconds(used))],
            ),
            metric(
                "node_memory_working_set_bytes",
                "gauge",
                "Working set of the node, in bytes",
                vec![(String::new(), set as f64)],
            ),
            metric(
                "pod_cpu_usage_seconds_total",
                "counter",
                "CPU time used by a pod, in core-seconds",
                pod_cpu,
            ),
            metric(
                "pod_memory_working_set_bytes",
                "gauge",
                "Working set of a pod, in bytes",
                pod_memory,
            ),
            metric(
                "resource_scrape_error",
                "gauge",
                "1 if there was an error while getting the figures, 0 otherwise",
                vec![(String::new(), 0.0)],
            ),
        ],
        String::new(),
    )
}
