//! Cluster IPs and node ports: choosing free ones, and taking them together with the write that
//! needs them.
//!
//! What is taken is in the store: an `IPAddress` for each cluster IP and a record for each node
//! port, written in the transaction of the Service that has it and only if nobody else has. No
//! memory is kept, so that servers which share a store cannot disagree. Refuses to know anything
//! of networking beyond numbers.

mod claims;
mod families;
mod ports;
mod ranges;
pub(crate) mod repair;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};
use meta::{FieldError, FieldPath, Status};
use serde_json::Value;
use store::Snapshot;

use crate::header::Header;
use crate::object::{child, meta_text};
use crate::strategy::service::{cluster_ip, has_cluster_ip};

pub(crate) use claims::Claims;
use claims::{Taking, holdings};
use families::family_of;

/// The ranges to allocate from.
#[derive(Clone, Debug)]
pub struct Network {
    /// The ranges of cluster IPs, of one family or of both; the first is that of Services which
    /// do not say. Which addresses there are is up to the ServiceCIDR objects, once there are any.
    pub services: Vec<IpNet>,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Network {
    /// 10.96.0.0/12 and 30000-32767.
    fn default() -> Self {
        Self {
            services: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12).into()],
            node_ports: 30000..=32767,
        }
    }
}

/// Chooses addresses and ports.
#[derive(Clone, Debug)]
pub(crate) struct Allocator {
    network: Network,
}

impl Allocator {
    pub(crate) fn new(network: Network) -> Self {
        Self { network }
    }

    /// Fills in the addresses, families and ports of a Service about to be written. Returns what
    /// must be written with it, and hold, for them to be its own.
    ///
    /// # Errors
    /// 422 for an address or port that cannot be had, 500 when none is left.
    pub(crate) fn claim(
        &self,
        snapshot: &Snapshot<Header>,
        service: &mut Value,
        old: Option<&Value>,
        now: &str,
    ) -> Result<Claims, Status> {
        let mut taking = Taking::new(snapshot, old.map(holdings).unwrap_or_default());
        if families::fill(service, old, &self.network.services)? {
            self.take_addresses(&mut taking, service, old)?;
        }
        ports::take(&mut taking, service, &self.network.node_ports)?;
        Ok(taking.finish(service, now))
    }

    /// What must be written with the removal of a Service to give up what it had.
    pub(crate) fn release(&self, snapshot: &Snapshot<Header>, service: &Value) -> Claims {
        Taking::new(snapshot, holdings(service)).give_up(service)
    }

    /// Takes an address for each family that has none yet.
    fn take_addresses(
        &self,
        taking: &mut Taking<'_>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !has_cluster_ip(service) || cluster_ip(service) == "None" {
            return Ok(());
        }
        let texts = |field: &str| -> Vec<String> {
            let list = service["spec"][field].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let (families, mut addresses) = (texts("ipFamilies"), texts("clusterIPs"));
        // What was there is immutable, which validation sees to; a second one may come.
        let kept = old.filter(|old| has_cluster_ip(old)).map_or(0, |old| {
            old["spec"]["ipFamilies"].as_array().map_or(1, Vec::len).min(addresses.len())
        });
        if kept > 0 && old.is_some_and(|old| cluster_ip(old) == "None") {
            return Ok(());
        }
        for (index, family) in families.iter().enumerate().skip(kept) {
            match addresses.get(index).filter(|address| !address.is_empty()) {
                Some(asked) => {
                    if let Ok(address) = asked.parse::<IpAddr>() {
                        self.take_named(taking, address).map_err(|reason| {
                            let detail = format!("failed to allocate IP {asked}: {reason}");
                            let path = FieldPath::new("spec").child("clusterIPs");
                            let value = service["spec"]["clusterIPs"].clone();
                            refuse(service, FieldError::invalid(path, value, detail))
                        })?;
                    }
                }
                None => {
                    let address = self.take_any(taking, family).ok_or_else(|| {
                        Status::internal(format!(
                            "failed to allocate a serviceIP for Service {:?}: range is full",
                            meta_text(service, "name")
                        ))
                    })?;
                    addresses.truncate(index);
                    addresses.push(address.to_string());
                }
            }
        }
        if let Some(first) = addresses.first() {
            let spec = child(service, "spec");
            spec.insert("clusterIP".to_owned(), first.as_str().into());
            spec.insert("clusterIPs".to_owned(), addresses.into());
        }
        Ok(())
    }

    fn take_named(&self, taking: &mut Taking<'_>, address: IpAddr) -> Result<(), &'static str> {
        let ranges = ranges::usable(taking.snapshot, &self.network.services);
        if !ranges.iter().any(|range| ranges::holds(range, address)) {
            return Err("the provided network does not match the current range");
        }
        if taking.take_address(address) { Ok(()) } else { Err("provided IP is already allocated") }
    }

    /// Takes any address of a family.
    fn take_any(&self, taking: &mut Taking<'_>, family: &str) -> Option<IpAddr> {
        let ranges = ranges::usable(taking.snapshot, &self.network.services);
        let mut of_family = ranges.iter().filter(|range| family_of(range.addr()) == family);
        let found = of_family
            .find_map(|range| ranges::free(range, |address| taking.is_free_address(address)))?;
        taking.take_address(found).then_some(found)
    }
}

fn refuse(service: &Value, error: FieldError) -> Status {
    refuse_all(service, vec![error])
}

fn refuse_all(service: &Value, errors: Vec<FieldError>) -> Status {
    Status::invalid(("", "Service"), meta_text(service, "name"), errors)
}

#[cfg(test)]
mod tests;
