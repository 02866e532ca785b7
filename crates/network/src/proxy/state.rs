//! The whole desired table as the sum of the Services' parts, and what changes in it.
//!
//! A change is found and written in time proportional to what changed. Knows nothing of the API;
//! where two Services claim one key, the one first by name has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    sync::Arc,
};

use client::ObjectKey;

use super::{
    element::{Entry, Key, Place, Value},
    endpoints::Target,
    plan::Fragment,
};
use crate::{
    edits::{Edit, Edits},
    ruleset::{Container, Names, Picker},
};

/// An entry's endpoints, as they lie in one of the four maps of endpoints.
pub(crate) type Slots = (Container, Entry);

/// Every Service's part.
#[derive(Debug, Default)]
pub(crate) struct State {
    fragments: HashMap<ObjectKey, Fragment>,
    claims: HashMap<Place, BTreeMap<ObjectKey, Value>>,
    slot_claims: HashMap<Slots, BTreeMap<ObjectKey, Arc<[Target]>>>,
    /// Which endpoint lies in which slot.
    slots: HashMap<Slots, Vec<Target>>,
}

/// Changes to the table, gathered until they are made.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    elements: Edits<Place, Value>,
    chains: Edits<String, Vec<String>>,
    sets: Edits<String, String>,
    /// Chains that elements lead to and that are the same for all Services.
    pub(crate) pickers: BTreeSet<Picker>,
    /// Where UDP arrives that changed, and which endpoints may answer it now.
    pub(crate) datagrams: HashMap<Entry, BTreeSet<Target>>,
}

/// Changes who claims `place`; `None` if the first claim stays, otherwise it before and now.
fn claim<P: std::hash::Hash + Eq + Clone, T: Clone + PartialEq>(
    claims: &mut HashMap<P, BTreeMap<ObjectKey, T>>,
    place: &P,
    key: &ObjectKey,
    value: Option<&T>,
) -> Option<(Option<T>, Option<T>)> {
    let all = claims.entry(place.clone()).or_default();
    let before = all.values().next().cloned();
    match value {
        Some(value) => all.insert(key.clone(), value.clone()),
        None => all.remove(key),
    };
    let after = all.values().next().cloned();
    if all.is_empty() {
        claims.remove(place);
    }
    (before != after).then_some((before, after))
}

/// The keys of which `old` and `new` differ.
fn differing<'a, K: Ord + Clone, T: PartialEq>(
    old: &'a BTreeMap<K, T>,
    new: &'a BTreeMap<K, T>,
) -> BTreeSet<K> {
    let all = old.keys().chain(new.keys());
    all.filter(|key| old.get(key) != new.get(key)).cloned().collect()
}

impl State {
    /// Replaces the part of Service `key`; an empty part removes it. Notes in `delta` what changes.
    pub(crate) fn replace(&mut self, key: &ObjectKey, new: Fragment, delta: &mut Delta) {
        let old = self.fragments.remove(key).unwrap_or_default();
        for place in differing(&old.elements, &new.elements) {
            let claimed = claim(&mut self.claims, &place, key, new.elements.get(&place));
            if let Some((before, after)) = claimed {
                delta.elements.note(place, before, after);
            }
        }
        for slots in differing(&old.slots, &new.slots) {
            let claimed = claim(&mut self.slot_claims, &slots, key, new.slots.get(&slots));
            if let Some((_, after)) = claimed {
                self.fill(slots, after.as_deref().unwrap_or_default(), delta);
            }
        }
        difference(&old.chains, &new.chains, &mut delta.chains);
        difference(&old.sets, &new.sets, &mut delta.sets);
        for entry in differing(&old.datagrams, &new.datagrams) {
            let targets = new.datagrams.get(&entry).cloned().unwrap_or_default();
            delta.datagrams.insert(entry, targets);
        }
        if new != Fragment::default() {
            self.fragments.insert(key.clone(), new);
        }
    }

    /// Lays `targets` into an entry's slots, moving as few as possible.
    fn fill(&mut self, at: Slots, targets: &[Target], delta: &mut Delta) {
        let (container, entry) = at;
        let before = self.slots.remove(&at).unwrap_or_default();
        let wanted: BTreeSet<&Target> = targets.iter().collect();
        let present: BTreeSet<&Target> = before.iter().collect();
        let mut coming = targets.iter().filter(|target| !present.contains(target));
        let mut after = before.clone();
        // From the end, so that what is last and fills a gap is one that stays.
        for slot in (0..after.len()).rev() {
            if !wanted.contains(&after[slot]) {
                match coming.next() {
                    Some(target) => after[slot] = *target,
                    None => drop(after.swap_remove(slot)),
                }
            }
        }
        after.extend(coming);
        for slot in 0..before.len().max(after.len()) {
            let (old, new) = (before.get(slot), after.get(slot));
            if old != new {
                let place = (container, Key::Slot(entry, slot as u32));
                let value = |target: Option<&Target>| target.map(|target| Value::Target(*target));
                delta.elements.note(place, value(old), value(new));
            }
        }
        if !after.is_empty() {
            delta.pickers.insert(Picker::of(entry.family(), container, after.len()));
            self.slots.insert(at, after);
        }
    }

    /// Everything but elements, as the change that makes it from an empty table.
    pub(crate) fn frame(&self) -> Delta {
        let mut delta = Delta::default();
        for fragment in self.fragments.values() {
            difference(&BTreeMap::new(), &fragment.chains, &mut delta.chains);
            difference(&BTreeMap::new(), &fragment.sets, &mut delta.sets);
            delta.datagrams.extend(fragment.datagrams.iter().map(|(at, to)| (*at, to.clone())));
        }
        let pickers = self.slots.iter();
        delta.pickers.extend(pickers.map(|((container, entry), targets)| {
            Picker::of(entry.family(), *container, targets.len())
        }));
        delta
    }

    /// All elements there are to be.
    pub(crate) fn elements(&self) -> impl Iterator<Item = (Place, Value)> {
        let claimed = self.claims.iter().filter_map(|(place, claims)| {
            claims.values().next().map(|value| (*place, value.clone()))
        });
        claimed.chain(self.slots.iter().flat_map(|((container, entry), targets)| {
            targets.iter().enumerate().map(|(slot, target)| {
                ((*container, Key::Slot(*entry, slot as u32)), Value::Target(*target))
            })
        }))
    }
}

fn difference<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    edits: &mut Edits<String, T>,
) {
    for name in differing(old, new) {
        let (before, after) = (old.get(&name).cloned(), new.get(&name).cloned());
        edits.note(name, before, after);
    }
}

impl Delta {
    /// Adds the names of the chains and sets there are to be.
    pub(crate) fn name(&self, names: &mut Names) {
        let made = self.chains.real().filter(|(_, edit)| edit.after.is_some());
        names.chains.extend(made.map(|(name, _)| name.clone()));
        names.chains.extend(self.pickers.iter().map(|picker| picker.name()));
        let made = self.sets.real().filter(|(_, edit)| edit.after.is_some());
        names.sets.extend(made.map(|(name, _)| name.clone()));
    }

    /// Sets that are made, and chains that are made or get other rules, without leading anyone to
    /// them: commands that come before the elements change. Pickers in `present` are there.
    pub(crate) fn before(&self, table: &str, present: &BTreeSet<Picker>) -> String {
        let mut script = String::new();
        for (name, edit) in self.sets.real() {
            if let (None, Some(declaration)) = (&edit.before, &edit.after) {
                line(&mut script, format_args!("add set inet {table} {name} {{ {declaration} }}"));
            }
        }
        for picker in self.pickers.difference(present) {
            let name = picker.name();
            // It may be there from an earlier run.
            line(&mut script, format_args!("add chain inet {table} {name}"));
            line(&mut script, format_args!("flush chain inet {table} {name}"));
            for rule in picker.rules() {
                line(&mut script, format_args!("add rule inet {table} {name} {rule}"));
            }
        }
        for (name, edit) in self.chains.real() {
            match edit {
                Edit { before: None, .. } => {
                    line(&mut script, format_args!("add chain inet {table} {name}"));
                }
                // What is about to go keeps its rules while somebody may still be led to it.
                Edit { after: None, .. } => {}
                _ => line(&mut script, format_args!("flush chain inet {table} {name}")),
            }
        }
        for (name, edit) in self.chains.real() {
            for rule in edit.after.iter().flatten() {
                line(&mut script, format_args!("add rule inet {table} {name} {rule}"));
            }
        }
        script
    }

    /// Chains and sets that go: commands for after the elements changed.
    pub(crate) fn after(&self, table: &str) -> String {
        let mut script = String::new();
        let going = || self.chains.real().filter(|(_, edit)| edit.after.is_none());
        for (name, _) in going() {
            line(&mut script, format_args!("flush chain inet {table} {name}"));
        }
        for (name, _) in going() {
            line(&mut script, format_args!("delete chain inet {table} {name}"));
        }
        for (name, _) in self.sets.real().filter(|(_, edit)| edit.after.is_none()) {
            line(&mut script, format_args!("delete set inet {table} {name}"));
        }
        script
    }

    /// The elements that change.
    pub(crate) fn elements(&self) -> impl Iterator<Item = (&Place, &Edit<Value>)> {
        self.elements.real()
    }
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = script.write_fmt(text);
    script.push('\n');
}
