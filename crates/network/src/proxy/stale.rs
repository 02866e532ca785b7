//! Which tracked UDP flows still go where nothing serves any more.
//!
//! A flow is tracked as long as datagrams keep coming, so one that was bound to an endpoint
//! before a change would stay bound to it for ever. Pure.

use std::collections::{BTreeSet, HashMap};

use super::{endpoints::Target, plan::DatagramPort};
use crate::netlink::conntrack::Entry;

/// The entries to forget: those that arrive at one of `ports` and are answered by none of its
/// endpoints.
pub(crate) fn stale<'a>(
    entries: &'a [Entry],
    ports: &HashMap<DatagramPort, BTreeSet<Target>>,
) -> Vec<&'a Entry> {
    entries
        .iter()
        .filter(|entry| {
            let port = entry.original.destination_port;
            let targets = ports
                .get(&(Some(entry.original.destination), port))
                .or_else(|| ports.get(&(None, port)));
            targets.is_some_and(|targets| {
                !targets.contains(&(entry.reply.source, entry.reply.source_port))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::conntrack::Tuple;

    fn flow(to: &str, port: u16, answered_by: &str, answered_port: u16) -> Entry {
        let tuple = |source: &str, source_port, destination: &str, destination_port| Tuple {
            source: source.parse().expect("address"),
            destination: destination.parse().expect("address"),
            protocol: 17,
            source_port,
            destination_port,
        };
        Entry::imagined(
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
            ((Some("10.96.0.10".parse().expect("address")), 53), BTreeSet::from([target])),
            ((None, 30053), BTreeSet::from([target])),
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
