//! Cluster IPs and node ports: which are taken, and taking them together with the write that
//! needs them.
//!
//! The Services in the store are the record; the sets here are rebuilt from them at start. A
//! [`Reservation`] gives back what it took unless the write it was made for was committed. Refuses
//! to know anything of networking beyond numbers.

mod families;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use meta::{FieldError, FieldPath, Status};
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::Value;
use store::Snapshot;

use crate::header::Header;
use crate::object::{child, meta_text, parse};
use crate::strategy::service::{
    cluster_ip, has_cluster_ip, has_health_port, has_node_ports, service_type,
};

/// The ranges to allocate from.
#[derive(Clone, Debug)]
pub struct Network {
    /// Cluster IPs; network and broadcast addresses are left out.
    pub services: Ipv4Net,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Network {
    /// 10.96.0.0/12 and 30000-32767.
    fn default() -> Self {
        Self {
            services: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            node_ports: 30000..=32767,
        }
    }
}

/// Knows what is taken.
#[derive(Clone, Debug)]
pub(crate) struct Allocator {
    network: Network,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

/// What one write took and what it will give up.
#[derive(Debug)]
pub(crate) struct Reservation {
    taken: Arc<Mutex<Taken>>,
    new: Claims,
    given_up: Claims,
    committed: bool,
}

#[derive(Debug, Default)]
struct Claims {
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Reservation {
    /// The write took place: keep what is new, give up what the old object had.
    pub(crate) fn commit(mut self) {
        self.committed = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let claims = if self.committed { &self.given_up } else { &self.new };
        self.taken.lock().release(claims);
    }
}

impl Taken {
    fn release(&mut self, claims: &Claims) {
        for address in &claims.addresses {
            self.addresses.remove(address);
        }
        for port in &claims.ports {
            self.ports.remove(port);
        }
    }
}

impl Allocator {
    /// An allocator that knows the Services of a snapshot.
    pub(crate) fn new(network: Network, snapshot: &Snapshot<Header>) -> Self {
        let mut taken = Taken::default();
        for (_, record) in snapshot.range("/registry/services/") {
            let claims = claims(&parse(&record.value));
            taken.addresses.extend(claims.addresses);
            taken.ports.extend(claims.ports);
        }
        Self { network, taken: Arc::new(Mutex::new(taken)) }
    }

    /// Gives back what a deleted Service had.
    pub(crate) fn release(&self, service: &Value) {
        self.taken.lock().release(&claims(service));
    }

    /// Fills in the addresses, families and ports of a Service about to be written.
    ///
    /// # Errors
    /// 422 for an address or port that cannot be had, 500 when none is left.
    pub(crate) fn reserve(
        &self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, Status> {
        families::fill(service, old)?;
        let had = old.map(claims).unwrap_or_default();
        let mut reservation = Reservation {
            taken: self.taken.clone(),
            new: Claims::default(),
            given_up: Claims::default(),
            committed: false,
        };
        self.reserve_address(service, &had, &mut reservation)?;
        self.reserve_ports(service, &had, &mut reservation)?;
        let has = claims(service);
        reservation.given_up = Claims {
            addresses: had.addresses.into_iter().filter(|a| !has.addresses.contains(a)).collect(),
            ports: had.ports.into_iter().filter(|p| !has.ports.contains(p)).collect(),
        };
        Ok(reservation)
    }

    fn reserve_address(
        &self,
        service: &mut Value,
        had: &Claims,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        if !has_cluster_ip(service) || cluster_ip(service) == "None" {
            return Ok(());
        }
        let asked = cluster_ip(service).to_owned();
        let address = if asked.is_empty() {
            self.free_address().ok_or_else(|| {
                Status::internal(format!(
                    "failed to allocate a serviceIP for Service {:?}: range is full",
                    meta_text(service, "name")
                ))
            })?
        } else {
            let address = match asked.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => address,
                // Validation says what is wrong with it.
                _ => return Ok(()),
            };
            if had.addresses.contains(&address) {
                return Ok(());
            }
            self.take_address(address).map_err(|reason| {
                let detail = format!("failed to allocate IP {asked}: {reason}");
                let path = FieldPath::new("spec").child("clusterIPs");
                let value = service["spec"]["clusterIPs"].clone();
                refuse(service, FieldError::invalid(path, value, detail))
            })?;
            address
        };
        reservation.new.addresses.push(address);
        let spec = child(service, "spec");
        spec.insert("clusterIP".to_owned(), address.to_string().into());
        spec.insert("clusterIPs".to_owned(), vec![address.to_string()].into());
        Ok(())
    }

    /// Takes one address by name.
    fn take_address(&self, address: Ipv4Addr) -> Result<(), String> {
        let services = &self.network.services;
        let edge = address == services.network() || address == services.broadcast();
        if !services.contains(&address) || edge {
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {services}"
            ));
        }
        if self.taken.lock().addresses.insert(address) {
            Ok(())
        } else {
            Err("provided IP is already allocated".to_owned())
        }
    }

    /// Takes any address, from the upper part of the range while there is one: the lower part is
    /// for those who ask by name (KEP-3070).
    fn free_address(&self) -> Option<Ipv4Addr> {
        let first = u32::from(self.network.services.network()) + 1;
        let last = u32::from(self.network.services.broadcast()) - 1;
        let size = last - first + 1;
        let reserved = if size < 32 { 0 } else { (size / 16).clamp(16, 256) };
        let mut taken = self.taken.lock();
        let address = free(first, last, reserved, |n| !taken.addresses.contains(&n.into()))?;
        taken.addresses.insert(address.into());
        Some(address.into())
    }

    /// Takes any port, from the upper part of the range while there is one (KEP-3668).
    fn free_port(&self) -> Option<u16> {
        let (first, last) = (*self.network.node_ports.start(), *self.network.node_ports.end());
        let size = u32::from(last - first) + 1;
        let reserved = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        let mut taken = self.taken.lock();
        let port = free(first.into(), last.into(), reserved, |n| {
            u16::try_from(n).is_ok_and(|n| !taken.ports.contains(&n))
        })?;
        let port = u16::try_from(port).ok()?;
        taken.ports.insert(port);
        Some(port)
    }

    fn take_port(&self, port: u16) -> Result<(), String> {
        let range = &self.network.node_ports;
        if !range.contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            ));
        }
        if self.taken.lock().ports.insert(port) {
            Ok(())
        } else {
            Err("provided port is already allocated".to_owned())
        }
    }

    fn reserve_ports(
        &self,
        service: &mut Value,
        had: &Claims,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        if has_node_ports(service) {
            let automatic = service_type(service) == "NodePort"
                || service["spec"]["allocateLoadBalancerNodePorts"] != false;
            let mut ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
            self.name_ports(service, &ports, had, reservation)?;
            for index in 0..ports.len() {
                if node_port(&ports[index]).is_some() || !automatic {
                    continue;
                }
                // Protocols that share a port number share its node port.
                let shared = ports
                    .iter()
                    .filter(|p| {
                        p["port"] == ports[index]["port"]
                            && p["protocol"] != ports[index]["protocol"]
                    })
                    .find_map(node_port);
                let port = match shared {
                    Some(port) => port,
                    None => {
                        let port = self.free_port().ok_or_else(no_port)?;
                        reservation.new.ports.push(port);
                        port
                    }
                };
                ports[index]["nodePort"] = port.into();
            }
            if !ports.is_empty() {
                child(service, "spec").insert("ports".to_owned(), ports.into());
            }
        }
        self.reserve_health_port(service, had, reservation)
    }

    /// Takes the node ports that are asked for by number.
    fn name_ports(
        &self,
        service: &Value,
        ports: &[Value],
        had: &Claims,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        for (index, port) in ports.iter().enumerate() {
            let Some(number) = node_port(port) else { continue };
            if had.ports.contains(&number) || reservation.new.ports.contains(&number) {
                continue;
            }
            self.take_port(number).map_err(|reason| {
                let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
                refuse(service, FieldError::invalid(path, number, reason))
            })?;
            reservation.new.ports.push(number);
        }
        Ok(())
    }

    fn reserve_health_port(
        &self,
        service: &mut Value,
        had: &Claims,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        if !has_health_port(service) {
            return Ok(());
        }
        match service["spec"]["healthCheckNodePort"].as_u64().and_then(|p| u16::try_from(p).ok()) {
            Some(port) if port != 0 => {
                if !had.ports.contains(&port) {
                    self.take_port(port).map_err(|reason| {
                        Status::internal(format!(
                            "failed to allocate requested HealthCheck NodePort {port}: {reason}"
                        ))
                    })?;
                    reservation.new.ports.push(port);
                }
            }
            _ => {
                let port = self.free_port().ok_or_else(no_port)?;
                reservation.new.ports.push(port);
                child(service, "spec").insert("healthCheckNodePort".to_owned(), port.into());
            }
        }
        Ok(())
    }
}

/// A free number in `first..=last`: at random above the first `reserved`, then anywhere.
fn free(first: u32, last: u32, reserved: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let low = first + reserved;
    let search =
        |from: u32, to: u32, start: u32| (start..=to).chain(from..start).find(|n| is_free(*n));
    if low <= last {
        let start = rand::rng().random_range(low..=last);
        if let Some(found) = search(low, last, start) {
            return Some(found);
        }
    }
    search(first, last, first)
}

fn node_port(port: &Value) -> Option<u16> {
    port["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}

/// What a stored Service holds.
fn claims(service: &Value) -> Claims {
    let mut claims = Claims::default();
    if has_cluster_ip(service) {
        let addresses = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        claims.addresses = addresses.filter_map(|a| a.as_str()?.parse().ok()).collect();
    }
    if has_node_ports(service) {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        claims.ports = ports.filter_map(node_port).collect();
    }
    if has_health_port(service) {
        let port = service["spec"]["healthCheckNodePort"].as_u64();
        claims.ports.extend(port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0));
    }
    claims
}

fn no_port() -> Status {
    Status::internal("failed to allocate a nodePort: range is full")
}

fn refuse(service: &Value, error: FieldError) -> Status {
    Status::invalid(("", "Service"), meta_text(service, "name"), vec![error])
}

#[cfg(test)]
mod tests;
