//! One row of the log: how a change is numbered and checked. Pure.

use crc32fast::Hasher;

/// Bits of a sequence number that count the writes of one commit.
const INDEX_BITS: u32 = 12;
/// Highest index of a write in its commit.
pub(super) const MAX_INDEX: i64 = (1 << INDEX_BITS) - 1;

const _: () = assert!(crate::batch::MAX_WRITES as i64 == MAX_INDEX + 1);

/// What a row did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Deleted,
    Plain,
    Sealed,
}

impl Kind {
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Deleted => 0,
            Self::Plain => 1,
            Self::Sealed => 2,
        }
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::Deleted, Self::Plain, Self::Sealed].into_iter().find(|kind| kind.code() == code)
    }
}

/// A number as SQLite holds it; revisions and times never get that large.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The sequence number of a commit's write: ordered by revision, then index.
pub(super) fn sequence(revision: u64, index: i64) -> i64 {
    (i64::try_from(revision).unwrap_or(i64::MAX >> INDEX_BITS) << INDEX_BITS) | index
}

/// The revision that a sequence number belongs to.
pub(super) fn revision(sequence: i64) -> u64 {
    u64::try_from(sequence >> INDEX_BITS).unwrap_or(0)
}

/// A row as it is on disk, borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) sequence: i64,
    /// Milliseconds since the epoch.
    pub(super) time: i64,
    /// Revision of the row of the same key that this one supersedes, or 0.
    pub(super) previous: i64,
    /// Revision that created the key, or 0 if this row deletes it.
    pub(super) created: i64,
    pub(super) kind: i64,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl Row<'_> {
    /// The checksum over everything in the row.
    pub(super) fn checksum(&self) -> i64 {
        let mut hasher = Hasher::new();
        for number in [self.sequence, self.time, self.previous, self.created, self.kind] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&(self.key.len() as u64).to_le_bytes());
        hasher.update(self.key.as_bytes());
        hasher.update(self.value);
        i64::from(hasher.finalize())
    }
}

/// The checksum over the numbers of the state row.
pub(super) fn checksum_numbers(numbers: &[i64]) -> i64 {
    let mut hasher = Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    i64::from(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_order_by_revision_then_index() {
        assert!(sequence(5, MAX_INDEX) < sequence(6, 0));
        assert_eq!(revision(sequence(77, 9)), 77);
    }

    #[test]
    fn every_field_is_under_the_checksum() {
        let row =
            Row { sequence: 1, time: 2, previous: 3, created: 4, kind: 1, key: "a", value: b"b" };
        let others = [
            Row { sequence: 2, ..row },
            Row { time: 3, ..row },
            Row { previous: 4, ..row },
            Row { created: 5, ..row },
            Row { kind: 2, ..row },
            Row { key: "b", ..row },
            Row { key: "ab", value: b"", ..row },
            Row { value: b"c", ..row },
        ];
        for other in others {
            assert_ne!(row.checksum(), other.checksum(), "{other:?}");
        }
    }
}
