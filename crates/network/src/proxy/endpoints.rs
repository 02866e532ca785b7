//! Which endpoints of a Service port get new connections.
//!
//! Only ready ones; while there are none, those that are terminating and still serve (KEP-1669).
//! Of the ready ones those that are hinted for this node or its zone, where all have hints
//! (KEP-2433, KEP-4444). Knows nothing of nftables.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::ruleset::Family;

/// Address and port of one endpoint.
pub(crate) type Target = (IpAddr, u16);

/// The node that chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chooser<'a> {
    pub(crate) node: &'a str,
    pub(crate) zone: Option<&'a str>,
}

/// The endpoints of one Service port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Those that serve the whole cluster, ordered.
    pub(crate) cluster: Vec<Target>,
    /// Those on this node that serve it, chosen among themselves, ordered.
    pub(crate) local: Vec<Target>,
    /// Those of either that are or may be on this node.
    pub(crate) here: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Draining,
    Ready,
}

/// What is known of one endpoint.
struct Found<'a> {
    condition: Condition,
    place: Place,
    endpoint: &'a ApiEndpoint,
}

/// Chooses among `slices` for the Service port called `port` with `protocol` (upper case).
pub(crate) fn choose(
    slices: &[Arc<EndpointSlice>],
    family: Family,
    port: &str,
    protocol: &str,
    chooser: Chooser<'_>,
) -> Chosen {
    let address_type = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    // An endpoint may be in two slices for a moment while it moves; the better condition counts.
    let mut found: BTreeMap<Target, Found<'_>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == address_type) {
        for number in ports(slice, port, protocol) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(condition) = condition(endpoint) else { continue };
                let Some(address) = address(endpoint, family) else { continue };
                let place = Place::of(endpoint, chooser.node);
                let one = Found { condition, place, endpoint };
                match found.entry((address, number)) {
                    Entry::Vacant(vacant) => drop(vacant.insert(one)),
                    Entry::Occupied(mut known) if known.get().condition < condition => {
                        known.insert(one);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    let hinted = hinted(found.values(), chooser);
    let pick = |wanted: &dyn Fn(&Found<'_>) -> bool| -> Vec<Target> {
        let best = found.values().filter(|one| wanted(one)).map(|one| one.condition).max();
        found
            .iter()
            .filter(|(_, one)| wanted(one) && Some(one.condition) == best)
            .map(|(target, _)| *target)
            .collect()
    };
    let cluster = pick(&|one| hinted.is_none_or(|hint| hint.is_for(one.endpoint, chooser)));
    let local = pick(&|one| one.place == Place::Here);
    let mut here: Vec<IpAddr> = cluster
        .iter()
        .chain(&local)
        .filter(|target| found.get(target).is_some_and(|one| one.place != Place::Elsewhere))
        .map(|(address, _)| *address)
        .collect();
    here.sort();
    here.dedup();
    Chosen { cluster, local, here }
}

/// Which hints to obey.
#[derive(Debug, Clone, Copy)]
enum Hint {
    Node,
    Zone,
}

impl Hint {
    fn names(self, endpoint: &ApiEndpoint) -> impl Iterator<Item = &str> {
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
        let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
        let nodes =
            nodes.map(|node| node.name.as_str()).filter(move |_| matches!(self, Self::Node));
        nodes
            .chain(zones.map(|zone| zone.name.as_str()).filter(move |_| matches!(self, Self::Zone)))
    }

    fn is_for(self, endpoint: &ApiEndpoint, chooser: Chooser<'_>) -> bool {
        let wanted = match self {
            Self::Node => Some(chooser.node),
            Self::Zone => chooser.zone,
        };
        self.names(endpoint).any(|name| Some(name) == wanted)
    }
}

/// Hints are obeyed when every ready endpoint has one and some are for here; those for the node
/// before those for the zone.
fn hinted<'a>(
    found: impl Iterator<Item = &'a Found<'a>> + Clone,
    chooser: Chooser<'_>,
) -> Option<Hint> {
    let ready = || found.clone().filter(|one| one.condition == Condition::Ready);
    [Hint::Node, Hint::Zone].into_iter().find(|hint| {
        ready().all(|one| hint.names(one.endpoint).next().is_some())
            && ready().any(|one| hint.is_for(one.endpoint, chooser))
    })
}

/// How many ready endpoints a Service has on `node`, in the family that has more: a pod with an
/// address of each family counts once.
pub(crate) fn ready_here(slices: &[Arc<EndpointSlice>], node: &str) -> usize {
    let mut counts: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
    for slice in slices {
        let here = slice.endpoints.iter().flatten().filter(|endpoint| {
            Place::of(endpoint, node) == Place::Here
                && condition(endpoint) == Some(Condition::Ready)
        });
        let addresses = here.filter_map(|endpoint| endpoint.addresses.first());
        counts.entry(&slice.address_type).or_default().extend(addresses);
    }
    counts.values().map(BTreeSet::len).max().unwrap_or(0)
}

/// The first addresses of a slice's ready endpoints.
pub(crate) fn ready(slice: &EndpointSlice) -> BTreeSet<&str> {
    let endpoints = slice.endpoints.iter().flatten();
    let ready = endpoints.filter(|endpoint| condition(endpoint) == Some(Condition::Ready));
    ready.filter_map(|endpoint| endpoint.addresses.first()).map(String::as_str).collect()
}

/// How many endpoints of a slice are terminating.
pub(crate) fn draining(slice: &EndpointSlice) -> usize {
    let terminating = |endpoint: &&ApiEndpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.terminating) == Some(true)
    };
    slice.endpoints.iter().flatten().filter(terminating).count()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Elsewhere,
    Unknown,
}

impl Place {
    fn of(endpoint: &ApiEndpoint, node: &str) -> Self {
        match endpoint.node_name.as_deref() {
            None => Self::Unknown,
            Some(name) if name == node => Self::Here,
            Some(_) => Self::Elsewhere,
        }
    }
}

/// The numbers of the slice's ports that belong to the Service port.
fn ports(slice: &EndpointSlice, name: &str, protocol: &str) -> Vec<u16> {
    slice
        .ports
        .iter()
        .flatten()
        .filter(|port| port.name.as_deref().unwrap_or_default() == name)
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol)
        .filter_map(|port| u16::try_from(port.port?).ok().filter(|number| *number > 0))
        .collect()
}

/// `None` for endpoints that get no connections at all. An absent "ready" means ready, an absent
/// "serving" the same as ready.
fn condition(endpoint: &ApiEndpoint) -> Option<Condition> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Some(Condition::Ready),
        (false, true) => Some(Condition::Draining),
        (false, false) => None,
    }
}

/// Consumers of a slice use the first address alone (API reference of Endpoint).
fn address(endpoint: &ApiEndpoint, family: Family) -> Option<IpAddr> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    (Family::of(address) == family).then_some(address)
}
