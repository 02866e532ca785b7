//! Writes under way: how the feed tells a writer that its write took place, even
//! if the answer to it was lost. Pure bookkeeping.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::coding::WriteId;
use crate::Revision;

/// What is known about a write under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// No change of it was seen.
    None,
    /// It took place.
    At(Revision),
    /// Changes were missed: it may have taken place unseen.
    Unknown,
}

/// All writes under way of this process.
pub(super) struct Pending {
    /// Differs between processes, and between stores opened by one.
    process: u64,
    counter: AtomicU64,
    writes: Mutex<HashMap<WriteId, Sighting>>,
}

impl Pending {
    pub(super) fn new(process: u64) -> Self {
        Self { process, counter: AtomicU64::new(0), writes: Mutex::default() }
    }

    /// Begins to look out for a write.
    pub(super) fn register(self: &Arc<Self>) -> Ticket {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let id = WriteId(u128::from(self.process) << 64 | u128::from(counter));
        self.writes.lock().insert(id, Sighting::None);
        Ticket { id, pending: Arc::clone(self) }
    }

    /// Notes that a change with this id was seen.
    pub(super) fn saw(&self, id: WriteId, revision: Revision) {
        if (id.0 >> 64) as u64 != self.process {
            return;
        }
        if let Some(sighting) = self.writes.lock().get_mut(&id) {
            *sighting = Sighting::At(revision);
        }
    }

    /// Notes that changes were missed.
    pub(super) fn missed(&self) {
        for sighting in self.writes.lock().values_mut() {
            if *sighting == Sighting::None {
                *sighting = Sighting::Unknown;
            }
        }
    }
}

/// Looks out for one write; dropping it ends that.
pub(super) struct Ticket {
    pub(super) id: WriteId,
    pending: Arc<Pending>,
}

impl Ticket {
    pub(super) fn sighting(&self) -> Sighting {
        self.pending.writes.lock().get(&self.id).copied().unwrap_or(Sighting::Unknown)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.writes.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_seen_once_it_took_place() {
        let pending = Arc::new(Pending::new(9));
        let (first, second) = (pending.register(), pending.register());
        pending.saw(first.id, Revision(4));
        pending.saw(WriteId(1), Revision(5));
        assert_eq!(first.sighting(), Sighting::At(Revision(4)));
        assert_eq!(second.sighting(), Sighting::None);
        pending.missed();
        assert_eq!(first.sighting(), Sighting::At(Revision(4)));
        assert_eq!(second.sighting(), Sighting::Unknown);
        drop((first, second));
        assert!(pending.writes.lock().is_empty());
    }
}
