//! Node ports of Services, and the port that answers for a Service's health.

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
        for index in 0..ports.len() {
            if node_port(&ports[index]).is_some() || !automatic {
                continue;
            }
            // Protocols that share a port number share its node port.
            let shared = ports
                .iter()
                .filter(|p| {
                    p["port"] == ports[index]["port"] && p["protocol"] != ports[index]["protocol"]
                })
                .find_map(node_port);
            let port = match shared {
                Some(port) => port,
                None => take_any(taking, range)?,
            };
            ports[index]["nodePort"] = port.into();
        }
        if !ports.is_empty() {
            child(service, "spec").insert("ports".to_owned(), ports.into());
        }
    }
    take_health_port(taking, service, range)
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
