//! What the log does beside appending: forgetting what was superseded, and
//! sealing anew. Refuses to decide when.

use rusqlite::{Connection, params};

use super::{
    super::row::{Kind, MAX_INDEX, Row, sequence, signed},
    Log, LogError, State, transaction, write_state,
};
use crate::{SealError, seal::Sealer};

/// Rows that one step of compaction looks at.
const COMPACT_ROWS: i64 = 500;
/// Rows that one transaction of key rotation rewrites.
const RESEAL_ROWS: i64 = 64;

impl Log {
    /// Forgets some of what was superseded at or below the revision `horizon`;
    /// says whether that was all.
    pub(in crate::embedded) fn compact_step(&mut self, horizon: u64) -> Result<bool, LogError> {
        self.prepare_sync(false)?;
        let limit = sequence(horizon, MAX_INDEX);
        let state = self.state;
        let (state, done) = transaction(&self.connection, |connection| {
            let rows = compactable(connection, state.compacted, limit)?;
            for row in &rows {
                if row.previous != 0 {
                    let first = sequence(row.previous, 0);
                    connection
                        .prepare_cached("DELETE FROM log WHERE seq BETWEEN ?1 AND ?2 AND key = ?3")?
                        .execute(params![first, first | MAX_INDEX, row.key])?;
                }
                if row.deleted {
                    connection
                        .prepare_cached("DELETE FROM log WHERE seq = ?1")?
                        .execute([row.sequence])?;
                }
            }
            let done = (rows.len() as i64) < COMPACT_ROWS;
            let reached = match rows.last() {
                Some(last) if !done => last.sequence,
                _ => limit.max(state.compacted),
            };
            if done {
                connection.execute("DELETE FROM gaps WHERE high <= ?1", [signed(horizon)])?;
            }
            let state = State { compacted: reached, ..state };
            write_state(connection, state)?;
            Ok((state, done))
        })?;
        self.state = state;
        self.wal_bytes += 64 << 10;
        if done {
            self.shrink()?;
        }
        Ok(done)
    }

    /// Gives free pages back to the file system when there are many.
    fn shrink(&mut self) -> Result<(), LogError> {
        let pragma =
            |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (free, pages) = (pragma("freelist_count")?, pragma("page_count")?);
        if free > 4096 && free * 4 > pages {
            let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum(2048)")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
            self.wal_bytes += 8 << 20;
        }
        Ok(())
    }

    /// Makes a new sealing key, seals everything with it, and forgets the old
    /// keys once nothing on disk needs them.
    pub(in crate::embedded) fn rotate(&mut self) -> Result<(), LogError> {
        let Some(mut sealer) = self.sealer.take() else {
            return Err(SealError::Unconfigured.into());
        };
        let rotated = self.rotate_with(&mut sealer);
        self.sealer = Some(sealer);
        rotated
    }

    fn rotate_with(&mut self, sealer: &mut Sealer) -> Result<(), LogError> {
        sealer.add_key()?;
        self.prepare_sync(true)?;
        let mut from = 0;
        while let Some(last) =
            transaction(&self.connection, |connection| reseal(connection, sealer, from))?
        {
            from = last + 1;
            self.wal_bytes += 1 << 20;
            if self.wants_checkpoint() {
                self.checkpoint(false)?;
            }
        }
        // Damaged rows are kept for a look; sealed ones go with their key.
        transaction(&self.connection, |connection| {
            connection.execute("DELETE FROM cut WHERE kind = ?1", [Kind::Sealed.code()])?;
            Ok(())
        })?;
        self.checkpoint(true)?;
        sealer.forget_old_keys()?;
        Ok(())
    }
}

struct Compactable {
    sequence: i64,
    previous: u64,
    deleted: bool,
    key: String,
}

/// The next rows that may supersede something, in order.
fn compactable(
    connection: &Connection,
    after: i64,
    limit: i64,
) -> Result<Vec<Compactable>, LogError> {
    let mut select = connection.prepare_cached(
        "SELECT seq, previous, kind, key FROM log WHERE seq > ?1 AND seq <= ?2
         ORDER BY seq LIMIT ?3",
    )?;
    let rows = select.query_map(params![after, limit, COMPACT_ROWS], |row| {
        Ok(Compactable {
            sequence: row.get(0)?,
            previous: row.get::<_, i64>(1)?.unsigned_abs(),
            deleted: row.get::<_, i64>(2)? == Kind::Deleted.code(),
            key: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Seals the next rows that are sealed with an old key anew; returns the last
/// sequence number looked at, or nothing at the end.
fn reseal(connection: &Connection, sealer: &Sealer, from: i64) -> Result<Option<i64>, LogError> {
    let mut select = connection.prepare_cached(
        "SELECT seq, time, previous, created, key, value FROM log
         WHERE seq >= ?1 AND kind = ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut update =
        connection.prepare_cached("UPDATE log SET value = ?2, crc = ?3 WHERE seq = ?1")?;
    let mut rows = select.query(params![from, Kind::Sealed.code(), RESEAL_ROWS])?;
    let mut found: Vec<(i64, i64, i64, i64, String, Vec<u8>)> = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let sequence = row.get(0)?;
        last = Some(sequence);
        let value: Vec<u8> = row.get(5)?;
        if !sealer.is_current(&value) {
            found.push((sequence, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, value));
        }
    }
    for (sequence, time, previous, created, key, value) in found {
        let value = sealer.seal(&key, &sealer.unseal(&key, &value)?)?;
        let kind = Kind::Sealed.code();
        let row = Row { sequence, time, previous, created, kind, key: &key, value: &value };
        update.execute(params![sequence, row.value, row.checksum()])?;
    }
    Ok(last)
}
