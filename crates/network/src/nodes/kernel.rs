//! The kernel's entries that lead to other nodes: set and removed one by one as nodes change, and
//! compared as a whole when somebody else may have touched them.
//!
//! Knows netlink; which entries there should be is decided in `plan`.

use std::collections::BTreeSet;

use super::{device, device::Way, plan::Entry};
use crate::{
    netlink::{
        NetlinkError, Socket,
        ip::{self, Route},
        vxlan::{self, Neighbour},
    },
    options::NetworkOptions,
};

/// Marks routes as ours: a number that nobody has in /etc/iproute2/rt_protos.
const OURS: u8 = 115;

/// A route as an entry; `None` if it is not one of ours on that device.
pub(crate) fn route_entry(options: &NetworkOptions, way: &Way, route: &Route) -> Option<Entry> {
    let from_pods = match route.table {
        ip::MAIN => false,
        table if table == device::from_pods_table(options) => true,
        _ => return None,
    };
    if route.protocol != OURS || route.device != way.device {
        return None;
    }
    let (to, source) = (route.destination, route.source);
    Some(Entry::Route { from_pods, to, via: route.gateway?, source })
}

/// A neighbour as an entry.
pub(crate) fn neighbour_entry(neighbour: Neighbour) -> Entry {
    match neighbour {
        Neighbour::Address(address, hardware) => Entry::Neighbour(address, hardware),
        Neighbour::Forward(hardware, to) => Entry::Forward(hardware, to),
    }
}

fn route(options: &NetworkOptions, way: &Way, entry: &Entry) -> Option<Route> {
    let Entry::Route { from_pods, to, via, source } = *entry else { return None };
    let table = if from_pods { device::from_pods_table(options) } else { ip::MAIN };
    let route = Route::new(to, way.device, Some(via), source);
    Some(Route { table, protocol: OURS, ..route })
}

fn neighbour(entry: &Entry) -> Option<Neighbour> {
    match *entry {
        Entry::Forward(hardware, to) => Some(Neighbour::Forward(hardware, to)),
        Entry::Neighbour(address, hardware) => Some(Neighbour::Address(address, hardware)),
        Entry::Route { .. } => None,
    }
}

/// Whether setting `new` replaces `old` in the kernel.
pub(crate) fn same_key(old: &Entry, new: &Entry) -> bool {
    match (old, new) {
        (Entry::Forward(old, _), Entry::Forward(new, _)) => old == new,
        (Entry::Neighbour(old, _), Entry::Neighbour(new, _)) => old == new,
        (
            Entry::Route { from_pods: old_table, to: old, .. },
            Entry::Route { from_pods: new_table, to: new, .. },
        ) => (old_table, old) == (new_table, new),
        _ => false,
    }
}

/// Sets what is new and then removes what is old: where one replaces the other, nothing is missing
/// meanwhile. Goes on after a failure and returns the first.
pub(crate) fn change(
    socket: &mut Socket,
    options: &NetworkOptions,
    way: &Way,
    old: &BTreeSet<Entry>,
    new: &BTreeSet<Entry>,
) -> Result<(), NetlinkError> {
    let mut outcome = Ok(());
    for entry in new.difference(old) {
        outcome = outcome.and(set(socket, options, way, entry));
    }
    for entry in old.difference(new).collect::<Vec<_>>().into_iter().rev() {
        if !new.iter().any(|new| same_key(entry, new)) {
            outcome = outcome.and(remove(socket, options, way, entry));
        }
    }
    outcome
}

fn set(
    socket: &mut Socket,
    options: &NetworkOptions,
    way: &Way,
    entry: &Entry,
) -> Result<(), NetlinkError> {
    if let Some(route) = route(options, way, entry) {
        return ip::set_route(socket, &route);
    }
    neighbour(entry).map_or(Ok(()), |entry| vxlan::set_neighbour(socket, way.device, entry))
}

fn remove(
    socket: &mut Socket,
    options: &NetworkOptions,
    way: &Way,
    entry: &Entry,
) -> Result<(), NetlinkError> {
    if let Some(route) = route(options, way, entry) {
        return ip::remove_route(socket, &route);
    }
    neighbour(entry).map_or(Ok(()), |entry| vxlan::remove_neighbour(socket, way.device, entry))
}

/// Compares everything of ours in the kernel with what there should be, and makes it so. Returns
/// how many entries were missing.
pub(crate) fn repair(
    socket: &mut Socket,
    options: &NetworkOptions,
    way: &Way,
    wanted: &BTreeSet<Entry>,
) -> Result<usize, NetlinkError> {
    let mut present = BTreeSet::new();
    let routes = ip::routes(socket)?;
    for route in routes.iter().filter(|route| is_ours(options, route)) {
        match route_entry(options, way, route) {
            Some(entry) => drop(present.insert(entry)),
            // Of another device, from before the backend was changed.
            None => ip::remove_route(socket, route)?,
        }
    }
    if way.device != 0 && way.device != way.underlay {
        let neighbours = vxlan::neighbours(socket, way.device)?;
        present.extend(neighbours.into_iter().map(neighbour_entry));
    }
    let missing = wanted.difference(&present).count();
    change(socket, options, way, &present, wanted)?;
    Ok(missing)
}

/// Whether a route is this cluster's, whatever the device: another may be on the same machine.
fn is_ours(options: &NetworkOptions, route: &Route) -> bool {
    let among_pods = options.cluster_networks.iter().any(|net| net.contains(&route.destination));
    let from_pods = route.table == device::from_pods_table(options);
    route.protocol == OURS && (among_pods || from_pods)
}

/// Removes all routes of ours.
pub(crate) fn remove_routes(
    socket: &mut Socket,
    options: &NetworkOptions,
) -> Result<(), NetlinkError> {
    for route in ip::routes(socket)?.iter().filter(|route| is_ours(options, route)) {
        ip::remove_route(socket, route)?;
    }
    Ok(())
}
