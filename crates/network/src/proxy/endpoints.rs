//! Which endpoints of a Service port get new connections.
//!
//! Only ready ones; while there are none, those that are terminating and still serve (KEP-1669).
//! Knows nothing of nftables.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

/// Address and port of one endpoint.
pub(crate) type Target = (Ipv4Addr, u16);

/// The endpoints of one Service port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Those that serve the whole cluster, ordered.
    pub(crate) cluster: Vec<Target>,
    /// Those on this node that serve it, chosen among themselves, ordered.
    pub(crate) local: Vec<Target>,
    /// Those of either that are or may be on this node.
    pub(crate) here: Vec<Ipv4Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Draining,
    Ready,
}

/// Chooses among `slices` for the Service port called `port` with `protocol` (upper case).
pub(crate) fn choose(
    slices: &[Arc<EndpointSlice>],
    port: &str,
    protocol: &str,
    node: &str,
) -> Chosen {
    // An endpoint may be in two slices for a moment while it moves; the better condition counts.
    let mut found: BTreeMap<Target, (Condition, Place)> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        for number in ports(slice, port, protocol) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(condition) = condition(endpoint) else { continue };
                let Some(address) = address(endpoint) else { continue };
                let place = Place::of(endpoint, node);
                let entry = found.entry((address, number)).or_insert((condition, place));
                entry.0 = entry.0.max(condition);
            }
        }
    }
    let pick = |wanted: &dyn Fn(Place) -> bool| -> Vec<Target> {
        let best = found.values().filter(|(_, place)| wanted(*place)).map(|(c, _)| *c).max();
        found
            .iter()
            .filter(|(_, (condition, place))| wanted(*place) && Some(*condition) == best)
            .map(|(target, _)| *target)
            .collect()
    };
    let cluster = pick(&|_| true);
    let local = pick(&|place| place == Place::Here);
    let mut here: Vec<Ipv4Addr> = cluster
        .iter()
        .chain(&local)
        .filter(|target| found.get(target).is_some_and(|(_, place)| *place != Place::Elsewhere))
        .map(|(address, _)| *address)
        .collect();
    here.sort();
    here.dedup();
    Chosen { cluster, local, here }
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
fn address(endpoint: &ApiEndpoint) -> Option<Ipv4Addr> {
    endpoint.addresses.first()?.parse().ok()
}
