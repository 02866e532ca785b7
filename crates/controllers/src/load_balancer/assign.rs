//! Which Service has which addresses.
//!
//! Pure. A Service keeps what it has; then older ones come first, so that a newcomer takes nothing
//! from anybody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
};

use client::ObjectKey;
use k8s_openapi::api::core::v1::Service;

use super::{AddressRange, Snapshot, WISH, ingress, is_balanced, keeps_local};
use crate::objects::annotation;

/// Ports of the nodes themselves, which no Service may take over: the API server's and the
/// kubelet's.
const RESERVED: [i32; 2] = [6443, 10_250];

/// What a Service has, and what it lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) trouble: Option<Trouble>,
}

/// Why a Service lacks an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No address of this family is left, or there never was one.
    Exhausted(&'static str),
    /// The address asked for is in no range.
    Outside(IpAddr),
    /// The address asked for is another Service's.
    Taken(IpAddr, ObjectKey),
    /// The port is another Service's on the nodes' addresses.
    PortTaken(i32, ObjectKey),
    /// The port is the nodes' own.
    PortReserved(i32),
    /// No node may carry the traffic.
    NoNode,
}

impl Trouble {
    /// A word for events and conditions.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Exhausted(_) => "AddressPoolExhausted",
            Self::Outside(_) => "AddressNotInPool",
            Self::Taken(..) => "AddressTaken",
            Self::PortTaken(..) => "PortTaken",
            Self::PortReserved(_) => "PortReserved",
            Self::NoNode => "NoNode",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted(family) => {
                write!(f, "no {family} address is left in --load-balancer-pool")
            }
            Self::Outside(address) => write!(f, "{address} is not in --load-balancer-pool"),
            Self::Taken(address, by) => write!(f, "{address} is used by Service {by}"),
            Self::PortTaken(port, by) => {
                write!(f, "port {port} of the nodes' addresses is used by Service {by}")
            }
            Self::PortReserved(port) => write!(f, "port {port} is used by the nodes themselves"),
            Self::NoNode => f.write_str("no ready node may carry the Service's traffic"),
        }
    }
}

/// What every Service that is to have addresses gets.
pub(super) fn assign(snapshot: &Snapshot) -> BTreeMap<ObjectKey, Assigned> {
    let mut wanting: Vec<(&ObjectKey, &Service)> = snapshot
        .services
        .iter()
        .map(|(key, service)| (key, &**service))
        .filter(|(_, service)| is_balanced(service))
        .collect();
    wanting.sort_by_key(|(key, service)| {
        let born = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (ingress(service).is_empty(), born, (*key).clone())
    });
    if snapshot.ranges.is_empty() {
        from_nodes(snapshot, &wanting)
    } else {
        from_pool(snapshot, &wanting)
    }
}

/// The families a Service wants, the first first.
fn families(service: &Service) -> Vec<bool> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_ref());
    let ipv6: Vec<bool> = families.into_iter().flatten().map(|family| family == "IPv6").collect();
    if ipv6.is_empty() { vec![false] } else { ipv6 }
}

/// The addresses a Service asks for.
fn wishes(service: &Service) -> Vec<IpAddr> {
    let by_field = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    let by_annotation = annotation(&service.metadata, WISH);
    let text = by_annotation.or(by_field).unwrap_or_default();
    text.split(',').filter_map(|one| one.trim().parse().ok()).collect()
}

fn present(service: &Service) -> impl Iterator<Item = IpAddr> {
    ingress(service).iter().filter_map(|one| one.ip.as_deref()?.parse().ok())
}

fn from_pool(
    snapshot: &Snapshot,
    wanting: &[(&ObjectKey, &Service)],
) -> BTreeMap<ObjectKey, Assigned> {
    let in_pool = |address: IpAddr| snapshot.ranges.iter().any(|range| range.contains(address));
    let mut taken: HashMap<IpAddr, &ObjectKey> = HashMap::new();
    // What is wished for goes to who wishes; what somebody has stays, unless it wishes otherwise.
    for (key, service) in wanting {
        let (wishes, families) = (wishes(service), families(service));
        let keeps = |address: &IpAddr| {
            let wish = wishes.iter().find(|wish| wish.is_ipv6() == address.is_ipv6());
            families.contains(&address.is_ipv6())
                && in_pool(*address)
                && wish.is_none_or(|wish| wish == address)
        };
        for address in present(service).filter(keeps) {
            taken.entry(address).or_insert(key);
        }
    }
    let mut all = BTreeMap::new();
    for (key, service) in wanting {
        let mut assigned = Assigned::default();
        let wishes = wishes(service);
        let families = families(service);
        let required = match service.spec.as_ref().and_then(|spec| spec.ip_family_policy.as_deref())
        {
            Some("PreferDualStack") => 1,
            _ => families.len(),
        };
        for (at, ipv6) in families.into_iter().enumerate() {
            let wish = wishes.iter().copied().find(|wish| wish.is_ipv6() == ipv6);
            let kept = present(service)
                .find(|address| address.is_ipv6() == ipv6 && taken.get(address) == Some(key));
            let found = match (kept, wish) {
                (Some(kept), _) => Ok(kept),
                (None, Some(wish)) if !in_pool(wish) => Err(Trouble::Outside(wish)),
                (None, Some(wish)) => match taken.get(&wish) {
                    Some(other) => Err(Trouble::Taken(wish, (*other).clone())),
                    None => Ok(wish),
                },
                (None, None) => first_free(&snapshot.ranges, ipv6, &taken),
            };
            match found {
                Ok(address) => {
                    taken.insert(address, key);
                    assigned.addresses.push(address);
                }
                Err(trouble) if at < required || wish.is_some() => {
                    assigned.trouble.get_or_insert(trouble);
                }
                Err(_) => {}
            }
        }
        all.insert((*key).clone(), assigned);
    }
    all
}

fn first_free(
    ranges: &[AddressRange],
    ipv6: bool,
    taken: &HashMap<IpAddr, &ObjectKey>,
) -> Result<IpAddr, Trouble> {
    ranges
        .iter()
        .filter(|range| range.is_ipv6() == ipv6)
        .find_map(|range| range.free(|address| taken.contains_key(&address)))
        .ok_or(Trouble::Exhausted(if ipv6 { "IPv6" } else { "IPv4" }))
}

fn from_nodes(
    snapshot: &Snapshot,
    wanting: &[(&ObjectKey, &Service)],
) -> BTreeMap<ObjectKey, Assigned> {
    let external = snapshot.carriers.values().any(|carrier| !carrier.external.is_empty());
    let mut ports: HashMap<(i32, String), &ObjectKey> = HashMap::new();
    let mut all = BTreeMap::new();
    for (key, service) in wanting {
        let spec = service.spec.as_ref();
        let own: Vec<(i32, String)> = spec
            .and_then(|spec| spec.ports.as_ref())
            .into_iter()
            .flatten()
            .map(|port| (port.port, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())))
            .collect();
        let other = own.iter().find_map(|port| Some((port.0, *ports.get(port)?)));
        let reserved = own.iter().find(|(port, word)| word == "TCP" && RESERVED.contains(port));
        let trouble = match (reserved, other) {
            (Some((port, _)), _) => Some(Trouble::PortReserved(*port)),
            (None, Some((port, other))) => Some(Trouble::PortTaken(port, other.clone())),
            (None, None) => None,
        };
        if trouble.is_some() {
            all.insert((*key).clone(), Assigned { addresses: Vec::new(), trouble });
            continue;
        }
        ports.extend(own.into_iter().map(|port| (port, *key)));
        let carries = |name: &str| {
            !keeps_local(service) || snapshot.local.get(*key).is_some_and(|all| all.contains(name))
        };
        let families = families(service);
        let addresses: BTreeSet<IpAddr> = snapshot
            .carriers
            .iter()
            .filter(|(name, _)| carries(name))
            .flat_map(|(_, carrier)| if external { &carrier.external } else { &carrier.internal })
            .filter_map(|text| text.parse::<IpAddr>().ok())
            .filter(|address| families.contains(&address.is_ipv6()))
            .collect();
        let trouble = addresses.is_empty().then_some(Trouble::NoNode);
        all.insert(
            (*key).clone(),
            Assigned { addresses: addresses.into_iter().collect(), trouble },
        );
    }
    all
}
