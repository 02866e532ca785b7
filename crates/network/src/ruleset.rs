//! The fixed part of the nftables table: hooks, maps, and the path of a packet through them.
//!
//! One table of family `inet` holds both IP families. Everything that varies is an element of a
//! map or set, so a packet costs the same however many Services there are, and a change is one
//! element or a few. No rule holds a map or set of its own: when such a rule is replaced, packets
//! on their way through the old one find its map empty. Knows nothing of where elements come from.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

use nix::libc;

use ipnet::IpNet;

use crate::{cni::HostPort, options::NetworkOptions};

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The end of the names of its maps, sets and chains.
    pub(crate) fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    /// nft's word for its header.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The API's name of it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// nft's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number in an IP header.
    pub(crate) fn number(self) -> u8 {
        let number = match self {
            Self::Tcp => libc::IPPROTO_TCP,
            Self::Udp => libc::IPPROTO_UDP,
            Self::Sctp => libc::IPPROTO_SCTP,
        };
        number as u8
    }
}

/// A map or set of the fixed part; each is there once a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Container {
    /// Address, protocol and port to the chain that picks an endpoint.
    Services,
    /// The same for who comes from outside, where that makes a difference.
    Outside,
    /// Address, protocol, port and slot to an endpoint.
    Endpoints,
    /// The same for who comes from outside, where that makes a difference.
    LocalEndpoints,
    /// Address, protocol and port to whether its packets are masqueraded on the way to another node.
    Marks,
    /// Like `Services` for ports of the node's own addresses, and so on.
    NodePorts,
    NodeOutside,
    NodeEndpoints,
    NodeLocalEndpoints,
    NodeMarks,
    /// Address, protocol and port that only some sources may use.
    Walled,
    /// Those with the sources that may.
    Allowed,
    /// Address, protocol and port to what happens while nothing serves it.
    Unserved,
    /// The same for ports of the node's own addresses.
    NodeUnserved,
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
    /// Other nodes' addresses, where packets of pods get there as they are.
    Nodes,
}

impl Container {
    /// Those whose elements are the proxy's alone.
    pub(crate) const OF_SERVICES: [Self; 16] = [
        Self::Services,
        Self::Outside,
        Self::Endpoints,
        Self::LocalEndpoints,
        Self::Marks,
        Self::NodePorts,
        Self::NodeOutside,
        Self::NodeEndpoints,
        Self::NodeLocalEndpoints,
        Self::NodeMarks,
        Self::Walled,
        Self::Allowed,
        Self::Unserved,
        Self::NodeUnserved,
        Self::ServiceAddresses,
        Self::Hairpin,
    ];

    /// The name in the table, without the family's digit.
    fn stem(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Outside => "outside",
            Self::Endpoints => "endpoints",
            Self::LocalEndpoints => "local-endpoints",
            Self::Marks => "marks",
            Self::NodePorts => "node-ports",
            Self::NodeOutside => "node-outside",
            Self::NodeEndpoints => "node-endpoints",
            Self::NodeLocalEndpoints => "node-local-endpoints",
            Self::NodeMarks => "node-marks",
            Self::Walled => "walled",
            Self::Allowed => "allowed",
            Self::Unserved => "unserved",
            Self::NodeUnserved => "node-unserved",
            Self::ServiceAddresses => "service-addresses",
            Self::Hairpin => "hairpin",
            Self::HostPorts => "host-ports",
            Self::HostPortsAt => "host-ports-at",
            Self::HostPortHairpin => "host-port-hairpin",
            Self::Nodes => "nodes",
        }
    }

    /// The name in the table.
    pub(crate) fn name(self, family: Family) -> String {
        format!("{}-{}", self.stem(), family.digit())
    }

    /// The declaration; `address` is nft's word for the family's addresses.
    fn declaration(self, family: Family) -> String {
        let (address, ip) = match family {
            Family::V4 => ("ipv4_addr", "ip"),
            Family::V6 => ("ipv6_addr", "ip6"),
        };
        let port = "inet_proto . inet_service";
        // nft 1.0.6 cannot read `th dport` back from the kernel; `tcp dport` is of the same type.
        let slot = format!("numgen random mod 65536 : {ip} daddr . tcp dport");
        match self {
            Self::Services | Self::Outside | Self::Marks | Self::Unserved => {
                format!("type {address} . {port} : verdict;")
            }
            Self::NodePorts | Self::NodeOutside | Self::NodeMarks | Self::NodeUnserved => {
                format!("type {port} : verdict;")
            }
            Self::Endpoints | Self::LocalEndpoints => {
                format!("typeof {ip} daddr . meta l4proto . tcp dport . {slot};")
            }
            Self::NodeEndpoints | Self::NodeLocalEndpoints => {
                format!("typeof meta l4proto . tcp dport . {slot};")
            }
            Self::Walled => format!("type {address} . {port};"),
            Self::Allowed => format!("type {address} . {port} . {address}; flags interval;"),
            Self::ServiceAddresses | Self::Nodes => format!("type {address};"),
            Self::Hairpin | Self::HostPortHairpin => format!("type {address} . {address};"),
            Self::HostPorts => format!("type {port} : {address} . inet_service;"),
            Self::HostPortsAt => format!("type {address} . {port} : {address} . inet_service;"),
        }
    }

    fn is_set(self) -> bool {
        matches!(
            self,
            Self::Walled
                | Self::Allowed
                | Self::ServiceAddresses
                | Self::Hairpin
                | Self::HostPortHairpin
                | Self::Nodes
        )
    }
}

/// The chain that refuses: a reset for TCP, "port unreachable" for the rest.
pub(crate) const REFUSE: &str = "refuse";
/// The chain that asks for masquerading.
pub(crate) const MARK: &str = "ask-masquerade";
/// The chain that asks for masquerading what the node itself sends.
pub(crate) const MARK_OWN: &str = "ask-masquerade-own";

/// How often a packet looks for an endpoint in a slot that may be empty. At least half of the
/// slots are full, so that one packet in 65,536 gets the first of all.
const TRIES: usize = 16;

/// A chain that sends each new connection to one of an entry's endpoints, by chance.
///
/// They lie in slots; a chain knows only the size of its entries, as a power of two, so that the
/// rules are the same for all and an endpoint that comes or goes is one element. Chance hits an
/// empty slot at most every second time, and then tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Picker {
    pub(crate) family: Family,
    /// Which slots: one of the four maps of endpoints.
    pub(crate) slots: Container,
    /// There are at most two to this power.
    pub(crate) class: u32,
}

impl Picker {
    /// The picker among `count` endpoints.
    pub(crate) fn of(family: Family, slots: Container, count: usize) -> Self {
        Self { family, slots, class: count.next_power_of_two().trailing_zeros() }
    }

    /// The chain's name.
    pub(crate) fn name(self) -> String {
        format!("pick-{}-{}", self.slots.name(self.family), 1_u64 << self.class)
    }

    /// The chain's rules.
    pub(crate) fn rules(self) -> Vec<String> {
        let ip = self.family.header();
        let map = self.slots.name(self.family);
        let address = match self.slots {
            Container::NodeEndpoints | Container::NodeLocalEndpoints => String::new(),
            _ => format!("{ip} daddr . "),
        };
        let rule = |slots: u64| {
            let key = format!("{address}meta l4proto . th dport . numgen random mod {slots}");
            format!("dnat {ip} to {key} map @{map}")
        };
        let tries = if self.class == 0 { 1 } else { TRIES };
        let mut rules = vec![rule(1 << self.class); tries];
        rules.push(rule(1));
        rules
    }
}

/// One line that sets the mark that asks for masquerading.
pub(crate) fn mark(bit: u32) -> String {
    format!("meta mark set meta mark | {bit:#x}")
}

/// A family's ranges of addresses.
struct Networks {
    cluster: IpNet,
    services: IpNet,
}

fn networks(options: &NetworkOptions, family: Family) -> Option<Networks> {
    Some(Networks {
        cluster: of_family(&options.cluster_networks, family)?,
        services: of_family(&options.service_networks, family)?,
    })
}

fn of_family(ranges: &[IpNet], family: Family) -> Option<IpNet> {
    ranges.iter().copied().find(|range| Family::of(range.addr()) == family)
}

/// The table with empty maps, as `nft -f` reads it.
pub(crate) fn fixed(options: &NetworkOptions) -> String {
    let table = &options.table;
    let bridge = &options.bridge;
    let mark = mark(options.masquerade_mark);
    let bit = options.masquerade_mark;
    let rest = !options.masquerade_mark;
    let families = Family::BOTH.map(|family| fixed_family(options, family)).concat();
    let leaving = Family::BOTH.map(|family| leaving(options, family)).concat();
    format!(
        r#"table inet {table} {{
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx type port-unreachable
  }}
  chain ask-masquerade {{ {mark}; }}
  chain ask-masquerade-own {{ fib saddr type local {mark}; }}
{families}  chain pick {{
    meta nfproto ipv4 goto pick-4
    meta nfproto ipv6 goto pick-6
  }}
  chain nobody {{
    ct status dnat return
    meta nfproto ipv4 goto nobody-4
    meta nfproto ipv6 goto nobody-6
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
    oifname != "{bridge}" meta mark & {bit:#x} == {bit:#x} meta mark set meta mark & {rest:#x} masquerade fully-random
    ip saddr 127.0.0.0/8 oifname != "lo" masquerade fully-random
{leaving}  }}
}}
"#
    )
}

/// A family's maps and its part of a packet's path.
fn fixed_family(options: &NetworkOptions, family: Family) -> String {
    let mut text = String::new();
    let all = Container::OF_SERVICES.into_iter().chain([
        Container::HostPorts,
        Container::HostPortsAt,
        Container::HostPortHairpin,
        Container::Nodes,
    ]);
    for container in all {
        let word = if container.is_set() { "set" } else { "map" };
        let (name, declaration) = (container.name(family), container.declaration(family));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {word} {name} {{ {declaration} }}");
    }
    let (ip, f) = (family.header(), family.digit());
    let entry = format!("{ip} daddr . meta l4proto . th dport");
    let port = "meta l4proto . th dport";
    let (mut marked, mut unused, mut stranger) = (String::new(), String::new(), String::new());
    if let Some(Networks { cluster, services }) = networks(options, family) {
        marked = format!("    {ip} saddr != {cluster} {ip} daddr {services} jump ask-masquerade\n");
        unused = format!("    {ip} daddr {services} drop\n");
        stranger = format!("{ip} saddr != {cluster} ");
    }
    let at = match node_port_addresses(options, family) {
        None => String::new(),
        Some(addresses) => format!("{ip} daddr {{ {addresses} }} "),
    };
    // A packet that comes while a map's element is replaced may miss it once, and never twice.
    let _ = write!(
        text,
        r#"  chain pick-{f} {{
{marked}    {entry} @walled-{f} {entry} . {ip} saddr != @allowed-{f} drop
    {entry} vmap @marks-{f}
    {stranger}fib saddr type != local {entry} vmap @outside-{f}
    {entry} vmap @services-{f}
    {entry} vmap @services-{f}
    fib daddr type local goto pick-here-{f}
  }}
  chain pick-here-{f} {{
    {at}jump pick-node-{f}
    dnat {ip} to {entry} map @host-ports-at-{f}
    dnat {ip} to {port} map @host-ports-{f}
  }}
  chain pick-node-{f} {{
    {port} vmap @node-marks-{f}
    {stranger}fib saddr type != local {port} vmap @node-outside-{f}
    {port} vmap @node-ports-{f}
    {port} vmap @node-ports-{f}
  }}
  chain nobody-{f} {{
    {entry} vmap @unserved-{f}
    fib daddr type local {at}{port} vmap @node-unserved-{f}
    {ip} daddr @service-addresses-{f} goto refuse
{unused}  }}
"#
    );
    text
}

/// The addresses of the node that offer node ports, if not all do.
fn node_port_addresses(options: &NetworkOptions, family: Family) -> Option<String> {
    let ranges = &options.node_port_addresses;
    if ranges.is_empty() {
        return None;
    }
    let ours = ranges.iter().filter(|range| Family::of(range.addr()) == family);
    let ours: Vec<String> =
        IpNet::aggregate(&ours.copied().collect()).iter().map(ToString::to_string).collect();
    Some(match (ours.is_empty(), family) {
        (false, _) => ours.join(", "),
        // An address that no packet has.
        (true, Family::V4) => "255.255.255.255".to_owned(),
        (true, Family::V6) => "::".to_owned(),
    })
}

fn leaving(options: &NetworkOptions, family: Family) -> String {
    let (ip, f, bridge) = (family.header(), family.digit(), &options.bridge);
    let mut text = format!(
        "    {ip} saddr . {ip} daddr @hairpin-{f} masquerade fully-random\n    \
         {ip} saddr . {ip} daddr @host-port-hairpin-{f} masquerade fully-random\n"
    );
    let pods = of_family(&options.pod_networks, family);
    let cluster = of_family(&options.cluster_networks, family);
    if let (Some(pods), Some(cluster)) = (pods, cluster) {
        // What leaves for another node of the cluster keeps its address.
        let (overlay, nodes) = (options.overlay_device(), Container::Nodes.name(family));
        let _ = writeln!(
            text,
            "    {ip} saddr {pods} {ip} daddr != {cluster} oifname != \"{bridge}\" oifname != \"{overlay}\" \
             {ip} daddr != @{nodes} masquerade fully-random"
        );
    }
    text
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

    /// Commands that remove from the table what is here and not `wanted`.
    pub(crate) fn remove_unless(&self, table: &str, wanted: &Self) -> String {
        let mut script = String::new();
        let kinds = [
            ("chain", &self.chains, &wanted.chains),
            ("set", &self.sets, &wanted.sets),
            ("map", &self.maps, &wanted.maps),
        ];
        for (kind, present, wanted) in kinds {
            for name in present.difference(wanted) {
                // Writing to a String cannot fail.
                let _ = writeln!(script, "delete {kind} inet {table} {name}");
            }
        }
        script
    }
}

/// Commands that remove the table, whether or not it exists.
pub(crate) fn remove(table: &str) -> String {
    format!("table inet {table} {{ }}\ndelete table inet {table}\n")
}

/// The elements that lead `ports` of the node to the pod at `address`, with their sets' names.
pub(crate) fn host_port_elements(
    address: impl Into<IpAddr>,
    ports: &[HostPort],
) -> Vec<(String, String)> {
    let address = address.into();
    let family = Family::of(address);
    let mut elements: Vec<_> = ports
        .iter()
        .filter_map(|port| {
            let HostPort { host_port, container_port, protocol, host_ip } = port;
            let to = format!("{address} . {container_port}");
            let (container, from) = match host_ip.map(IpAddr::from) {
                Some(ip) if Family::of(ip) != family => return None,
                Some(ip) => (Container::HostPortsAt, format!("{ip} . {protocol} . {host_port}")),
                None => (Container::HostPorts, format!("{protocol} . {host_port}")),
            };
            Some((container.name(family), format!("{from} : {to}")))
        })
        .collect();
    if !elements.is_empty() {
        let pair = format!("{address} . {address}");
        elements.push((Container::HostPortHairpin.name(family), pair));
    }
    elements
}

/// The element of another node's address with its set's name.
pub(crate) fn node_element(address: IpAddr) -> (String, String) {
    (Container::Nodes.name(Family::of(address)), address.to_string())
}

/// Commands that forget other nodes' addresses.
pub(crate) fn empty_nodes(table: &str) -> String {
    let flush = |family| format!("flush set inet {table} {}\n", Container::Nodes.name(family));
    Family::BOTH.map(flush).concat()
}

/// One command for one element.
pub(crate) fn element(script: &mut String, verb: &str, table: &str, set: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(script, "{verb} element inet {table} {set} {{ {text} }}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_nfts_own_text() {
        let text = "table inet t {\n\tmap services-4 {\n\t\ttype ipv4_addr : verdict\n\t}\n\n\tset hairpin-4 {\n\t}\n\
                    \tset seen-60s/a/b/tcp/80/10.0.0.1/80 {\n\t\tflags dynamic,timeout\n\t}\n\tchain sticky/a/b/tcp/80 {\n\
                    \t\tset something\n\t}\n}\n";
        let names = Names::of(text);
        assert_eq!(names.chains, ["sticky/a/b/tcp/80".to_owned()].into());
        assert_eq!(
            names.sets,
            ["hairpin-4".to_owned(), "seen-60s/a/b/tcp/80/10.0.0.1/80".to_owned()].into()
        );
        assert_eq!(names.maps, ["services-4".to_owned()].into());
        let fixed = Names::of(&fixed(&NetworkOptions::new("n", "/nonexistent")));
        assert!(fixed.chains.contains("pick") && fixed.chains.contains("incoming"));
        assert_eq!((fixed.maps.len(), fixed.sets.len()), (28, 12));
        assert_eq!(
            names.remove_unless("t", &fixed),
            "delete chain inet t sticky/a/b/tcp/80\n\
             delete set inet t seen-60s/a/b/tcp/80/10.0.0.1/80\n"
        );
    }

    #[test]
    fn pickers_have_room_for_their_endpoints() {
        let class = |count| Picker::of(Family::V4, Container::Endpoints, count).class;
        assert_eq!([1, 2, 3, 4, 5, 8, 9, 1000].map(class), [0, 1, 2, 2, 3, 3, 4, 10]);
        let picker = Picker::of(Family::V6, Container::NodeEndpoints, 3);
        assert_eq!(picker.name(), "pick-node-endpoints-6-4");
        let rules = picker.rules();
        assert_eq!(rules.len(), TRIES + 1);
        assert_eq!(
            rules[0],
            "dnat ip6 to meta l4proto . th dport . numgen random mod 4 map @node-endpoints-6"
        );
    }

    #[test]
    fn node_ports_keep_to_the_addresses_told() {
        let mut options = NetworkOptions::new("n", "/nonexistent");
        assert!(fixed(&options).contains("    jump pick-node-4\n"));
        options.node_port_addresses = vec!["192.0.2.0/24".parse().expect("range")];
        let text = fixed(&options);
        assert!(text.contains("    ip daddr { 192.0.2.0/24 } jump pick-node-4\n"), "{text}");
        assert!(text.contains("    ip6 daddr { :: } jump pick-node-6\n"), "{text}");
    }
}
