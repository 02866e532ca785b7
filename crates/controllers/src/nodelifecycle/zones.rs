//! How many nodes of each zone are silent, and so whether and how fast pods may be evicted from
//! them: a fault of many nodes at once is more likely one of the network than of the nodes.
//!
//! Counts and arithmetic; knows neither taints nor pods. Source of states and rates: upstream's
//! zones; the share from which on nothing is evicted is ours (docs/adr/0015).

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::{health::is_ready, pace};
use crate::objects::name;

/// Evictions stop while more than this share of a zone is silent, in per cent.
const UNHEALTHY: usize = 55;
/// A zone of more nodes than this goes on evicting, slowly.
const LARGE: usize = 50;
/// One node of a zone after the other: the pause between two.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The same while more of a large zone is silent than should be.
const SLOW: SignedDuration = SignedDuration::from_secs(100);

/// The health of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Enough nodes work.
    #[default]
    Normal,
    /// Too many are silent for all of them to be at fault.
    Partial,
    /// All are silent.
    Full,
}

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    silent: usize,
    state: State,
    /// State and pause as they were when somebody was last told.
    told: (State, Option<SignedDuration>),
    /// When the next node may be emptied.
    next: Option<Timestamp>,
}

impl Zone {
    fn count(&mut self, ready: bool) -> &mut usize {
        if ready { &mut self.ready } else { &mut self.silent }
    }

    fn judge(&self) -> State {
        let all = self.ready + self.silent;
        match (self.ready, self.silent) {
            (0, 1..) => State::Full,
            (_, 2..) if self.silent * 100 > all * UNHEALTHY => State::Partial,
            _ => State::Normal,
        }
    }

    /// The pause between two nodes; `None`: none is to be emptied.
    fn pause(&self) -> Option<SignedDuration> {
        match self.state {
            State::Normal | State::Full => Some(PAUSE),
            State::Partial if self.ready + self.silent > LARGE => Some(SLOW),
            State::Partial => None,
        }
    }
}

/// Whom beside a node itself its change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Concerned {
    Nobody,
    /// Silent nodes, whose pods may be evicted at another pace now.
    Silent(Vec<String>),
    /// All nodes: how often they renew their leases depends on how many they are.
    Everybody,
}

/// All nodes by zones, kept as they change.
#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: HashMap<String, Zone>,
    /// The zone of each node, and whether it is ready.
    nodes: HashMap<String, (String, bool)>,
    granted: HashMap<String, Timestamp>,
    /// No node at all works: the fault is more likely ours.
    disrupted: bool,
    /// When that was last over.
    recovered: Option<Timestamp>,
    /// All nodes have been counted once.
    counted: bool,
}

impl Zones {
    /// Whether [`Zones::count`] has been called.
    pub(super) fn are_counted(&self) -> bool {
        self.counted
    }

    /// Counts all nodes, once.
    pub(super) fn count<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, now: Timestamp) {
        for node in nodes {
            self.place(name(&node.metadata), Some(node));
        }
        self.judge(now);
        self.counted = true;
    }

    /// Takes in a node as it is now, or that it is gone. Nothing is told before all have been
    /// counted: a part of them says nothing about the whole.
    pub(super) fn note(&mut self, key: &str, node: Option<&Node>, now: Timestamp) -> Concerned {
        if !self.counted {
            return Concerned::Nobody;
        }
        let count = self.nodes.len();
        if !self.place(key, node) {
            return Concerned::Nobody;
        }
        let (changed, disruption) = self.judge(now);
        if pace::differs(count, self.nodes.len()) {
            return Concerned::Everybody;
        }
        let concerned = |(_, (zone, ready)): &(&String, &(String, bool))| {
            !ready && (disruption || changed.contains(zone))
        };
        match disruption || !changed.is_empty() {
            false => Concerned::Nobody,
            true => {
                let silent = self.nodes.iter().filter(concerned);
                Concerned::Silent(silent.map(|(name, _)| name.clone()).collect())
            }
        }
    }

    /// Counts a node where it belongs; whether that is elsewhere than before.
    fn place(&mut self, key: &str, node: Option<&Node>) -> bool {
        let now = node.map(|node| (zone_of(node), is_ready(node)));
        let before = self.nodes.get(key);
        if before == now.as_ref() {
            return false;
        }
        if let Some((zone, ready)) = before
            && let Some(zone) = self.zones.get_mut(zone)
        {
            *zone.count(*ready) -= 1;
        }
        // Of one that is gone or works, nothing is remembered.
        if now.as_ref().is_none_or(|(_, ready)| *ready) {
            self.granted.remove(key);
        }
        match now {
            Some((zone, ready)) => {
                *self.zones.entry(zone.clone()).or_default().count(ready) += 1;
                self.nodes.insert(key.to_owned(), (zone, ready));
            }
            None => drop(self.nodes.remove(key)),
        }
        true
    }

    /// Judges the zones; which are judged otherwise than before, and whether it has begun or ended
    /// that no node works.
    fn judge(&mut self, now: Timestamp) -> (HashSet<String>, bool) {
        let mut changed = HashSet::new();
        self.zones.retain(|_, zone| zone.ready + zone.silent > 0);
        for (name, zone) in &mut self.zones {
            let state = zone.judge();
            if state != zone.state {
                tracing::info!(zone = name, ?state, silent = zone.silent, ready = zone.ready);
                zone.state = state;
                zone.next = None;
            }
            let judged = (state, zone.pause());
            if std::mem::replace(&mut zone.told, judged) != judged {
                changed.insert(name.clone());
            }
        }
        let disrupted =
            !self.zones.is_empty() && self.zones.values().all(|zone| zone.state == State::Full);
        if self.disrupted && !disrupted {
            self.recovered = Some(now);
        }
        if disrupted {
            self.granted.clear();
        }
        (changed, std::mem::replace(&mut self.disrupted, disrupted) != disrupted)
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// From when on pods may be evicted from a silent node; `None`: not now, and nobody knows
    /// when. `evicting` says that they already are. After a time in which no node worked, nodes
    /// have `grace` to show themselves.
    pub(super) fn evict_from(
        &mut self,
        node: &Node,
        evicting: bool,
        grace: SignedDuration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let key = name(&node.metadata);
        let pause = self.zones.get(&zone_of(node)).and_then(Zone::pause);
        let (Some(pause), false) = (pause, self.disrupted) else {
            self.granted.remove(key);
            return None;
        };
        let calm = self.recovered.and_then(|at| at.checked_add(grace).ok());
        if let Some(calm) = calm.filter(|calm| *calm > now) {
            return Some(calm);
        }
        if evicting {
            return Some(now);
        }
        if let Some(granted) = self.granted.get(key) {
            return Some(*granted);
        }
        let zone = self.zones.get_mut(&zone_of(node))?;
        let at = zone.next.map_or(now, |next| next.max(now));
        zone.next = at.checked_add(pause).ok();
        self.granted.insert(key.to_owned(), at);
        Some(at)
    }
}

/// Region and zone by the well-known labels; nodes without are in a zone of their own together.
fn zone_of(node: &Node) -> String {
    let label = |kind: &str| {
        let labels = node.metadata.labels.as_ref()?;
        labels.get(&format!("topology.kubernetes.io/{kind}")).map(String::as_str)
    };
    match (label("region"), label("zone")) {
        (None, None) => String::new(),
        (region, zone) => {
            format!("{}:{}", region.unwrap_or_default(), zone.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time};

    const GRACE: SignedDuration = SignedDuration::from_secs(10);

    fn node(name: &str, zone: &str, ready: bool) -> Node {
        let ready = if ready { "True" } else { "Unknown" };
        from_yaml(&format!(
            "{{metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}},
              status: {{conditions: [{{type: Ready, status: '{ready}'}}]}}}}"
        ))
    }

    /// Nodes told as letters of their zones, in capitals where they are silent.
    fn cluster(nodes: &str) -> Vec<Node> {
        let node = |(i, zone): (usize, char)| {
            let letter = zone.to_ascii_lowercase().to_string();
            node(&format!("n{i}"), &letter, zone.is_ascii_lowercase())
        };
        nodes.chars().enumerate().map(node).collect()
    }

    /// Seconds after which each silent node of a [`cluster`] may be emptied.
    fn check(nodes: &str) -> Vec<Option<i64>> {
        let now = time("2026-01-01T00:00:00Z");
        let nodes = cluster(nodes);
        let mut zones = Zones::default();
        zones.count(nodes.iter(), now);
        let silent = nodes.iter().filter(|node| !is_ready(node));
        silent
            .map(|node| {
                let at = zones.evict_from(node, false, GRACE, now)?;
                Some(at.as_second() - now.as_second())
            })
            .collect()
    }

    #[test]
    fn one_node_after_the_other() {
        assert_eq!(check("Aaa"), [Some(0)]);
        assert_eq!(check("AAAaaaaa"), [Some(0), Some(10), Some(20)]);
        assert_eq!(check("ABaabb"), [Some(0), Some(0)], "each zone by itself");
    }

    #[test]
    fn nothing_while_too_much_of_a_zone_is_silent() {
        assert_eq!(check("AAa"), [None, None]);
        assert_eq!(check("Aa"), [Some(0)], "half is not too much");
        assert_eq!(check("AAabbb"), [None, None], "whatever other zones do");
        let large = format!("{}{}", "A".repeat(40), "a".repeat(20));
        assert_eq!(check(&large)[..2], [Some(0), Some(100)], "a large zone slowly");
    }

    #[test]
    fn a_zone_that_is_gone_is_emptied_unless_all_are() {
        assert_eq!(check("AAbb"), [Some(0), Some(10)]);
        assert_eq!(check("AABB"), [None, None, None, None]);
        assert_eq!(check("A"), [None]);
    }

    /// What a change of one node means for the others of a cluster, told as in [`cluster`].
    fn check_note(nodes: &str, name: &str, after: Option<&str>) -> Concerned {
        let now = time("2026-01-01T00:00:00Z");
        let mut zones = Zones::default();
        zones.count(cluster(nodes).iter(), now);
        let after = after.map(|zone| {
            node(name, &zone.to_ascii_lowercase(), zone.chars().all(char::is_lowercase))
        });
        zones.note(name, after.as_ref(), now)
    }

    #[test]
    fn a_change_concerns_those_for_whom_something_changes() {
        let silent = |names: &[&str]| {
            Concerned::Silent(names.iter().map(|name| (*name).to_owned()).collect())
        };
        assert_eq!(check_note("aaaa", "n0", Some("A")), Concerned::Nobody);
        assert_eq!(check_note("aaaa", "n0", Some("a")), Concerned::Nobody);
        assert_eq!(check_note("Aaaaaa", "n1", Some("A")), Concerned::Nobody, "still few");
        assert_eq!(check_note("Aab", "n1", Some("A")).sorted(), silent(&["n0", "n1"]));
        assert_eq!(check_note("ABab", "n2", Some("A")).sorted(), silent(&["n0", "n2"]));
        assert_eq!(
            check_note("AB", "n0", Some("a")).sorted(),
            silent(&["n1"]),
            "the first is back"
        );
        let many = "a".repeat(100);
        assert_eq!(check_note(&many, "new", Some("a")), Concerned::Everybody);
        assert_eq!(check_note(&many, "n0", None), Concerned::Nobody);
        assert_eq!(check_note(&many[..91], "n0", None), Concerned::Everybody);
    }

    impl Concerned {
        fn sorted(mut self) -> Self {
            if let Self::Silent(names) = &mut self {
                names.sort();
            }
            self
        }
    }

    #[test]
    fn after_a_time_without_any_node_all_have_a_grace_period() {
        let (start, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:01:00Z"));
        let mut zones = Zones::default();
        let all = [node("a", "z", false), node("b", "z", false), node("c", "z", false)];
        zones.count(all.iter(), start);
        assert_eq!(zones.evict_from(&all[0], false, GRACE, start), None);
        let back = [node("a", "z", false), node("b", "z", true), node("c", "z", true)];
        for node in &back {
            zones.note(name(&node.metadata), Some(node), later);
        }
        assert_eq!(zones.evict_from(&back[0], false, GRACE, later), Some(later + GRACE));
        let end = later + GRACE;
        assert_eq!(zones.evict_from(&back[0], false, GRACE, end), Some(end));
        assert_eq!(zones.evict_from(&back[0], false, GRACE, end + GRACE), Some(end), "kept");
    }
}
