//! Which addresses are announced, in groups that one node has as a whole, and which nodes may.
//!
//! Pure. Addresses of Services that any node can serve share a few groups, so that there are few
//! leases however many Services; those with external traffic policy Local have a group each, as
//! only nodes with endpoints may have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};

/// Set by the controller that gives addresses from a pool.
const ANNOUNCE: &str = "skiff.dev/announce-addresses";
/// Nodes that shall not receive traffic of load balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// How many groups there are of addresses that any node can serve.
const SHARED: u64 = 8;
/// What the names of leases begin with.
pub(super) const PREFIX: &str = "skiff-announce-";

/// Addresses that one node has together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Nodes that may have them, the one that ought to first.
    pub(super) candidates: Vec<String>,
}

/// Whether a Service has addresses to announce.
pub(super) fn is_announced(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(ANNOUNCE)) && !addresses(service).is_empty()
}

/// Whether only nodes with endpoints may have them.
pub(super) fn is_local(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
    policy == Some("Local")
}

/// The addresses that a Service's status says.
fn addresses(service: &Service) -> BTreeSet<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let ours = ingress.filter(|one| one.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    ours.filter_map(|one| one.ip.as_deref()?.parse().ok()).collect()
}

/// Whether a node may have addresses.
pub(super) fn may_announce(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let status = node.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|one| one.type_ == "Ready" && one.status == "True")
        && node.metadata.deletion_timestamp.is_none()
        && !labels.is_some_and(|labels| labels.contains_key(EXCLUDED))
}

/// All groups by the names of their leases. `slices` finds a Service's.
pub(super) fn groups(
    services: &[Arc<Service>],
    nodes: &BTreeSet<String>,
    slices: impl Fn(&Service) -> Vec<Arc<EndpointSlice>>,
) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for service in services.iter().filter(|service| is_announced(service)) {
        let local = is_local(service);
        let serving = local.then(|| serving(&slices(service)));
        for address in addresses(service) {
            let name = match local {
                true => format!("{PREFIX}{}", word(address)),
                false => format!("{PREFIX}{}", hash(&[&address.to_string()]) % SHARED),
            };
            let group = groups.entry(name).or_insert_with_key(|name| {
                let may = |node: &&String| serving.as_ref().is_none_or(|all| all.contains(*node));
                let mut candidates: Vec<String> = nodes.iter().filter(may).cloned().collect();
                // Each group has an order of its own, so that groups are spread over nodes and a
                // node that goes leaves its groups to different ones.
                candidates.sort_by_cached_key(|node| hash(&[name, node]));
                Group { candidates, ..Group::default() }
            });
            group.addresses.insert(address);
        }
    }
    groups
}

fn serving(slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = endpoints.filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    });
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// An address within a name.
fn word(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
    }
}

/// FNV-1a with a final mix: the same on every node and in every version.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.join("/").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(ip: &str, policy: &str) -> Arc<Service> {
        let service = json!({
            "metadata": {"namespace": "shop", "name": "web", "annotations": {ANNOUNCE: "true"}},
            "spec": {"externalTrafficPolicy": policy},
            "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
        });
        Arc::new(serde_json::from_value(service).expect("service"))
    }

    #[test]
    fn groups_are_spread_and_local_ones_follow_endpoints() {
        let nodes: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        let many: Vec<_> = (0..64).map(|n| service(&format!("192.0.2.{n}"), "Cluster")).collect();
        let all = groups(&many, &nodes, |_| Vec::new());
        assert_eq!(all.len(), SHARED as usize);
        assert_eq!(all.values().map(|group| group.addresses.len()).sum::<usize>(), 64);
        let first: BTreeSet<&String> = all.values().map(|group| &group.candidates[0]).collect();
        assert_eq!(first.len(), 3, "every node has some: {all:?}");

        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4", "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "b"},
                {"addresses": ["10.0.0.2"], "nodeName": "a", "conditions": {"ready": false}},
            ],
        }))
        .expect("slice");
        let slices = vec![Arc::new(slice)];
        let local = groups(&[service("192.0.2.1", "Local")], &nodes, |_| slices.clone());
        assert_eq!(local["skiff-announce-192-0-2-1"].candidates, ["b"]);
    }

    #[test]
    fn only_marked_services_are_announced() {
        let mut other = service("192.0.2.1", "Cluster");
        Arc::make_mut(&mut other).metadata.annotations = None;
        assert!(!is_announced(&other));
    }
}
