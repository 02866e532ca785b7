//! Everything that can go wrong, in the words of the caller who must react.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{Key, Record, Revision};

/// Why a commit was not applied. Unless said otherwise nothing of it is visible
/// now or later.
#[derive(thiserror::Error)]
pub enum CommitError<N> {
    /// A guard does not hold. Read again and decide again.
    #[error("{key} is not as expected")]
    Conflict {
        /// Key of the first guard that does not hold.
        key: Key,
        /// The key's record when the guard was judged.
        current: Option<Arc<Record<N>>>,
    },
    /// The disk has no room. Reads go on; writes work again once there is room.
    #[error("the disk that holds the store is full")]
    Full,
    /// The disk failed. Reads go on; the store checks itself and resumes when
    /// the disk works again. A crash before then may show that the commit
    /// reached the disk after all.
    #[error("writing to the store failed: {0}")]
    Io(String),
    /// The commit breaks a limit: a key or value too long, a key named twice,
    /// too many writes.
    #[error("{0}")]
    Invalid(String),
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}

impl<N> Clone for CommitError<N> {
    fn clone(&self) -> Self {
        match self {
            Self::Conflict { key, current } => {
                Self::Conflict { key: key.clone(), current: current.clone() }
            }
            Self::Full => Self::Full,
            Self::Io(why) => Self::Io(why.clone()),
            Self::Invalid(why) => Self::Invalid(why.clone()),
            Self::Closed => Self::Closed,
        }
    }
}

impl<N> fmt::Debug for CommitError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { key, current } => f
                .debug_struct("Conflict")
                .field("key", key)
                .field("modified", &current.as_ref().map(|record| record.modified))
                .finish_non_exhaustive(),
            Self::Full => f.write_str("Full"),
            Self::Io(why) => f.debug_tuple("Io").field(why).finish(),
            Self::Invalid(why) => f.debug_tuple("Invalid").field(why).finish(),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

/// Why a snapshot cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The revision is older than what is kept (or was lost in a crash).
    #[error("revision {revision} is no longer available; the oldest is {oldest}")]
    Compacted {
        /// The revision asked for.
        revision: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The store has not reached the revision.
    #[error("revision {revision} is in the future; the store is at {current}")]
    Future {
        /// The revision asked for.
        revision: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// The backend cannot be reached (never the embedded one).
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}

/// Why a watch cannot start, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Events from this revision on are no longer kept (or were lost in a
    /// crash): list again and watch from there.
    #[error("events after revision {revision} are no longer available; the oldest is {oldest}")]
    Compacted {
        /// The revision asked for.
        revision: Revision,
        /// The oldest revision from which a watch can start.
        oldest: Revision,
    },
    /// The store has not reached the revision.
    #[error("revision {revision} is in the future; the store is at {current}")]
    Future {
        /// The revision asked for.
        revision: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// The watcher did not keep up and its queue was dropped: list again and
    /// watch from there.
    #[error("the watch fell too far behind")]
    Lagged,
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}

/// Why a store does not open. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process; stop it first, or choose another data directory")]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error(
        "{path} has on-disk format {found}, and this release reads up to {supported}; \
         start the release that wrote it, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Format found.
        found: i64,
        /// Newest format understood.
        supported: i64,
    },
    /// It is not a store.
    #[error("{path} is not a store of skiff; choose another data directory, or move it away")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// It is damaged in a place that cannot be cut off without losing more than
    /// the last moments.
    #[error(
        "{path} is damaged: {what}; restore a backup, or move the directory away to start empty \
         (nothing was changed)"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk has no room to open it.
    #[error("the disk that holds {path} is full; free some space and start again")]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {message}; check that the directory exists and is writable")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
    /// An endpoint of etcd cannot be used.
    #[error("datastore endpoint {endpoint:?}: {message}")]
    Endpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with it.
        message: String,
    },
    /// etcd does not answer, or not as it should.
    #[error(
        "the datastore cannot be read: {0}; check that etcd runs, its endpoints, and the \
         certificates for it"
    )]
    Unreachable(String),
    /// The sealing key is unusable.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What is wrong with the key that seals values at rest.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Sealed values exist, and no key file.
    #[error(
        "the key file {path} is missing, and the store holds values sealed with it; \
         put the file back from where it was kept"
    )]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// Others may read the key file.
    #[error("the key file {path} has mode {mode:04o}; run: chmod 600 {path}")]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file does not parse.
    #[error("the key file {path} is malformed in line {line}; put back the file that was written")]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// A value was sealed with a key that the file does not hold.
    #[error(
        "{key} was sealed with key {id}, which {path} does not hold; \
         put back the key file that belongs to this store"
    )]
    Unknown {
        /// Storage key of the value.
        key: String,
        /// Id of the sealing key, in hexadecimal.
        id: String,
        /// The key file.
        path: PathBuf,
    },
    /// A value does not open: it was changed, moved to another storage key, or
    /// sealed with another key of the same id.
    #[error("{key} does not unseal: it was tampered with, or the key file is not this store's")]
    Broken {
        /// Storage key of the value.
        key: String,
    },
    /// The key file cannot be read or written.
    #[error("the key file {path}: {source}")]
    File {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The cryptographic library refused.
    #[error("sealing failed: {0}")]
    Crypto(&'static str),
    /// Rewriting what was sealed failed; the old keys stay in use beside the
    /// new one. Rotate again.
    #[error("rewriting sealed values failed: {0}")]
    Rewrite(String),
    /// The store seals nothing.
    #[error("this store seals nothing: no key file is configured")]
    Unconfigured,
}
