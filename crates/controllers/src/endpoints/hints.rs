//! Hints that keep traffic near: for which zones and nodes an endpoint is meant.
//!
//! By the Service's `trafficDistribution` every endpoint is for its own zone (KEP-4444) or node
//! (KEP-3015); by the annotation `topology-mode: Auto` zones get endpoints in proportion to their
//! CPUs (KEP-2433). Pure, and knows nothing of slices.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Node, Service, ServiceSpec},
    discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone},
};
use meta::Quantity;

use crate::objects::annotation;

const ZONE: &str = "topology.kubernetes.io/zone";
const MODE: &str = "service.kubernetes.io/topology-mode";
const DEPRECATED_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes with one of these labels run no ordinary pods and count for nothing.
const CONTROL_PLANE: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more load an endpoint may get than if all got the same, in parts of 1.
const OVERLOAD: f64 = 0.2;

/// What a Service wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    None,
    /// Each endpoint for its zone.
    Zone,
    /// Each endpoint for its node, and its zone.
    Node,
    /// Zones in proportion to their CPUs.
    Proportional,
}

impl Wish {
    pub(super) fn of(service: &Service, spec: &ServiceSpec) -> Self {
        if is_proportional(service) {
            return Self::Proportional;
        }
        match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => Self::Zone,
            Some("PreferSameNode") => Self::Node,
            _ => Self::None,
        }
    }
}

/// Whether the Service asks for hints in proportion to CPUs.
pub(super) fn is_proportional(service: &Service) -> bool {
    let mode = annotation(&service.metadata, MODE)
        .or_else(|| annotation(&service.metadata, DEPRECATED_MODE));
    mode.is_some_and(|mode| matches!(mode, "Auto" | "auto"))
}

/// Why zones cannot be served in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Nodes,
    FewEndpoints,
    Overload,
    NoZone,
}

impl Obstacle {
    /// The words of upstream's event.
    pub(super) fn note(self) -> &'static str {
        match self {
            Self::Nodes => {
                "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
            }
            Self::FewEndpoints => "Insufficient number of endpoints",
            Self::Overload => {
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
            }
            Self::NoZone => "One or more endpoints do not have a zone specified",
        }
    }
}

/// What a node adds to its zone; `None` for nodes that do not count.
pub(super) fn weight(node: &Node) -> Option<(Option<String>, i64)> {
    let labels = node.metadata.labels.as_ref();
    if CONTROL_PLANE.iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label))) {
        return None;
    }
    let status = node.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    if !conditions.any(|one| one.type_ == "Ready" && one.status == "True") {
        return None;
    }
    let cpu = status.allocatable.as_ref().and_then(|all| all.get("cpu"));
    let milli =
        cpu.and_then(|cpu| cpu.0.parse::<Quantity>().ok()).map_or(0, |cpu| cpu.milli_value());
    Some((labels.and_then(|labels| labels.get(ZONE)).cloned(), milli))
}

/// Each zone's share of the CPUs.
pub(super) fn shares<'a>(
    nodes: impl Iterator<Item = &'a Node>,
) -> Result<BTreeMap<String, f64>, Obstacle> {
    let mut zones: BTreeMap<String, i64> = BTreeMap::new();
    for (zone, cpu) in nodes.filter_map(weight) {
        let zone = zone.filter(|_| cpu > 0).ok_or(Obstacle::Nodes)?;
        *zones.entry(zone).or_default() += cpu;
    }
    if zones.len() < 2 {
        return Err(Obstacle::Nodes);
    }
    let all: i64 = zones.values().sum();
    Ok(zones.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / all as f64)).collect())
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

/// Hints each ready endpoint for where it is.
pub(super) fn near(endpoints: &mut [&mut Endpoint], node_too: bool) {
    for endpoint in endpoints.iter_mut().filter(|endpoint| is_ready(endpoint)) {
        let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
        let for_nodes =
            endpoint.node_name.clone().filter(|_| node_too).map(|name| vec![ForNode { name }]);
        if for_zones.is_some() || for_nodes.is_some() {
            endpoint.hints = Some(EndpointHints { for_zones, for_nodes });
        }
    }
}

/// Hints ready endpoints for zones in proportion to `shares`: for their own as long as each zone
/// has enough, and otherwise for one that has not, as few as possible and the same as before.
pub(super) fn proportional(
    endpoints: &mut [&mut Endpoint],
    shares: &BTreeMap<String, f64>,
    before: impl Fn(&Endpoint) -> Option<String>,
) -> Result<(), Obstacle> {
    let mut ready: Vec<&mut &mut Endpoint> =
        endpoints.iter_mut().filter(|endpoint| is_ready(endpoint)).collect();
    if shares.len() > ready.len() {
        return Err(Obstacle::FewEndpoints);
    }
    let desired = |zone: &str| shares.get(zone).copied().unwrap_or(0.0) * ready.len() as f64;
    let minimum: BTreeMap<&str, usize> = shares
        .keys()
        .map(|zone| (zone.as_str(), (desired(zone) / (1.0 + OVERLOAD)).ceil() as usize))
        .collect();
    if minimum.values().sum::<usize>() > ready.len() {
        return Err(Obstacle::Overload);
    }
    let mut given: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, endpoint) in ready.iter().enumerate() {
        given.entry(endpoint.zone.clone().ok_or(Obstacle::NoZone)?).or_default().push(at);
    }
    for (zone, enough) in &minimum {
        while given.get(*zone).map_or(0, Vec::len) < *enough {
            let surplus = |(name, all): &(&String, &Vec<usize>)| all.len() as f64 - desired(name);
            let richest = given
                .iter()
                .filter(|(name, all)| {
                    name != zone && all.len() > minimum.get(name.as_str()).copied().unwrap_or(0)
                })
                .max_by(|a, b| surplus(a).total_cmp(&surplus(b)));
            let Some(richest) = richest.map(|(name, _)| name.clone()) else { break };
            let Some(from) = given.get_mut(&richest) else { break };
            let again = from.iter().position(|at| before(ready[*at]).as_deref() == Some(zone));
            let Some(at) = again.map(|again| from.remove(again)).or_else(|| from.pop()) else {
                break;
            };
            given.entry((*zone).to_owned()).or_default().push(at);
        }
    }
    // Zones without nodes of ours have nobody to be served.
    let largest = minimum.iter().max_by_key(|(_, enough)| **enough).map(|(zone, _)| *zone);
    for (zone, all) in &given {
        let name = if shares.contains_key(zone) { Some(zone.as_str()) } else { largest };
        for at in all {
            let for_zones = name.map(|name| vec![ForZone { name: name.to_owned() }]);
            ready[*at].hints = Some(EndpointHints { for_zones, for_nodes: None });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(zones: &[&str]) -> Vec<Endpoint> {
        let endpoint = |(n, zone): (usize, &&str)| Endpoint {
            addresses: vec![format!("10.0.0.{n}")],
            node_name: Some(format!("n{n}")),
            zone: (!zone.is_empty()).then(|| (*zone).to_owned()),
            ..Endpoint::default()
        };
        zones.iter().enumerate().map(endpoint).collect()
    }

    fn hints(endpoints: &[Endpoint]) -> String {
        let one = |endpoint: &Endpoint| {
            let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
            zones.map_or("-".to_owned(), |zones| zones[0].name.clone())
        };
        endpoints.iter().map(one).collect()
    }

    fn check_proportional(zones: &[&str], shares: &[(&str, f64)], before: &[&str]) -> String {
        let mut all = endpoints(zones);
        let shares = shares.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect();
        let known = |endpoint: &Endpoint| {
            let at: usize = endpoint.addresses[0].trim_start_matches("10.0.0.").parse().ok()?;
            before.get(at).map(|zone| (*zone).to_owned())
        };
        let outcome = proportional(&mut all.iter_mut().collect::<Vec<_>>(), &shares, known);
        outcome.map_or_else(|obstacle| format!("{obstacle:?}"), |()| hints(&all))
    }

    #[test]
    fn zones_get_endpoints_in_proportion() {
        let half = [("a", 0.5), ("b", 0.5)];
        assert_eq!(check_proportional(&["a", "b"], &half, &[]), "ab");
        assert_eq!(check_proportional(&["a", "a", "a", "a"], &half, &[]), "aabb");
        assert_eq!(
            check_proportional(&["a", "a", "a", "a"], &half, &["b", "a", "b", "a"]),
            "baba",
            "as before"
        );
        assert_eq!(check_proportional(&["a", "a", "b"], &half, &[]), "Overload");
        assert_eq!(check_proportional(&["a"], &half, &[]), "FewEndpoints");
        assert_eq!(check_proportional(&["a", "", "b", "b"], &half, &[]), "NoZone");
        assert_eq!(
            check_proportional(&["a", "a", "a", "b", "b", "b"], &[("a", 0.7), ("b", 0.3)], &[]),
            "aaabba"
        );
    }

    #[test]
    fn near_hints_name_zone_and_node() {
        let mut all = endpoints(&["a", ""]);
        near(&mut all.iter_mut().collect::<Vec<_>>(), true);
        assert_eq!(hints(&all), "a-");
        let nodes = all[1].hints.as_ref().and_then(|hints| hints.for_nodes.as_ref());
        assert_eq!(nodes.expect("a node")[0].name, "n1");
    }

    #[test]
    fn shares_need_cpus_and_zones_of_all_nodes() {
        let node = |zone: &str, cpu: &str, more: &str| -> Node {
            crate::testing::from_yaml(&format!(
                "{{metadata: {{name: n, labels: {{topology.kubernetes.io/zone: {zone}{more}}}}},
                  status: {{allocatable: {{cpu: '{cpu}'}}, conditions: [{{type: Ready, status: 'True'}}]}}}}"
            ))
        };
        let nodes = [node("a", "3", ""), node("b", "500m", ""), node("b", "500m", "")];
        let all = shares(nodes.iter()).expect("shares");
        assert_eq!((all["a"], all["b"]), (0.75, 0.25));
        assert_eq!(shares(nodes[..1].iter()), Err(Obstacle::Nodes));
        let more = ", node-role.kubernetes.io/control-plane: ''";
        assert_eq!(weight(&node("a", "3", more)), None);
    }
}
