//! From pods, namespaces and policies to what the table is to hold, kept up as they change.
//!
//! Pure and synchronous. Only what concerns pods of this node gets into the table: a policy while
//! it selects one of them, a set while such a policy refers to it. The work of a change is in
//! proportion to what the change touches. Knows nothing of how a table is changed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use client::ObjectKey;

use super::{
    content::Content,
    model::{Direction, Policy},
    programs::{Half, Profile, Programmed, elements},
    ranges::Family,
    render::verdicts,
    sets::Sets,
    subject::{Attachment, Facts, Labels},
};

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
    pub(super) pods: BTreeMap<ObjectKey, Facts>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) policies: BTreeMap<ObjectKey, Policy>,
    attached: BTreeMap<ObjectKey, Attachment>,
    devices: HashMap<IpAddr, String>,
    owners: HashMap<IpAddr, ObjectKey>,
    targets: BTreeMap<ObjectKey, Target>,
    /// Whose target the elements of an address are.
    holders: HashMap<IpAddr, ObjectKey>,
    pub(super) profiles: HashMap<Profile, (String, usize)>,
    /// Profiles that nobody used at some time since the last sweep.
    pub(super) idle: Vec<Profile>,
    pub(super) programmed: HashMap<Half, Programmed>,
    pub(super) sets: Sets,
    pub(super) last: u64,
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
    pub(super) fn addresses(&self, key: &ObjectKey, facts: &Facts) -> Vec<IpAddr> {
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
