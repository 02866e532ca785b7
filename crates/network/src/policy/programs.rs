//! What policies are in the table: their chains, the chains of pods with the same policies, and the
//! sets that they refer to, for as long as somebody uses them.
//!
//! The half of [`State`] that turns policies into rules; which pods there are is the other's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use client::ObjectKey;

use super::{
    model::{Direction, Namespaces},
    ranges::Family,
    render::{self, DENY, Members},
    state::State,
    subject::{Facts, Labels},
};

/// No chain's name is longer than the kernel takes (255), with what is put at its ends.
const NAME_BYTES: usize = 200;

/// A policy in one direction.
pub(super) type Half = (Direction, ObjectKey);
/// The policies that isolate a pod in one direction, in order.
pub(super) type Profile = (Direction, Vec<ObjectKey>);

/// What is in the table for one half of a policy.
pub(super) struct Programmed {
    name: String,
    chains: Vec<String>,
    sets: Vec<Members>,
    users: usize,
}

impl State {
    pub(super) fn acquire_profile(&mut self, profile: &Profile) -> String {
        if let Some((chain, users)) = self.profiles.get_mut(profile) {
            *users += 1;
            return chain.clone();
        }
        let (direction, policies) = profile;
        let mut rules: Vec<String> = policies
            .iter()
            .map(|policy| format!("jump {}", self.acquire_half(&(*direction, policy.clone()))))
            .collect();
        rules.push(format!("goto {DENY}"));
        let word = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let chain = format!("{word}/{}", self.number());
        self.content.set_chain(&chain, rules);
        self.profiles.insert(profile.clone(), (chain.clone(), 1));
        chain
    }

    pub(super) fn release_profile(&mut self, profile: &Profile) {
        let Some((_, users)) = self.profiles.get_mut(profile) else { return };
        *users -= 1;
        if *users == 0 {
            self.idle.push(profile.clone());
        }
    }

    /// Lets go of what nobody uses any more. Done once after many changes: what one pod leaves the
    /// next often takes up.
    pub(crate) fn sweep(&mut self) {
        for profile in std::mem::take(&mut self.idle) {
            if self.profiles.get(&profile).is_none_or(|(_, users)| *users > 0) {
                continue;
            }
            if let Some((chain, _)) = self.profiles.remove(&profile) {
                self.content.remove_chain(&chain);
            }
            for policy in &profile.1 {
                self.release_half(&(profile.0, policy.clone()));
            }
        }
    }

    fn acquire_half(&mut self, half: &Half) -> String {
        if let Some(programmed) = self.programmed.get_mut(half) {
            programmed.users += 1;
            return programmed.name.clone();
        }
        let (direction, key) = half;
        let word = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
        let name = format!("{word}/{}/{}/{}", self.number(), key.namespace(), key.name);
        let name: String = name.chars().filter(plain).take(NAME_BYTES).collect();
        let programmed =
            Programmed { name: name.clone(), chains: Vec::new(), sets: Vec::new(), users: 1 };
        self.programmed.insert(half.clone(), programmed);
        self.write(half);
        name
    }

    fn release_half(&mut self, half: &Half) {
        let Some(programmed) = self.programmed.get_mut(half) else { return };
        programmed.users -= 1;
        if programmed.users > 0 {
            return;
        }
        let Some(Programmed { chains, sets, .. }) = self.programmed.remove(half) else { return };
        for chain in chains {
            self.content.remove_chain(&chain);
        }
        for members in sets {
            self.sets.release(&members, &mut self.content);
        }
    }

    /// Writes the chains of a policy's half as the policy is now. One that is gone allows nothing,
    /// for as long as it takes until no pod's chain leads there.
    pub(super) fn write(&mut self, half: &Half) {
        let (direction, key) = half;
        let Some(name) = self.programmed.get(half).map(|programmed| programmed.name.clone()) else {
            return;
        };
        let policy = self.policies.get(key);
        let rules = policy.and_then(|policy| policy.rules.get(direction)).cloned();
        let mut used = Vec::new();
        let (pods, namespaces) = (&self.pods, &self.namespaces);
        let mut wanted = Vec::new();
        let chains = render::chains(
            &name,
            *direction,
            rules.as_deref().unwrap_or_default(),
            &mut |members| {
                used.push(members.clone());
                let (set, new) = self.sets.acquire(&members, &mut self.last, &mut self.content);
                if new {
                    wanted.push(members);
                }
                set
            },
        );
        for members in wanted {
            let all = pods.iter().filter(|(_, facts)| !facts.ghost).map(|(key, facts)| {
                let addresses = self.addresses(key, facts);
                (key.clone(), elements(&members, key, facts, &addresses, namespaces))
            });
            let all: Vec<_> = all.filter(|(_, elements)| !elements.is_empty()).collect();
            self.sets.fill(&members, all, &mut self.content);
        }
        let names: Vec<String> = chains.iter().map(|(name, _)| name.clone()).collect();
        for (chain, rules) in chains {
            self.content.set_chain(&chain, rules);
        }
        let Some(programmed) = self.programmed.get_mut(half) else { return };
        let old_chains = std::mem::replace(&mut programmed.chains, names.clone());
        let old_sets = std::mem::replace(&mut programmed.sets, used);
        for chain in old_chains.iter().filter(|chain| !names.contains(chain)) {
            self.content.remove_chain(chain);
        }
        for members in old_sets {
            self.sets.release(&members, &mut self.content);
        }
    }

    /// A number that no name has had before.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// What a pod adds to a set.
pub(super) fn elements(
    members: &Members,
    key: &ObjectKey,
    facts: &Facts,
    addresses: &[IpAddr],
    namespaces: &BTreeMap<String, Labels>,
) -> Vec<(Family, String)> {
    let all = |end: &str| -> Vec<(Family, String)> {
        let element = |address: &IpAddr| (Family::of(*address), format!("{address}{end}"));
        addresses.iter().map(element).collect()
    };
    match members {
        Members::Pods(selection) => {
            let here = match &selection.namespaces {
                Namespaces::One(name) => name == key.namespace(),
                Namespaces::Labelled(selector) => {
                    namespaces.get(key.namespace()).is_some_and(|labels| selector.matches(labels))
                }
            };
            if here && selection.pods.matches(&facts.labels) { all("") } else { Vec::new() }
        }
        Members::Ports(protocol, name) => {
            let named = facts.ports.iter().filter(|(p, n, _)| (p, n) == (protocol, name));
            let numbers: BTreeSet<u16> = named.map(|(_, _, number)| *number).collect();
            numbers.iter().flat_map(|number| all(&format!(" . {number}"))).collect()
        }
        Members::Block(..) => Vec::new(),
    }
}
