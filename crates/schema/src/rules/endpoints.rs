//! Rules of Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors, PROTOCOLS, is_ipv6};
use super::metadata::{self, immutable};
use super::{Hooks, pod::qualified_name};
use crate::view::{View, same};

/// `v1 Endpoints`.
pub(super) const ENDPOINTS: Hooks = Hooks {
    validate: subsets,
    validate_update: |new, old, errors| {
        // What was let in once stays valid while it is not touched.
        if !same(new.at("subsets"), old.at("subsets")) {
            subsets(new, errors);
        }
    },
    ..Hooks::BASE
};

/// `discovery.k8s.io/v1 EndpointSlice`.
pub(super) const ENDPOINT_SLICE: Hooks = Hooks {
    validate: |slice, errors| {
        address_type(slice, errors);
        slice_ports(slice, errors);
        slice_endpoints(slice, errors);
    },
    validate_update: |new, old, errors| {
        address_type(new, errors);
        slice_ports(new, errors);
        if !same(new.at("endpoints"), old.at("endpoints")) {
            slice_endpoints(new, errors);
        }
        immutable(new.at("addressType"), old.at("addressType"), "addressType", errors);
    },
    ..Hooks::BASE
};

fn subsets(endpoints: &Value, errors: &mut Errors) {
    for subset in At::root(endpoints).each("subsets") {
        if subset.items("addresses").is_empty() && subset.items("notReadyAddresses").is_empty() {
            subset.required("must specify `addresses` or `notReadyAddresses`", errors);
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.each(list) {
                let ip = address.field("ip");
                ip.ip(errors);
                let hostname = address.field("hostname");
                if !hostname.str().is_empty() {
                    hostname.check(names::is_dns1123_label, errors);
                }
                if let Some(node) = address.some("nodeName") {
                    node.check(names::is_dns1123_subdomain, errors);
                }
                ip.endpoint_ip(errors);
            }
        }
        let require = subset.items("ports").len() > 1;
        for port in subset.each("ports") {
            let name = port.field("name");
            if require && name.str().is_empty() {
                name.required("", errors);
            } else if !name.str().is_empty() {
                name.check(names::is_dns1123_label, errors);
            }
            port.field("port").port(errors);
            protocol(&port, errors);
        }
    }
}

fn protocol(port: &At<'_>, errors: &mut Errors) {
    port.field("protocol").one_of(PROTOCOLS, errors);
    if let Some(protocol) = port.some("appProtocol") {
        qualified_name(&protocol, errors);
    }
}

fn address_type(slice: &Value, errors: &mut Errors) {
    At::root(slice).field("addressType").one_of(&["FQDN", "IPv4", "IPv6"], errors);
}

fn slice_ports(slice: &Value, errors: &mut Errors) {
    const MOST: usize = 20_000;
    let count = slice.items("ports").len();
    if count > MOST {
        return errors.push(FieldError::too_many("ports", count, MOST));
    }
    let mut known = BTreeSet::new();
    for port in At::root(slice).each("ports") {
        let name = port.field("name");
        if !name.str().is_empty() {
            name.check(names::is_dns1123_label, errors);
        }
        if !known.insert(name.str()) {
            errors.push(FieldError::duplicate(&name.path, name.str()));
        }
        protocol(&port, errors);
    }
}

fn slice_endpoints(slice: &Value, errors: &mut Errors) {
    const MOST: usize = 1000;
    const MOST_ADDRESSES: usize = 100;
    let count = slice.items("endpoints").len();
    if count > MOST {
        return errors.push(FieldError::too_many("endpoints", count, MOST));
    }
    let family = slice.text("addressType");
    for endpoint in At::root(slice).each("endpoints") {
        let addresses = endpoint.field("addresses");
        match endpoint.items("addresses").len() {
            0 => addresses.required("must contain at least 1 address", errors),
            count if count > MOST_ADDRESSES => {
                errors.push(FieldError::too_many(&addresses.path, count, MOST_ADDRESSES));
            }
            _ => {}
        }
        for address in endpoint.each("addresses") {
            endpoint_address(&addresses, &address, family, errors);
        }
        if let Some(node) = endpoint.some("nodeName") {
            node.check(names::is_dns1123_subdomain, errors);
        }
        let topology = endpoint.path.child("deprecatedTopology");
        metadata::labels(endpoint.entries("deprecatedTopology"), &topology, errors);
        if let Some(hostname) = endpoint.some("hostname") {
            hostname.check(names::is_dns1123_label, errors);
        }
        hints(&endpoint.field("hints"), errors);
    }
}

fn endpoint_address(list: &At<'_>, address: &At<'_>, family: &str, errors: &mut Errors) {
    match family {
        "IPv4" | "IPv6" => {
            let six = family == "IPv6";
            let fine = if six { address.canonical_ip(errors) } else { address.ip(errors) };
            if !fine {
                return;
            }
            if is_ipv6(address.str()) != six {
                let text = format!("must be an {family} address");
                errors.push(FieldError::invalid(&list.path, address.str(), text));
            }
            address.endpoint_ip(errors);
        }
        "FQDN" => domain(address, errors),
        _ => {}
    }
}

/// A domain of at least two parts; a dot may end it.
fn domain(at: &At<'_>, errors: &mut Errors) {
    let name = at.str().strip_suffix('.').unwrap_or(at.str());
    let mut complain = |value: &str, text: String| {
        errors.push(FieldError::invalid(&at.path, value, text));
    };
    let problems = names::is_dns1123_subdomain(name);
    if at.str().is_empty() {
        at.required("", errors);
    } else if !problems.is_empty() {
        complain(name, problems.join(","));
    } else if !name.contains('.') {
        let text = "should be a domain with at least two segments separated by dots";
        complain(name, text.to_owned());
    } else if let Some((label, problems)) = name
        .split('.')
        .map(|label| (label, names::is_dns1123_label(label)))
        .find(|(_, problems)| !problems.is_empty())
    {
        complain(label, problems.join(","));
    }
}

fn hints(hints: &At<'_>, errors: &mut Errors) {
    const MOST: usize = 8;
    for (list, check) in [
        ("forZones", names::is_label_value as fn(&str) -> Vec<String>),
        ("forNodes", names::is_dns1123_subdomain),
    ] {
        let count = hints.items(list).len();
        if count > MOST {
            return errors.push(FieldError::too_many(hints.path.child(list), count, MOST));
        }
        let mut known = Vec::new();
        for hint in hints.each(list) {
            let name = hint.field("name");
            if known.contains(&name.str()) {
                name.duplicate(errors);
            }
            known.push(name.str());
            name.check(check, errors);
        }
    }
}
