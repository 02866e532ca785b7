//! The runtime's metrics, named as upstream names those of its work queues.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

type Labels = [(&'static str, &'static str); 1];

/// Counts the work of all controllers, by name. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    depth: Family<Labels, Gauge>,
    runs: Family<[(&'static str, &'static str); 2], Counter>,
    retries: Family<Labels, Counter>,
    work: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            depth: Family::default(),
            runs: Family::default(),
            retries: Family::default(),
            work: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_1, 10.0, 6))
            }),
        }
    }
}

impl Metrics {
    /// Makes the metrics part of what `registry` exposes.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("workqueue_depth", "Keys waiting to be run", self.depth.clone());
        registry.register(
            "workqueue_retries",
            "Keys queued again by a failure",
            self.retries.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "Seconds that running a key takes",
            self.work.clone(),
        );
        registry.register("reconcile", "Runs of keys by their result", self.runs.clone());
    }

    pub(crate) fn set_depth(&self, name: &'static str, depth: usize) {
        self.depth.get_or_create(&[("name", name)]).set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    pub(crate) fn ran(&self, name: &'static str, result: &'static str, took: Duration) {
        self.runs.get_or_create(&[("controller", name), ("result", result)]).inc();
        self.work.get_or_create(&[("name", name)]).observe(took.as_secs_f64());
    }

    pub(crate) fn retried(&self, name: &'static str) {
        self.retries.get_or_create(&[("name", name)]).inc();
    }
}
