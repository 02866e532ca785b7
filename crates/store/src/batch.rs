//! Judging commits: guards and writes against a working copy of the map. Pure;
//! nothing that is decided here is visible until somebody publishes it.

use std::sync::Arc;

use crate::{
    CommitError, Committed, Event, Guard, Key, Record, Revision, Snapshot, Write, snapshot::Map,
};

/// The longest value that a store accepts, in bytes.
pub(crate) const MAX_VALUE: usize = 16 << 20;
/// The most writes that one commit may hold.
pub(crate) const MAX_WRITES: usize = 4096;

/// Refuses commits that break a limit, before they reach the queue.
pub(crate) fn check<N>(guards: &[Guard], writes: &[Write<N>]) -> Result<(), CommitError<N>> {
    let keys = guards.iter().map(|guard| &guard.key).chain(writes.iter().map(Write::key));
    for key in keys {
        if key.is_empty() || key.len() > Key::MAX_LENGTH {
            let limit = Key::MAX_LENGTH;
            return Err(CommitError::Invalid(format!("a key must have 1 to {limit} bytes")));
        }
    }
    if writes.len() > MAX_WRITES || guards.len() > MAX_WRITES {
        return Err(CommitError::Invalid(format!("a commit holds at most {MAX_WRITES} writes")));
    }
    for write in writes {
        if let Write::Put { key, value, .. } = write
            && value.len() > MAX_VALUE
        {
            let size = value.len();
            return Err(CommitError::Invalid(format!(
                "the value of {key} has {size} bytes, more than {MAX_VALUE}"
            )));
        }
    }
    if writes.len() > 1 {
        let mut keys: Vec<&Key> = writes.iter().map(Write::key).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CommitError::Invalid(format!("{} is written twice", pair[0])));
        }
    }
    Ok(())
}

/// Commits that become visible together.
pub(crate) struct Batch<N> {
    map: Map<N>,
    last: u64,
    events: Vec<Arc<Event<N>>>,
}

impl<N> Batch<N> {
    /// A batch on top of `snapshot`; its first commit gets the revision after
    /// `last`, which is at least the snapshot's.
    pub(crate) fn new(snapshot: &Snapshot<N>, last: u64) -> Self {
        Self { map: snapshot.map().clone(), last, events: Vec::new() }
    }

    /// Applies one commit on top of the earlier ones, or nothing of it.
    pub(crate) fn apply(
        &mut self,
        guards: &[Guard],
        writes: Vec<Write<N>>,
    ) -> Result<Committed<N>, CommitError<N>> {
        for guard in guards {
            let current = self.map.get(guard.key.as_str());
            if !guard.holds(current.map(|record| &**record)) {
                let (key, current) = (guard.key.clone(), current.cloned());
                return Err(CommitError::Conflict { key, current });
            }
        }
        let revision = Revision(self.last + 1);
        let before = self.events.len();
        let records = writes.into_iter().map(|write| self.write(revision, write)).collect();
        if self.events.len() > before {
            self.last = revision.0;
        }
        Ok(Committed { revision: Revision(self.last), records })
    }

    fn write(&mut self, revision: Revision, write: Write<N>) -> Option<Arc<Record<N>>> {
        match write {
            Write::Put { key, value, note } => {
                let previous = self.map.get(key.as_str()).cloned();
                let created = previous.as_ref().map_or(revision, |record| record.created);
                let record = Arc::new(Record { value, created, modified: revision, note });
                self.map.insert(key.clone(), Arc::clone(&record));
                let current = Some(Arc::clone(&record));
                self.events.push(Arc::new(Event { revision, key, previous, current }));
                Some(record)
            }
            Write::Delete { key } => {
                if let Some(previous) = self.map.remove(key.as_str()) {
                    let previous = Some(previous);
                    self.events.push(Arc::new(Event { revision, key, previous, current: None }));
                }
                None
            }
        }
    }

    /// The highest revision given out.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// What changed, in order.
    pub(crate) fn events(&self) -> &[Arc<Event<N>>] {
        &self.events
    }

    /// The result, if it became durable.
    pub(crate) fn finish(self) -> (Snapshot<N>, Vec<Arc<Event<N>>>) {
        (Snapshot::new(self.map, Revision(self.last)), self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Expect;

    #[test]
    fn later_commits_see_earlier_ones_and_failures_leave_nothing() {
        let empty = Snapshot::new(Map::new(), Revision(7));
        let mut batch = Batch::new(&empty, 9);
        let first = batch
            .apply(&[Guard::new("/a", Expect::Absent)], vec![Write::put("/a", "1".into(), ())])
            .unwrap();
        assert_eq!(first.revision, Revision(10));

        let refused = batch.apply(
            &[Guard::new("/b", Expect::Absent), Guard::new("/a", Expect::Absent)],
            vec![Write::put("/b", "2".into(), ())],
        );
        assert!(matches!(refused, Err(CommitError::Conflict { key, .. }) if &*key == "/a"));

        let nothing = batch.apply(&[], vec![Write::delete("/missing")]).unwrap();
        assert_eq!(nothing.revision, Revision(10), "a commit without effect takes no revision");

        let both = batch
            .apply(
                &[Guard::new("/a", Expect::Modified(Revision(10)))],
                vec![Write::put("/a", "3".into(), ()), Write::put("/c", "4".into(), ())],
            )
            .unwrap();
        assert_eq!(both.revision, Revision(11));
        let (snapshot, events) = batch.finish();
        assert_eq!((snapshot.len(), snapshot.revision()), (2, Revision(11)));
        assert_eq!(events.len(), 3);
        let a = snapshot.get("/a").unwrap();
        assert_eq!((a.created, a.modified), (Revision(10), Revision(11)));
    }

    #[test]
    fn limits_are_checked_before_anything_happens() {
        let put = |key: &str| Write::put(key, "".into(), ());
        let long = "k".repeat(Key::MAX_LENGTH + 1);
        let bad: [Vec<Write<()>>; 4] = [
            vec![put("")],
            vec![put(&long)],
            vec![put("/a"), put("/b"), Write::delete("/a")],
            vec![Write::put("/a", vec![0; MAX_VALUE + 1].into(), ())],
        ];
        for writes in bad {
            assert!(matches!(check(&[], &writes), Err(CommitError::Invalid(_))));
        }
        assert!(check(&[], &[put("/a"), put("/b")]).is_ok());
    }
}
