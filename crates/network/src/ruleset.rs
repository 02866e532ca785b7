//! The fixed part of the nftables table: hooks, maps, and the path of a packet through them.
//!
//! Everything that varies lives in the maps and in one chain per Service port, so a packet costs
//! the same however many Services there are, and a change touches what changed alone. No rule holds
//! a map or set of its own: when such a rule is replaced, packets on their way through the old one
//! find its map empty. Knows nothing of where the variable part comes from.

use std::{collections::BTreeSet, fmt::Write, net::Ipv4Addr};

use crate::{cni::HostPort, options::NetworkOptions};

/// A map or set of the fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Container {
    /// Address, protocol and port to the chain that picks an endpoint.
    Services,
    /// The same for ports of the node's own addresses.
    NodePorts,
    /// Address, protocol and port to what happens while nothing serves it.
    Unserved,
    /// The same for ports of the node's own addresses.
    UnservedNodePorts,
    /// Every cluster IP in use; ports nobody serves are refused.
    ServiceAddresses,
    /// Endpoints here, paired with themselves: who reaches itself must be masqueraded.
    Hairpin,
    /// Ports of the node's own addresses to address and port of a pod.
    HostPorts,
    /// The same for one address of the node.
    HostPortsAt,
    /// Like `Hairpin`, of pods with host ports.
    HostPortHairpin,
}

impl Container {
    /// The name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::NodePorts => "node-ports",
            Self::Unserved => "unserved",
            Self::UnservedNodePorts => "unserved-node-ports",
            Self::ServiceAddresses => "service-addresses",
            Self::Hairpin => "hairpin",
            Self::HostPorts => "host-ports",
            Self::HostPortsAt => "host-ports-at",
            Self::HostPortHairpin => "host-port-hairpin",
        }
    }
}

/// The chain that refuses: a reset for TCP, "port unreachable" for the rest.
pub(crate) const REFUSE: &str = "refuse";

/// One line that sets the mark that asks for masquerading.
pub(crate) fn mark(bit: u32) -> String {
    format!("meta mark set meta mark | {bit:#x}")
}

/// The table with empty maps, as `nft -f` reads it.
pub(crate) fn fixed(options: &NetworkOptions) -> String {
    let table = &options.table;
    let bridge = &options.bridge;
    let pods = options.pod_network;
    let cluster = options.cluster_network;
    let services = options.service_network;
    let mark = mark(options.masquerade_mark);
    let bit = options.masquerade_mark;
    let rest = !options.masquerade_mark;
    format!(
        r#"table ip {table} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  map unserved {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map unserved-node-ports {{ type inet_proto . inet_service : verdict; }}
  set service-addresses {{ type ipv4_addr; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  map host-ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map host-ports-at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  set host-port-hairpin {{ type ipv4_addr . ipv4_addr; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }}
  chain pick {{
    ip saddr != {cluster} ip daddr {services} {mark}
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local meta l4proto . th dport vmap @node-ports
    dnat ip to ip daddr . meta l4proto . th dport map @host-ports-at
    fib daddr type local dnat ip to meta l4proto . th dport map @host-ports
  }}
  chain nobody {{
    ct status dnat return
    ip daddr . meta l4proto . th dport vmap @unserved
    fib daddr type local meta l4proto . th dport vmap @unserved-node-ports
    ip daddr @service-addresses goto refuse
    ip daddr {services} drop
  }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }}
  chain incoming {{ type nat hook prerouting priority -100; policy accept; jump pick; }}
  chain outgoing {{ type nat hook output priority -100; policy accept; jump pick; }}
  chain here {{ type filter hook input priority 0; policy accept; ct state new jump nobody; }}
  chain from-here {{ type filter hook output priority 0; policy accept; ct state new jump nobody; }}
  chain through {{
    type filter hook forward priority 0; policy accept;
    iifname "{bridge}" ct state invalid drop
    ct state new jump nobody
  }}
  chain leaving {{
    type nat hook postrouting priority 100; policy accept;
    meta mark & {bit:#x} == {bit:#x} meta mark set meta mark & {rest:#x} masquerade fully-random
    ip saddr 127.0.0.0/8 oifname != "lo" masquerade fully-random
    ip saddr . ip daddr @hairpin masquerade fully-random
    ip saddr . ip daddr @host-port-hairpin masquerade fully-random
    ip saddr {pods} ip daddr != {cluster} oifname != "{bridge}" masquerade fully-random
  }}
}}
"#
    )
}

/// The names of a table's chains, and of its sets and maps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) chains: BTreeSet<String>,
    pub(crate) sets: BTreeSet<String>,
    pub(crate) maps: BTreeSet<String>,
}

impl Names {
    /// Reads the names from a table as nft writes it, or as `fixed` does.
    pub(crate) fn of(table: &str) -> Self {
        let mut names = Self::default();
        for line in table.lines() {
            let mut words = line.split_whitespace();
            let into = match words.next() {
                Some("chain") => &mut names.chains,
                Some("set") => &mut names.sets,
                Some("map") => &mut names.maps,
                _ => continue,
            };
            if let (Some(name), Some("{")) = (words.next(), words.next()) {
                into.insert(name.to_owned());
            }
        }
        names
    }
}

/// Commands that empty a table whose names are `present`, and remove what is not `wanted`. Sets
/// that are wanted but not `emptied` keep what they hold.
pub(crate) fn empty(table: &str, present: &Names, wanted: &Names, emptied: &Names) -> String {
    let mut script = format!("flush table ip {table}\n");
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(script, "{text}");
    };
    for map in &present.maps {
        line(format_args!("flush map ip {table} {map}"));
    }
    for set in present.sets.intersection(&emptied.sets) {
        line(format_args!("flush set ip {table} {set}"));
    }
    for chain in present.chains.difference(&wanted.chains) {
        line(format_args!("delete chain ip {table} {chain}"));
    }
    for set in present.sets.difference(&wanted.sets) {
        line(format_args!("delete set ip {table} {set}"));
    }
    for map in present.maps.difference(&wanted.maps) {
        line(format_args!("delete map ip {table} {map}"));
    }
    script
}

/// Commands that remove the table, whether or not it exists.
pub(crate) fn remove(table: &str) -> String {
    format!("table ip {table} {{ }}\ndelete table ip {table}\n")
}

/// The elements that lead `ports` of the node to the pod at `address`.
pub(crate) fn host_port_elements(
    address: Ipv4Addr,
    ports: &[HostPort],
) -> Vec<(Container, String)> {
    let mut elements: Vec<_> = ports
        .iter()
        .map(|port| {
            let HostPort { host_port, container_port, protocol, host_ip } = port;
            let to = format!("{address} . {container_port}");
            match host_ip {
                Some(ip) => {
                    (Container::HostPortsAt, format!("{ip} . {protocol} . {host_port} : {to}"))
                }
                None => (Container::HostPorts, format!("{protocol} . {host_port} : {to}")),
            }
        })
        .collect();
    if !elements.is_empty() {
        elements.push((Container::HostPortHairpin, format!("{address} . {address}")));
    }
    elements
}

/// One command for one element.
pub(crate) fn element(
    script: &mut String,
    verb: &str,
    table: &str,
    container: Container,
    text: &str,
) {
    let name = container.name();
    // Writing to a String cannot fail.
    let _ = writeln!(script, "{verb} element ip {table} {name} {{ {text} }}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_nfts_own_text() {
        let text = "table ip t {\n\tmap services {\n\t\ttype ipv4_addr : verdict\n\t}\n\n\tset hairpin {\n\t}\n\
                    \tset seen-60s/a/b/tcp/80/10.0.0.1/80 {\n\t\tflags dynamic,timeout\n\t}\n\tchain svc/a/b/tcp/80 {\n\
                    \t\tset something\n\t}\n}\n";
        let names = Names::of(text);
        assert_eq!(names.chains, ["svc/a/b/tcp/80".to_owned()].into());
        assert_eq!(
            names.sets,
            ["hairpin".to_owned(), "seen-60s/a/b/tcp/80/10.0.0.1/80".to_owned()].into()
        );
        assert_eq!(names.maps, ["services".to_owned()].into());
        let fixed = Names::of(&fixed(&NetworkOptions::new("n", "/nonexistent")));
        assert!(fixed.chains.contains("pick") && fixed.chains.contains("incoming"));
        assert_eq!((fixed.maps.len(), fixed.sets.len()), (6, 3));
        let mut wanted = Names::of(text);
        wanted.chains.clear();
        assert_eq!(
            empty("t", &names, &wanted, &fixed),
            "flush table ip t\nflush map ip t services\nflush set ip t hairpin\n\
             delete chain ip t svc/a/b/tcp/80\n"
        );
    }
}
