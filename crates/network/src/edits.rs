//! Changes gathered until they are made together: what was under a key before the first of them, and
//! what is to be after the last.
//!
//! Knows neither tables nor what the values mean.

use std::collections::{BTreeMap, btree_map::Entry};

/// What was and what is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit<T> {
    pub(crate) before: Option<T>,
    pub(crate) after: Option<T>,
}

/// Edits by key.
#[derive(Debug)]
pub(crate) struct Edits<K, T>(BTreeMap<K, Edit<T>>);

impl<K, T> Default for Edits<K, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, T: PartialEq> Edits<K, T> {
    /// Takes in a change; `before` counts if it is the first of its key.
    pub(crate) fn note(&mut self, key: K, before: Option<T>, after: Option<T>) {
        match self.0.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().after = after,
            Entry::Vacant(new) => drop(new.insert(Edit { before, after })),
        }
    }

    /// Forgets the changes under keys that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| wanted(key));
    }

    /// Those that are not undone by later ones.
    pub(crate) fn real(&self) -> impl Iterator<Item = (&K, &Edit<T>)> {
        self.0.iter().filter(|(_, edit)| edit.before != edit.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_are_one_and_some_are_none() {
        let mut edits = Edits::default();
        edits.note("a", None, Some(1));
        edits.note("a", Some(1), Some(2));
        edits.note("b", None, Some(1));
        edits.note("b", Some(1), None);
        edits.note("c", Some(1), None);
        let real: Vec<_> =
            edits.real().map(|(key, edit)| (*key, edit.before, edit.after)).collect();
        assert_eq!(real, [("a", None, Some(2)), ("c", Some(1), None)]);
        edits.retain(|key| *key != "a");
        assert_eq!(edits.real().count(), 1);
    }
}
