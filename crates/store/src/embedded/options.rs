//! How an embedded store is opened.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::SealOptions;

/// Options of [`Embedded::open`](crate::Embedded::open).
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the database; made with mode 0700 if it does not exist.
    pub directory: PathBuf,
    /// Values that are sealed at rest; none if nothing.
    pub seal: Option<SealOptions>,
    /// Bytes of superseded values that the log keeps for undelete and time
    /// travel. Default 64 MB.
    pub history_bytes: u64,
    /// Age at which superseded values leave the log. Default one hour.
    pub history_age: Duration,
    /// Bytes of superseded values that memory keeps for watches and reads of
    /// older revisions. Default 64 MB.
    pub recent_bytes: usize,
    /// Age at which superseded values leave the memory. Default five minutes.
    pub recent_age: Duration,
    /// Bytes that the WAL may have before it is copied into the database.
    /// Default 16 MB.
    pub checkpoint_bytes: u64,
    /// Never waits for the disk: a loss of power loses or destroys data. For
    /// clusters that are thrown away, and for tests. Default false.
    pub unsafe_no_fsync: bool,
    /// How the database's files are reached, for tests that inject faults.
    /// Default: through the operating system.
    pub vfs: Option<Vfs>,
}

/// Another way to files than the operating system's.
#[derive(Debug, Clone)]
pub struct Vfs {
    /// Name of a registered SQLite VFS.
    pub name: String,
    /// Writes a file's bytes over themselves and makes them durable; a file
    /// that does not exist is none to rewrite.
    pub rewrite: fn(&Path) -> io::Result<()>,
}

impl Options {
    /// The defaults, for a store in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            seal: None,
            history_bytes: 64 << 20,
            history_age: Duration::from_secs(3600),
            recent_bytes: 64 << 20,
            recent_age: Duration::from_secs(300),
            checkpoint_bytes: 16 << 20,
            unsafe_no_fsync: false,
            vfs: None,
        }
    }

    /// Seals values under `prefixes` with the key in `key_file`.
    #[must_use]
    pub fn seal(
        mut self,
        key_file: impl Into<PathBuf>,
        prefixes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.seal = Some(SealOptions {
            key_file: key_file.into(),
            prefixes: prefixes.into_iter().map(Into::into).collect(),
        });
        self
    }
}
