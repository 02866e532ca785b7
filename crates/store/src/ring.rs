//! The events of the last minutes, for watches that start in the past and for
//! reads of older revisions. Pure: the clock is an argument.

use std::{sync::Arc, time::Duration};

use imbl::Vector;

use crate::{Event, Revision};

/// How much of the past is kept in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Memory that may be held by nothing but old events, in bytes.
    pub(crate) bytes: usize,
    /// Age beyond which events go, when newer ones come.
    pub(crate) age: Duration,
}

impl Default for Limits {
    /// 64 MB and five minutes, as clients of Kubernetes expect at least.
    fn default() -> Self {
        Self { bytes: 64 << 20, age: Duration::from_secs(300) }
    }
}

#[derive(Debug)]
struct Entry<N> {
    /// Milliseconds since the epoch.
    time: u64,
    event: Arc<Event<N>>,
}

impl<N> Clone for Entry<N> {
    fn clone(&self) -> Self {
        Self { time: self.time, event: Arc::clone(&self.event) }
    }
}

/// Recent events in revision order.
#[derive(Debug)]
pub(crate) struct Ring<N> {
    entries: Vector<Entry<N>>,
    bytes: usize,
    limits: Limits,
    /// Events up to here are gone.
    floor: u64,
    /// Revisions strictly between the two were given out and then lost.
    gaps: Vec<(u64, u64)>,
}

impl<N> Event<N> {
    /// Memory held by a queue that holds this event, in bytes, roughly.
    pub(crate) fn weight(&self) -> usize {
        let size = |record: &Option<Arc<crate::Record<N>>>| {
            record.as_ref().map_or(0, |record| record.value.len() + 64 + size_of::<N>())
        };
        128 + self.key.len() + size(&self.previous) + size(&self.current)
    }

    /// Memory held by the ring alone: the new record is the map's, or the next
    /// event's previous one.
    fn past_weight(&self) -> usize {
        128 + self
            .previous
            .as_ref()
            .map_or(0, |record| record.value.len() + 64 + size_of::<N>() + self.key.len())
    }
}

impl<N> Ring<N> {
    /// An empty ring, for which everything up to `floor` is gone.
    pub(crate) fn new(limits: Limits, floor: Revision, gaps: Vec<(u64, u64)>) -> Self {
        Self { entries: Vector::new(), bytes: 0, limits, floor: floor.0, gaps }
    }

    pub(crate) fn push(&mut self, event: Arc<Event<N>>, now: u64) {
        self.bytes += event.past_weight();
        self.entries.push_back(Entry { time: now, event });
    }

    /// Drops what is over the limits at `now`, in milliseconds.
    pub(crate) fn trim(&mut self, now: u64) {
        let oldest = now.saturating_sub(u64::try_from(self.limits.age.as_millis()).unwrap_or(0));
        while let Some(first) = self.entries.front() {
            if self.bytes <= self.limits.bytes && first.time >= oldest {
                break;
            }
            self.pop();
        }
        self.forget_gaps();
    }

    /// Drops everything up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.entries.front().is_some_and(|first| first.event.revision <= revision) {
            self.pop();
        }
        self.floor = self.floor.max(revision.0);
        self.forget_gaps();
    }

    fn pop(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            self.bytes -= first.event.past_weight();
            self.floor = self.floor.max(first.event.revision.0);
        }
    }

    fn forget_gaps(&mut self) {
        let floor = self.floor;
        self.gaps.retain(|(_, high)| *high > floor);
    }

    /// Notes that revisions strictly between the two were given out and lost.
    pub(crate) fn add_gap(&mut self, low: u64, high: u64) {
        self.gaps.push((low, high));
    }

    /// The oldest revision after which everything is known.
    pub(crate) fn floor(&self) -> Revision {
        Revision(self.floor)
    }

    /// Memory held, in bytes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all that followed `revision` is known. (The end of a gap is
    /// known: it is what the store called itself when it came back.)
    pub(crate) fn covers(&self, revision: Revision) -> bool {
        revision.0 >= self.floor
            && !self.gaps.iter().any(|(low, high)| (low + 1..*high).contains(&revision.0))
    }

    /// A cheap copy that can be walked without the ring's lock.
    pub(crate) fn after(&self, revision: Revision) -> After<N> {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.entries[middle].event.revision <= revision {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        After { entries: self.entries.clone(), start: low }
    }
}

/// The events after some revision.
pub(crate) struct After<N> {
    entries: Vector<Entry<N>>,
    start: usize,
}

impl<N> After<N> {
    /// In revision order; reversible.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Event<N>>> {
        let focus = self.entries.len() - self.start;
        self.entries.iter().rev().take(focus).rev().map(|entry| &entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Record};

    fn event(revision: u64, size: usize) -> Arc<Event<()>> {
        let record = Arc::new(Record {
            value: vec![0; size].into(),
            created: Revision(revision - 1),
            modified: Revision(revision - 1),
            note: (),
        });
        Arc::new(Event {
            revision: Revision(revision),
            key: Key::new("/k"),
            previous: Some(record),
            current: None,
        })
    }

    #[test]
    fn keeps_to_its_limits_and_says_what_it_covers() {
        let limits = Limits { bytes: 10_000, age: Duration::from_millis(1000) };
        let mut ring = Ring::new(limits, Revision(4), vec![(6, 9)]);
        assert!(!ring.covers(Revision(3)) && ring.covers(Revision(4)));
        ring.push(event(5, 10), 0);
        ring.push(event(6, 10), 500);
        ring.push(event(10, 10), 900);
        for (revision, covered) in [(5, true), (6, true), (7, false), (8, false), (9, true)] {
            assert_eq!(ring.covers(Revision(revision)), covered, "{revision}");
        }
        let after: Vec<u64> = ring.after(Revision(5)).iter().map(|e| e.revision.0).collect();
        assert_eq!(after, [6, 10]);
        let back: Vec<u64> = ring.after(Revision(4)).iter().rev().map(|e| e.revision.0).collect();
        assert_eq!(back, [10, 6, 5]);

        ring.trim(1200);
        assert_eq!(ring.floor(), Revision(5));
        ring.push(event(11, 9_700), 1200);
        ring.trim(1200);
        assert_eq!(ring.floor(), Revision(10), "the newest stays while it fits");
        ring.compact(Revision(20));
        assert_eq!((ring.floor(), ring.bytes()), (Revision(20), 0));
    }
}
