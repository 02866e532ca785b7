//! From one Service and its EndpointSlices to the part of the table that is theirs.
//!
//! Pure. Knows the words of nftables and the API's rules for Services; nothing of other Services,
//! of what the table holds now, or of how it is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};

use super::endpoints::{Chosen, Target, choose};
use crate::ruleset::{Container, REFUSE, mark};

/// How long a client stays with its endpoint when the Service does not say, in seconds.
const AFFINITY_SECONDS: i32 = 10_800;
/// The most rules that a packet passes to find its endpoint, and again to find its group.
const GROUP: usize = 32;
/// A Service with this label is another proxy's.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// What every Service's plan depends on.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) node: String,
    pub(crate) cluster_network: Ipv4Net,
    pub(crate) masquerade_mark: u32,
}

/// An address (`None`: the node's own) and port at which datagrams for a Service arrive.
pub(crate) type DatagramPort = (Option<Ipv4Addr>, u16);

/// One Service's part of the table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Keys of maps and sets, with values where it is a map.
    pub(crate) elements: BTreeMap<(Container, String), String>,
    /// Chains with their rules, in order.
    pub(crate) chains: BTreeMap<String, Vec<String>>,
    /// Sets of its own with their declarations.
    pub(crate) sets: BTreeMap<String, String>,
    /// Where UDP arrives and which endpoints may answer it.
    pub(crate) datagrams: BTreeMap<DatagramPort, BTreeSet<Target>>,
}

/// Plans a Service. Headless, external-name and other proxies' Services have no part.
pub(crate) fn plan(
    around: &Surroundings,
    service: &Service,
    slices: &[Arc<EndpointSlice>],
) -> Fragment {
    let mut fragment = Fragment::default();
    let Some(spec) = &service.spec else { return fragment };
    let cluster_ips = cluster_ips(spec);
    let foreign = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    if foreign || spec.type_.as_deref() == Some("ExternalName") || cluster_ips.is_empty() {
        return fragment;
    }
    for address in &cluster_ips {
        fragment.elements.insert((Container::ServiceAddresses, address.to_string()), String::new());
    }
    let metadata = &service.metadata;
    let name = format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    );
    for port in spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let chosen =
            choose(slices, port.name.as_deref().unwrap_or_default(), protocol, &around.node);
        let protocol = match protocol {
            "TCP" => "tcp",
            "UDP" => "udp",
            "SCTP" => "sctp",
            _ => continue,
        };
        let path = format!("{name}/{protocol}/{number}");
        let mut planner = Port { around, service, spec, port, protocol, number, path, fragment };
        planner.plan(&cluster_ips, &chosen);
        fragment = planner.fragment;
    }
    fragment
}

/// The IPv4 cluster IPs; none for a headless Service.
fn cluster_ips(spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    let all = match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    all.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Whether a traffic policy keeps to endpoints of this node.
fn keeps_local(policy: Option<&String>) -> bool {
    policy.is_some_and(|policy| policy == "Local")
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

/// One Service port being planned.
struct Port<'a> {
    around: &'a Surroundings,
    service: &'a Service,
    spec: &'a ServiceSpec,
    port: &'a ServicePort,
    protocol: &'static str,
    number: u16,
    /// `namespace/name/protocol/port`, the end of every name of its own.
    path: String,
    fragment: Fragment,
}

impl Port<'_> {
    fn plan(&mut self, cluster_ips: &[Ipv4Addr], chosen: &Chosen) {
        for address in &chosen.here {
            let pair = format!("{address} . {address}");
            self.fragment.elements.insert((Container::Hairpin, pair), String::new());
        }
        let internal_local = keeps_local(self.spec.internal_traffic_policy.as_ref());
        let external_local = keeps_local(self.spec.external_traffic_policy.as_ref());
        let external = self.external_addresses();
        let node_port = self.port.node_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let reached_from_outside = node_port > 0 || !external.is_empty();

        let cluster_chain = format!("svc/{}", self.path);
        let local_chain = format!("local/{}", self.path);
        let uses_cluster = !internal_local || reached_from_outside;
        if !chosen.cluster.is_empty() && uses_cluster {
            self.pick(&cluster_chain, &chosen.cluster);
        }
        let uses_local = internal_local || (external_local && reached_from_outside);
        if !chosen.local.is_empty() && uses_local {
            self.pick(&local_chain, &chosen.local);
        }

        let (inside, inside_chain) = if internal_local {
            (&chosen.local, &local_chain)
        } else {
            (&chosen.cluster, &cluster_chain)
        };
        for address in cluster_ips {
            let key = self.key(*address);
            if !inside.is_empty() {
                self.element(Container::Services, key, format!("goto {inside_chain}"));
            } else if !chosen.cluster.is_empty() {
                // Endpoints elsewhere only. The address as a whole refuses; this waits instead.
                self.element(Container::Unserved, key, "drop".to_owned());
            }
            self.datagrams(Some(*address), inside);
        }
        if reached_from_outside {
            self.outside(chosen, external_local, &external, node_port);
        }
    }

    /// Node port, external addresses and load balancer addresses.
    fn outside(
        &mut self,
        chosen: &Chosen,
        local: bool,
        addresses: &[(Ipv4Addr, bool)],
        node_port: u16,
    ) {
        let served = !chosen.cluster.is_empty();
        let entry = format!("ext/{}", self.path);
        let walled = format!("fw/{}", self.path);
        let ranges = self.source_ranges();
        if served {
            let rules = self.entry_rules(chosen, local);
            self.fragment.chains.insert(entry.clone(), rules);
            if addresses.iter().any(|(_, balanced)| *balanced) && !ranges.is_empty() {
                let allow = |range| format!("ip saddr {range} goto {entry}");
                let mut rules: Vec<String> = ranges.iter().map(allow).collect();
                rules.push("drop".to_owned());
                self.fragment.chains.insert(walled.clone(), rules);
            }
        }
        // What arrives from outside and finds no endpoint here is dropped, so that load balancers
        // go elsewhere; a Service that nobody serves refuses.
        let unserved = match (served, local && chosen.local.is_empty()) {
            (false, _) => Some(format!("goto {REFUSE}")),
            (true, true) => Some("drop".to_owned()),
            (true, false) => None,
        };
        let answering = if local { &chosen.local } else { &chosen.cluster };
        let mut answering = answering.clone();
        if local {
            answering.extend(&chosen.cluster);
        }
        if node_port > 0 {
            let key = format!("{} . {node_port}", self.protocol);
            if served {
                self.element(Container::NodePorts, key.clone(), format!("goto {entry}"));
            }
            if let Some(verdict) = &unserved {
                self.element(Container::UnservedNodePorts, key, verdict.clone());
            }
            self.datagrams_at((None, node_port), &answering);
        }
        for (address, balanced) in addresses {
            let key = self.key(*address);
            let chain = if *balanced && !ranges.is_empty() { &walled } else { &entry };
            if served {
                self.element(Container::Services, key.clone(), format!("goto {chain}"));
            }
            if let Some(verdict) = &unserved {
                self.element(Container::Unserved, key, verdict.clone());
            }
            self.datagrams(Some(*address), &answering);
        }
    }

    /// The way in from outside. With policy Local, only what comes from outside keeps to this
    /// node and keeps its source; pods and the node itself reach the whole Service.
    fn entry_rules(&self, chosen: &Chosen, local: bool) -> Vec<String> {
        let mark = mark(self.around.masquerade_mark);
        let all = format!("goto svc/{}", self.path);
        if !local {
            return vec![mark, all];
        }
        let mut rules = vec![
            format!("ip saddr {} {all}", self.around.cluster_network),
            format!("fib saddr type local {mark} {all}"),
        ];
        if !chosen.local.is_empty() {
            rules.push(format!("goto local/{}", self.path));
        }
        rules
    }

    /// A chain that sends each new connection to one of `targets`, by chance or by habit.
    fn pick(&mut self, chain: &str, targets: &[Target]) {
        let sticky = self.spec.session_affinity.as_deref() == Some("ClientIP");
        let (mut rules, choices) = if sticky {
            self.sticky(targets)
        } else {
            let straight = |(address, port): &Target| {
                format!("meta l4proto {} dnat to {address}:{port}", self.protocol)
            };
            (Vec::new(), targets.iter().map(straight).collect())
        };
        rules.extend(self.spread(chain, choices));
        self.fragment.chains.insert(chain.to_owned(), rules);
    }

    /// Rules of which one is taken, each with the same chance. Many become groups, each in a
    /// chain of its own.
    ///
    /// Chances are chains of rules and not a map within one: the kernel exchanges a chain's rules
    /// at one moment, but a packet that has begun with the old rules finds the map of a rule
    /// removed meanwhile empty, and would be sent nowhere.
    fn spread(&mut self, chain: &str, choices: Vec<String>) -> Vec<String> {
        if choices.len() <= GROUP {
            return by_chance(choices.into_iter().map(|choice| (1, choice)).collect());
        }
        let mut groups = Vec::new();
        for (index, group) in choices.chunks(GROUP).enumerate() {
            let name = format!("{chain}/{index}");
            let rules = by_chance(group.iter().map(|choice| (1, choice.clone())).collect());
            groups.push((group.len(), format!("goto {name}")));
            self.fragment.chains.insert(name, rules);
        }
        by_chance(groups)
    }

    /// Rules that send a client where it was sent last, and the choices for new clients: one
    /// chain and set an endpoint that remember them.
    fn sticky(&mut self, targets: &[Target]) -> (Vec<String>, Vec<String>) {
        let seconds = self
            .spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .filter(|seconds| *seconds > 0)
            .unwrap_or(AFFINITY_SECONDS);
        let (mut rules, mut choices) = (Vec::new(), Vec::new());
        for (address, port) in targets {
            let end = format!("{}/{address}/{port}", self.path);
            let chain = format!("ep/{end}");
            // The timeout is part of the name: another timeout is another set.
            let set = format!("seen-{seconds}s/{end}");
            let declaration = format!("type ipv4_addr; flags dynamic,timeout; timeout {seconds}s;");
            self.fragment.sets.insert(set.clone(), declaration);
            self.fragment.chains.insert(
                chain.clone(),
                vec![
                    format!("update @{set} {{ ip saddr }}"),
                    format!("meta l4proto {} dnat to {address}:{port}", self.protocol),
                ],
            );
            rules.push(format!("ip saddr @{set} goto {chain}"));
            choices.push(format!("goto {chain}"));
        }
        (rules, choices)
    }

    /// External IPs (`false`) and load balancer addresses that are ours to serve (`true`).
    fn external_addresses(&self) -> Vec<(Ipv4Addr, bool)> {
        let external = self.spec.external_ips.iter().flatten();
        let mut addresses: Vec<(Ipv4Addr, bool)> =
            external.filter_map(|text| Some((text.parse().ok()?, false))).collect();
        let status = self.service.status.as_ref();
        let balanced = status.and_then(|status| status.load_balancer.as_ref());
        for ingress in balanced.and_then(|status| status.ingress.as_ref()).into_iter().flatten() {
            // In mode Proxy the balancer itself must see the packets.
            let ours = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
            let address = ingress.ip.as_deref().and_then(|text| text.parse().ok());
            if let (true, Some(address)) = (ours, address)
                && !addresses.iter().any(|(known, _)| *known == address)
            {
                addresses.push((address, true));
            }
        }
        addresses
    }

    fn source_ranges(&self) -> Vec<String> {
        let ranges = self.spec.load_balancer_source_ranges.iter().flatten();
        let parsed: BTreeSet<Ipv4Net> = ranges
            .filter_map(|text| text.trim().parse::<Ipv4Net>().ok())
            .map(|range| range.trunc())
            .collect();
        Ipv4Net::aggregate(&parsed.into_iter().collect()).iter().map(ToString::to_string).collect()
    }

    fn key(&self, address: Ipv4Addr) -> String {
        format!("{address} . {} . {}", self.protocol, self.number)
    }

    fn element(&mut self, container: Container, key: String, value: String) {
        self.fragment.elements.insert((container, key), value);
    }

    fn datagrams(&mut self, address: Option<Ipv4Addr>, targets: &[Target]) {
        self.datagrams_at((address, self.number), targets);
    }

    fn datagrams_at(&mut self, at: DatagramPort, targets: &[Target]) {
        if self.protocol == "udp" {
            self.fragment.datagrams.entry(at).or_default().extend(targets);
        }
    }
}
