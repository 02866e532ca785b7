//! Sets of fields: a tree of steps, each a member or on the way to members. Owns the algebra of sets.

use std::cmp::Ordering;

use super::element::Element;
use crate::apply::shape::{Shape, Slot};

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Sorted by element; each is a member or has members below.
    nodes: Vec<Node>,
}

/// A step and what of the set is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) element: Element,
    pub(super) member: bool,
    pub(super) below: Set,
}

/// What a set says of one value: whether it is a member itself, and which fields below are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) member: bool,
    pub(super) below: Set,
}

impl Mark {
    /// A member without members below.
    pub(super) fn leaf() -> Self {
        Self { member: true, below: Set::default() }
    }
}

/// A path within a value.
pub type Path = Vec<Element>;

impl Set {
    /// A set of paths of field names.
    #[must_use]
    pub fn of_fields(paths: &[&[&'static str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mark = path.iter().rev().fold(Mark::leaf(), |below, name| {
                let mut set = Self::default();
                set.put(Element::Field((*name).into()), below);
                Mark { member: false, below: set }
            });
            set.add(mark.below);
        }
        set
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Puts what is known of a step that is not in the set yet.
    pub(super) fn put(&mut self, element: Element, mark: Mark) {
        if !mark.member && mark.below.is_empty() {
            return;
        }
        let node = Node { element, member: mark.member, below: mark.below };
        if self.ends_before(&node.element) {
            self.nodes.push(node);
            return;
        }
        match self.find(&node.element) {
            Ok(at) => {
                self.nodes[at].member |= node.member;
                self.nodes[at].below.add(node.below);
            }
            Err(at) => self.nodes.insert(at, node),
        }
    }

    /// A set of steps in any order.
    pub(super) fn of(mut marks: Vec<(Element, Mark)>) -> Self {
        marks.sort_by(|one, other| one.0.cmp(&other.0));
        let mut set = Self::default();
        marks.into_iter().for_each(|(element, mark)| set.put(element, mark));
        set
    }

    /// Whether all of its steps come before one.
    pub(super) fn ends_before(&self, element: &Element) -> bool {
        self.nodes.last().is_none_or(|last| last.element < *element)
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.element.cmp(element))
    }

    /// What the set says of a step.
    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.nodes[at])
    }

    /// Whether a field is a member.
    #[must_use]
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.get(first).is_some_and(|node| node.below.has(rest)),
        }
    }

    /// Adds the members of another set.
    pub fn add(&mut self, other: Self) {
        if self.nodes.is_empty() {
            *self = other;
            return;
        }
        let mut mine = std::mem::take(&mut self.nodes).into_iter().peekable();
        let mut others = other.nodes.into_iter().peekable();
        loop {
            let next = match (mine.peek(), others.peek()) {
                (Some(a), Some(b)) => a.element.cmp(&b.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let (a, b) = match next {
                Ordering::Less => (mine.next(), None),
                Ordering::Greater => (None, others.next()),
                Ordering::Equal => (mine.next(), others.next()),
            };
            self.nodes.extend(match (a, b) {
                (Some(mut a), Some(b)) => {
                    a.member |= b.member;
                    a.below.add(b.below);
                    Some(a)
                }
                (a, b) => a.or(b),
            });
        }
    }

    /// Takes the members of another set away. Members below them stay.
    pub fn remove(&mut self, other: &Self) {
        self.subtract(other, false);
    }

    /// Takes the members of another set away, with all that is below them.
    pub fn remove_deep(&mut self, other: &Self) {
        self.subtract(other, true);
    }

    fn subtract(&mut self, other: &Self, deep: bool) {
        if other.is_empty() {
            return;
        }
        let mut others = other.nodes.iter().peekable();
        self.nodes.retain_mut(|node| {
            while others.next_if(|other| other.element < node.element).is_some() {}
            let Some(other) = others.next_if(|other| other.element == node.element) else {
                return true;
            };
            if other.member && deep {
                return false;
            }
            node.member &= !other.member;
            node.below.subtract(&other.below, deep);
            node.member || !node.below.is_empty()
        });
    }

    /// The members that both sets have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let mut others = other.nodes.iter().peekable();
        for node in &self.nodes {
            while others.next_if(|other| other.element < node.element).is_some() {}
            if let Some(other) = others.next_if(|other| other.element == node.element) {
                let member = node.member && other.member;
                let below = node.below.intersection(&other.below);
                both.put(node.element.clone(), Mark { member, below });
            }
        }
        both
    }

    /// The members that lie at or below the patterns: field names, or `*` for any step.
    #[must_use]
    pub fn only(&self, patterns: &[&[&str]]) -> Self {
        let mut kept = Self::default();
        for node in &self.nodes {
            let matching: Vec<&[&str]> = patterns
                .iter()
                .filter_map(|pattern| pattern.split_first())
                .filter(|(first, _)| {
                    **first == "*"
                        || matches!(&node.element, Element::Field(name) if name == *first)
                })
                .map(|(_, rest)| rest)
                .collect();
            let below = match &matching[..] {
                [] => continue,
                rest if rest.iter().any(|rest| rest.is_empty()) => node.below.clone(),
                rest => node.below.only(rest),
            };
            kept.put(node.element.clone(), Mark { member: node.member, below });
        }
        kept
    }

    /// Makes every field of an object that has members below a member itself.
    pub(super) fn name_fields(&mut self, slot: Slot) {
        for node in &mut self.nodes {
            let inner = match (&node.element, slot.container()) {
                (Element::Field(name), Shape::Struct(of)) => match of.field(name) {
                    Some(field) => {
                        node.member = true;
                        Slot::of(field)
                    }
                    None => Slot::ANY,
                },
                (Element::Field(_), Shape::Map(slot)) => slot,
                (Element::Key(_), Shape::Items(slot, _)) => slot,
                _ => Slot::ANY,
            };
            node.below.name_fields(inner);
        }
    }

    /// Every member's path: those of one level before those below it.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let (mut paths, mut prefix) = (Vec::new(), Vec::new());
        self.collect(&mut prefix, &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            paths.push(prefix.iter().chain([&node.element]).cloned().collect());
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }
}

/// Prints a path as conflict messages do.
#[must_use]
pub fn printed(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}
