//! Growing, jittered delays between attempts. Knows nothing of what is attempted.

use std::time::Duration;

/// Exponential delays with jitter.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays starting at `first`, doubling up to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next delay: the nominal one plus up to half of it at random.
    pub(crate) fn next(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.most);
        nominal.mul_f64(1.0 + rand::random::<f64>() / 2.0)
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for nominal in [100, 200, 400, 400] {
            let delay = backoff.next().as_millis();
            assert!((nominal..=nominal * 3 / 2).contains(&delay), "{delay} for {nominal}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(150));
    }
}
