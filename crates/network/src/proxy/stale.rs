//! Which tracked flows still go where nothing serves any more.
//!
//! A UDP flow is tracked as long as datagrams keep coming, so one that was bound to an endpoint
//! before a change would stay bound to it for ever. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{element::Entry, endpoints::Target};
use crate::{
    netlink::conntrack,
    ruleset::{Family, Protocol},
};

/// The UDP flows to forget: those that arrive at one of `entries` and are answered by none of its
/// endpoints.
pub(crate) fn stale<'a>(
    flows: &'a [conntrack::Entry],
    entries: &HashMap<Entry, BTreeSet<Target>>,
) -> Vec<&'a conntrack::Entry> {
    let stale = |flow: &&conntrack::Entry| {
        let (address, port) = (flow.original.destination, flow.original.destination_port);
        let at = Entry::Address(address, Protocol::Udp, port);
        let targets = entries
            .get(&at)
            .or_else(|| entries.get(&Entry::Node(Family::of(address), Protocol::Udp, port)));
        targets
            .is_some_and(|targets| !targets.contains(&(flow.reply.source, flow.reply.source_port)))
    };
    flows.iter().filter(stale).collect()
}

/// Of the flows answered by `address`, whose pod is gone: those that came by way of a Service.
pub(crate) fn through_service(
    flows: &[conntrack::Entry],
    address: IpAddr,
) -> impl Iterator<Item = &conntrack::Entry> {
    flows
        .iter()
        .filter(move |flow| flow.reply.source == address && flow.original.destination != address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::conntrack::Tuple;

    fn flow(to: &str, port: u16, answered_by: &str, answered_port: u16) -> conntrack::Entry {
        let tuple = |source: &str, source_port, destination: &str, destination_port| Tuple {
            source: source.parse().expect("address"),
            destination: destination.parse().expect("address"),
            protocol: 17,
            source_port,
            destination_port,
        };
        conntrack::Entry::imagined(
            tuple("10.244.0.9", 4000, to, port),
            tuple(answered_by, answered_port, "10.244.0.9", 4000),
        )
    }

    #[test]
    fn only_flows_without_an_endpoint_are_stale() {
        let entries = [
            flow("10.96.0.10", 53, "10.244.0.2", 5353),
            flow("10.96.0.10", 53, "10.244.0.3", 5353),
            flow("10.96.0.10", 53, "10.96.0.10", 53),
            flow("10.96.0.11", 53, "10.244.0.3", 5353),
            flow("192.0.2.1", 30053, "10.244.0.3", 5353),
            flow("192.0.2.1", 30053, "192.0.2.1", 30053),
        ];
        let target: Target = ("10.244.0.2".parse().expect("address"), 5353);
        let ports = HashMap::from([
            (
                Entry::Address("10.96.0.10".parse().expect("address"), Protocol::Udp, 53),
                BTreeSet::from([target]),
            ),
            (Entry::Node(Family::V4, Protocol::Udp, 30053), BTreeSet::from([target])),
        ]);
        let gone: Vec<String> = stale(&entries, &ports)
            .iter()
            .map(|entry| format!("{} {}", entry.original.destination, entry.reply.source))
            .collect();
        assert_eq!(
            gone,
            [
                "10.96.0.10 10.244.0.3",
                "10.96.0.10 10.96.0.10",
                "192.0.2.1 10.244.0.3",
                "192.0.2.1 192.0.2.1"
            ]
        );
    }
}
