//! The whole desired table as the sum of the Services' parts, and what changes in it.
//!
//! A change is found and written in time proportional to the Services that changed. Knows nothing
//! of the API; where two Services claim one key, the one first by name has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
};

use client::ObjectKey;

use super::{
    endpoints::Target,
    plan::{DatagramPort, Fragment},
};
use crate::ruleset::{Container, Names};

/// Elements in one command: keeps lines readable in a failure's message.
const ELEMENTS_A_COMMAND: usize = 64;

type Slot = (Container, String);

/// Every Service's part.
#[derive(Debug, Default)]
pub(crate) struct State {
    fragments: HashMap<ObjectKey, Fragment>,
    claims: HashMap<Slot, BTreeMap<ObjectKey, String>>,
}

/// What was and what is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit<T> {
    before: Option<T>,
    after: Option<T>,
}

/// Changes to the table, gathered until they are written as one transaction.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    elements: BTreeMap<Slot, Edit<String>>,
    chains: BTreeMap<String, Edit<Vec<String>>>,
    sets: BTreeMap<String, Edit<String>>,
    /// Where UDP arrives that changed, and which endpoints may answer it now.
    pub(crate) datagrams: HashMap<DatagramPort, BTreeSet<Target>>,
}

fn edit<K: Ord, T: Clone>(
    edits: &mut BTreeMap<K, Edit<T>>,
    key: K,
    before: Option<T>,
    after: Option<T>,
) {
    edits
        .entry(key)
        .and_modify(|edit| edit.after = after.clone())
        .or_insert(Edit { before, after });
}

impl State {
    /// Replaces the part of Service `key`; an empty part removes it. Notes in `delta` what changes.
    pub(crate) fn replace(&mut self, key: &ObjectKey, new: Fragment, delta: &mut Delta) {
        let old = self.fragments.remove(key).unwrap_or_default();
        let slots: BTreeSet<&Slot> = old
            .elements
            .keys()
            .chain(new.elements.keys())
            .filter(|slot| old.elements.get(slot) != new.elements.get(slot))
            .collect();
        for slot in slots {
            let claims = self.claims.entry(slot.clone()).or_default();
            let before = claims.values().next().cloned();
            match new.elements.get(slot) {
                Some(value) => claims.insert(key.clone(), value.clone()),
                None => claims.remove(key),
            };
            let after = claims.values().next().cloned();
            if claims.is_empty() {
                self.claims.remove(slot);
            }
            if before != after {
                edit(&mut delta.elements, slot.clone(), before, after);
            }
        }
        difference(&old.chains, &new.chains, &mut delta.chains);
        difference(&old.sets, &new.sets, &mut delta.sets);
        if old.datagrams != new.datagrams {
            for at in old.datagrams.keys().chain(new.datagrams.keys()) {
                let targets = new.datagrams.get(at).cloned().unwrap_or_default();
                delta.datagrams.insert(*at, targets);
            }
        }
        if new != Fragment::default() {
            self.fragments.insert(key.clone(), new);
        }
    }

    /// Everything, as the change that makes it from an empty table.
    pub(crate) fn everything(&self) -> Delta {
        let mut delta = Delta::default();
        for (slot, claims) in &self.claims {
            let value = claims.values().next().cloned();
            delta.elements.insert(slot.clone(), Edit { before: None, after: value });
        }
        for fragment in self.fragments.values() {
            difference(&BTreeMap::new(), &fragment.chains, &mut delta.chains);
            difference(&BTreeMap::new(), &fragment.sets, &mut delta.sets);
            delta.datagrams.extend(fragment.datagrams.iter().map(|(at, to)| (*at, to.clone())));
        }
        delta
    }
}

fn difference<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    edits: &mut BTreeMap<String, Edit<T>>,
) {
    for (name, before) in old {
        let after = new.get(name);
        if after != Some(before) {
            edit(edits, name.clone(), Some(before.clone()), after.cloned());
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        edit(edits, name.clone(), None, Some(after.clone()));
    }
}

impl Delta {
    /// Adds the names of the chains and sets there are to be.
    pub(crate) fn name(&self, names: &mut Names) {
        let made = self.chains.iter().filter(|(_, edit)| edit.after.is_some());
        names.chains.extend(made.map(|(name, _)| name.clone()));
        let made = self.sets.iter().filter(|(_, edit)| edit.after.is_some());
        names.sets.extend(made.map(|(name, _)| name.clone()));
    }

    /// The transaction that makes the change in table `table`; empty if nothing changes.
    pub(crate) fn script(&self, table: &str) -> String {
        let mut script = String::new();
        // Names first, then what refers to them; references go before names do.
        for (name, edit) in changed(&self.sets) {
            if let (None, Some(declaration)) = (&edit.before, &edit.after) {
                line(&mut script, format_args!("add set ip {table} {name} {{ {declaration} }}"));
            }
        }
        for (name, _) in changed(&self.chains).filter(|(_, edit)| edit.before.is_none()) {
            line(&mut script, format_args!("add chain ip {table} {name}"));
        }
        for (name, _) in changed(&self.chains).filter(|(_, edit)| edit.before.is_some()) {
            line(&mut script, format_args!("flush chain ip {table} {name}"));
        }
        for (name, edit) in changed(&self.chains) {
            for rule in edit.after.iter().flatten() {
                line(&mut script, format_args!("add rule ip {table} {name} {rule}"));
            }
        }
        self.element_commands(&mut script, table, "delete", |edit| edit.before.as_ref());
        self.element_commands(&mut script, table, "add", |edit| edit.after.as_ref());
        for (name, _) in changed(&self.chains).filter(|(_, edit)| edit.after.is_none()) {
            line(&mut script, format_args!("delete chain ip {table} {name}"));
        }
        for (name, _) in changed(&self.sets).filter(|(_, edit)| edit.after.is_none()) {
            line(&mut script, format_args!("delete set ip {table} {name}"));
        }
        script
    }

    fn element_commands(
        &self,
        script: &mut String,
        table: &str,
        verb: &str,
        side: impl Fn(&Edit<String>) -> Option<&String>,
    ) {
        let mut by_container: BTreeMap<Container, Vec<String>> = BTreeMap::new();
        for ((container, key), edit) in changed(&self.elements) {
            if let Some(value) = side(edit) {
                let element =
                    if value.is_empty() { key.clone() } else { format!("{key} : {value}") };
                by_container.entry(*container).or_default().push(element);
            }
        }
        for (container, elements) in by_container {
            let name = container.name();
            for some in elements.chunks(ELEMENTS_A_COMMAND) {
                let list = some.join(", ");
                line(script, format_args!("{verb} element ip {table} {name} {{ {list} }}"));
            }
        }
    }
}

/// The edits that are not undone by later ones.
fn changed<K, T: PartialEq>(edits: &BTreeMap<K, Edit<T>>) -> impl Iterator<Item = (&K, &Edit<T>)> {
    edits.iter().filter(|(_, edit)| edit.before != edit.after)
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = script.write_fmt(text);
    script.push('\n');
}
