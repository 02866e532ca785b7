//! The text of rules: what a policy lets through, as chains.
//!
//! Pure. Every packet of a connection, in either direction, is judged by who opened the connection
//! and who answers it after translation, so that a change of policy decides over connections that
//! exist. Knows nothing of which pods there are.

use super::{
    model::{Direction, Port, Rule, Selection, Which},
    ranges::{Family, Range},
};
use crate::ruleset::Protocol;

/// What a set holds. Policies that mean the same share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Members {
    /// Addresses of pods.
    Pods(Selection),
    /// Address and number of every pod's port of that name.
    Ports(Protocol, String),
    /// Addresses of IP blocks, of one family.
    Block(Family, Vec<Range>),
}

/// The end of a packet's way through a policed direction.
pub(crate) const DENY: &str = "deny";

/// The map from a pod's address to the chain that judges it.
pub(crate) fn verdicts(direction: Direction, family: Family) -> String {
    let word = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    format!("{word}{}", family.digit())
}

/// A condition, and the one family in which it can hold.
struct Condition {
    family: Option<Family>,
    text: String,
}

/// The chains of one policy in one direction: the first is called `name`, the others begin so.
/// `set` gives the name of a set without the digit of its family.
pub(crate) fn chains(
    name: &str,
    direction: Direction,
    rules: &[Rule],
    set: &mut dyn FnMut(Members) -> String,
) -> Vec<(String, Vec<String>)> {
    let mut first = Vec::new();
    let mut others = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let peers = peer_conditions(direction, rule, set);
        let ports = port_conditions(rule, set);
        if peers.len() > 1 && ports.len() > 1 {
            let chain = format!("{name}/{index}");
            first.extend(peers.iter().map(|peer| format!("{} jump {chain}", peer.text)));
            others.push((chain, ports.iter().map(|port| accept(&[port])).collect()));
            continue;
        }
        for peer in &peers {
            for port in &ports {
                let families = [peer.family, port.family];
                if families != [Some(Family::V4), Some(Family::V6)]
                    && families != [Some(Family::V6), Some(Family::V4)]
                {
                    first.push(accept(&[peer, port]));
                }
            }
        }
    }
    others.insert(0, (name.to_owned(), first));
    others
}

fn accept(conditions: &[&Condition]) -> String {
    let texts = conditions.iter().map(|condition| condition.text.as_str());
    let words: Vec<&str> = texts.filter(|text| !text.is_empty()).chain(["accept"]).collect();
    words.join(" ")
}

fn always() -> Vec<Condition> {
    vec![Condition { family: None, text: String::new() }]
}

fn peer_conditions(
    direction: Direction,
    rule: &Rule,
    set: &mut dyn FnMut(Members) -> String,
) -> Vec<Condition> {
    let Some(peers) = &rule.peers else { return always() };
    let side = match direction {
        Direction::Ingress => "original",
        Direction::Egress => "reply",
    };
    let within = |family: Family, name: &str| Condition {
        family: Some(family),
        text: format!("ct {side} {} saddr @{name}/{}", family.header(), family.digit()),
    };
    let mut conditions = Vec::new();
    for selection in &peers.pods {
        let name = set(Members::Pods(selection.clone()));
        conditions.extend(Family::BOTH.map(|family| within(family, &name)));
    }
    for (family, ranges) in peers.blocks.iter().filter(|(_, ranges)| !ranges.is_empty()) {
        let name = set(Members::Block(*family, ranges.clone()));
        conditions.push(within(*family, &name));
    }
    conditions
}

fn port_conditions(rule: &Rule, set: &mut dyn FnMut(Members) -> String) -> Vec<Condition> {
    let Some(ports) = &rule.ports else { return always() };
    let mut conditions = Vec::new();
    for Port { protocol, which } in ports {
        let word = protocol.name();
        let plain = |text: String| Condition { family: None, text };
        match which {
            Which::All => conditions.push(plain(format!("meta l4proto {word}"))),
            Which::Range(first, last) => {
                let numbers =
                    if first == last { first.to_string() } else { format!("{first}-{last}") };
                conditions.push(plain(format!("meta l4proto {word} ct reply proto-src {numbers}")));
            }
            Which::Named(name) => {
                let name = set(Members::Ports(*protocol, name.clone()));
                conditions.extend(Family::BOTH.map(|family| Condition {
                    family: Some(family),
                    text: format!(
                        "meta l4proto {word} ct reply {} saddr . ct reply proto-src @{name}/{}",
                        family.header(),
                        family.digit()
                    ),
                }));
            }
        }
    }
    conditions
}
