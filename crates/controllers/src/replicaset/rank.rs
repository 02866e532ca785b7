//! In which order pods go when there are too many: the least useful first, in upstream's order
//! (unassigned, not running, not ready, cheaper by annotation, on fuller nodes, ready for a
//! shorter time, restarted more often, younger).

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::objects::{annotation, is_active, is_ready, name, phase, ready_since, uid};

/// Annotation by which users prefer some pods to go first (KEP-2255).
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `number` pods of `active` that go first. `related` are the pods of all sets of the same
/// owner: they say how full a node is.
pub(super) fn most_expendable(
    active: &[Arc<Pod>],
    related: &[Arc<Pod>],
    number: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if number == 0 || number >= active.len() {
        return active.iter().take(number).cloned().collect();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<_> = active
        .iter()
        .map(|pod| (Rank::of(pod, on_node.get(node(pod)).copied().unwrap_or(0), now), pod))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().take(number).map(|(_, pod)| pod.clone()).collect()
}

/// A pod's place: the lower, the sooner it goes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowd: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<(i32, i32)>,
    exists_for: Age,
    uid: String,
    name: String,
}

impl Rank {
    fn of(pod: &Pod, crowd: usize, now: Timestamp) -> Self {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let ready = is_ready(pod);
        Self {
            assigned: !node(pod).is_empty(),
            phase: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready,
            cost: annotation(&pod.metadata, DELETION_COST)
                .and_then(|cost| cost.parse().ok())
                .unwrap_or(0),
            crowd: Reverse(crowd),
            ready_for: if ready { Age::since(ready_since(pod), now) } else { Age(0) },
            restarts: Reverse(restarts(pod)),
            exists_for: Age::since(created, now),
            uid: uid(&pod.metadata).to_owned(),
            name: name(&pod.metadata).to_owned(),
        }
    }
}

/// A duration in powers of two, so that pods of about the same age count as equal and are not
/// removed strictly youngest first (KEP-2185). Unknown is younger than everything.
#[derive(PartialEq, Eq)]
struct Age(i64);

impl Age {
    fn since(then: Option<Timestamp>, now: Timestamp) -> Self {
        let Some(then) = then else { return Self(-2) };
        let nanoseconds = now.duration_since(then).as_nanos();
        let power = u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2);
        Self(power.map_or(-1, i64::from))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The most restarts of a container, and of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |statuses: Option<&Vec<ContainerStatus>>| {
        statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
    };
    let Some(status) = &pod.status else { return (0, 0) };
    (most(status.container_statuses.as_ref()), most(status.init_container_statuses.as_ref()))
}
