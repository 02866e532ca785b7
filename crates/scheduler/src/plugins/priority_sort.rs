//! Higher priority first, then whoever waits longer.

use std::cmp::Reverse;
use std::time::Instant;

use crate::plugin::Order;
use crate::pod::PodInfo;

/// See the file.
pub struct PrioritySort;

impl Order for PrioritySort {
    type Key = (Reverse<i32>, Instant);

    fn key(pod: &PodInfo, since: Instant) -> Self::Key {
        (Reverse(pod.wants.priority), since)
    }
}
