//! Node ports of Services, and the port that answers for a Service's health.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use meta::{FieldError, FieldPath, Status};
use serde_json::Value;

use super::claims::Taking;
use super::{ranges, refuse};
use crate::object::child;
use crate::strategy::service::{has_health_port, has_node_ports, service_type};

/// The node port of a Service's port, if it has one.
pub(super) fn node_port(port: &Value) -> Option<u16> {
    port["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}

/// Takes the ports that a Service needs: first those asked for by number.
///
/// # Errors
/// 422 or 500 for a port that cannot be had.
pub(super) fn take(
    taking: &mut Taking<'_>,
    service: &mut Value,
    range: &RangeInclusive<u16>,
) -> Result<(), Status> {
    if has_node_ports(service) {
        let automatic = service_type(service) == "NodePort"
            || service["spec"]["allocateLoadBalancerNodePorts"] != false;
        let mut ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        take_named(taking, service, &ports, range)?;
        let mut shared = Shared::default();
        for port in &ports {
            shared.add(port);
        }
        for port in ports.iter_mut().filter(|_| automatic) {
            if node_port(port).is_none() {
                let number = match shared.with(port) {
                    Some(number) => number,
                    None => take_any(taking, range)?,
                };
                port["nodePort"] = number.into();
                shared.add(port);
            }
        }
        if !ports.is_empty() {
            child(service, "spec").insert("ports".to_owned(), ports.into());
        }
    }
    take_health_port(taking, service, range)
}

/// Node ports by port number: protocols that share the one share the other.
#[derive(Default)]
struct Shared(HashMap<Option<u64>, Vec<(Value, u16)>>);

impl Shared {
    fn add(&mut self, port: &Value) {
        let Some(number) = node_port(port) else { return };
        let known = self.0.entry(port["port"].as_u64()).or_default();
        // Two of different protocols have one for any third.
        if known.len() < 2 && known.iter().all(|(protocol, _)| *protocol != port["protocol"]) {
            known.push((port["protocol"].clone(), number));
        }
    }

    /// The node port of another protocol with the same port number.
    fn with(&self, port: &Value) -> Option<u16> {
        let mut known = self.0.get(&port["port"].as_u64())?.iter();
        known.find(|(protocol, _)| *protocol != port["protocol"]).map(|(_, number)| *number)
    }
}

fn take_named(
    taking: &mut Taking<'_>,
    service: &Value,
    ports: &[Value],
    range: &RangeInclusive<u16>,
) -> Result<(), Status> {
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = node_port(port) else { continue };
        take_one(taking, number, range).map_err(|reason| {
            let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
            refuse(service, FieldError::invalid(path, number, reason))
        })?;
    }
    Ok(())
}

fn take_one(taking: &mut Taking<'_>, port: u16, range: &RangeInclusive<u16>) -> Result<(), String> {
    if taking.has_port(port) {
        return Ok(());
    }
    if !range.contains(&port) {
        return Err(format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            range.start(),
            range.end()
        ));
    }
    if taking.take_port(port) { Ok(()) } else { Err("provided port is already allocated".into()) }
}

/// Takes any port, from the upper part of the range while there is one (KEP-3668).
fn take_any(taking: &mut Taking<'_>, range: &RangeInclusive<u16>) -> Result<u16, Status> {
    let (first, last) = (u128::from(*range.start()), u128::from(*range.end()));
    let size = last.saturating_sub(first) + 1;
    let reserved = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
    let port = |number: u128| u16::try_from(number).unwrap_or(0);
    let found =
        ranges::free_number(first, last, reserved, |number| taking.is_free_port(port(number)));
    match found.map(port) {
        Some(port) if taking.take_port(port) => Ok(port),
        _ => Err(Status::internal("failed to allocate a nodePort: range is full")),
    }
}

fn take_health_port(
    taking: &mut Taking<'_>,
    service: &mut Value,
    range: &RangeInclusive<u16>,
) -> Result<(), Status> {
    if !has_health_port(service) {
        return Ok(());
    }
    let asked = service["spec"]["healthCheckNodePort"].as_u64();
    match asked.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0) {
        Some(port) => take_one(taking, port, range).map_err(|reason| {
            Status::internal(format!(
                "failed to allocate requested HealthCheck NodePort {port}: {reason}"
            ))
        }),
        None => {
            let port = take_any(taking, range)?;
            child(service, "spec").insert("healthCheckNodePort".to_owned(), port.into());
            Ok(())
        }
    }
}
