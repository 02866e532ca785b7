//! Where nodes, pods and Services are, from the stored objects. Knows nothing of how one gets there.

use std::net::IpAddr;

use meta::{GroupResource, Status};
use serde_json::Value;

use super::Destination;
use crate::{authz::node::Lookup, objects::Objects};

/// The kubelet's port where a node does not say.
const KUBELET_PORT: u64 = 10250;

/// Where a node's kubelet listens.
///
/// # Errors
/// When there is no such node, or it has told no address.
pub(crate) fn kubelet(objects: &Objects, node: &str) -> Result<Destination, Status> {
    let object = objects
        .object("", "nodes", "", node)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), node))?;
    let addresses: Vec<&Value> =
        object["status"]["addresses"].as_array().into_iter().flatten().collect();
    let find = |kind: &str| {
        let of_kind = addresses.iter().find(|address| address["type"] == kind);
        of_kind.and_then(|address| address["address"].as_str())
    };
    let host =
        ["InternalIP", "ExternalIP", "Hostname"].into_iter().find_map(find).ok_or_else(|| {
            Status::internal(format!("no preferred addresses found for node {node:?}"))
        })?;
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .filter(|port| *port > 0)
        .unwrap_or(KUBELET_PORT);
    Ok(Destination { authority: authority(host, port), node: Some(node.to_owned()), service: None })
}

/// Another port of a node.
///
/// # Errors
/// As [`kubelet`], and when the node's address is none that may be proxied to.
pub(crate) fn node(objects: &Objects, node: &str, port: u16) -> Result<Destination, Status> {
    let kubelet = kubelet(objects, node)?;
    let host = kubelet.authority.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    check_address(host)?;
    Ok(Destination { authority: authority(host, port.into()), ..kubelet })
}

/// A pod's port: the one named, else the first any container declares, else 80.
///
/// # Errors
/// When there is no such pod, it has no address yet, or the port is none.
pub(crate) fn pod(
    objects: &Objects,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Destination, Status> {
    let gone = || Status::not_found(&GroupResource::new("", "pods"), name);
    let pod = objects.object("", "pods", namespace, name).ok_or_else(gone)?;
    let address = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    check_address(address)?;
    let port = match port {
        "" => first_port(&pod),
        port => port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}")))?,
    };
    let node = pod["spec"]["nodeName"].as_str().map(str::to_owned);
    Ok(Destination { authority: authority(address, port), node, service: None })
}

/// The first port any container declares, 80 if none does.
fn first_port(pod: &Value) -> u64 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports =
        containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.find_map(|port| port["containerPort"].as_u64()).unwrap_or(80)
}

/// A ready endpoint of a Service's port, given by name or number, or the only one there is. `pick` chooses among
/// that many.
///
/// # Errors
/// When there is no such Service or port, or nothing is ready behind it.
pub(crate) fn service(
    objects: &Objects,
    pick: impl Fn(usize) -> usize,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Destination, Status> {
    let gone = || Status::not_found(&GroupResource::new("", "services"), name);
    let service = objects.object("", "services", namespace, name).ok_or_else(gone)?;
    let chosen = chosen_port(&service, port).ok_or_else(|| {
        Status::service_unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let slices = objects.labelled(
        "discovery.k8s.io",
        "endpointslices",
        namespace,
        ("kubernetes.io/service-name", name),
    );
    let mut found = ready(&slices, chosen["name"].as_str().unwrap_or_default());
    if found.is_empty() {
        return Err(Status::service_unavailable(format!(
            "no endpoints available for service {name:?}"
        )));
    }
    let (address, port, node) = found.swap_remove(pick(found.len()));
    check_address(address)?;
    let own = service["spec"]["clusterIP"].as_str().filter(|ip| ip.parse::<IpAddr>().is_ok());
    Ok(Destination {
        authority: authority(address, port),
        node: node.map(str::to_owned),
        service: own.zip(chosen["port"].as_u64()).map(|(ip, port)| authority(ip, port)),
    })
}

fn chosen_port<'a>(service: &'a Value, port: &str) -> Option<&'a Value> {
    let ports: Vec<&Value> = service["spec"]["ports"].as_array().into_iter().flatten().collect();
    let number: Option<u64> = port.parse().ok();
    match (port, ports.as_slice()) {
        ("", [only]) => Some(*only),
        ("", _) => None,
        (name, _) => ports.iter().copied().find(|port| {
            port["name"] == name || (number.is_some() && port["port"].as_u64() == number)
        }),
    }
}

/// Address, port and node of every endpoint that is ready, for the port of that name.
fn ready<'a>(slices: &'a [Value], name: &str) -> Vec<(&'a str, u64, Option<&'a str>)> {
    let mut found = Vec::new();
    for slice in slices {
        let mut listed = slice["ports"].as_array().into_iter().flatten();
        let port = listed.find(|port| port["name"].as_str().unwrap_or_default() == name);
        let Some(port) = port.and_then(|port| port["port"].as_u64()) else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            let address = endpoint["addresses"][0].as_str();
            found.extend(address.map(|address| (address, port, endpoint["nodeName"].as_str())));
        }
    }
    found
}

/// An address that a kubelet or a user reported must not turn the API server against its own machine.
fn check_address(address: &str) -> Result<(), Status> {
    let refused = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
        Err(_) => true,
    };
    if refused { Err(Status::bad_request("address not allowed")) } else { Ok(()) }
}

fn authority(host: &str, port: u64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_carry_their_node() {
        let slices = [json!({
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "a", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "nodeName": "b", "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"]}]
        })];
        assert_eq!(
            ready(&slices, "web"),
            [("10.0.0.1", 8080, Some("a")), ("10.0.0.3", 8080, None)]
        );
        assert!(ready(&slices, "other").is_empty());
    }

    #[test]
    fn ports_are_found_by_name_and_number() {
        let two =
            json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
        assert_eq!(chosen_port(&two, "b").expect("by name")["port"], 81);
        assert_eq!(chosen_port(&two, "80").expect("by number")["name"], "a");
        assert!(chosen_port(&two, "").is_none() && chosen_port(&two, "82").is_none());
        let one = json!({"spec": {"ports": [{"port": 80}]}});
        assert_eq!(chosen_port(&one, "").expect("the only one")["port"], 80);
    }

    #[test]
    fn reported_addresses_are_not_trusted_blindly() {
        assert!(check_address("10.244.0.5").is_ok());
        for address in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0", "evil.example"]
        {
            assert!(check_address(address).is_err(), "{address}");
        }
        assert_eq!(authority("::1", 80), "[::1]:80");
    }
}
