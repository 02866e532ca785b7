//! A NetworkPolicy as it is evaluated: what it isolates, and what it lets through.
//!
//! Pure. Owns the API's defaults and the meaning of its empty fields; knows no pods, namespaces or
//! packets. What cannot be read allows nothing.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use meta::Selector;

use super::ranges::{self, Family, Range};

use crate::ruleset::Protocol;

/// Which way a rule looks, from the pods that the policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    /// Which pods of its namespace it isolates.
    pub(crate) pods: Selector,
    /// What it lets through, for each direction in which it isolates.
    pub(crate) rules: BTreeMap<Direction, Vec<Rule>>,
}

/// Peers and ports of which both must match.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// `None`: everybody.
    pub(crate) peers: Option<Peers>,
    /// `None`: every port of every protocol.
    pub(crate) ports: Option<BTreeSet<Port>>,
}

/// Peers of which one must match.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Peers {
    pub(crate) pods: Vec<Selection>,
    /// Addresses of all IP blocks together.
    pub(crate) blocks: BTreeMap<Family, Vec<Range>>,
}

/// Pods by labels, in namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Selection {
    pub(crate) namespaces: Namespaces,
    pub(crate) pods: Selector,
}

/// Namespaces by name or labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Namespaces {
    One(String),
    Labelled(Selector),
}

/// A protocol from the API's word; absent means TCP.
pub(crate) fn protocol(word: Option<&str>) -> Option<Protocol> {
    Protocol::parse(word.filter(|word| !word.is_empty()).unwrap_or("TCP"))
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) which: Which,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Which {
    All,
    /// First and last.
    Range(u16, u16),
    /// Whatever the destination pod calls by this name.
    Named(String),
}

/// Reads a policy.
pub(crate) fn read(policy: &NetworkPolicy) -> Policy {
    let spec = policy.spec.clone().unwrap_or_default();
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let mut rules = BTreeMap::new();
    if isolates(&spec, Direction::Ingress) {
        let read = |rule: &_| {
            let k8s_openapi::api::networking::v1::NetworkPolicyIngressRule { from, ports } = rule;
            read_rule(namespace, from.as_deref(), ports.as_deref())
        };
        rules.insert(Direction::Ingress, spec.ingress.iter().flatten().map(read).collect());
    }
    if isolates(&spec, Direction::Egress) {
        let read = |rule: &_| {
            let k8s_openapi::api::networking::v1::NetworkPolicyEgressRule { to, ports } = rule;
            read_rule(namespace, to.as_deref(), ports.as_deref())
        };
        rules.insert(Direction::Egress, spec.egress.iter().flatten().map(read).collect());
    }
    let pods = spec.pod_selector.as_ref().map_or_else(Selector::everything, selector);
    Policy { pods, rules }
}

/// Without `policyTypes`, a policy is about ingress, and about egress if it has such rules.
fn isolates(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let word = match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    match spec.policy_types.as_deref() {
        None | Some([]) => {
            direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|e| !e.is_empty())
        }
        Some(types) => types.iter().any(|present| present == word),
    }
}

fn read_rule(
    namespace: &str,
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
) -> Rule {
    Rule {
        peers: peers.filter(|peers| !peers.is_empty()).map(|peers| read_peers(namespace, peers)),
        ports: ports
            .filter(|ports| !ports.is_empty())
            .map(|ports| ports.iter().filter_map(read_port).collect()),
    }
}

fn read_peers(namespace: &str, peers: &[NetworkPolicyPeer]) -> Peers {
    let mut read = Peers::default();
    for peer in peers {
        if let Some(block) = &peer.ip_block {
            if let Some((family, ranges)) = read_block(block) {
                read.blocks.entry(family).or_default().extend(ranges);
            }
            continue;
        }
        let namespaces = match &peer.namespace_selector {
            Some(labels) => Namespaces::Labelled(selector(labels)),
            None if peer.pod_selector.is_some() => Namespaces::One(namespace.to_owned()),
            None => continue,
        };
        let pods = peer.pod_selector.as_ref().map_or_else(Selector::everything, selector);
        let selection = Selection { namespaces, pods };
        if !read.pods.contains(&selection) {
            read.pods.push(selection);
        }
    }
    for ranges in read.blocks.values_mut() {
        *ranges = ranges::merged(std::mem::take(ranges));
    }
    read
}

/// A block with a hole that cannot be read would allow too much: it allows nothing.
fn read_block(block: &IPBlock) -> Option<(Family, Vec<Range>)> {
    let network: IpNet = block.cidr.parse().ok()?;
    let family = Family::of(network.addr());
    let mut holes = Vec::new();
    for except in block.except.iter().flatten() {
        let hole: IpNet = except.parse().ok()?;
        if Family::of(hole.addr()) == family {
            holes.push(ranges::of(hole));
        }
    }
    Some((family, ranges::without(ranges::of(network), &holes)))
}

fn read_port(port: &NetworkPolicyPort) -> Option<Port> {
    let protocol = protocol(port.protocol.as_deref())?;
    let number = |number: i32| u16::try_from(number).ok();
    let which = match &port.port {
        None => Which::All,
        Some(IntOrString::Int(first)) => {
            let first = number(*first)?;
            let last = port.end_port.map_or(Some(first), number)?;
            (first <= last).then_some(Which::Range(first, last))?
        }
        Some(IntOrString::String(name)) => Which::Named(name.clone()),
    };
    Some(Port { protocol, which })
}

/// A selector that cannot be read selects nothing.
fn selector(selector: &LabelSelector) -> Selector {
    serde_json::to_value(selector)
        .ok()
        .and_then(|value| Selector::from_label_selector(&value).ok())
        .unwrap_or_else(Selector::nothing)
}
