//! Protobuf of stored objects, kept while it is used. One bound for everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use registry::{Identity, Row};

/// The most that is kept, in bytes.
const MOST: usize = 16 << 20;

/// What an entry costs beside its bytes, about.
const ENTRY: usize = 200;

/// Which version of which object, as which row serves it; rows live as long as the cache.
type Id = (usize, Identity);

/// The cache; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Cache(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    found: HashMap<Id, (u64, Bytes)>,
    /// Ids by when they were used last.
    used: BTreeMap<u64, Id>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    /// What is kept of an object, or what `make` makes of it, which is kept then.
    pub(super) fn get_or_make<E>(
        &self,
        row: &Row,
        identity: Identity,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let id = (std::ptr::from_ref(row).addr(), identity);
        if let Some(found) = self.0.lock().get(&id) {
            return Ok(found);
        }
        let made = make()?;
        self.0.lock().keep(id, made.clone());
        Ok(made)
    }

    /// What is kept of an object.
    pub(super) fn get(&self, row: &Row, identity: Identity) -> Option<Bytes> {
        self.0.lock().get(&(std::ptr::from_ref(row).addr(), identity))
    }
}

impl Entries {
    fn get(&mut self, id: &Id) -> Option<Bytes> {
        self.clock += 1;
        let (used, bytes) = self.found.get_mut(id)?;
        if let Some(id) = self.used.remove(used) {
            self.used.insert(self.clock, id);
        }
        *used = self.clock;
        Some(bytes.clone())
    }

    fn keep(&mut self, id: Id, bytes: Bytes) {
        let size = bytes.len() + ENTRY;
        if size > MOST / 4 || self.found.contains_key(&id) {
            return;
        }
        self.clock += 1;
        self.bytes += size;
        self.used.insert(self.clock, id.clone());
        self.found.insert(id, (self.clock, bytes));
        while self.bytes > MOST {
            let Some((_, oldest)) = self.used.pop_first() else { break };
            if let Some((_, bytes)) = self.found.remove(&oldest) {
                self.bytes -= bytes.len() + ENTRY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::Revision;

    fn id(revision: u64) -> Id {
        let identity =
            Identity { key: "/registry/a/b".to_owned().into(), revision: Revision(revision) };
        (0, identity)
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut entries = Entries::default();
        let bytes = Bytes::from(vec![0; MOST / 8]);
        for revision in 0..7 {
            entries.keep(id(revision), bytes.clone());
        }
        assert!(entries.get(&id(0)).is_some());
        for revision in 7..9 {
            entries.keep(id(revision), bytes.clone());
        }
        assert!(entries.bytes <= MOST);
        assert!(entries.get(&id(0)).is_some() && entries.get(&id(8)).is_some());
        assert!(entries.get(&id(1)).is_none() && entries.get(&id(2)).is_none());
        assert_eq!(entries.found.len(), entries.used.len());
    }

    #[test]
    fn one_object_does_not_drive_out_the_others() {
        let mut entries = Entries::default();
        entries.keep(id(1), Bytes::from(vec![0; MOST / 2]));
        assert_eq!((entries.found.len(), entries.bytes), (0, 0));
    }
}
