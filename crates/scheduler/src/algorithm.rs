//! One decision: which node, or why none. Pure but for the state of its own random numbers and
//! of where it looked last.

use std::collections::BTreeMap;

use crate::cluster::Snapshot;
use crate::plugin::{AnyScore, Plugin, PluginSet, Preparation, PreparedFilter, Reason, Verdict};
use crate::pod::PodInfo;

/// Clusters up to this many nodes are looked at in full; of larger ones at least as many.
const MIN_LOOKED_AT: usize = 100;
/// The least share of a large cluster that is looked at, in percent.
const MIN_SHARE: usize = 5;

/// What became of a pod.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// It goes to the node at this place in the snapshot.
    Node(usize),
    /// It cannot run anywhere now.
    Nowhere(Diagnosis),
}

/// Why a pod cannot run anywhere.
#[derive(Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes fail for each reason; a node may fail for several.
    pub reasons: BTreeMap<Reason, usize>,
    /// A reason that holds for all nodes alike and was found before looking at any.
    pub general: Option<Reason>,
    /// Which plugins were against it.
    pub plugins: PluginSet,
}

impl Diagnosis {
    /// The message of the condition and the event, as users of Kubernetes know it.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut out = format!("0/{} nodes are available:", self.nodes);
        if let Some(general) = &self.general {
            out.push_str(&format!(" {general}."));
            return out;
        }
        let mut parts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        if !parts.is_empty() {
            out.push_str(&format!(" {}.", parts.join(", ")));
        }
        out
    }

    fn add(&mut self, place: usize, verdict: Verdict) {
        self.plugins.insert(place);
        match verdict {
            Verdict::Suits => {}
            Verdict::Fails(reason) => self.count(reason, 1),
            Verdict::FailsFor(reasons) => {
                for reason in reasons {
                    self.count(reason, 1);
                }
            }
        }
    }

    fn count(&mut self, reason: Reason, nodes: usize) {
        if let Some(count) = self.reasons.get_mut(&reason) {
            *count += nodes;
        } else {
            self.reasons.insert(reason, nodes);
        }
    }
}

/// Makes decisions with a set of plugins.
pub struct Algorithm {
    plugins: &'static [Plugin],
    /// Where the next search begins, so that all nodes get their share.
    start: usize,
    random: u64,
}

impl Algorithm {
    /// An algorithm over `plugins`; `seed` decides between equal nodes.
    #[must_use]
    pub fn new(plugins: &'static [Plugin], seed: u64) -> Self {
        Self { plugins, start: 0, random: seed | 1 }
    }

    /// The plugins it asks.
    #[must_use]
    pub fn plugins(&self) -> &'static [Plugin] {
        self.plugins
    }

    /// Why the pod may not be considered at all, and which plugin says so.
    #[must_use]
    pub fn held(&self, pod: &PodInfo) -> Option<(Reason, PluginSet)> {
        self.plugins.iter().enumerate().find_map(|(place, plugin)| {
            let reason = plugin.gate?.holds(pod)?;
            let mut set = PluginSet::default();
            set.insert(place);
            Some((reason, set))
        })
    }

    /// Decides about one pod.
    pub fn decide(&mut self, pod: &PodInfo, snapshot: &Snapshot) -> Decision {
        let mut diagnosis = Diagnosis { nodes: snapshot.nodes().len(), ..Diagnosis::default() };
        if diagnosis.nodes == 0 {
            return Decision::Nowhere(diagnosis);
        }
        let suitable = self.suitable(pod, snapshot, &mut diagnosis);
        match suitable.as_slice() {
            [] => Decision::Nowhere(diagnosis),
            [only] => Decision::Node(*only),
            several => Decision::Node(self.best(pod, snapshot, several)),
        }
    }

    /// Enough nodes that suit, or all there are.
    fn suitable(
        &mut self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &mut Diagnosis,
    ) -> Vec<usize> {
        let mut filters: Vec<(usize, PreparedFilter<'_>)> = Vec::with_capacity(self.plugins.len());
        let mut only: Option<(Vec<String>, Vec<usize>)> = None;
        for (place, plugin) in self.plugins.iter().enumerate() {
            let Some(filter) = plugin.filter else { continue };
            match filter.prepare_any(pod, snapshot) {
                Preparation::Skip => {}
                Preparation::Ask(prepared) => filters.push((place, prepared)),
                Preparation::Only(names, prepared) => {
                    filters.push((place, prepared));
                    let (kept, by) = match only.take() {
                        None => (names, vec![place]),
                        Some((before, mut by)) => {
                            by.push(place);
                            (before.into_iter().filter(|one| names.contains(one)).collect(), by)
                        }
                    };
                    only = Some((kept, by));
                }
                Preparation::Never(reason) => {
                    diagnosis.plugins.insert(place);
                    diagnosis.general = Some(reason);
                    return Vec::new();
                }
            }
        }
        let nodes = snapshot.nodes();
        let mut suitable = Vec::new();
        if let Some((names, by)) = only {
            let named: Vec<usize> = names.iter().filter_map(|n| snapshot.position(n)).collect();
            for &at in &named {
                if passes(&filters, &nodes[at], diagnosis) {
                    suitable.push(at);
                }
            }
            let by_names: Vec<&str> = by.iter().map(|place| self.plugins[*place].name).collect();
            by.iter().for_each(|place| diagnosis.plugins.insert(*place));
            let rest = nodes.len() - named.len();
            if rest > 0 {
                let list = by_names.join(" ");
                diagnosis.count(format!("node(s) didn't satisfy plugin(s) [{list}]").into(), rest);
            }
            return suitable;
        }
        let limit = enough(nodes.len());
        let mut seen = 0;
        for step in 0..nodes.len() {
            let at = (self.start + step) % nodes.len();
            seen = step + 1;
            if passes(&filters, &nodes[at], diagnosis) {
                suitable.push(at);
                if suitable.len() >= limit {
                    break;
                }
            }
        }
        self.start = (self.start + seen) % nodes.len();
        suitable
    }

    /// The node with the highest weighted score; of equals any.
    fn best(&mut self, pod: &PodInfo, snapshot: &Snapshot, suitable: &[usize]) -> usize {
        let mut totals = vec![0_i64; suitable.len()];
        let mut scores = vec![0_i64; suitable.len()];
        for plugin in self.plugins {
            let Some((scorer, weight)) = plugin.score else { continue };
            score_all(scorer, pod, snapshot, suitable, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weight;
            }
        }
        let mut best = 0;
        let mut equals = 1;
        for index in 1..suitable.len() {
            if totals[index] > totals[best] {
                (best, equals) = (index, 1);
            } else if totals[index] == totals[best] {
                equals += 1;
                if self.below(equals) == 0 {
                    best = index;
                }
            }
        }
        suitable[best]
    }

    /// A random number below `limit` (xorshift: fairness is wanted here, not secrecy).
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}

fn passes(
    filters: &[(usize, PreparedFilter<'_>)],
    node: &crate::node::NodeInfo,
    diagnosis: &mut Diagnosis,
) -> bool {
    for (place, filter) in filters {
        let verdict = filter(node);
        if verdict != Verdict::Suits {
            diagnosis.add(*place, verdict);
            return false;
        }
    }
    true
}

fn score_all(
    scorer: &dyn AnyScore,
    pod: &PodInfo,
    snapshot: &Snapshot,
    suitable: &[usize],
    scores: &mut [i64],
) {
    let Some(score) = scorer.prepare_any(pod, snapshot) else {
        scores.fill(0);
        return;
    };
    for (slot, at) in scores.iter_mut().zip(suitable) {
        *slot = score(&snapshot.nodes()[*at]);
    }
    scorer.normalize_any(scores);
}

/// How many suitable nodes are enough to choose from: all of a small cluster, from half down
/// to a twentieth of larger ones.
fn enough(nodes: usize) -> usize {
    if nodes <= MIN_LOOKED_AT {
        return nodes;
    }
    let share = 50_usize.saturating_sub(nodes / 125).max(MIN_SHARE);
    (nodes * share / 100).max(MIN_LOOKED_AT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_clusters_are_sampled() {
        assert_eq!((enough(10), enough(100), enough(200)), (10, 100, 100));
        assert_eq!((enough(1000), enough(5000), enough(10_000)), (420, 500, 500));
    }

    #[test]
    fn messages_count_reasons() {
        let mut diagnosis = Diagnosis { nodes: 3, ..Diagnosis::default() };
        diagnosis.add(1, Verdict::Fails("node(s) were unschedulable".into()));
        let both = vec!["Insufficient cpu".into(), "Insufficient memory".into()];
        diagnosis.add(2, Verdict::FailsFor(both.clone()));
        diagnosis.add(2, Verdict::FailsFor(both[..1].to_vec()));
        assert_eq!(
            diagnosis.message(),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(Diagnosis::default().message(), "no nodes available to schedule pods");
    }
}
