//! The extension points of scheduling, one small trait each. Plugins see a pod, an immutable
//! snapshot and their own arguments: no client, clock or lock. Verdicts are data with a reason.
//!
//! What a plugin works out once a pod, before it looks at nodes, is a type of its own that it is
//! handed back: [`Filter::Prepared`], [`Score::Prepared`].

use std::borrow::Cow;
use std::time::Instant;

use k8s_openapi::api::core::v1::Binding;

use crate::cluster::Snapshot;
use crate::event::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The highest score a plugin gives.
pub const MAX_SCORE: i64 = 100;

/// Why a node does not suit, in words that messages count by.
pub type Reason = Cow<'static, str>;

/// Whether a node suits a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Suits,
    /// It does not, for one reason.
    Fails(Reason),
    /// It does not, for several.
    FailsFor(Vec<Reason>),
}

impl Verdict {
    /// `Suits` if `suits`, else `Fails` with `reason`.
    pub fn unless(suits: bool, reason: &'static str) -> Self {
        if suits { Self::Suits } else { Self::Fails(Cow::Borrowed(reason)) }
    }
}

/// What a filter makes of a pod before it sees nodes.
#[derive(Debug)]
pub enum Preparation<T> {
    /// The filter has nothing against any node.
    Skip,
    /// Every node is to be asked about.
    Ask(T),
    /// Only nodes of these names come into question.
    Only(Vec<String>, T),
    /// No node will do, for this reason.
    Never(Reason),
}

/// Holds pods back from being considered at all.
pub trait Gate: Sync {
    /// Why the pod must wait; `None` lets it pass.
    fn holds(&self, pod: &PodInfo) -> Option<Reason>;
}

/// Says which nodes suit a pod.
pub trait Filter: Sync {
    /// What it works out once a pod.
    type Prepared;

    /// Works it out.
    fn prepare(&self, pod: &PodInfo, snapshot: &Snapshot) -> Preparation<Self::Prepared>;

    /// Whether `node` suits.
    fn filter(&self, prepared: &Self::Prepared, pod: &PodInfo, node: &NodeInfo) -> Verdict;
}

/// Says which of the nodes that suit are better.
pub trait Score: Sync {
    /// What it works out once a pod.
    type Prepared;

    /// Works it out; `None` if all nodes are equal to it.
    fn prepare(&self, pod: &PodInfo, snapshot: &Snapshot) -> Option<Self::Prepared>;

    /// The score of `node`: any number if [`Score::normalize`] brings it in range, else from 0
    /// to [`MAX_SCORE`].
    fn score(&self, prepared: &Self::Prepared, pod: &PodInfo, node: &NodeInfo) -> i64;

    /// Brings the scores of all nodes into the range from 0 to [`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// In which order pods get their turn.
pub trait Order {
    /// What is compared; the smallest goes first.
    type Key: Ord + Clone;

    /// The key of a pod that waits since `since`.
    fn key(pod: &PodInfo, since: Instant) -> Self::Key;
}

/// Makes a decision known to the API.
pub trait Bind: Sync {
    /// What to post to the pod's `binding` subresource.
    fn binding(&self, pod: &PodInfo, node: &str) -> Binding;
}

/// A filter after its preparation, its own types no longer visible.
pub type PreparedFilter<'a> = Box<dyn Fn(&NodeInfo) -> Verdict + 'a>;
/// A score after its preparation.
pub type PreparedScore<'a> = Box<dyn Fn(&NodeInfo) -> i64 + 'a>;

/// [`Filter`] whatever its `Prepared` is.
pub trait AnyFilter: Sync {
    /// See [`Filter::prepare`] and [`Filter::filter`].
    fn prepare_any<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Preparation<PreparedFilter<'a>>;
}

impl<F: Filter> AnyFilter for F
where
    F::Prepared: 'static,
{
    fn prepare_any<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Preparation<PreparedFilter<'a>> {
        let close = move |prepared: F::Prepared| -> PreparedFilter<'a> {
            Box::new(move |node| self.filter(&prepared, pod, node))
        };
        match self.prepare(pod, snapshot) {
            Preparation::Skip => Preparation::Skip,
            Preparation::Ask(prepared) => Preparation::Ask(close(prepared)),
            Preparation::Only(names, prepared) => Preparation::Only(names, close(prepared)),
            Preparation::Never(reason) => Preparation::Never(reason),
        }
    }
}

/// [`Score`] whatever its `Prepared` is.
pub trait AnyScore: Sync {
    /// See [`Score::prepare`] and [`Score::score`].
    fn prepare_any<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Option<PreparedScore<'a>>;

    /// See [`Score::normalize`].
    fn normalize_any(&self, scores: &mut [i64]);
}

impl<S: Score> AnyScore for S
where
    S::Prepared: 'static,
{
    fn prepare_any<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Option<PreparedScore<'a>> {
        let prepared = self.prepare(pod, snapshot)?;
        Some(Box::new(move |node| self.score(&prepared, pod, node)))
    }

    fn normalize_any(&self, scores: &mut [i64]) {
        self.normalize(scores);
    }
}

/// A plugin's line in the array: its name and the points it extends.
pub struct Plugin {
    /// The name upstream gives it.
    pub name: &'static str,
    /// Holds pods back.
    pub gate: Option<&'static dyn Gate>,
    /// Rules nodes out.
    pub filter: Option<&'static dyn AnyFilter>,
    /// Compares nodes, with its weight.
    pub score: Option<(&'static dyn AnyScore, i64)>,
    /// Whether an event may turn this plugin's verdict on a pod it was against.
    pub wakes: fn(&PodInfo, &Event<'_>) -> bool,
}

impl Plugin {
    /// A plugin that extends nothing yet.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, gate: None, filter: None, score: None, wakes: |_, _| true }
    }

    /// Adds the gate.
    #[must_use]
    pub const fn gate(mut self, gate: &'static dyn Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Adds the filter.
    #[must_use]
    pub const fn filter(mut self, filter: &'static dyn AnyFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Adds the score.
    #[must_use]
    pub const fn score(mut self, score: &'static dyn AnyScore, weight: i64) -> Self {
        self.score = Some((score, weight));
        self
    }

    /// Says what wakes pods it was against; without it, everything does.
    #[must_use]
    pub const fn wakes(mut self, wakes: fn(&PodInfo, &Event<'_>) -> bool) -> Self {
        self.wakes = wakes;
        self
    }
}

/// Some of the plugins, by their place in the array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginSet(u32);

impl PluginSet {
    /// Adds the plugin at `place`.
    pub fn insert(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    /// Whether the plugin at `place` is among them.
    #[must_use]
    pub fn contains(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of them is woken by `event`; if there is none, whatever happens wakes.
    #[must_use]
    pub fn woken(self, plugins: &[Plugin], pod: &PodInfo, event: &Event<'_>) -> bool {
        self.is_empty()
            || plugins
                .iter()
                .enumerate()
                .any(|(place, plugin)| self.contains(place) && (plugin.wakes)(pod, event))
    }
}
