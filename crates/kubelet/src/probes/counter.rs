//! Thresholds: how many outcomes in a row change a verdict. Pure.

use k8s_openapi::api::core::v1 as api;

/// Counts outcomes of one probe.
#[derive(Debug)]
pub(super) struct Counter {
    success_threshold: i32,
    failure_threshold: i32,
    /// The verdict that was reported last; `None`: none yet, so that the first one is always reported.
    verdict: Option<bool>,
    last: Option<bool>,
    run: i32,
}

impl Counter {
    /// `known` is what holds already: a readiness taken over from before is not reported again.
    pub(super) fn new(probe: &api::Probe, known: bool) -> Self {
        let threshold = |value: Option<i32>, default| value.filter(|v| *v > 0).unwrap_or(default);
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            verdict: known.then_some(true),
            last: None,
            run: 0,
        }
    }

    /// Takes an outcome; a changed verdict comes back.
    pub(super) fn count(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(known: bool, thresholds: (i32, i32), outcomes: &str, expected: &str) {
        let probe = api::Probe {
            success_threshold: Some(thresholds.0),
            failure_threshold: Some(thresholds.1),
            ..Default::default()
        };
        let mut counter = Counter::new(&probe, known);
        let seen: String = outcomes
            .chars()
            .map(|c| match counter.count(c == '+') {
                Some(true) => '+',
                Some(false) => '-',
                None => '.',
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn verdicts_change_at_thresholds_only() {
        check(false, (1, 3), "+---+", "+..-+");
        check(false, (2, 2), "+-++--", "...+.-");
        check(true, (1, 3), "++--+---", ".......-");
        check(false, (1, 3), "---", "..-");
    }
}
