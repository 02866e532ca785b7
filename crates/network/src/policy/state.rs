//! From pods, namespaces and policies to what the table is to hold, kept up as they change.
//!
//! Pure and synchronous. Only what concerns pods of this node gets into the table: a policy while
//! it selects one of them, a set while such a policy refers to it. The work of a change is in
//! proportion to what the change touches. Knows nothing of how a table is changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use client::ObjectKey;

use super::{
    content::Content,
    model::{Direction, Namespaces, Policy},
    ranges::Family,
    render::{self, DENY, Members, verdicts},
    sets::Sets,
    subject::{Attachment, Facts, Labels},
};

/// No chain's name is longer than the kernel takes (255), with what is put at its ends.
const NAME_BYTES: usize = 200;

/// A policy in one direction.
type Half = (Direction, ObjectKey);
/// The policies that isolate a pod in one direction, in order.
type Profile = (Direction, Vec<ObjectKey>);

/// What is in the table for one half of a policy.
struct Programmed {
    name: String,
    chains: Vec<String>,
    sets: Vec<Members>,
    users: usize,
}

/// How a pod of this node is policed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Target {
    addresses: Vec<IpAddr>,
    profiles: BTreeMap<Direction, Vec<ObjectKey>>,
}

/// Everything known, and everything that follows.
#[derive(Default)]
pub(crate) struct State {
    node: String,
    pods: BTreeMap<ObjectKey, Facts>,
    namespaces: BTreeMap<String, Labels>,
    policies: BTreeMap<ObjectKey, Policy>,
    attached: BTreeMap<ObjectKey, Attachment>,
    devices: HashMap<IpAddr, String>,
    owners: HashMap<IpAddr, ObjectKey>,
    targets: BTreeMap<ObjectKey, Target>,
    /// Whose target the elements of an address are.
    holders: HashMap<IpAddr, ObjectKey>,
    profiles: HashMap<Profile, (String, usize)>,
    /// Profiles that nobody used at some time since the last sweep.
    idle: Vec<Profile>,
    programmed: HashMap<Half, Programmed>,
    sets: Sets,
    last: u64,
    /// What follows for packets.
    pub(crate) content: Content,
    /// What follows for frames.
    pub(crate) guard: Content,
}

impl State {
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// Takes in a pod, or that it is gone.
    pub(crate) fn pod(&mut self, key: &ObjectKey, facts: Option<Facts>) {
        if self.pods.get(key) == facts.as_ref() {
            return;
        }
        let before = match facts.clone() {
            Some(facts) => self.pods.insert(key.clone(), facts),
            None => self.pods.remove(key),
        };
        if let Some(before) = before
            && let Some(attachment) = self.attached.get(key)
            && before.has(attachment)
            && !facts.as_ref().is_some_and(|facts| facts.has(attachment))
        {
            self.leave_ghost(key, before);
        }
        self.refresh(key);
    }

    /// A pod that is gone from the API is policed until its address is given back.
    fn leave_ghost(&mut self, key: &ObjectKey, facts: Facts) {
        let Some(attachment) = self.attached.remove(key) else { return };
        // No pod has such a name.
        let name = format!("{}@{}", key.name, attachment.uid);
        let ghost = ObjectKey { namespace: key.namespace.clone(), name };
        for address in &attachment.addresses {
            self.owners.insert(*address, ghost.clone());
        }
        self.attached.insert(ghost.clone(), attachment);
        self.pods.insert(ghost.clone(), Facts { ghost: true, ..facts });
        self.refresh(key);
        self.refresh(&ghost);
    }

    /// Takes in a namespace's labels, or that it is gone.
    pub(crate) fn namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        for key in keys_in(&self.pods, name) {
            self.refresh_membership(&key);
        }
    }

    /// Takes in a policy, or that it is gone.
    pub(crate) fn policy(&mut self, key: &ObjectKey, policy: Option<Policy>) {
        if self.policies.get(key) == policy.as_ref() {
            return;
        }
        match policy {
            Some(policy) => self.policies.insert(key.clone(), policy),
            None => self.policies.remove(key),
        };
        for direction in Direction::BOTH {
            let half = (direction, key.clone());
            if self.programmed.contains_key(&half) {
                self.write(&half);
            }
        }
        for pod in keys_in(&self.pods, key.namespace()) {
            self.retarget(&pod);
        }
    }

    /// Takes in that a pod of this node has been given addresses. Whoever had them has them no more.
    pub(crate) fn attach(&mut self, attachment: Attachment) {
        let key = ObjectKey::namespaced(&attachment.namespace, &attachment.name);
        for address in &attachment.addresses {
            self.detach(*address);
            self.bind(*address, Some(attachment.device.clone()));
        }
        if attachment.name.is_empty() {
            return;
        }
        if let Some(before) = self.attached.get(&key) {
            let other = before.uid != attachment.uid;
            match self.pods.get(&key).filter(|facts| other && facts.has(before)).cloned() {
                Some(facts) => self.leave_ghost(&key, facts),
                None => self.disown(&key),
            }
        }
        let held = attachment.addresses.iter().filter_map(|address| self.holders.get(address));
        let former: Vec<ObjectKey> = held.filter(|holder| **holder != key).cloned().collect();
        self.owners.extend(attachment.addresses.iter().map(|address| (*address, key.clone())));
        self.attached.insert(key.clone(), attachment);
        for holder in former {
            self.refresh(&holder);
        }
        self.refresh(&key);
    }

    /// Takes in that an address is nobody's any more.
    pub(crate) fn detach(&mut self, address: IpAddr) {
        self.bind(address, None);
        let Some(key) = self.owners.get(&address).cloned() else { return };
        self.disown(&key);
        if self.pods.get(&key).is_some_and(|facts| facts.ghost) {
            self.pods.remove(&key);
        }
        self.refresh(&key);
    }

    /// From which device an address may come.
    fn bind(&mut self, address: IpAddr, device: Option<String>) {
        let set = format!("bound{}", Family::of(address).digit());
        let element = |device: &str| format!("\"{device}\" . {address}");
        if let Some(old) = self.devices.remove(&address) {
            self.guard.set(&set, &element(&old), None);
        }
        if let Some(device) = device {
            self.guard.set(&set, &element(&device), Some(String::new()));
            self.devices.insert(address, device);
        }
    }

    fn disown(&mut self, key: &ObjectKey) {
        for address in self.attached.remove(key).into_iter().flat_map(|gone| gone.addresses) {
            self.owners.remove(&address);
        }
    }

    /// Whether the pod of an attachment is known, and so policed as far as policies are known. What
    /// is no pod's is subject to no policy.
    pub(crate) fn knows(&self, attachment: &Attachment) -> bool {
        if attachment.name.is_empty() {
            return true;
        }
        let key = ObjectKey::namespaced(&attachment.namespace, &attachment.name);
        self.pods.get(&key).is_some_and(|facts| facts.has(attachment))
    }

    fn refresh(&mut self, key: &ObjectKey) {
        self.refresh_membership(key);
        self.retarget(key);
    }

    /// The addresses a pod has now. What this node's network says counts more than a status.
    fn addresses(&self, key: &ObjectKey, facts: &Facts) -> Vec<IpAddr> {
        match self.attached.get(key).filter(|attachment| facts.has(attachment)) {
            Some(attachment) => attachment.addresses.clone(),
            None => {
                let free = |address: &&IpAddr| !self.owners.contains_key(address);
                facts.addresses.iter().filter(free).copied().collect()
            }
        }
    }

    fn refresh_membership(&mut self, key: &ObjectKey) {
        let facts = self.pods.get(key).filter(|facts| !facts.ghost);
        let member = facts.map(|facts| (facts, self.addresses(key, facts)));
        let namespaces = &self.namespaces;
        self.sets.refresh(key, &mut self.content, |members| {
            let Some((facts, addresses)) = &member else { return Vec::new() };
            elements(members, key, facts, addresses, namespaces)
        });
    }

    /// Makes sure that a pod is judged by the policies that select it, if it lives here.
    fn retarget(&mut self, key: &ObjectKey) {
        let new = self.target(key);
        let old = self.targets.get(key).cloned().unwrap_or_default();
        if new == old {
            return;
        }
        let own = |address: &&IpAddr| self.holders.get(*address) == Some(key);
        let left: Vec<IpAddr> = old.addresses.iter().filter(own).copied().collect();
        for direction in Direction::BOTH {
            let verdict = new.profiles.get(&direction).map(|policies| {
                format!("goto {}", self.acquire_profile(&(direction, policies.clone())))
            });
            for address in &left {
                self.content.set(&verdicts(direction, Family::of(*address)), &text(*address), None);
            }
            for address in &new.addresses {
                let map = verdicts(direction, Family::of(*address));
                self.content.set(&map, &text(*address), verdict.clone());
            }
            if let Some(policies) = old.profiles.get(&direction) {
                self.release_profile(&(direction, policies.clone()));
            }
        }
        let policed = (!new.profiles.is_empty()).then(String::new);
        for (addresses, value) in [(&left, None), (&new.addresses, policed)] {
            for address in addresses {
                let digit = Family::of(*address).digit();
                self.content.set(&format!("policed{digit}"), &text(*address), value.clone());
                let pair = format!("{address} . {address}");
                self.content.set(&format!("self{digit}"), &pair, value.clone());
            }
        }
        for address in left {
            self.holders.remove(&address);
        }
        self.holders.extend(new.addresses.iter().map(|address| (*address, key.clone())));
        if new == Target::default() {
            self.targets.remove(key);
        } else {
            self.targets.insert(key.clone(), new);
        }
    }

    fn target(&self, key: &ObjectKey) -> Target {
        let Some(facts) = self.pods.get(key).filter(|facts| facts.node == self.node) else {
            return Target::default();
        };
        let addresses = self.addresses(key, facts);
        let mut target = Target { addresses, profiles: BTreeMap::new() };
        if target.addresses.is_empty() {
            return target;
        }
        for policy in keys_in(&self.policies, key.namespace()) {
            let Some(Policy { pods, rules }) = self.policies.get(&policy) else { continue };
            if pods.matches(&facts.labels) {
                for direction in rules.keys() {
                    target.profiles.entry(*direction).or_default().push(policy.clone());
                }
            }
        }
        target
    }

    fn acquire_profile(&mut self, profile: &Profile) -> String {
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

    fn release_profile(&mut self, profile: &Profile) {
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
    fn write(&mut self, half: &Half) {
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
fn elements(
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

fn text(address: IpAddr) -> String {
    address.to_string()
}

/// The keys of one namespace.
fn keys_in<T>(map: &BTreeMap<ObjectKey, T>, namespace: &str) -> Vec<ObjectKey> {
    let first = ObjectKey::namespaced(namespace, "");
    map.range(&first..)
        .map(|(key, _)| key)
        .take_while(|key| key.namespace() == namespace)
        .cloned()
        .collect()
}
