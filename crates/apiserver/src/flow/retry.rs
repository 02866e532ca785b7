//! When clients that were refused should come back: later, the more of them there are. Pure.

/// The longest delay, in seconds.
const LONGEST: u64 = 32;

/// The delay of one level: doubled when many are refused within it, shortened when few are.
#[derive(Debug)]
pub(super) struct Retry {
    after: u64,
    since: u64,
    refused: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { after: 1, since: 0, refused: 0 }
    }
}

impl Retry {
    /// Counts a refusal at `now`, in seconds, and says when to come back.
    pub(super) fn refuse(&mut self, now: u64) -> u64 {
        if now.saturating_sub(self.since) >= self.after {
            if self.refused >= 3 * self.after {
                self.after = (self.after * 2).min(LONGEST);
            } else if self.refused < self.after {
                self.after = (self.after - 1).max(1);
            }
            (self.since, self.refused) = (now, 0);
        }
        self.refused += 1;
        self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_follows_the_crowd() {
        let mut retry = Retry::default();
        assert_eq!(retry.refuse(100), 1);
        for second in 100..200 {
            for _ in 0..200 {
                retry.refuse(second);
            }
        }
        assert_eq!(retry.refuse(200), LONGEST);
        let mut now = 200;
        for _ in 0..100 {
            now += 60;
            retry.refuse(now);
        }
        assert_eq!(retry.refuse(now + 60), 1);
    }
}
