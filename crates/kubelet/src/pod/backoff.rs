//! Exponential back-off of restarts and pulls: 10 s, doubling to 5 min, forgotten after 10 quiet minutes (upstream's
//! figures). Pure; time is given.

use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(300);
/// Quiet time after which the next failure counts as the first again.
const FORGET: Duration = Duration::from_secs(600);

/// How long to wait before trying again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BackOff {
    current: Option<(Duration, Timestamp)>,
}

impl BackOff {
    /// The moment until which to wait after a failure at `failed`, and the length of the wait; `None` when no wait is
    /// due. The first failure is tried again at once.
    pub(crate) fn wait(&self, failed: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let (length, since) = self.current?;
        if elapsed(since, failed) > FORGET {
            return None;
        }
        let until = failed.checked_add(length).ok()?;
        (now < until).then_some((until, length))
    }

    /// Notes that a failure at `failed` is tried again now; the next wait is longer.
    pub(crate) fn advance(&mut self, failed: Timestamp, now: Timestamp) {
        let length = match self.current {
            Some((length, since)) if elapsed(since, failed) <= FORGET => (length * 2).min(MOST),
            _ => FIRST,
        };
        self.current = Some((length, now));
    }

    /// Forgets all failures.
    pub(crate) fn reset(&mut self) {
        self.current = None;
    }
}

/// Time from `from` to `to`; zero if `to` is earlier.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn first_retry_is_immediate_then_doubles_to_five_minutes() {
        let mut back_off = BackOff::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = back_off.wait(at(now), at(now)).map_or(0, |(_, length)| length.as_secs());
            waits.push(wait);
            let failed = now;
            now += i64::try_from(wait).unwrap();
            assert_eq!(back_off.wait(at(failed), at(now)), None);
            back_off.advance(at(failed), at(now));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_forget() {
        let mut back_off = BackOff::default();
        back_off.advance(at(0), at(0));
        back_off.advance(at(10), at(10));
        assert_eq!(back_off.wait(at(611), at(611)), None);
        back_off.advance(at(611), at(611));
        assert_eq!(back_off.wait(at(612), at(612)).unwrap().1, FIRST);
    }
}
