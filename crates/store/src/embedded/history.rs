//! How much of the past the log on disk holds, and from where on it is too
//! much. Pure: the clock is an argument.

use std::{collections::VecDeque, time::Duration};

/// A stretch of revisions that is forgotten as one.
const BUCKET_BYTES: u64 = 1 << 20;
const BUCKET_MILLIS: u64 = 60_000;

#[derive(Debug)]
struct Bucket {
    /// Highest revision in it.
    last: u64,
    /// Time of its first change, in milliseconds since the epoch.
    time: u64,
    /// Bytes on disk that could be freed if this stretch were forgotten.
    bytes: u64,
}

/// Superseded bytes in the log, by revision.
#[derive(Debug)]
pub(super) struct History {
    buckets: VecDeque<Bucket>,
    bytes: u64,
    max_bytes: u64,
    max_age: Duration,
}

impl History {
    pub(super) fn new(max_bytes: u64, max_age: Duration) -> Self {
        Self { buckets: VecDeque::new(), bytes: 0, max_bytes, max_age }
    }

    /// Notes that the change of `revision` at `time` superseded `bytes`.
    pub(super) fn add(&mut self, revision: u64, time: u64, bytes: u64) {
        self.bytes += bytes;
        match self.buckets.back_mut() {
            Some(bucket)
                if bucket.last == revision
                    || (bucket.bytes < BUCKET_BYTES
                        && time.saturating_sub(bucket.time) < BUCKET_MILLIS) =>
            {
                bucket.last = revision;
                bucket.bytes += bytes;
            }
            _ => self.buckets.push_back(Bucket { last: revision, time, bytes }),
        }
    }

    /// Forgets what is over the limits; returns the highest revision forgotten.
    pub(super) fn forget(&mut self, now: u64) -> Option<u64> {
        let age = u64::try_from(self.max_age.as_millis()).unwrap_or(u64::MAX);
        let mut horizon = None;
        while let Some(first) = self.buckets.front() {
            if self.bytes <= self.max_bytes && now.saturating_sub(first.time) <= age {
                break;
            }
            horizon = Some(first.last);
            self.pop();
        }
        horizon
    }

    /// Forgets everything up to and including `revision`.
    pub(super) fn forget_to(&mut self, revision: u64) {
        while self.buckets.front().is_some_and(|first| first.last <= revision) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(first) = self.buckets.pop_front() {
            self.bytes -= first.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_by_size_and_by_age() {
        let mut history = History::new(3 << 20, Duration::from_secs(3600));
        for revision in 1..=5 {
            history.add(revision, 1000, 1 << 20);
        }
        assert_eq!(history.forget(1000), Some(2));
        assert_eq!(history.forget(1000), None);
        assert_eq!(history.forget(3_601_001), Some(5));
        history.add(6, 0, 10);
        history.forget_to(6);
        assert_eq!(history.forget(u64::MAX), None);
    }
}
