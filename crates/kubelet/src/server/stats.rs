//! `/stats/summary`: use of CPU, memory and disk by node, pods and containers.

use std::collections::HashMap;

use cri::v1;
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use serve::Body;

use super::respond::json as answer;
use crate::{
    context::Context,
    spec::{CONTAINER_NAME, NODE, PodId},
};

/// Statistics of running containers on this node, by the runtime's id.
pub(super) async fn containers(context: &Context) -> HashMap<String, v1::ContainerStats> {
    let mine = HashMap::from([(NODE.to_owned(), context.options.node_name.clone())]);
    let filter = v1::ContainerStatsFilter { label_selector: mine, ..Default::default() };
    let stats = context.runtime.container_stats(filter).await.unwrap_or_default();
    stats.into_iter().filter_map(|s| Some((s.attributes.as_ref()?.id.clone(), s))).collect()
}

pub(super) fn value(value: Option<&v1::UInt64Value>) -> u64 {
    value.map_or(0, |v| v.value)
}

/// The document.
pub(super) async fn summary(context: &Context) -> Response<Body> {
    let stats = containers(context).await;
    let now = meta::time::seconds(Timestamp::now());
    let states: Vec<_> = context.pods.lock().values().cloned().collect();
    let mut pods = Vec::new();
    for state in states {
        let id = PodId::of(&state.pod);
        let mine = state.containers.iter().filter_map(|c| stats.get(&c.running()?.id));
        let containers: Vec<Value> = mine.map(|s| container(s, &now)).collect();
        let (cpu, usage, working_set) =
            context.cgroups.usage(&context.cgroups.pod_path(&state.pod));
        pods.push(json!({
            "podRef": {"name": id.name, "namespace": id.namespace, "uid": id.uid},
            "startTime": meta::time::seconds(state.start_time),
            "containers": containers,
            "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "usageBytes": usage, "workingSetBytes": working_set},
        }));
    }
    let (cpu, usage, working_set) = context.cgroups.usage("/");
    answer(&json!({
        "node": {
            "nodeName": context.options.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
            "memory": {
                "time": now,
                "usageBytes": usage,
                "workingSetBytes": working_set,
                "availableBytes": u64::try_from(context.memory).unwrap_or(0).saturating_sub(working_set),
            },
        },
        "pods": pods,
    }))
}

fn container(stats: &v1::ContainerStats, now: &str) -> Value {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    let layer = stats.writable_layer.clone().unwrap_or_default();
    json!({
        "name": attributes.labels.get(CONTAINER_NAME),
        "cpu": {"time": now, "usageCoreNanoSeconds": value(cpu.usage_core_nano_seconds.as_ref())},
        "memory": {"time": now, "workingSetBytes": value(memory.working_set_bytes.as_ref())},
        "rootfs": {
            "time": now,
            "usedBytes": value(layer.used_bytes.as_ref()),
            "inodesUsed": value(layer.inodes_used.as_ref()),
        },
    })
}
