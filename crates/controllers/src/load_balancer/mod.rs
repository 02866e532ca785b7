//! Addresses for Services of type LoadBalancer, without any cloud: from a pool, which the nodes'
//! networks announce, or the nodes' own where there is no pool.
//!
//! Owns such Services' `status.loadBalancer`, their clean-up finalizer and the annotation that
//! asks for announcing, unless their `loadBalancerClass` leaves them to somebody else. All are
//! planned together: an address goes to one Service only. How packets get there is the network's.

mod assign;
mod pool;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use client::{Cache, Caches, EventKind, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::assign::{Assigned, Trouble, assign};
use crate::objects::annotation;

pub use pool::{AddressRange, RangeError};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "service-lb-controller";

const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Says that the addresses in the status come from the pool, so that nodes announce them.
const ANNOUNCE: &str = "skiff.dev/announce-addresses";
/// Asks for these addresses, with commas between.
const WISH: &str = "skiff.dev/load-balancer-ips";
/// Why a Service has no address.
const CONDITION: &str = "skiff.dev/LoadBalancerAddress";
/// Nodes that shall not receive traffic of load balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "load-balanced-service";

/// Runs the controller until `shutdown`. Without ranges, nodes' own addresses are given.
pub(crate) async fn run(
    ranges: Vec<AddressRange>,
    caches: Caches,
    deps: Deps,
    shutdown: CancellationToken,
) {
    let services = caches.cache::<Service>();
    let nodes = caches.cache::<Node>();
    let slices = caches.cache::<EndpointSlice>();
    slices.index(BY_SERVICE, |slice| {
        service_of(slice).map(|key| key.to_string()).into_iter().collect()
    });
    let pooled = !ranges.is_empty();
    let all = || vec![ObjectKey::cluster("all")];
    let by_slice = services.clone();
    Runtime::new(NAME, deps)
        .watch(&services, move |change| {
            let concerned = [&change.before, &change.after]
                .into_iter()
                .flatten()
                .any(|service| is_balanced(service) || has_finalizer(service));
            if concerned { all() } else { Vec::new() }
        })
        .watch(&nodes, move |change| {
            // Only nodes' own addresses depend on nodes.
            let carriers = [&change.before, &change.after]
                .map(|node| node.as_ref().and_then(|node| carrier(node)));
            if pooled || carriers[0] == carriers[1] { Vec::new() } else { all() }
        })
        .watch(&slices, move |change| {
            let owner = change.object().and_then(|slice| service_of(slice));
            let service = owner.filter(|_| !pooled).and_then(|key| by_slice.get_key(&key));
            let nodes = [&change.before, &change.after]
                .map(|slice| slice.as_ref().map(|slice| ready_nodes(slice)));
            match service {
                Some(service) if nodes[0] != nodes[1] && keeps_local(&service) => all(),
                _ => Vec::new(),
            }
        })
        .run(Balancer { ranges, services, nodes, slices }, shutdown)
        .await;
}

struct Balancer {
    ranges: Vec<AddressRange>,
    services: Cache<Service>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
}

/// What all addresses follow from.
#[derive(Default)]
pub(crate) struct Snapshot {
    ranges: Vec<AddressRange>,
    /// Services that have or had a load balancer, by name.
    services: BTreeMap<ObjectKey, Arc<Service>>,
    /// Nodes that may carry traffic, with their addresses.
    carriers: BTreeMap<String, Carrier>,
    /// Of Services with policy Local, the nodes that have ready endpoints.
    local: BTreeMap<ObjectKey, BTreeSet<String>>,
}

/// A node's addresses that clients may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Carrier {
    external: Vec<String>,
    internal: Vec<String>,
}

impl Controller for Balancer {
    type Snapshot = Snapshot;

    fn observe(&self, _: &ObjectKey) -> Option<Snapshot> {
        let mut snapshot = Snapshot { ranges: self.ranges.clone(), ..Snapshot::default() };
        for service in self.services.list() {
            if !is_balanced(&service) && !has_finalizer(&service) {
                continue;
            }
            let key = ObjectKey::of(&*service);
            if self.ranges.is_empty() && keeps_local(&service) {
                let slices = self.slices.indexed(BY_SERVICE, &key.to_string());
                let nodes = slices.iter().flat_map(|slice| ready_nodes(slice));
                snapshot.local.insert(key.clone(), nodes.collect());
            }
            snapshot.services.insert(key, service);
        }
        if self.ranges.is_empty() {
            let nodes = self.nodes.list();
            let carriers =
                nodes.iter().filter_map(|node| Some((node.metadata.name.clone()?, carrier(node)?)));
            snapshot.carriers = carriers.collect();
        }
        Some(snapshot)
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context.now)
    }
}

/// Whether the Service is ours to give addresses to.
fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    }) && service.metadata.deletion_timestamp.is_none()
}

/// Whether the Service once was.
fn has_finalizer(service: &Service) -> bool {
    let of_others = service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_some());
    let mut finalizers = service.metadata.finalizers.iter().flatten();
    !of_others && finalizers.any(|finalizer| finalizer == FINALIZER)
}

fn keeps_local(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
    policy == Some("Local")
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref(), name.clone()))
}

fn ready_nodes(slice: &EndpointSlice) -> BTreeSet<String> {
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    });
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// The node's addresses, if it is ready and may carry traffic.
fn carrier(node: &Node) -> Option<Carrier> {
    let labels = node.metadata.labels.as_ref();
    let status = node.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let leaving = node.metadata.deletion_timestamp.is_some();
    if !ready || leaving || labels.is_some_and(|labels| labels.contains_key(EXCLUDED)) {
        return None;
    }
    let of = |kind: &str| {
        let addresses = status.addresses.iter().flatten().filter(|one| one.type_ == kind);
        addresses.map(|one| one.address.clone()).collect()
    };
    Some(Carrier { external: of("ExternalIP"), internal: of("InternalIP") })
}

/// Gives, keeps and takes back addresses.
pub(crate) fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut assigned = assign(snapshot);
    for (key, service) in &snapshot.services {
        match assigned.remove(key) {
            Some(outcome) => give(service, &outcome, !snapshot.ranges.is_empty(), now, &mut plan),
            None => take_back(service, &mut plan),
        }
    }
    plan
}

fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_deref()).unwrap_or_default()
}

fn give(service: &Service, assigned: &Assigned, pooled: bool, now: Timestamp, plan: &mut Plan) {
    let mut patch = json!({});
    if !has_finalizer(service) {
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(FINALIZER.to_owned());
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    let announced = annotation(&service.metadata, ANNOUNCE).is_some();
    if pooled != announced {
        patch["metadata"]["annotations"][ANNOUNCE] =
            if pooled { json!("true") } else { json!(null) };
    }
    if patch != json!({}) {
        // The status follows when this has been seen: the finalizer comes first.
        plan.act(Action::patch_exact(service, patch));
        return;
    }
    let wanted: Vec<LoadBalancerIngress> = assigned
        .addresses
        .iter()
        .map(|address| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect();
    let known = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    let known = known.into_iter().flatten().find(|condition| condition.type_ == CONDITION);
    let told = known.map(|condition| condition.message.as_str());
    let trouble = assigned.trouble.as_ref().map(Trouble::to_string);
    let same = ingress(service) == wanted;
    if same && told == trouble.as_deref() {
        return;
    }
    let mut status = json!({
        "loadBalancer": LoadBalancerStatus { ingress: Some(wanted.clone()).filter(|all| !all.is_empty()) },
    });
    if told != trouble.as_deref() {
        let mut conditions: Vec<Condition> = service
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .cloned()
            .collect();
        conditions.retain(|condition| condition.type_ != CONDITION);
        conditions.extend(trouble.as_ref().map(|message| Condition {
            type_: CONDITION.to_owned(),
            status: "False".to_owned(),
            reason: assigned.trouble.as_ref().map_or("", Trouble::reason).to_owned(),
            message: message.clone(),
            last_transition_time: Time(now),
            observed_generation: service.metadata.generation,
        }));
        status["conditions"] = json!(conditions);
    }
    if wanted.is_empty() {
        status["loadBalancer"]["ingress"] = json!(null);
    }
    plan.act(Action::patch_with(service, Some("status"), json!({ "status": status }), true));
    if let (Some(trouble), true) = (&assigned.trouble, told != trouble.as_deref()) {
        plan.note(service, EventKind::Warning, trouble.reason(), trouble.to_string());
    } else if !same && !wanted.is_empty() {
        let list: Vec<String> = assigned.addresses.iter().map(ToString::to_string).collect();
        let note = format!("Load balancer addresses: {}", list.join(", "));
        plan.note(service, EventKind::Normal, "EnsuredLoadBalancer", note);
    }
}

/// A Service that needs no load balancer any more: first its status, then the finalizer.
fn take_back(service: &Service, plan: &mut Plan) {
    if service.metadata.deletion_timestamp.is_none() && !ingress(service).is_empty() {
        let none = json!({"status": {"loadBalancer": {"ingress": null}}});
        plan.act(Action::patch_with(service, Some("status"), none, true));
        return;
    }
    let finalizers = service.metadata.finalizers.iter().flatten();
    let kept: Vec<&String> = finalizers.filter(|finalizer| *finalizer != FINALIZER).collect();
    let mut patch = json!({"metadata": {"finalizers": kept}});
    if annotation(&service.metadata, ANNOUNCE).is_some() {
        patch["metadata"]["annotations"][ANNOUNCE] = json!(null);
    }
    plan.act(Action::patch_exact(service, patch));
    if service.metadata.deletion_timestamp.is_none() {
        plan.note(service, EventKind::Normal, "DeletedLoadBalancer", "Deleted load balancer");
    }
}
