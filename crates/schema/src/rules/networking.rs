//! Rules of Ingresses and NetworkPolicies beyond what the type graph says.

use std::net::IpAddr;

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::selector::label_selector;
use super::{Hooks, metadata};
use crate::view::View;

const BASE: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_status: |_, _, _| {},
};

/// `networking.k8s.io/v1 Ingress`.
pub(super) const INGRESS: Hooks =
    Hooks { validate: ingress, validate_update: |new, _, errors| ingress(new, errors), ..BASE };

/// `networking.k8s.io/v1 NetworkPolicy`.
pub(super) const NETWORK_POLICY: Hooks = Hooks {
    validate: network_policy,
    validate_update: |new, _, errors| network_policy(new, errors),
    ..BASE
};

fn ingress(ingress: &Value, errors: &mut Errors) {
    let spec = At::root(ingress).field("spec");
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        let text = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&spec.path, Vec::<Value>::new(), text));
    }
    if let Some(found) = spec.some("defaultBackend") {
        backend(&found, errors);
    }
    for rule in spec.each("rules") {
        host(&rule.field("host"), errors);
        let Some(http) = rule.some("http") else { continue };
        if http.items("paths").is_empty() {
            http.field("paths").required("", errors);
        }
        for path in http.each("paths") {
            http_path(&path, errors);
        }
    }
    for tls in spec.each("tls") {
        for name in tls.each("hosts") {
            host(&name, errors);
        }
    }
    if let Some(class) = spec.some("ingressClassName") {
        class.check(names::is_dns1123_subdomain, errors);
    }
}

fn host(host: &At<'_>, errors: &mut Errors) {
    match host.str() {
        "" => {}
        text if text.parse::<IpAddr>().is_ok() => {
            host.invalid("must be a DNS name, not an IP address", errors);
        }
        text if text.contains('*') => host.check(names::is_wildcard_dns1123_subdomain, errors),
        _ => host.check(names::is_dns1123_subdomain, errors),
    }
}

fn http_path(path: &At<'_>, errors: &mut Errors) {
    const SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
    const SUFFIXES: &[&str] = &["/..", "/."];
    let (kind, at) = (path.field("pathType"), path.field("path"));
    match kind.str() {
        "" => return kind.required("pathType must be specified", errors),
        "Exact" | "Prefix" => {
            if !at.str().starts_with('/') {
                at.invalid_text("must be an absolute path", errors);
            }
            for sequence in SEQUENCES.iter().filter(|sequence| at.str().contains(**sequence)) {
                at.invalid(format!("must not contain '{sequence}'"), errors);
            }
            for suffix in SUFFIXES.iter().filter(|suffix| at.str().ends_with(**suffix)) {
                at.invalid(format!("cannot end with '{suffix}'"), errors);
            }
        }
        "ImplementationSpecific" if !at.str().is_empty() && !at.str().starts_with('/') => {
            at.invalid("must be an absolute path", errors);
        }
        _ => {}
    }
    backend(&path.field("backend"), errors);
}

fn backend(at: &At<'_>, errors: &mut Errors) {
    let mut complain = |text: &str| errors.push(FieldError::invalid(&at.path, "", text));
    match (at.some("resource"), at.some("service")) {
        (Some(_), Some(_)) => complain("cannot set both resource and service backends"),
        (None, None) => complain("resource or service backend is required"),
        (Some(_), None) => {}
        (None, Some(service)) => {
            service.field("name").required_name(names::is_dns1123_label, errors);
            let port = service.field("port");
            match (port.str_of("name"), port.int("number").unwrap_or_default()) {
                ("", 0) => at.required("port name or number is required", errors),
                ("", _) => port.field("number").port(errors),
                (_, 0) => port.field("name").check(names::is_port_name, errors),
                _ => errors.push(FieldError::invalid(
                    &at.path,
                    "",
                    "cannot set both port name & port number",
                )),
            }
        }
    }
}

fn network_policy(policy: &Value, errors: &mut Errors) {
    let spec = At::root(policy).field("spec");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.each(rules) {
            for port in rule.each("ports") {
                policy_port(&port, errors);
            }
            for peer in rule.each(peers) {
                self::peer(&peer, errors);
            }
        }
    }
    if spec.items("policyTypes").len() > 2 {
        spec.field("policyTypes").invalid("may not specify more than two policyTypes", errors);
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    let (port, end) = (at.field("port"), at.some("endPort"));
    match (port.value, end) {
        (Value::Null, Some(end)) => {
            end.invalid("may not be specified when `port` is not specified", errors)
        }
        (Value::Null, None) => {}
        (Value::String(_), end) => {
            if let Some(end) = end {
                end.invalid("may not be specified when `port` is non-numeric", errors);
            }
            port.check(names::is_port_name, errors);
        }
        (_, end) => {
            port.port(errors);
            if let Some(end) = end {
                if end.number() < port.number() {
                    let text = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(&end.path, port.number(), text));
                }
                end.port(errors);
            }
        }
    }
}

fn peer(peer: &At<'_>, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|field| peer.some(field));
    for selector in selectors.iter().flatten() {
        label_selector(selector, errors);
    }
    let block = peer.some("ipBlock");
    match (selectors.iter().flatten().count(), &block) {
        (0, None) => peer.required("must specify a peer", errors),
        (0, Some(_)) | (_, None) => {}
        _ => peer.forbidden("may not specify both ipBlock and another peer", errors),
    }
    let Some(block) = block else { return };
    let cidr = block.field("cidr");
    if cidr.str().is_empty() {
        return cidr.required("", errors);
    }
    cidr.cidr(errors);
    for except in block.each("except") {
        except.cidr(errors);
        if let (Some(outer), Some(inner)) = (parse(cidr.str()), parse(except.str()))
            && !within(outer, inner)
        {
            except.invalid("must be a strict subset of `cidr`", errors);
        }
    }
}

fn parse(cidr: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = cidr.split_once('/')?;
    Some((ip.parse().ok()?, bits.parse().ok()?))
}

/// Whether the second range is a strict part of the first.
fn within(outer: (IpAddr, u32), inner: (IpAddr, u32)) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        let shift = width.saturating_sub(outer.1);
        one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
    };
    outer.1 < inner.1
        && match (outer.0, inner.0) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                same(u32::from(one).into(), u32::from(other).into(), 32)
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
            _ => false,
        }
}
