//! How many nodes of each zone are silent, and so whether and how fast pods may be evicted from
//! them: a fault of many nodes at once is more likely one of the network than of the nodes.
//!
//! Counts and arithmetic; knows neither taints nor pods. Source of states and rates: upstream's
//! zones; the share from which on nothing is evicted is ours (docs/adr/0015).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::health::is_ready;
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
    /// When the next node may be emptied.
    next: Option<Timestamp>,
}

impl Zone {
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

/// All nodes by zones, as last counted.
#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: HashMap<String, Zone>,
    granted: HashMap<String, Timestamp>,
    /// No node at all works: the fault is more likely ours.
    disrupted: bool,
    /// When that was last over.
    recovered: Option<Timestamp>,
    nodes: usize,
}

impl Zones {
    /// Counts again.
    pub(super) fn count<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, now: Timestamp) {
        for zone in self.zones.values_mut() {
            (zone.ready, zone.silent) = (0, 0);
        }
        self.nodes = 0;
        for node in nodes {
            self.nodes += 1;
            let zone = self.zones.entry(zone_of(node)).or_default();
            if is_ready(node) {
                zone.ready += 1;
                self.granted.remove(name(&node.metadata));
            } else {
                zone.silent += 1;
            }
        }
        self.zones.retain(|_, zone| zone.ready + zone.silent > 0);
        for (name, zone) in &mut self.zones {
            let state = zone.judge();
            if state != zone.state {
                tracing::info!(zone = name, ?state, silent = zone.silent, ready = zone.ready);
                zone.state = state;
                zone.next = None;
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
        self.disrupted = disrupted;
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
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

    /// Forgets a node that is no more.
    pub(super) fn forget(&mut self, node: &str) {
        self.granted.remove(node);
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

    /// Seconds after which each silent node may be emptied, for nodes told as `zone` letters,
    /// in capitals where they are silent.
    fn check(nodes: &str) -> Vec<Option<i64>> {
        let now = time("2026-01-01T00:00:00Z");
        let nodes: Vec<Node> = nodes
            .chars()
            .enumerate()
            .map(|(i, zone)| {
                let letter = zone.to_ascii_lowercase().to_string();
                node(&format!("n{i}"), &letter, zone.is_ascii_lowercase())
            })
            .collect();
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

    #[test]
    fn after_a_time_without_any_node_all_have_a_grace_period() {
        let (start, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:01:00Z"));
        let mut zones = Zones::default();
        let all = [node("a", "z", false), node("b", "z", false), node("c", "z", false)];
        zones.count(all.iter(), start);
        assert_eq!(zones.evict_from(&all[0], false, GRACE, start), None);
        let back = [node("a", "z", false), node("b", "z", true), node("c", "z", true)];
        zones.count(back.iter(), later);
        assert_eq!(zones.evict_from(&back[0], false, GRACE, later), Some(later + GRACE));
        let end = later + GRACE;
        assert_eq!(zones.evict_from(&back[0], false, GRACE, end), Some(end));
        assert_eq!(zones.evict_from(&back[0], false, GRACE, end + GRACE), Some(end), "kept");
    }
}
