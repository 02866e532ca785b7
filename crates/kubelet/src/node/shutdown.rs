//! Graceful shutdown of the node: the machine goes down, so pods are ended in the order of their
//! priorities, the least important first, each group with a time of its own (KEP-2000, KEP-2712).
//!
//! Knows nothing of where the news of the shutdown comes from.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use client::Select;
use k8s_openapi::api::core::v1 as api;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    actor,
    context::Context,
    kubelet::Order,
    options::ShutdownGrace,
    pod::{Event, PodState},
};

/// The reason in the status of pods that were ended (upstream's).
const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// How long the last statuses may take to reach the API.
const STATUSES: Duration = Duration::from_secs(5);
/// Until what has been killed is gone.
const KILL: Duration = Duration::from_secs(2);

/// Pods that end together.
#[derive(Debug, PartialEq)]
struct Group {
    grace: Duration,
    uids: BTreeSet<String>,
}

/// Sorts pods, told by uid and priority, into groups: the last to begin at or below the pod's
/// priority, or else the first. Groups without pods take no time.
fn groups(times: &[ShutdownGrace], pods: impl Iterator<Item = (String, i32)>) -> Vec<Group> {
    let mut times = times.to_vec();
    times.sort_by_key(|time| time.priority);
    if times.is_empty() {
        times.push(ShutdownGrace { priority: 0, grace: Duration::ZERO });
    }
    let mut groups: Vec<Group> =
        times.iter().map(|time| Group { grace: time.grace, uids: BTreeSet::new() }).collect();
    for (uid, priority) in pods {
        let index = times.partition_point(|time| time.priority <= priority).saturating_sub(1);
        groups[index].uids.insert(uid);
    }
    groups.retain(|group| !group.uids.is_empty());
    groups
}

/// Ends all pods; returns when they have ended, or their time is over, and the API knows.
pub(crate) async fn run(context: Arc<Context>, orders: mpsc::Sender<Order>) {
    context.about_node(false, "Shutdown", "Shutdown manager detected shutdown event");
    let running: Vec<Arc<PodState>> = occupying(&context);
    let all: BTreeSet<String> = running.iter().map(|state| uid(&state.pod)).collect();
    let priority = |pod: &api::Pod| pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    let pods = running.iter().map(|state| (uid(&state.pod), priority(&state.pod)));
    let groups = groups(&context.options.shutdown_grace, pods);
    info!(pods = all.len(), groups = groups.len(), "the machine goes down: ending all pods");
    for group in groups {
        end(&context, &orders, &group).await;
    }
    if timeout(STATUSES, told(&context, &all)).await.is_err() {
        warn!("the API has not heard the end of all pods");
    }
}

async fn end(context: &Context, orders: &mpsc::Sender<Order>, group: &Group) {
    for uid in &group.uids {
        let event = Event::End { reason: REASON, message: MESSAGE, grace: group.grace };
        let _ = orders.send(Order { uid: uid.clone(), event }).await;
    }
    let since = Instant::now();
    loop {
        let left = occupying(context);
        if !left.iter().any(|state| group.uids.contains(&uid(&state.pod))) {
            return;
        }
        if since.elapsed() > group.grace + KILL {
            return warn!(grace = ?group.grace, "pods have not ended in their time");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the API has the final status of all these pods.
async fn told(context: &Context, uids: &BTreeSet<String>) {
    let select = Select::all().fields(format!("spec.nodeName={}", context.options.node_name));
    let pods = context.caches.selected::<api::Pod>(select);
    let mut changes = pods.subscribe();
    pods.ready().await;
    loop {
        let open = pods.list().iter().any(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            uids.contains(&uid(pod)) && !matches!(phase, Some("Failed" | "Succeeded"))
        });
        if !open || changes.next().await.is_none() {
            return;
        }
    }
}

fn occupying(context: &Context) -> Vec<Arc<PodState>> {
    let pods = context.pods.lock();
    pods.values().filter(|state| actor::occupies(state)).cloned().collect()
}

fn uid(pod: &api::Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(times: &[(i32, u64)], pods: &[(&str, i32)]) -> Vec<(u64, Vec<String>)> {
        let times: Vec<_> = times
            .iter()
            .map(|(priority, grace)| ShutdownGrace {
                priority: *priority,
                grace: Duration::from_secs(*grace),
            })
            .collect();
        groups(&times, pods.iter().map(|(uid, priority)| ((*uid).to_owned(), *priority)))
            .into_iter()
            .map(|group| (group.grace.as_secs(), group.uids.into_iter().collect()))
            .collect()
    }

    #[test]
    fn pods_end_from_the_least_important_up() {
        let times = [(2_000_000_000, 10), (0, 20), (1000, 5)];
        let pods = [("critical", 2_000_001_000), ("web", 0), ("cheap", -5), ("db", 1500)];
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            check(&times, &pods),
            [(20, text(&["cheap", "web"])), (5, text(&["db"])), (10, text(&["critical"]))]
        );
        assert_eq!(check(&times, &[("db", 1000)]), [(5, text(&["db"]))], "no empty groups");
        assert_eq!(check(&[], &[("a", 1), ("b", 2)]), [(0, text(&["a", "b"]))]);
    }
}
