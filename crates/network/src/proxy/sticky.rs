//! Session affinity: clients that stay with their endpoint.
//!
//! Each endpoint of such a Service port has a chain, and a set of the clients it has, which the
//! kernel fills and expires. These are the only rules that vary with Services. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{endpoints::Target, plan::Fragment};
use crate::ruleset::{Family, Protocol};

/// How long a client stays with its endpoint when the Service does not say, in seconds.
const AFFINITY_SECONDS: i32 = 10_800;
/// The most rules that a packet passes to find its endpoint, and again to find its group.
const GROUP: usize = 32;

/// How long clients of a Service stay, in seconds.
pub(super) fn seconds(spec: &ServiceSpec) -> i32 {
    let config = spec.session_affinity_config.as_ref();
    config
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
        .filter(|seconds| *seconds > 0)
        .unwrap_or(AFFINITY_SECONDS)
}

/// One way to a Service port's endpoints.
pub(super) struct Way<'a> {
    pub(super) family: Family,
    pub(super) protocol: Protocol,
    /// `namespace/name/protocol/port`, the middle of every name.
    pub(super) path: &'a str,
    /// Whether the endpoints are those of this node.
    pub(super) local: bool,
    pub(super) seconds: i32,
}

impl Way<'_> {
    /// Plans the chains and sets; returns the chain that begins it. Ways of one port share what
    /// they remember.
    pub(super) fn plan(&self, targets: &[Target], fragment: &mut Fragment) -> String {
        let Self { path, seconds, .. } = self;
        let kind = if self.local { "local" } else { "sticky" };
        let (ip, digit) = (self.family.header(), self.family.digit());
        let address_type = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let (mut rules, mut choices) = (Vec::new(), Vec::new());
        for (address, port) in targets {
            let end = format!("{path}/{}/{port}", word(*address));
            let chain = format!("ep/{end}");
            // The timeout is part of the name: another timeout is another set.
            let set = format!("seen-{seconds}s/{end}");
            let declaration =
                format!("type {address_type}; flags dynamic,timeout; timeout {seconds}s;");
            fragment.sets.insert(set.clone(), declaration);
            let to = match address {
                IpAddr::V4(address) => format!("{address}:{port}"),
                IpAddr::V6(address) => format!("[{address}]:{port}"),
            };
            fragment.chains.insert(
                chain.clone(),
                vec![
                    format!("update @{set} {{ {ip} saddr }}"),
                    format!("meta l4proto {} dnat {ip} to {to}", self.protocol.name()),
                ],
            );
            rules.push(format!("{ip} saddr @{set} goto {chain}"));
            choices.push(format!("goto {chain}"));
        }
        let chain = format!("{kind}-{digit}/{path}");
        rules.extend(spread(&chain, choices, fragment));
        fragment.chains.insert(chain.clone(), rules);
        chain
    }
}

/// An address within a name.
fn word(address: IpAddr) -> String {
    address.to_string().replace(':', ".")
}

/// Rules of which one is taken, each with the same chance. Many become groups, each in a chain of
/// its own.
///
/// Chances are chains of rules and not a map within one: the kernel exchanges a chain's rules at
/// one moment, but a packet that has begun with the old rules finds the map of a rule removed
/// meanwhile empty, and would be sent nowhere.
fn spread(chain: &str, choices: Vec<String>, fragment: &mut Fragment) -> Vec<String> {
    if choices.len() <= GROUP {
        return by_chance(choices.into_iter().map(|choice| (1, choice)).collect());
    }
    let mut groups = Vec::new();
    for (index, group) in choices.chunks(GROUP).enumerate() {
        let name = format!("{chain}/{index}");
        let rules = by_chance(group.iter().map(|choice| (1, choice.clone())).collect());
        groups.push((group.len(), format!("goto {name}")));
        fragment.chains.insert(name, rules);
    }
    by_chance(groups)
}

/// One rule a choice, given with its weight; exactly one is taken.
fn by_chance(choices: Vec<(usize, String)>) -> Vec<String> {
    let mut left: usize = choices.iter().map(|(weight, _)| weight).sum();
    let mut rules = Vec::new();
    for (weight, choice) in choices {
        rules.push(match left == weight {
            true => choice,
            false => format!("numgen random mod {left} < {weight} {choice}"),
        });
        left -= weight;
    }
    rules
}
