//! What a Service holds, and the records in the store that say so.

use std::collections::HashSet;
use std::net::IpAddr;

use bytes::Bytes;
use meta::names;
use serde_json::{Value, json};
use store::{Expect, Guard, Key, Snapshot, Write};

use super::families::family_of;
use super::ports::node_port;
use crate::header::Header;
use crate::object::{encode, meta_text, parse};
use crate::strategy::service::{has_cluster_ip, has_health_port, has_node_ports};

/// Where IPAddresses are kept.
pub(super) const ADDRESSES: &str = "/registry/networking.k8s.io.ipaddresses/";
/// Where it is kept whose a node port is. No resource of the API.
pub(super) const PORTS: &str = "/registry/nodeports/";
/// Where Services are kept.
pub(super) const SERVICES: &str = "/registry/services/";
/// Who makes the IPAddresses of Services, as their label says.
pub(super) const MANAGER: &str = "ipallocator.k8s.io";
pub(super) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";

/// What is written with a Service, and must hold for it.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) guards: Vec<Guard>,
    pub(crate) writes: Vec<Write<Header>>,
}

impl Claims {
    /// Adds what else is to be written, and to hold.
    pub(crate) fn extend(&mut self, more: Self) {
        self.guards.extend(more.guards);
        self.writes.extend(more.writes);
    }
}

/// What a Service has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
}

/// What a Service as it is has.
pub(super) fn holdings(service: &Value) -> Holdings {
    let mut holdings = Holdings::default();
    if has_cluster_ip(service) {
        let addresses = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        holdings.addresses = addresses.filter_map(|a| a.as_str()?.parse().ok()).collect();
    }
    if has_node_ports(service) {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        holdings.ports = ports.filter_map(node_port).collect();
    }
    if has_health_port(service) {
        let port = service["spec"]["healthCheckNodePort"].as_u64();
        holdings.ports.extend(port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0));
    }
    // Protocols may share a port.
    holdings.ports.sort_unstable();
    holdings.ports.dedup();
    holdings
}

pub(super) fn address_key(address: IpAddr) -> Key {
    format!("{ADDRESSES}{address}").into()
}

pub(super) fn port_key(port: u16) -> Key {
    format!("{PORTS}{port}").into()
}

/// The IPAddress of a Service's address.
pub(super) fn address_record(address: IpAddr, service: &Value, now: &str) -> Write<Header> {
    let object = json!({
        "metadata": {
            "name": address.to_string(),
            "uid": names::uid(),
            "creationTimestamp": now,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family_of(address),
                MANAGED_BY: MANAGER,
            },
        },
        "spec": {"parentRef": {
            "group": "",
            "resource": "services",
            "namespace": meta_text(service, "namespace"),
            "name": meta_text(service, "name"),
        }},
    });
    Write::put(address_key(address), encode(&object), Header::of(&object, &[]))
}

/// The Service whose address it is, as `namespace/name`.
pub(super) fn address_owner(stored: &[u8]) -> String {
    let parent = &parse(stored)["spec"]["parentRef"];
    let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

/// The record of a node port: the Service that has it, as `namespace/name`.
pub(super) fn port_record(port: u16, service: &Value) -> Write<Header> {
    Write::put(port_key(port), Bytes::from(name_of(service)), Header::default())
}

/// A Service as `namespace/name`.
pub(super) fn name_of(service: &Value) -> String {
    format!("{}/{}", meta_text(service, "namespace"), meta_text(service, "name"))
}

/// A Service on the way to what it will have.
pub(super) struct Taking<'a> {
    pub(super) snapshot: &'a Snapshot<Header>,
    had: Holdings,
    taken: HashSet<Key>,
}

impl<'a> Taking<'a> {
    pub(super) fn new(snapshot: &'a Snapshot<Header>, had: Holdings) -> Self {
        Self { snapshot, had, taken: HashSet::new() }
    }

    fn is_free(&self, key: &Key) -> bool {
        self.snapshot.get(key).is_none() && !self.taken.contains(key)
    }

    pub(super) fn is_free_address(&self, address: IpAddr) -> bool {
        self.is_free(&address_key(address))
    }

    pub(super) fn is_free_port(&self, port: u16) -> bool {
        self.is_free(&port_key(port))
    }

    /// Takes an address unless somebody else has it.
    pub(super) fn take_address(&mut self, address: IpAddr) -> bool {
        self.had.addresses.contains(&address) || self.take(address_key(address))
    }

    /// Whether the Service has the port already; it may use one of its ports twice.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.had.ports.contains(&port) || self.taken.contains(&port_key(port))
    }

    /// Takes a port unless somebody has it.
    pub(super) fn take_port(&mut self, port: u16) -> bool {
        self.take(port_key(port))
    }

    fn take(&mut self, key: Key) -> bool {
        self.is_free(&key) && self.taken.insert(key)
    }

    /// What changes with the Service as it now is.
    pub(super) fn finish(self, service: &Value, now: &str) -> Claims {
        let has = holdings(service);
        let mut claims = Claims::default();
        for address in has.addresses.iter().filter(|a| self.taken.contains(&address_key(**a))) {
            claims.guards.push(Guard::new(address_key(*address), Expect::Absent));
            claims.writes.push(address_record(*address, service, now));
        }
        for port in has.ports.iter().filter(|p| self.taken.contains(&port_key(**p))) {
            claims.guards.push(Guard::new(port_key(*port), Expect::Absent));
            claims.writes.push(port_record(*port, service));
        }
        let given_up = Holdings {
            addresses: left(&self.had.addresses, &has.addresses),
            ports: left(&self.had.ports, &has.ports),
        };
        self.remove(&given_up, service, &mut claims);
        claims
    }

    /// What changes when the Service goes.
    pub(super) fn give_up(self, service: &Value) -> Claims {
        let mut claims = Claims::default();
        self.remove(&self.had, service, &mut claims);
        claims
    }

    /// Removes the records of these holdings, where they are of this Service.
    fn remove(&self, holdings: &Holdings, service: &Value, claims: &mut Claims) {
        let owner = name_of(service);
        let addresses = holdings.addresses.iter().map(|address| address_key(*address));
        let ports = holdings.ports.iter().map(|port| port_key(*port));
        for key in addresses.chain(ports) {
            let Some(record) = self.snapshot.get(&key) else { continue };
            let is_own = if key.starts_with(PORTS) {
                record.value == owner.as_bytes()
            } else {
                address_owner(&record.value) == owner
            };
            if is_own {
                claims.guards.push(Guard::new(key.clone(), Expect::Modified(record.modified)));
                claims.writes.push(Write::delete(key));
            }
        }
    }
}

fn left<T: PartialEq + Copy>(had: &[T], has: &[T]) -> Vec<T> {
    had.iter().filter(|item| !has.contains(item)).copied().collect()
}
