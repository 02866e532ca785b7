//! Reading the log back: the map, the recent events and the history it holds,
//! and the proof that nothing is missing. Decides what to do about damage;
//! changes nothing on disk.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Options,
    history::History,
    log::{Log, LogError, gaps, horizon},
    row::{self, Kind, Row, sequence},
};
use crate::{
    Event, Key, Record, Revision,
    ring::{Limits, Ring},
    snapshot::Map,
};

/// What the log holds.
pub(super) struct Recovered<N> {
    pub(super) map: Map<N>,
    pub(super) ring: Ring<N>,
    pub(super) history: History,
    /// Revision of the last good row, or 0.
    pub(super) last: u64,
    /// Sequence number from which on rows are damaged, to be cut.
    pub(super) cut: Option<i64>,
}

/// The newest record of a key while reading.
struct Slot<N> {
    value: Bytes,
    created: u64,
    modified: u64,
    record: Option<Arc<Record<N>>>,
}

/// A row whose checksum holds.
struct Change {
    sequence: i64,
    time: u64,
    previous: u64,
    created: u64,
    key: Key,
    /// Unsealed; nothing if the key was deleted.
    value: Option<Bytes>,
    /// Bytes that the row takes on disk.
    size: u64,
}

struct Reader<'a, N, F> {
    note: F,
    now: u64,
    recent: u64,
    compacted: i64,
    slots: BTreeMap<Key, Slot<N>>,
    ring: Ring<N>,
    history: History,
    last: u64,
    log: &'a Log,
}

/// Reads the whole log. Rows above `up_to` are taken as if they were not there.
pub(super) fn recover<N, F: Fn(&Key, &Bytes) -> N>(
    log: &Log,
    options: &Options,
    up_to: Option<u64>,
    now: u64,
    note: F,
) -> Result<Recovered<N>, LogError> {
    let state = log.state();
    let limits = Limits { bytes: options.recent_bytes, age: options.recent_age };
    let age = u64::try_from(options.recent_age.as_millis()).unwrap_or(u64::MAX);
    let mut reader = Reader {
        note,
        now,
        recent: now.saturating_sub(age),
        compacted: state.compacted,
        slots: BTreeMap::new(),
        ring: Ring::new(limits, Revision(horizon(state)), gaps(log.connection())?),
        history: History::new(options.history_bytes, options.history_age),
        last: 0,
        log,
    };
    let cut = reader.read(up_to)?;
    Ok(reader.finish(cut))
}

impl<N, F: Fn(&Key, &Bytes) -> N> Reader<'_, N, F> {
    /// Reads all rows; returns where the damaged tail begins, if there is one.
    fn read(&mut self, up_to: Option<u64>) -> Result<Option<i64>, LogError> {
        let limit = up_to.map_or(i64::MAX, |revision| sequence(revision, row::MAX_INDEX));
        let mut select = self.log.connection().prepare(
            "SELECT seq, time, previous, created, kind, crc, key, value FROM log
             WHERE seq <= ?1 ORDER BY seq",
        )?;
        let mut rows = select.query([limit])?;
        let mut commit: Vec<Change> = Vec::new();
        let mut damaged = None;
        while let Some(row) = rows.next()? {
            let at: i64 = row.get(0)?;
            let Some(change) = self.check(row)? else {
                damaged.get_or_insert(at);
                continue;
            };
            if let Some(damaged) = damaged {
                return Err(LogError::Corrupt(format!(
                    "the change of revision {} has a wrong checksum, and later ones are intact",
                    row::revision(damaged)
                )));
            }
            if commit.first().is_some_and(|first| {
                row::revision(first.sequence) != row::revision(change.sequence)
            }) {
                self.apply(std::mem::take(&mut commit))?;
            }
            commit.push(change);
        }
        let Some(damaged) = damaged else {
            self.apply(commit)?;
            return Ok(None);
        };
        // The commit that the damage begins in goes as a whole.
        let revision = row::revision(damaged);
        if commit.first().is_some_and(|first| row::revision(first.sequence) != revision) {
            self.apply(commit)?;
        }
        Ok(Some(sequence(revision, 0)))
    }

    /// The change in a row, or nothing if its checksum is wrong.
    fn check(&self, row: &rusqlite::Row<'_>) -> Result<Option<Change>, LogError> {
        let read = || -> rusqlite::Result<(Row<'_>, i64)> {
            let text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str()?);
            let found = Row {
                sequence: row.get(0)?,
                time: row.get(1)?,
                previous: row.get(2)?,
                created: row.get(3)?,
                kind: row.get(4)?,
                key: text(6)?,
                value: row.get_ref(7)?.as_blob()?,
            };
            Ok((found, row.get(5)?))
        };
        let Ok((found, crc)) = read() else { return Ok(None) };
        if found.checksum() != crc {
            return Ok(None);
        }
        let number = |value: i64| u64::try_from(value).ok();
        let (Some(kind), Some(time), Some(previous), Some(created)) = (
            Kind::from_code(found.kind),
            number(found.time),
            number(found.previous),
            number(found.created),
        ) else {
            return Ok(None);
        };
        let value = match kind {
            Kind::Deleted => None,
            Kind::Plain => Some(Bytes::copy_from_slice(found.value)),
            Kind::Sealed => {
                let sealer = self.log.sealer().ok_or(crate::SealError::Unconfigured)?;
                let value = sealer.unseal(found.key, found.value)?;
                Some(Bytes::from(value.into_boxed_slice()))
            }
        };
        let key = match self.slots.get_key_value(found.key) {
            Some((key, _)) => key.clone(),
            None => Key::new(found.key),
        };
        let size = (found.key.len() + found.value.len() + 64) as u64;
        Ok(Some(Change { sequence: found.sequence, time, previous, created, key, value, size }))
    }

    fn apply(&mut self, commit: Vec<Change>) -> Result<(), LogError> {
        for change in commit {
            let revision = row::revision(change.sequence);
            self.last = revision;
            let current = self.slots.get(&*change.key);
            let modified = current.map_or(0, |slot| slot.modified);
            if change.sequence <= self.compacted {
                if modified != 0 || change.value.is_none() {
                    return Err(LogError::Corrupt(format!(
                        "revision {revision} of {} should be gone",
                        change.key
                    )));
                }
            } else if modified != change.previous {
                return Err(LogError::Corrupt(format!(
                    "revision {revision} of {} follows revision {}, but the one before it is {}",
                    change.key, change.previous, modified
                )));
            }
            if change.previous != 0 && change.sequence > self.compacted {
                let freed = current.map_or(0, |slot| slot.value.len() + change.key.len() + 64);
                let own = if change.value.is_none() { change.size } else { 0 };
                self.history.add(revision, change.time, freed as u64 + own);
            }
            self.change(revision, change);
        }
        Ok(())
    }

    /// Puts a change into the slots, and into the ring if it is recent.
    fn change(&mut self, revision: u64, change: Change) {
        let recent = change.time >= self.recent && change.sequence > self.compacted;
        let previous = self.slots.remove(&*change.key);
        let previous = match previous {
            Some(mut slot) if recent => Some(record(&self.note, &change.key, &mut slot)),
            _ => None,
        };
        let mut current = None;
        if let Some(value) = change.value {
            let created = change.created;
            let mut slot = Slot { value, created, modified: revision, record: None };
            if recent {
                current = Some(record(&self.note, &change.key, &mut slot));
            }
            self.slots.insert(change.key.clone(), slot);
        }
        if recent {
            let event = Event { revision: Revision(revision), key: change.key, previous, current };
            self.ring.push(Arc::new(event), change.time);
            self.ring.trim(self.now);
        } else {
            self.ring.compact(Revision(revision));
        }
    }

    fn finish(self, cut: Option<i64>) -> Recovered<N> {
        let note = self.note;
        let map = self
            .slots
            .into_iter()
            .map(|(key, mut slot)| {
                let record = record(&note, &key, &mut slot);
                (key, record)
            })
            .collect();
        Recovered { map, ring: self.ring, history: self.history, last: self.last, cut }
    }
}

/// The record of a slot, made once.
fn record<N, F: Fn(&Key, &Bytes) -> N>(note: &F, key: &Key, slot: &mut Slot<N>) -> Arc<Record<N>> {
    Arc::clone(slot.record.get_or_insert_with(|| {
        Arc::new(Record {
            value: slot.value.clone(),
            created: Revision(slot.created),
            modified: Revision(slot.modified),
            note: note(key, &slot.value),
        })
    }))
}
