//! A histogram that is counted without locks.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts durations in buckets whose upper bounds, in seconds, are `BOUNDS`.
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    nanos: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn new(bounds: &'static [f64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, buckets, beyond: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound);
        bucket.map_or(&self.beyond, |at| &self.buckets[at]).fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        let counted: u64 = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum();
        counted + self.beyond.load(Relaxed)
    }

    /// All of them together.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }

    /// Writes the series `name{labels}`, with `more` that took no time at all beside those observed. Nothing for
    /// one that counted nothing.
    pub(crate) fn write(&self, out: &mut String, name: &str, labels: &str, more: u64) {
        let mut counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let first = counts.next().map(|count| count + more);
        let counts = first.into_iter().chain(counts).chain([self.beyond.load(Relaxed)]);
        let sum = self.total().as_secs_f64();
        super::buckets::write(out, (name, labels), self.bounds, counts, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        static BOUNDS: [f64; 2] = [0.1, 1.0];
        let histogram = Histogram::new(&BOUNDS);
        for millis in [50, 500, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        histogram.write(&mut text, "x", "a=\"b\"", 2);
        assert_eq!(
            text,
            "x_bucket{a=\"b\",le=\"0.1\"} 3\nx_bucket{a=\"b\",le=\"1\"} 4\nx_bucket{a=\"b\",le=\"+Inf\"} 5\n\
             x_sum{a=\"b\"} 5.55\nx_count{a=\"b\"} 5\n"
        );
    }
}
