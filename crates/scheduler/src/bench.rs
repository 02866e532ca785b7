//! The algorithm by itself: many pods onto many nodes of a made-up cluster, no API, no binding.
//! Used by the benchmark; not part of the scheduler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::algorithm::{Algorithm, Decision};
use crate::cluster::Cluster;
use crate::node::NodeFacts;
use crate::plugins::ALL;
use crate::pod::{PodInfo, PodKey, Wants};
use crate::resources::Resources;

/// What came out of a run.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Pods that got a node.
    pub placed: usize,
    /// Pods that got none.
    pub unplaced: usize,
    /// Time for all decisions and for assuming them.
    pub took: Duration,
}

impl Throughput {
    /// Decisions a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub fn per_second(&self) -> f64 {
        (self.placed + self.unplaced) as f64 / self.took.as_secs_f64()
    }
}

/// Schedules `pods` small pods on `nodes` nodes of 4 processors, 32 GiB and 110 pods each, the
/// figures of the reference benchmark.
#[must_use]
pub fn algorithm(nodes: usize, pods: usize) -> Throughput {
    let mut cluster = Cluster::default();
    for index in 0..nodes {
        let mut facts = NodeFacts {
            name: format!("node-{index}").into(),
            allocatable: Resources {
                cpu: 4000,
                memory: 32 << 30,
                ephemeral_storage: 100 << 30,
                other: Vec::new(),
            },
            max_pods: 110,
            ..NodeFacts::default()
        };
        let labels = [
            ("kubernetes.io/hostname", format!("node-{index}")),
            ("zone", (index % 3).to_string()),
        ];
        facts.labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        cluster.set_node(facts);
    }
    let requests = Resources { cpu: 100, memory: 500 << 20, ..Resources::default() };
    let wants = Wants { assumed: requests.clone(), requests, ..Wants::default() };
    let waiting: Vec<Arc<PodInfo>> = (0..pods)
        .map(|index| {
            Arc::new(PodInfo {
                key: PodKey::new("default", &format!("pod-{index}")),
                uid: index.to_string().into(),
                generation: None,
                node: None,
                finished: false,
                deleting: false,
                scheduler: "default-scheduler".into(),
                unscheduled: None,
                wants: wants.clone(),
            })
        })
        .collect();
    let mut algorithm = Algorithm::new(&ALL, 1);
    let mut placed = 0;
    let start = Instant::now();
    for pod in waiting {
        if let Decision::Node(at) = algorithm.decide(&pod, cluster.snapshot()) {
            let node = Arc::clone(&cluster.snapshot().nodes()[at].facts.name);
            cluster.place(pod, &node, true);
            placed += 1;
        }
    }
    Throughput { placed, unplaced: pods - placed, took: start.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::algorithm;

    #[test]
    fn fills_a_cluster_to_the_last_pod() {
        // 40 pods of 100 m fit a node of 4 processors.
        let run = algorithm(3, 130);
        assert_eq!((run.placed, run.unplaced), (120, 10));
    }

    /// Not a test but a measurement: `cargo test --release -p skiff-scheduler -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn five_thousand_nodes() {
        let run = algorithm(5000, 20_000);
        println!("{run:?}: {:.0} pods/s", run.per_second());
    }
}
