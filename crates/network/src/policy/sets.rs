//! The sets that policies share: who refers to them, and which pods put what into them.
//!
//! Pure. An element that several pods claim (an address that passes from one to the next) stays
//! while one of them does.

use std::collections::HashMap;

use client::ObjectKey;

use super::{
    content::Content,
    ranges::{self, Family},
    render::Members,
};

/// One set, of each family one in the table.
#[derive(Debug)]
struct Shared {
    name: String,
    users: usize,
    claims: HashMap<ObjectKey, Vec<(Family, String)>>,
    counts: HashMap<(Family, String), usize>,
}

/// Every set that a programmed policy refers to.
#[derive(Debug, Default)]
pub(crate) struct Sets(HashMap<Members, Shared>);

impl Sets {
    /// The set's name, without the digit of its family; and whether it is new and must be filled.
    pub(crate) fn acquire(
        &mut self,
        members: &Members,
        last: &mut u64,
        content: &mut Content,
    ) -> (String, bool) {
        if let Some(shared) = self.0.get_mut(members) {
            shared.users += 1;
            return (shared.name.clone(), false);
        }
        *last += 1;
        let word = match members {
            Members::Pods(_) => "pods",
            Members::Ports(..) => "ports",
            Members::Block(..) => "block",
        };
        let name = format!("{word}/{last}");
        for family in families(members) {
            let address = match family {
                Family::V4 => "ipv4_addr",
                Family::V6 => "ipv6_addr",
            };
            let set = format!("{name}/{}", family.digit());
            match members {
                Members::Pods(_) => content.add_set(&set, &format!("type {address};"), []),
                Members::Ports(..) => {
                    content.add_set(&set, &format!("type {address} . inet_service;"), []);
                }
                Members::Block(_, ranges) => {
                    let elements = ranges.iter().map(|range| ranges::text(family, *range));
                    content.add_set(&set, &format!("type {address}; flags interval;"), elements);
                }
            }
        }
        let shared =
            Shared { name: name.clone(), users: 1, claims: HashMap::new(), counts: HashMap::new() };
        self.0.insert(members.clone(), shared);
        (name, true)
    }

    /// Fills a new set.
    pub(crate) fn fill(
        &mut self,
        members: &Members,
        claims: Vec<(ObjectKey, Vec<(Family, String)>)>,
        content: &mut Content,
    ) {
        let Some(shared) = self.0.get_mut(members) else { return };
        for (key, elements) in claims {
            shared.claim(&key, elements, content);
        }
    }

    /// One reference less; the last takes the set with it.
    pub(crate) fn release(&mut self, members: &Members, content: &mut Content) {
        let Some(shared) = self.0.get_mut(members) else { return };
        shared.users -= 1;
        if shared.users == 0 {
            for family in families(members) {
                content.remove_set(&format!("{}/{}", shared.name, family.digit()));
            }
            self.0.remove(members);
        }
    }

    /// Takes in what a pod now adds to each set.
    pub(crate) fn refresh(
        &mut self,
        key: &ObjectKey,
        content: &mut Content,
        elements: impl Fn(&Members) -> Vec<(Family, String)>,
    ) {
        for (members, shared) in &mut self.0 {
            shared.claim(key, elements(members), content);
        }
    }
}

impl Shared {
    fn claim(&mut self, key: &ObjectKey, new: Vec<(Family, String)>, content: &mut Content) {
        let old = self.claims.get(key).map(Vec::as_slice).unwrap_or_default();
        if old == new.as_slice() {
            return;
        }
        let old = self.claims.remove(key).unwrap_or_default();
        for element in &new {
            let count = self.counts.entry(element.clone()).or_default();
            *count += 1;
            if *count == 1 {
                content.set(&self.set(element.0), &element.1, Some(String::new()));
            }
        }
        for element in &old {
            if let Some(count) = self.counts.get_mut(element) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(element);
                    content.set(&self.set(element.0), &element.1, None);
                }
            }
        }
        if !new.is_empty() {
            self.claims.insert(key.clone(), new);
        }
    }

    fn set(&self, family: Family) -> String {
        format!("{}/{}", self.name, family.digit())
    }
}

fn families(members: &Members) -> Vec<Family> {
    match members {
        Members::Block(family, _) => vec![*family],
        _ => Family::BOTH.to_vec(),
    }
}
