//! An immutable view of the whole store at one revision. Refuses to know where
//! the data came from.

use std::{ops::Bound, sync::Arc};

use imbl::OrdMap;

use crate::{Key, Record, Revision};

pub(crate) type Map<N> = OrdMap<Key, Arc<Record<N>>>;

/// The whole store at one revision. A pointer: cheap to clone, and unchanged
/// for as long as it is held (holding it keeps old values in memory).
#[derive(Debug)]
pub struct Snapshot<N>(Arc<Inner<N>>);

#[derive(Debug)]
struct Inner<N> {
    map: Map<N>,
    revision: Revision,
}

impl<N> Clone for Snapshot<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Snapshot<N> {
    pub(crate) fn new(map: Map<N>, revision: Revision) -> Self {
        Self(Arc::new(Inner { map, revision }))
    }

    pub(crate) fn map(&self) -> &Map<N> {
        &self.0.map
    }

    /// The revision that this snapshot shows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// The record of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<Record<N>>> {
        self.0.map.get(key)
    }

    /// Number of keys in the whole store.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.map.len()
    }

    /// Whether the store is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.map.is_empty()
    }

    /// All records whose key starts with `prefix`, in the order of their keys.
    pub fn range<'a>(&'a self, prefix: &'a str) -> Range<'a, N> {
        self.range_after(prefix, None)
    }

    /// Records whose key starts with `prefix` and is greater than `after`, in
    /// the order of their keys. To read page by page, pass the last key seen;
    /// to limit, `take`.
    pub fn range_after<'a>(&'a self, prefix: &'a str, after: Option<&str>) -> Range<'a, N> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Range { items: self.0.map.range::<_, str>((start, Bound::Unbounded)), prefix }
    }
}

/// Records of a key range. See [`Snapshot::range_after`].
pub struct Range<'a, N> {
    items: imbl::ordmap::RangedIter<'a, Key, Arc<Record<N>>, imbl::shared_ptr::DefaultSharedPtr>,
    prefix: &'a str,
}

impl<'a, N> Iterator for Range<'a, N> {
    type Item = (&'a Key, &'a Arc<Record<N>>);

    fn next(&mut self) -> Option<Self::Item> {
        self.items.next().filter(|(key, _)| key.starts_with(self.prefix))
    }
}
