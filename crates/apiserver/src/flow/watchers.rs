//! How many watches a write is of interest to.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use registry::Row;

/// Watches that are open, by what they watch.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<HashMap<usize, Of>>);

/// Watches of one resource, of a part of it, and so on.
#[derive(Default)]
struct Of {
    count: u32,
    parts: HashMap<String, Of>,
}

/// Counts a watch for as long as it lives.
pub(crate) struct Watching {
    watchers: Arc<Watchers>,
    resource: usize,
    path: [String; 2],
}

impl Watchers {
    /// Counts a watch of a resource, a namespace of it, or one object; empty is all.
    pub(crate) fn watch(self: &Arc<Self>, row: &Row, namespace: &str, name: &str) -> Watching {
        let (watchers, resource) = (self.clone(), resource(row));
        let watching = Watching { watchers, resource, path: [namespace, name].map(str::to_owned) };
        watching.change(1);
        watching
    }

    /// The watches that see a change of this object.
    pub(super) fn interested(&self, row: &Row, namespace: &str, name: &str) -> u32 {
        let watchers = self.0.lock();
        let Some(all) = watchers.get(&resource(row)) else { return 0 };
        // A watch of one object is known by an empty namespace where there are none.
        let part =
            if namespace.is_empty() && name.is_empty() { None } else { all.parts.get(namespace) };
        let one = part.filter(|_| !name.is_empty()).and_then(|part| part.parts.get(name));
        [Some(all), part, one].into_iter().flatten().map(|of| of.count).sum()
    }
}

impl Watching {
    fn change(&self, by: i32) {
        let mut watchers = self.watchers.0.lock();
        let mut of = watchers.entry(self.resource).or_default();
        let depth = self.path.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        for part in &self.path[..depth] {
            of = of.parts.entry(part.clone()).or_default();
        }
        of.count = of.count.saturating_add_signed(by);
        if by < 0 {
            watchers.retain(|_, of| !of.is_empty());
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.change(-1);
    }
}

impl Of {
    /// Forgets the parts that nobody watches; whether nothing is left.
    fn is_empty(&mut self) -> bool {
        self.parts.retain(|_, of| !of.is_empty());
        self.count == 0 && self.parts.is_empty()
    }
}

/// All versions of a resource share where it is stored.
fn resource(row: &Row) -> usize {
    row.storage.as_ref().map_or(0, |storage| Arc::as_ptr(storage) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_those_above_it() {
        let rows = registry::Rows::builtin();
        let row = |group, resource| rows.get(group, "v1", resource).expect("a row");
        let (maps, nodes) = (row("", "configmaps"), row("", "nodes"));
        let watchers = Arc::new(Watchers::default());
        let open = [("", ""), ("", ""), ("a", ""), ("a", "x"), ("b", "")]
            .map(|(namespace, name)| watchers.watch(maps, namespace, name));
        let node = watchers.watch(nodes, "", "n");
        let seen = |row, namespace, name| watchers.interested(row, namespace, name);
        assert_eq!(seen(maps, "a", "x"), 4);
        assert_eq!((seen(maps, "a", ""), seen(maps, "b", "x"), seen(maps, "c", "x")), (3, 3, 2));
        assert_eq!((seen(nodes, "", "n"), seen(nodes, "", "m")), (1, 0));
        drop((open, node));
        assert_eq!(seen(maps, "a", "x") + seen(nodes, "", "n"), 0);
        assert!(watchers.0.lock().is_empty());
    }
}
