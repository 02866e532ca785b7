//! From one Service and its EndpointSlices to the part of the table that is theirs.
//!
//! Pure. Knows the words of nftables and the API's rules for Services; nothing of other Services,
//! of what the table holds now, or of how it is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};

use super::{
    element::{Entry, Key, Place, Value},
    endpoints::{Chooser, Chosen, Target, choose},
    state::Slots,
    sticky,
};
use crate::ruleset::{Container, Family, MARK, MARK_OWN, Picker, Protocol, REFUSE};

/// A Service with this label is another proxy's.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What every Service's plan depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    pub(crate) node: String,
    /// The node's zone.
    pub(crate) zone: Option<String>,
    /// The node's addresses as its Node says them.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Surroundings {
    /// What follows from the node's object.
    pub(crate) fn of(name: &str, node: Option<&Node>) -> Self {
        let labels = node.and_then(|node| node.metadata.labels.as_ref());
        let status = node.and_then(|node| node.status.as_ref());
        let addresses = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
        Self {
            node: name.to_owned(),
            zone: labels.and_then(|labels| labels.get(ZONE_LABEL)).cloned(),
            addresses: addresses.filter_map(|one| one.address.parse().ok()).collect(),
        }
    }

    pub(crate) fn chooser(&self) -> Chooser<'_> {
        Chooser { node: &self.node, zone: self.zone.as_deref() }
    }
}

/// One Service's part of the table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Elements other than endpoints.
    pub(crate) elements: BTreeMap<Place, Value>,
    /// Endpoints, to be laid into slots.
    pub(crate) slots: BTreeMap<Slots, Arc<[Target]>>,
    /// Chains of its own with their rules, in order.
    pub(crate) chains: BTreeMap<String, Vec<String>>,
    /// Sets of its own with their declarations.
    pub(crate) sets: BTreeMap<String, String>,
    /// Where UDP arrives and which endpoints may answer it.
    pub(crate) datagrams: BTreeMap<Entry, BTreeSet<Target>>,
}

/// Whether the node's proxy serves it: not headless, external-name or another proxy's.
pub(crate) fn is_served(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let foreign = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    service.spec.as_ref().is_some_and(|spec| {
        !foreign && spec.type_.as_deref() != Some("ExternalName") && !cluster_ips(spec).is_empty()
    })
}

/// Plans a Service.
pub(crate) fn plan(
    around: &Surroundings,
    service: &Service,
    slices: &[Arc<EndpointSlice>],
) -> Fragment {
    let mut fragment = Fragment::default();
    let Some(spec) = service.spec.as_ref().filter(|_| is_served(service)) else { return fragment };
    let cluster_ips = cluster_ips(spec);
    for address in &cluster_ips {
        let place = (Container::ServiceAddresses, Key::Address(*address));
        fragment.elements.insert(place, Value::Nothing);
    }
    let metadata = &service.metadata;
    let name = format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    );
    let external = external_addresses(service, spec);
    for port in spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else { continue };
        let word = port.protocol.as_deref().unwrap_or("TCP");
        let Some(protocol) = Protocol::parse(word) else { continue };
        let path = format!("{name}/{}/{number}", protocol.name());
        for family in Family::BOTH {
            let of_family = |address: &&IpAddr| Family::of(**address) == family;
            let inside: Vec<IpAddr> = cluster_ips.iter().filter(of_family).copied().collect();
            let outside: Vec<(IpAddr, bool)> =
                external.iter().filter(|(address, _)| of_family(&address)).copied().collect();
            if inside.is_empty() && outside.is_empty() {
                continue;
            }
            let port_name = port.name.as_deref().unwrap_or_default();
            let chosen = choose(slices, family, port_name, word, around.chooser());
            let fragment = &mut fragment;
            Port { around, spec, port, protocol, number, family, path: &path, fragment }
                .plan(&inside, &outside, &chosen);
        }
    }
    fragment
}

/// The cluster IPs; none for a headless Service.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    all.iter().filter_map(|text| text.parse().ok()).collect()
}

/// External IPs (`false`) and load balancer addresses that are ours to serve (`true`).
fn external_addresses(service: &Service, spec: &ServiceSpec) -> Vec<(IpAddr, bool)> {
    let external = spec.external_ips.iter().flatten();
    let mut addresses: Vec<(IpAddr, bool)> =
        external.filter_map(|text| Some((text.parse().ok()?, false))).collect();
    let status = service.status.as_ref();
    let balanced = status.and_then(|status| status.load_balancer.as_ref());
    for ingress in balanced.and_then(|status| status.ingress.as_ref()).into_iter().flatten() {
        // In mode Proxy the balancer itself must see the packets.
        let ours = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        let address = ingress.ip.as_deref().and_then(|text| text.parse().ok());
        if let (true, Some(address)) = (ours, address)
            && !addresses.iter().any(|(known, _)| *known == address)
        {
            addresses.push((address, true));
        }
    }
    addresses
}

/// Whether a traffic policy keeps to endpoints of this node.
fn keeps_local(policy: Option<&String>) -> bool {
    policy.is_some_and(|policy| policy == "Local")
}

/// One Service port being planned for one family.
struct Port<'a> {
    around: &'a Surroundings,
    spec: &'a ServiceSpec,
    port: &'a ServicePort,
    protocol: Protocol,
    number: u16,
    family: Family,
    /// `namespace/name/protocol/port`.
    path: &'a str,
    fragment: &'a mut Fragment,
}

impl Port<'_> {
    fn plan(&mut self, inside: &[IpAddr], outside: &[(IpAddr, bool)], chosen: &Chosen) {
        for address in &chosen.here {
            self.element(Container::Hairpin, Key::Itself(*address), Value::Nothing);
        }
        let local = keeps_local(self.spec.internal_traffic_policy.as_ref());
        let targets = if local { &chosen.local } else { &chosen.cluster };
        for address in inside {
            let entry = Entry::Address(*address, self.protocol, self.number);
            if !targets.is_empty() {
                let chain = self.way(entry, Container::Endpoints, targets, local);
                self.element(Container::Services, Key::Entry(entry), chain);
            } else if !chosen.cluster.is_empty() {
                // Endpoints elsewhere only. The address as a whole refuses; this waits instead.
                self.element(Container::Unserved, Key::Entry(entry), Value::Drop);
            }
            self.datagrams(entry, targets);
        }
        for (address, balanced) in outside {
            let entry = Entry::Address(*address, self.protocol, self.number);
            self.outside(entry, chosen);
            if *balanced {
                self.wall(entry, *address);
            }
        }
        let node_port = self.port.node_port.and_then(|port| u16::try_from(port).ok());
        if let Some(number) = node_port.filter(|number| *number > 0 && !inside.is_empty()) {
            self.outside(Entry::Node(self.family, self.protocol, number), chosen);
        }
    }

    /// A way in from outside: node port, external address or load balancer address. With policy
    /// Local, only what comes from outside keeps to this node and keeps its source; pods and the
    /// node itself reach the whole Service. What comes from outside and finds no endpoint here is
    /// dropped, so that load balancers go elsewhere; a Service that nobody serves refuses.
    fn outside(&mut self, entry: Entry, chosen: &Chosen) {
        let local = keeps_local(self.spec.external_traffic_policy.as_ref());
        let at = Ways::of(entry);
        let key = Key::Entry(entry);
        let mut answering = chosen.cluster.clone();
        if chosen.cluster.is_empty() {
            self.element(at.unserved, key, Value::Goto(REFUSE.into()));
        } else {
            self.element(at.marks, key, Value::Jump(if local { MARK_OWN } else { MARK }));
            let chain = self.way(entry, at.endpoints, &chosen.cluster, false);
            self.element(at.services, key, chain);
        }
        if local && !chosen.cluster.is_empty() {
            let chain = match chosen.local.is_empty() {
                true => Value::Drop,
                false => self.way(entry, at.local_endpoints, &chosen.local, true),
            };
            self.element(at.outside, key, chain);
            answering.extend(&chosen.local);
        }
        self.datagrams(entry, &answering);
    }

    /// Lets only the allowed sources use a load balancer address.
    fn wall(&mut self, entry: Entry, address: IpAddr) {
        let ranges = self.spec.load_balancer_source_ranges.iter().flatten();
        let ranges: Vec<IpNet> = ranges
            .filter_map(|text| text.trim().parse::<IpNet>().ok())
            .filter(|range| Family::of(range.addr()) == self.family)
            .collect();
        if ranges.is_empty() {
            return;
        }
        let mut ranges = IpNet::aggregate(&ranges);
        // Where the address is one of the node's, what the node sends there has it as source.
        let ours = |range: &IpNet| self.around.addresses.iter().any(|own| range.contains(own));
        if ranges.iter().any(ours) && !ranges.iter().any(|range| range.contains(&address)) {
            ranges.push(address.into());
        }
        self.element(Container::Walled, Key::Entry(entry), Value::Nothing);
        for range in ranges {
            self.element(Container::Allowed, Key::Source(entry, range), Value::Nothing);
        }
    }

    /// The chain that sends each new connection at `entry` to one of `targets`.
    fn way(&mut self, entry: Entry, slots: Container, targets: &[Target], local: bool) -> Value {
        if self.spec.session_affinity.as_deref() == Some("ClientIP") {
            let seconds = sticky::seconds(self.spec);
            let way = sticky::Way {
                family: self.family,
                protocol: self.protocol,
                path: self.path,
                local,
                seconds,
            };
            return Value::Goto(way.plan(targets, self.fragment).into());
        }
        let picker = Picker::of(self.family, slots, targets.len());
        self.fragment.slots.insert((slots, entry), targets.into());
        Value::Goto(picker.name().into())
    }

    fn element(&mut self, container: Container, key: Key, value: Value) {
        self.fragment.elements.insert((container, key), value);
    }

    fn datagrams(&mut self, entry: Entry, targets: &[Target]) {
        if self.protocol == Protocol::Udp {
            self.fragment.datagrams.entry(entry).or_default().extend(targets);
        }
    }
}

/// The maps that an entry from outside is in.
struct Ways {
    services: Container,
    outside: Container,
    endpoints: Container,
    local_endpoints: Container,
    marks: Container,
    unserved: Container,
}

impl Ways {
    fn of(entry: Entry) -> Self {
        match entry {
            Entry::Address(..) => Self {
                services: Container::Services,
                outside: Container::Outside,
                endpoints: Container::Endpoints,
                local_endpoints: Container::LocalEndpoints,
                marks: Container::Marks,
                unserved: Container::Unserved,
            },
            Entry::Node(..) => Self {
                services: Container::NodePorts,
                outside: Container::NodeOutside,
                endpoints: Container::NodeEndpoints,
                local_endpoints: Container::NodeLocalEndpoints,
                marks: Container::NodeMarks,
                unserved: Container::NodeUnserved,
            },
        }
    }
}
