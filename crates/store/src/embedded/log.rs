//! The log on disk: one SQLite table of changes in revision order. Refuses to
//! know maps, watches or who asked.
//!
//! # Durability
//!
//! The database is in WAL mode, and one connection owns it. A transaction's
//! pages are appended to the WAL, each frame with a checksum that continues the
//! one before it; a transaction exists when its last frame is readable by an
//! unbroken chain of checksums. After a crash SQLite takes the longest such
//! chain, so what survives is always a prefix of what was written, and a torn
//! tail is cut.
//!
//! * A durable transaction runs with `synchronous=FULL`: the WAL is synced after
//!   the last frame. That syncs every earlier frame too, so no relaxed
//!   transaction before a durable one can be lost.
//! * A relaxed transaction runs with `synchronous=NORMAL`: the frames are handed
//!   to the kernel, and nobody waits. [`Log::sync`] makes all of them durable.
//! * A checkpoint syncs the WAL before it copies pages, and the database before
//!   the WAL is used again, in both settings. Checkpoints are explicit: SQLite's
//!   own would hide their errors.
//!
//! # Contents
//!
//! A row is one change of one key. It names the revision that it supersedes, so
//! that reading the log from the start proves that none is missing, and that
//! compaction finds what to delete without an index: once a row is older than
//! the horizon, the row that it supersedes goes, and a deletion goes itself.

mod upkeep;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, params};

use super::{
    Options,
    row::{self, Kind, MAX_INDEX, Row, checksum_numbers, sequence, signed},
};
use crate::{Event, SealError, seal::Sealer};

/// Format of the database, in its `user_version`.
pub(super) const FORMAT: i64 = 1;
/// Marks the database as ours, in its `application_id`: "skif".
const APPLICATION: i64 = 0x736b_6966;

const SCHEMA: &str = "
    CREATE TABLE log (
        seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, previous INTEGER NOT NULL,
        created INTEGER NOT NULL, kind INTEGER NOT NULL, crc INTEGER NOT NULL,
        key TEXT NOT NULL, value BLOB NOT NULL);
    CREATE TABLE cut (
        at INTEGER NOT NULL, seq INTEGER, time INTEGER, previous INTEGER, created INTEGER,
        kind INTEGER, crc INTEGER, key, value);
    CREATE TABLE gaps (low INTEGER PRIMARY KEY, high INTEGER NOT NULL);
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), reserved INTEGER NOT NULL, base INTEGER NOT NULL,
        compacted INTEGER NOT NULL, synced INTEGER NOT NULL, crc INTEGER NOT NULL);";

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("the disk is full")]
    Full,
    #[error("{0}")]
    Io(String),
    #[error("{0}")]
    Corrupt(String),
    #[error("it has on-disk format {0}")]
    Newer(i64),
    #[error("it is another program's database")]
    Foreign,
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            _ => match error {
                rusqlite::Error::SqliteFailure(failure, message) => Self::Io(format!(
                    "{} (SQLite code {})",
                    message.unwrap_or_else(|| failure.to_string()),
                    failure.extended_code
                )),
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::QueryReturnedNoRows => Self::Corrupt(error.to_string()),
                other => Self::Io(other.to_string()),
            },
        }
    }
}

/// Numbers that outlive the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// No revision above this one was ever shown to anybody.
    pub(super) reserved: u64,
    /// What the store called its revision when it was opened last.
    pub(super) base: u64,
    /// Sequence number up to which superseded rows are gone.
    pub(super) compacted: i64,
    /// A revision that was on disk when this was written.
    pub(super) synced: u64,
}

impl State {
    const NEW: Self = Self { reserved: 1, base: 1, compacted: MAX_INDEX, synced: 1 };

    fn numbers(self) -> [i64; 4] {
        [signed(self.reserved), signed(self.base), self.compacted, signed(self.synced)]
    }
}

pub(super) struct Log {
    connection: Connection,
    path: PathBuf,
    no_fsync: bool,
    /// Whether the connection is set to sync at the end of a transaction.
    syncing: Option<bool>,
    sealer: Option<Sealer>,
    state: State,
    /// Estimated bytes in the WAL that are not in the database yet.
    wal_bytes: u64,
    checkpoint_bytes: u64,
}

/// The database file of a store in `directory`.
pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("store.db")
}

impl Log {
    /// Opens or makes the database. Reads no rows.
    pub(super) fn open(options: &Options) -> Result<Self, LogError> {
        let path = database(&options.directory);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &options.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(&path, flags, vfs.name.as_str())?,
            None => Connection::open_with_flags(&path, flags)?,
        };
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.execute_batch(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-2048; PRAGMA temp_store=MEMORY;",
        )?;

        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application, format) = (pragma("application_id")?, pragma("user_version")?);
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application != APPLICATION && (tables > 0 || application != 0) {
            return Err(LogError::Foreign);
        }
        if format > FORMAT {
            return Err(LogError::Newer(format));
        }
        if options.unsafe_no_fsync {
            connection.execute_batch("PRAGMA synchronous=OFF")?;
        }
        if tables == 0 {
            connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
        }
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
             PRAGMA journal_size_limit=33554432;",
        )?;
        let mut log = Self {
            connection,
            path,
            no_fsync: options.unsafe_no_fsync,
            syncing: None,
            sealer: None,
            state: State::NEW,
            wal_bytes: 0,
            checkpoint_bytes: options.checkpoint_bytes,
        };
        if tables == 0 {
            log.create(&options.directory)?;
        }
        log.state = log.read_state()?;
        if let Some(seal) = &options.seal {
            log.sealer = Some(Sealer::open(seal, || log.has_sealed_rows())?);
        }
        Ok(log)
    }

    fn create(&mut self, directory: &Path) -> Result<(), LogError> {
        self.prepare_sync(true)?;
        let state = State::NEW;
        transaction(&self.connection, |connection| {
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch(&format!(
                "PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT};"
            ))?;
            write_state(connection, state)
        })?;
        // The names of the new files must survive as well.
        let sync = |path: &Path| fs::File::open(path).and_then(|file| file.sync_all());
        sync(directory)
            .and_then(|()| directory.parent().filter(|p| p.exists()).map_or(Ok(()), sync))
            .map_err(|error| LogError::Io(error.to_string()))
    }

    fn read_state(&self) -> Result<State, LogError> {
        let (numbers, crc) = self.connection.query_row(
            "SELECT reserved, base, compacted, synced, crc FROM state WHERE id = 1",
            [],
            |row| {
                let numbers: [i64; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
                Ok((numbers, row.get::<_, i64>(4)?))
            },
        )?;
        if checksum_numbers(&numbers) != crc {
            return Err(LogError::Corrupt("its state row has a wrong checksum".into()));
        }
        let number = |value: i64| {
            u64::try_from(value).map_err(|_| LogError::Corrupt("its state row is malformed".into()))
        };
        Ok(State {
            reserved: number(numbers[0])?,
            base: number(numbers[1])?,
            compacted: numbers[2],
            synced: number(numbers[3])?,
        })
    }

    fn has_sealed_rows(&self) -> bool {
        // If that cannot be told, making a new key would be the greater harm.
        self.connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM log WHERE kind = ?1)",
                [Kind::Sealed.code()],
                |row| row.get(0),
            )
            .unwrap_or(true)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn sealer(&self) -> Option<&Sealer> {
        self.sealer.as_ref()
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets whether the next transaction waits for the disk.
    fn prepare_sync(&mut self, durable: bool) -> Result<(), LogError> {
        if !self.no_fsync && self.syncing != Some(durable) {
            self.syncing = None;
            self.connection.execute_batch(if durable {
                "PRAGMA synchronous=FULL"
            } else {
                "PRAGMA synchronous=NORMAL"
            })?;
            self.syncing = Some(durable);
        }
        Ok(())
    }

    /// Starts a life of the store: moves damaged rows from `cut` on out of the
    /// way, and makes what was found, its `state` and the gaps known on disk.
    pub(super) fn begin(
        &mut self,
        state: State,
        gap: Option<(u64, u64)>,
        cut: Option<i64>,
        time: u64,
    ) -> Result<(), LogError> {
        self.prepare_sync(true)?;
        transaction(&self.connection, |connection| {
            if let Some(cut) = cut {
                connection.execute(
                    "INSERT INTO cut SELECT ?2, seq, time, previous, created, kind, crc, key, value
                     FROM log WHERE seq >= ?1",
                    params![cut, signed(time)],
                )?;
                connection.execute("DELETE FROM log WHERE seq >= ?1", [cut])?;
            }
            if let Some((low, high)) = gap {
                connection.execute(
                    "INSERT OR REPLACE INTO gaps VALUES (?1, ?2)",
                    params![signed(low), signed(high)],
                )?;
            }
            write_state(connection, state)
        })?;
        self.state = state;
        Ok(())
    }

    /// Deletes rows above `revision`, which nobody has seen.
    pub(super) fn withdraw(&mut self, revision: u64) -> Result<(), LogError> {
        self.prepare_sync(true)?;
        let state = State { synced: revision, ..self.state };
        transaction(&self.connection, |connection| {
            connection
                .execute("DELETE FROM log WHERE seq > ?1", [sequence(revision, MAX_INDEX)])?;
            write_state(connection, state)
        })?;
        self.state = state;
        Ok(())
    }

    /// Appends changes as one transaction, and with them a new reservation if
    /// there is one.
    pub(super) fn append<N>(
        &mut self,
        events: &[Arc<Event<N>>],
        durable: bool,
        reserve: Option<u64>,
        time: u64,
    ) -> Result<(), LogError> {
        self.prepare_sync(durable)?;
        let state = reserve.map(|reserved| State { reserved, ..self.state });
        let sealer = self.sealer.as_ref();
        let written = transaction(&self.connection, |connection| {
            let mut written = 8192;
            let (mut revision, mut index) = (0, 0);
            for event in events {
                index = if event.revision.0 == revision { index + 1 } else { 0 };
                revision = event.revision.0;
                written += insert(connection, sealer, event, index, time)?;
            }
            if let Some(state) = state {
                write_state(connection, state)?;
            }
            Ok(written)
        })?;
        self.state = state.unwrap_or(self.state);
        self.wal_bytes += written;
        Ok(())
    }

    /// Makes all earlier transactions durable; `last` is the newest revision.
    pub(super) fn sync(&mut self, last: u64) -> Result<(), LogError> {
        self.write_state(State { synced: last, ..self.state })
    }

    /// Notes that nothing above `last` was ever shown to anybody, and copies
    /// everything into the database.
    pub(super) fn finish(mut self, last: u64) -> Result<(), LogError> {
        self.write_state(State { reserved: last, synced: last, ..self.state })?;
        self.checkpoint(true)?;
        self.connection.close().map_err(|(_, error)| error.into())
    }

    fn write_state(&mut self, state: State) -> Result<(), LogError> {
        self.prepare_sync(true)?;
        transaction(&self.connection, |connection| write_state(connection, state))?;
        self.state = state;
        self.wal_bytes += 4096;
        Ok(())
    }

    /// Whether the WAL is long enough to be copied into the database.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.wal_bytes >= self.checkpoint_bytes
    }

    /// Copies the WAL into the database; `truncate` gives its space back too.
    pub(super) fn checkpoint(&mut self, truncate: bool) -> Result<(), LogError> {
        self.wal_bytes = 0;
        let mode = if truncate { "TRUNCATE" } else { "PASSIVE" };
        let complete =
            self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
                Ok(row.get::<_, i64>(0)? == 0 && row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
            })?;
        if complete {
            Ok(())
        } else {
            Err(LogError::Io("the WAL could not be copied into the database".into()))
        }
    }
}

/// Runs `body` in a transaction; afterwards all of it is there, or nothing.
fn transaction<T>(
    connection: &Connection,
    body: impl FnOnce(&Connection) -> Result<T, LogError>,
) -> Result<T, LogError> {
    let run = |sql| -> Result<(), LogError> {
        connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    run("BEGIN IMMEDIATE")?;
    let result = body(connection).and_then(|value| run("COMMIT").map(|()| value));
    // SQLite rolls back by itself after some errors.
    if result.is_err() && !connection.is_autocommit() {
        run("ROLLBACK").map_err(|error| LogError::Io(format!("rolling back failed: {error}")))?;
    }
    result
}

fn write_state(connection: &Connection, state: State) -> Result<(), LogError> {
    let [reserved, base, compacted, synced] = state.numbers();
    connection
        .prepare_cached("INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4, ?5)")?
        .execute(params![reserved, base, compacted, synced, checksum_numbers(&state.numbers())])?;
    Ok(())
}

/// Appends one change; returns how many bytes it takes, roughly.
fn insert<N>(
    connection: &Connection,
    sealer: Option<&Sealer>,
    event: &Event<N>,
    index: i64,
    time: u64,
) -> Result<u64, LogError> {
    let key = event.key.as_str();
    let sealed;
    let (kind, created, value) = match &event.current {
        None => (Kind::Deleted, 0, &[][..]),
        Some(record) => {
            let created = signed(record.created.0);
            match sealer.filter(|sealer| sealer.covers(key)) {
                Some(sealer) => {
                    sealed = sealer.seal(key, &record.value)?;
                    (Kind::Sealed, created, sealed.as_slice())
                }
                None => (Kind::Plain, created, &record.value[..]),
            }
        }
    };
    let row = Row {
        sequence: sequence(event.revision.0, index),
        time: signed(time),
        previous: event.previous.as_ref().map_or(0, |record| signed(record.modified.0)),
        created,
        kind: kind.code(),
        key,
        value,
    };
    connection.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
        params![
            row.sequence,
            row.time,
            row.previous,
            row.created,
            row.kind,
            row.checksum(),
            row.key,
            row.value
        ],
    )?;
    Ok((key.len() + value.len()) as u64 * 5 / 4 + 64)
}

/// Reads the gaps in the revisions.
pub(super) fn gaps(connection: &Connection) -> Result<Vec<(u64, u64)>, LogError> {
    let mut select = connection.prepare("SELECT low, high FROM gaps ORDER BY low")?;
    let rows = select.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The revision up to which superseded rows are gone.
pub(super) fn horizon(state: State) -> u64 {
    row::revision(state.compacted)
}
