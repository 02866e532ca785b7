//! Which nodes there are, which entries lead to them, and which of the kernel's events mean that
//! somebody else changed one.
//!
//! Owns the bookkeeping; decisions are in `plan`, system calls in `device` and `kernel`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Changed, device,
    device::{Underlay, Way},
    kernel,
    peer::Peers,
    plan::{Entry, Unreachable, plan},
    saved,
};
use crate::{
    netlink::{NetlinkError, Socket, ip, monitor::Event, route, vxlan::Gone},
    nft,
    options::{Backend, NetworkOptions},
    ruleset,
    setup::{SetupError, make_bridge},
};

pub(crate) struct State {
    options: Arc<NetworkOptions>,
    socket: Socket,
    /// `None` until made, and after a failure.
    way: Option<Way>,
    /// Index of the bridge.
    bridge: u32,
    peers: Peers,
    entries: BTreeMap<String, BTreeSet<Entry>>,
    /// What was last said about nodes that cannot be reached.
    unreachable: BTreeMap<String, Unreachable>,
}

impl State {
    /// Begins with the nodes last seen; nothing is set yet.
    pub(crate) fn new(options: Arc<NetworkOptions>) -> Result<Self, NetlinkError> {
        let peers = saved::peers(&options.data_dir);
        Ok(Self {
            options,
            socket: Socket::route()?,
            way: None,
            bridge: 0,
            peers,
            entries: BTreeMap::new(),
            unreachable: BTreeMap::new(),
        })
    }

    /// Takes in how nodes are now, and changes the entries of those that differ.
    pub(crate) fn take(&mut self, changes: Vec<Changed>) -> Result<(), SetupError> {
        let mut outcome = Ok(());
        let mut differs = false;
        for (name, peer) in changes {
            if self.peers.get(&name) == peer.as_ref() {
                continue;
            }
            differs = true;
            match peer {
                Some(peer) => self.peers.insert(name.clone(), peer),
                None => self.peers.remove(&name),
            };
            outcome = outcome.and(self.lead_to(&name));
        }
        if differs {
            outcome = outcome.and(self.told());
        }
        outcome
    }

    /// Forgets nodes that are not among `names`.
    pub(crate) fn keep_only(&mut self, names: &BTreeSet<String>) -> Result<(), SetupError> {
        let gone = self.peers.keys().filter(|name| !names.contains(*name)).cloned();
        let gone: Vec<Changed> = gone.map(|name| (name, None)).collect();
        self.take(gone)
    }

    /// Makes device, addresses and all entries what they should be.
    pub(crate) fn repair(&mut self) -> Result<(), SetupError> {
        let options = self.options.clone();
        let first = self.way.is_none();
        let underlay = Underlay::find(&mut self.socket, &options)?;
        let mtu = underlay.mtu(&options).map_err(SetupError::Option)?;
        make_bridge(&mut self.socket, &options, mtu)?;
        let bridge = route::link(&mut self.socket, &options.bridge)?;
        self.bridge = bridge.map_or(0, |bridge| bridge.index);
        let way = device::make(&mut self.socket, &options, &underlay, mtu)?;
        if self.way.as_ref() != Some(&way) {
            self.way = Some(way.clone());
            let names: Vec<String> = self.peers.keys().cloned().collect();
            self.entries.clear();
            for name in names {
                let entries = self.plan(&name);
                self.entries.insert(name, entries);
            }
        }
        let wanted = self.entries.values().flatten().copied().collect();
        let missing = kernel::repair(&mut self.socket, &options, &way, &wanted)?;
        if missing > 0 && !first {
            tracing::warn!(
                missing,
                "entries that lead to other nodes were removed; set them again"
            );
        }
        if first { self.told() } else { Ok(()) }
    }

    /// Whether an event means that something of ours is not as it should be, or that the device
    /// below changed.
    pub(crate) fn concerns(&self, event: &Event) -> bool {
        let Some(way) = &self.way else { return false };
        let options = &self.options;
        let wanted = |entry: Entry| self.entries.values().any(|entries| entries.contains(&entry));
        let ours = |index: u32| index != 0 && (index == way.device || index == self.bridge);
        match event {
            Event::Lost => true,
            Event::Link(link) if link.index == way.underlay => {
                link.mtu != way.underlay_mtu || (link.up && way.device == way.underlay)
            }
            Event::Link(link) => ours(link.index) && !link.up,
            Event::NoLink(index) => ours(*index) || (*index == way.underlay && *index != 0),
            Event::NoAddress(index) => ours(*index) || (*index == way.underlay && *index != 0),
            Event::Route(route) if way.here.is_none() => route.destination.prefix_len() == 0,
            Event::Route(route) => self.displaced(way, route),
            Event::NoRoute(route) => {
                route.device == self.bridge
                    || kernel::route_entry(options, way, route).is_some_and(wanted)
            }
            Event::NoRule => matches!(options.backend, Backend::Vxlan { .. }),
            Event::NoNeighbour(device, gone) => *device == way.device && self.misses(*gone),
        }
    }

    /// Whether an entry that is gone should be there.
    fn misses(&self, gone: Gone) -> bool {
        self.entries.values().flatten().any(|wanted| match (wanted, gone) {
            (Entry::Neighbour(wanted, _), Gone::Address(gone)) => *wanted == gone,
            (Entry::Forward(wanted, at), Gone::Forward(gone, to)) => (*wanted, *at) == (gone, to),
            _ => false,
        })
    }

    /// Whether a new route took the place of one of ours.
    fn displaced(&self, way: &Way, new: &ip::Route) -> bool {
        let entry = kernel::route_entry(&self.options, way, new);
        self.entries.values().flatten().any(|wanted| match wanted {
            Entry::Route { to, from_pods: false, .. } => {
                new.table == ip::MAIN && *to == new.destination && entry != Some(*wanted)
            }
            _ => false,
        })
    }

    /// Sets and removes what leads to one node.
    fn lead_to(&mut self, name: &str) -> Result<(), SetupError> {
        let Some(way) = self.way.clone() else { return Ok(()) };
        let new = self.plan(name);
        let old = match new.is_empty() {
            true => self.entries.remove(name),
            false => self.entries.insert(name.to_owned(), new.clone()),
        };
        let old = old.unwrap_or_default();
        kernel::change(&mut self.socket, &self.options, &way, &old, &new)?;
        // Where two claimed the same, the other has it now.
        let lost: Vec<&Entry> = old.difference(&new).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let others = self.entries.iter().filter(|(other, _)| *other != name);
        let theirs = others.flat_map(|(_, entries)| entries).copied();
        let left = theirs.filter(|entry| lost.iter().any(|lost| kernel::same_key(lost, entry)));
        let left: BTreeSet<Entry> = left.collect();
        Ok(kernel::change(&mut self.socket, &self.options, &way, &BTreeSet::new(), &left)?)
    }

    /// The entries that lead to a node; says once why there are none.
    fn plan(&mut self, name: &str) -> BTreeSet<Entry> {
        let here = self.way.as_ref().and_then(|way| way.here.as_ref());
        let (Some(here), Some(peer)) = (here, self.peers.get(name)) else {
            self.unreachable.remove(name);
            return BTreeSet::new();
        };
        match plan(here, name, peer) {
            Ok(entries) => {
                self.unreachable.remove(name);
                entries
            }
            Err(why) => {
                if self.unreachable.get(name) != Some(&why) {
                    tracing::warn!(node = name, "pods of this node cannot be reached: {why}");
                    self.unreachable.insert(name.to_owned(), why);
                }
                BTreeSet::new()
            }
        }
    }

    /// Writes down who is where, and says so to the table where it must know.
    fn told(&self) -> Result<(), SetupError> {
        let failed = |source| SetupError::Io {
            what: "write what is known of other nodes to",
            path: self.options.data_dir.clone(),
            source,
        };
        saved::save_peers(&self.options.data_dir, &self.peers).map_err(failed)?;
        let script = node_addresses(&self.options);
        if !script.is_empty() {
            nft::apply(&self.options.nft, &script)?;
        }
        Ok(())
    }
}

/// Commands that tell the table the addresses of other nodes as last written down, where packets
/// of pods go there as they are; nothing where they go encapsulated.
pub(crate) fn node_addresses(options: &NetworkOptions) -> String {
    if options.backend != Backend::HostGateway {
        return String::new();
    }
    let mut script = ruleset::empty_nodes(&options.table);
    for (name, peer) in saved::peers(&options.data_dir) {
        for address in peer.addresses.iter().filter(|_| name != options.node_name) {
            let (set, address) = ruleset::node_element(*address);
            ruleset::element(&mut script, "add", &options.table, &set, &address);
        }
    }
    script
}
