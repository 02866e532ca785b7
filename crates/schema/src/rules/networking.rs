//! Rules of NetworkPolicies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::{FieldError, names};
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors, lenient_cidr, masked};
use super::selector::{Lenient, is_invalid, label_selector_with};
use crate::view::View;

/// `networking.k8s.io/v1 NetworkPolicy`.
pub(super) const NETWORK_POLICY: Hooks = Hooks {
    validate: |object, errors| policy(object, &Kept::default(), errors),
    validate_update: |new, old, errors| policy(new, &Kept::of(old), errors),
    ..Hooks::BASE
};

const RULES: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// What a policy had before it was refused, and may keep.
#[derive(Default)]
struct Kept<'a> {
    selectors: Lenient,
    ranges: BTreeSet<&'a str>,
}

impl<'a> Kept<'a> {
    fn of(old: &'a Value) -> Self {
        let spec = old.at("spec");
        let mut ranges = BTreeSet::new();
        for (rules, peers) in RULES {
            let blocks = spec.items(rules).iter().flat_map(|rule| rule.items(peers));
            for block in blocks.map(|peer| peer.at("ipBlock")) {
                ranges.extend(block.at("cidr").as_str());
                ranges.extend(block.items("except").iter().filter_map(Value::as_str));
            }
        }
        let selectors =
            Lenient { values: is_invalid(spec.at("podSelector")), ..Lenient::default() };
        Self { selectors, ranges }
    }

    fn range(&self, at: &At<'_>, errors: &mut Errors) {
        if !self.ranges.contains(at.str()) {
            at.cidr(errors);
        }
    }
}

fn policy(policy: &Value, kept: &Kept<'_>, errors: &mut Errors) {
    const TYPES: &[&str] = &["Ingress", "Egress"];
    let spec = At::root(policy).field("spec");
    label_selector_with(&spec.field("podSelector"), kept.selectors, errors);
    for (rules, peers) in RULES {
        for rule in spec.each(rules) {
            for port in rule.each("ports") {
                policy_port(&port, errors);
            }
            for peer in rule.each(peers) {
                self::peer(&peer, kept, errors);
            }
        }
    }
    if spec.items("policyTypes").len() > TYPES.len() {
        let text = "may not specify more than two policyTypes";
        return spec.field("policyTypes").invalid(text, errors);
    }
    for kind in spec.each("policyTypes") {
        kind.known(TYPES, errors);
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    at.field("protocol").known(&["TCP", "UDP", "SCTP"], errors);
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

fn peer(peer: &At<'_>, kept: &Kept<'_>, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|field| peer.some(field));
    for selector in selectors.iter().flatten() {
        label_selector_with(selector, kept.selectors, errors);
    }
    let block = peer.some("ipBlock");
    if let Some(block) = &block {
        ip_block(block, kept, errors);
    }
    match (selectors.iter().flatten().count(), block) {
        (0, None) => peer.required("must specify a peer", errors),
        (0, Some(_)) | (_, None) => {}
        _ => peer.forbidden("may not specify both ipBlock and another peer", errors),
    }
}

fn ip_block(block: &At<'_>, kept: &Kept<'_>, errors: &mut Errors) {
    let cidr = block.field("cidr");
    if cidr.str().is_empty() {
        return cidr.required("", errors);
    }
    kept.range(&cidr, errors);
    let Some(outer) = lenient_cidr(cidr.str()) else { return };
    for except in block.each("except") {
        kept.range(&except, errors);
        if lenient_cidr(except.str()).is_some_and(|inner| !within(outer, inner)) {
            except.invalid("must be a strict subset of `cidr`", errors);
        }
    }
}

/// Whether the second range is a strict part of the first.
fn within(outer: (IpAddr, u32), inner: (IpAddr, u32)) -> bool {
    outer.0.is_ipv4() == inner.0.is_ipv4()
        && outer.1 < inner.1
        && masked(inner.0, outer.1) == masked(outer.0, outer.1)
}
