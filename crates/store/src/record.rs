//! What is stored, what is asked, and what happened: records, guards, writes
//! and events. No behaviour beyond construction.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Key, Revision};

/// The value of a key at some revision, with what the caller noted about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<N> {
    /// The bytes as they were given. The store keeps this very allocation: give
    /// it a buffer of its own, not a slice of a larger one.
    pub value: Bytes,
    /// Revision of the commit that created the key (again, if it was deleted).
    pub created: Revision,
    /// Revision of the commit that wrote this value.
    pub modified: Revision,
    /// The caller's note about the value, kept in memory only.
    pub note: N,
}

/// What a [`Guard`] expects of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists, at whatever revision.
    Present,
    /// The key exists and was last written by the commit with this revision.
    Modified(Revision),
}

/// A condition on one key, judged together with the writes that it guards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key looked at; it need not be among the keys written.
    pub key: Key,
    /// What must hold for it.
    pub expect: Expect,
}

impl Guard {
    /// A guard that expects `expect` of `key`.
    pub fn new(key: impl Into<Key>, expect: Expect) -> Self {
        Self { key: key.into(), expect }
    }

    /// Whether `current` is what is expected.
    #[must_use]
    pub fn holds<N>(&self, current: Option<&Record<N>>) -> bool {
        match (self.expect, current) {
            (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
            (Expect::Modified(revision), Some(record)) => record.modified == revision,
            _ => false,
        }
    }
}

/// One change of a commit. A commit names a key at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write<N> {
    /// Create or replace a key.
    Put {
        /// The key written.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// What the caller's note function would say about `value`.
        note: N,
    },
    /// Remove a key. Removing one that does not exist changes nothing, and
    /// makes no event.
    Delete {
        /// The key removed.
        key: Key,
    },
}

impl<N> Write<N> {
    /// A write that creates or replaces `key`.
    pub fn put(key: impl Into<Key>, value: Bytes, note: N) -> Self {
        Self::Put { key: key.into(), value, note }
    }

    /// A write that removes `key`.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// When a commit may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it is on the disk: it survives a loss of power.
    Durable,
    /// After it is in the log, in revision order: it survives a crash of the
    /// process, and a loss of power at most one second later. For rows that are
    /// written all the time and mean little, such as heartbeats.
    Relaxed,
}

/// A commit that was applied.
#[derive(Debug, Clone)]
pub struct Committed<N> {
    /// The commit's revision. A commit that changed nothing (no writes, or only
    /// deletions of absent keys) gets the store's current one.
    pub revision: Revision,
    /// What each write left behind, in the order of the writes: the new record,
    /// or nothing after a deletion.
    pub records: Vec<Option<Arc<Record<N>>>>,
}

/// One change of one key. Several events carry the same revision when one
/// commit wrote several keys.
#[derive(Debug)]
pub struct Event<N> {
    /// Revision of the commit.
    pub revision: Revision,
    /// The key that changed.
    pub key: Key,
    /// The record before; nothing if the key was created.
    pub previous: Option<Arc<Record<N>>>,
    /// The record after; nothing if the key was deleted.
    pub current: Option<Arc<Record<N>>>,
}
