//! EndpointSlices of Services with selectors.
//!
//! Owns the slices whose `managed-by` label names it, and no others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use client::{Cache, Caches, EventKind, ObjectKey};
use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Pod, Service, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    HEADLESS, Port, TRIGGER_TIME, addresses,
    hints::{self, Obstacle, Wish},
    hostname, is_headless, may_serve, owner_of,
    pack::pack,
    ports, selected_pods, selecting, services_of, services_of_all, trigger_time,
};
use crate::nodelifecycle::{BY_NODE, node_index};
use crate::objects::{controller_reference, is_ready, name};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "endpointslice-controller";

pub(super) const SERVICE: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
const BY_SERVICE: &str = "managed-service";
/// The index of the Services whose hints depend on all nodes, under nothing.
const PROPORTIONAL: &str = "proportional";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let services = caches.cache::<Service>();
    let pods = caches.cache::<Pod>();
    let nodes = caches.cache::<Node>();
    let slices = caches.cache::<EndpointSlice>();
    slices.index(BY_SERVICE, |slice| {
        owner_of(slice, MANAGER).map(|key| key.to_string()).into_iter().collect()
    });
    pods.index(BY_NODE, node_index);
    services.index(PROPORTIONAL, |service| {
        hints::is_proportional(service).then(String::new).into_iter().collect()
    });
    let (by_pod, by_node, on_node) = (services.clone(), services.clone(), pods.clone());
    Runtime::new(NAME, deps)
        .watch(&services, itself)
        .watch(&pods, move |change| services_of(&by_pod, change))
        .watch(&slices, |change| {
            change.object().and_then(|slice| owner_of(slice, MANAGER)).into_iter().collect()
        })
        .watch(&nodes, move |change| {
            // Only a node's being there, its zone and its CPUs matter, and all change rarely.
            let nodes = [&change.before, &change.after];
            let zones = nodes.map(|node| node.as_ref().map(|node| zone(node)));
            let weights = nodes.map(|node| node.as_ref().map(|node| hints::weight(node)));
            let (zone_differs, weight_differs) = (zones[0] != zones[1], weights[0] != weights[1]);
            if !zone_differs && !weight_differs {
                return Vec::new();
            }
            // Zones and CPUs of all nodes decide for some Services, those of its pods for each.
            let proportional = by_node.indexed(PROPORTIONAL, "");
            let mut keys: Vec<ObjectKey> =
                proportional.iter().map(|service| ObjectKey::of(&**service)).collect();
            if zone_differs {
                let pods = on_node.indexed(BY_NODE, &change.key.name);
                keys.extend(services_of_all(&by_node, &pods));
            }
            keys
        })
        .run(Slices { services, pods, nodes, slices }, shutdown)
        .await;
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).cloned()
}

struct Slices {
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
}

/// A Service with the pods it selects and its slices.
pub(crate) struct Snapshot {
    service: Arc<Service>,
    pods: Vec<Arc<Pod>>,
    slices: Vec<Arc<EndpointSlice>>,
    /// Zones of the pods' nodes; nodes that do not exist are missing.
    nodes: HashMap<String, Option<String>>,
    /// Each zone's share of the CPUs, if the Service asks for it.
    shares: Option<Result<BTreeMap<String, f64>, Obstacle>>,
}

impl Controller for Slices {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let service = self.services.get_key(key)?;
        let (_, selector) = selecting(&service)?;
        let pods = selected_pods(&self.pods, key.namespace(), selector);
        let mut nodes = HashMap::new();
        for node in pods.iter().filter_map(|pod| node_name(pod)) {
            if let Some(known) = self.nodes.get(None, node) {
                nodes.insert(node.to_owned(), zone(&known));
            }
        }
        let slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        let shares = hints::is_proportional(&service).then(|| {
            let nodes = self.nodes.list();
            hints::shares(nodes.iter().map(|node| &**node))
        });
        Some(Snapshot { service, pods, slices, nodes, shares })
    }

    fn plan(&self, snapshot: &Snapshot, _: &Context) -> Plan {
        plan(snapshot)
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// Creates, changes and deletes the Service's slices.
pub(crate) fn plan(snapshot: &Snapshot) -> Plan {
    let service = &*snapshot.service;
    let mut plan = Plan::nothing();
    let Some(spec) = &service.spec else { return plan };
    let families = families(spec);
    for slice in &snapshot.slices {
        if !families.contains(&slice.address_type.as_str()) {
            plan.act(Action::delete(&**slice));
        }
    }
    for family in families {
        plan_family(snapshot, spec, family, &mut plan);
    }
    plan
}

/// The address types of the Service's slices.
fn families(spec: &ServiceSpec) -> Vec<&str> {
    match spec.ip_families.as_deref() {
        Some(families) if !families.is_empty() => families.iter().map(String::as_str).collect(),
        _ => vec!["IPv4"],
    }
}

fn plan_family(snapshot: &Snapshot, spec: &ServiceSpec, family: &str, plan: &mut Plan) {
    let service = &*snapshot.service;
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| may_serve(pod)) {
        if let Some(endpoint) = endpoint(snapshot, spec, pod, family) {
            groups.entry(ports(spec, pod)).or_default().push(endpoint);
        }
    }
    if groups.is_empty() {
        // One empty slice says that the Service is known to have no endpoints.
        groups.insert(Vec::new(), Vec::new());
    }
    let trigger = trigger_time(service, &snapshot.pods);
    let wanted = |ports: &[Port], endpoints| {
        make(service, spec, family, ports, endpoints, trigger.as_deref())
    };
    let ours: Vec<&EndpointSlice> = snapshot
        .slices
        .iter()
        .filter(|slice| slice.address_type == family && slice.metadata.deletion_timestamp.is_none())
        .map(|slice| &**slice)
        .collect();
    let all: Vec<&mut Endpoint> = groups.values_mut().flatten().collect();
    let hinted = give_hints(snapshot, spec, all, &ours);
    let unchanged = plan.actions.len();
    let (mut spare, mut new) = (Vec::new(), Vec::new());
    spare.extend(ours.iter().filter(|slice| !groups.contains_key(&slice_ports(slice))));
    for (ports, desired) in groups {
        let known: Vec<_> =
            ours.iter().copied().filter(|slice| slice_ports(slice) == ports).collect();
        let placeholder = desired.is_empty();
        let contents: Vec<&[Endpoint]> =
            known.iter().map(|slice| slice.endpoints.as_deref().unwrap_or_default()).collect();
        let packed = pack(&contents, desired);
        for (at, (slice, endpoints)) in known.iter().zip(packed.existing).enumerate() {
            if endpoints.is_empty() && !(placeholder && at == 0) {
                spare.push(*slice);
            } else {
                plan.actions.extend(change(slice, &wanted(&ports, endpoints)));
            }
        }
        new.extend(packed.new.into_iter().map(|endpoints| wanted(&ports, endpoints)));
        if placeholder && known.is_empty() {
            new.push(wanted(&ports, Vec::new()));
        }
    }
    // A slice that is not needed becomes one that is: proxies see one change and no gap.
    let mut spare = spare.into_iter();
    for slice in new {
        match spare.next() {
            Some(spare) => plan.actions.extend(change(spare, &slice)),
            None => plan.act(Action::create(&slice)),
        }
    }
    plan.actions.extend(spare.map(Action::delete));
    if plan.actions.len() > unchanged {
        tell_hints(service, family, hinted, &ours, plan);
    }
}

/// Hints the endpoints as the Service wishes; whether zones are served in proportion, if it
/// wishes that.
fn give_hints(
    snapshot: &Snapshot,
    spec: &ServiceSpec,
    mut all: Vec<&mut Endpoint>,
    slices: &[&EndpointSlice],
) -> Option<Result<(), Obstacle>> {
    match Wish::of(&snapshot.service, spec) {
        Wish::None => None,
        Wish::Zone => {
            hints::near(&mut all, false);
            None
        }
        Wish::Node => {
            hints::near(&mut all, true);
            None
        }
        Wish::Proportional => Some(match snapshot.shares.as_ref()? {
            Ok(shares) => {
                let mut before = HashMap::new();
                for endpoint in slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()) {
                    let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
                    let zone = zones.and_then(|zones| zones.first()).map(|zone| zone.name.clone());
                    before.insert(endpoint.addresses.first().cloned(), zone);
                }
                hints::proportional(&mut all, shares, |endpoint| {
                    before.get(&endpoint.addresses.first().cloned()).cloned().flatten()
                })
            }
            Err(obstacle) => Err(*obstacle),
        }),
    }
}

/// Tells the user when zones begin to be served in proportion, and why they are not.
fn tell_hints(
    service: &Service,
    family: &str,
    hinted: Option<Result<(), Obstacle>>,
    slices: &[&EndpointSlice],
    plan: &mut Plan,
) {
    let mut endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let before = endpoints.any(|endpoint| endpoint.hints.is_some());
    match hinted {
        Some(Ok(())) if !before => plan.note(
            service,
            EventKind::Normal,
            "TopologyAwareHintsEnabled",
            format!("Topology Aware Hints has been enabled, addressType: {family}"),
        ),
        Some(Err(obstacle)) => plan.note(
            service,
            EventKind::Warning,
            "TopologyAwareHintsDisabled",
            format!("{}, addressType: {family}", obstacle.note()),
        ),
        _ => {}
    }
}

fn endpoint(snapshot: &Snapshot, spec: &ServiceSpec, pod: &Pod, family: &str) -> Option<Endpoint> {
    let addresses = addresses(pod, family == "IPv6");
    if addresses.is_empty() {
        return None;
    }
    let publish = spec.publish_not_ready_addresses == Some(true);
    let node = node_name(pod);
    let zone = match node.map(|node| snapshot.nodes.get(node)) {
        Some(Some(zone)) => zone.clone(),
        // The pod will go with its node, unless the user wants it published whatever happens.
        Some(None) if !publish => return None,
        _ => None,
    };
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(&snapshot.service, pod),
        node_name: node.map(str::to_owned),
        zone,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

pub(super) fn slice_ports(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(spec) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE.into(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

/// Ports as a slice says them.
pub(super) fn endpoint_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let say = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(say).collect()
}

fn make(
    service: &Service,
    spec: &ServiceSpec,
    family: &str,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
    trigger: Option<&str>,
) -> EndpointSlice {
    let annotations =
        trigger.map(|time| BTreeMap::from([(TRIGGER_TIME.to_owned(), time.to_owned())]));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service, spec)),
            annotations,
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(endpoint_ports(ports)),
    }
}

/// The write that makes an existing slice what is wanted, if it differs.
fn change(slice: &EndpointSlice, wanted: &EndpointSlice) -> Option<Action> {
    let mut patch = json!({});
    let endpoints = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    if endpoints(slice) != endpoints(wanted) {
        let time = wanted.metadata.annotations.as_ref().and_then(|all| all.get(TRIGGER_TIME));
        patch["endpoints"] = json!(wanted.endpoints);
        patch["metadata"]["annotations"][TRIGGER_TIME] = json!(time);
    }
    if slice_ports(slice) != slice_ports(wanted) {
        patch["ports"] = json!(wanted.ports);
    }
    let labels = |slice: &EndpointSlice| json!(slice.metadata.labels.clone().unwrap_or_default());
    if let Some(change) = reconcile::merge_diff(&labels(slice), &labels(wanted)) {
        patch["metadata"]["labels"] = change;
    }
    (patch != json!({})).then(|| Action::patch_exact(slice, patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    fn service(more: &str) -> Arc<Service> {
        Arc::new(from_yaml(&format!(
            "{{metadata: {{name: web, namespace: default, uid: s, labels: {{team: a}}}},
              spec: {{clusterIP: 10.96.0.9, selector: {{app: web}}, ipFamilies: [IPv4],
                ports: [{{name: http, port: 80, targetPort: web}}]{more}}}}}"
        )))
    }

    fn pod(ip: &str, ready: bool, meta: &str) -> Arc<Pod> {
        Arc::new(from_yaml(&format!(
            "{{metadata: {{name: p{ip}, namespace: default, uid: u{ip}{meta}}},
              spec: {{nodeName: n1, containers: [{{name: c, ports: [{{name: web, containerPort: 8080}}]}}]}},
              status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}],
                conditions: [{{type: Ready, status: '{}', lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}}}",
            if ready { "True" } else { "False" }
        )))
    }

    fn snapshot(service: Arc<Service>, pods: Vec<Arc<Pod>>) -> Snapshot {
        let nodes = HashMap::from([("n1".to_owned(), Some("z1".to_owned()))]);
        Snapshot { service, pods, slices: Vec::new(), nodes, shares: None }
    }

    fn created(snapshot: &Snapshot) -> EndpointSlice {
        let plan = plan(snapshot);
        let [Action::Create { object, .. }] = &plan.actions[..] else {
            panic!("{:?}", told(&plan));
        };
        serde_json::from_value(object.clone()).expect("a slice")
    }

    fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
        let conditions = endpoint.conditions.as_ref().expect("conditions");
        let flag = |flag: Option<bool>| flag.expect("set");
        (flag(conditions.ready), flag(conditions.serving), flag(conditions.terminating))
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        let slice = created(&snapshot(service(""), vec![]));
        assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(slice.address_type, "IPv4");
        assert!(slice.endpoints.expect("a list").is_empty());
        let labels = slice.metadata.labels.expect("labels");
        assert_eq!(labels["kubernetes.io/service-name"], "web");
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], MANAGER);
        assert_eq!(labels["team"], "a");
        assert_eq!(slice.metadata.owner_references.expect("owner")[0].kind, "Service");
    }

    #[test]
    fn conditions_follow_readiness_and_deletion() {
        let going = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        let pods = || {
            vec![
                pod("10.244.0.1", true, ""),
                pod("10.244.0.2", false, ""),
                pod("10.244.0.3", true, going),
            ]
        };
        let slice = created(&snapshot(service(""), pods()));
        let endpoints = slice.endpoints.expect("a list");
        let states: Vec<_> = endpoints.iter().map(conditions).collect();
        assert_eq!(states, [(true, true, false), (false, false, false), (false, true, true)]);
        let ports = slice.ports.expect("ports");
        assert_eq!((ports[0].name.as_deref(), ports[0].port), (Some("http"), Some(8080)));
        assert_eq!(endpoints[0].node_name.as_deref(), Some("n1"));
        assert_eq!(endpoints[0].zone.as_deref(), Some("z1"));
        assert_eq!(
            endpoints[0].target_ref.as_ref().expect("ref").uid.as_deref(),
            Some("u10.244.0.1")
        );

        let slice = created(&snapshot(service(", publishNotReadyAddresses: true"), pods()));
        let states: Vec<_> = slice.endpoints.expect("a list").iter().map(conditions).collect();
        assert_eq!(states, [(true, true, false), (true, false, false), (true, true, true)]);
    }

    #[test]
    fn a_change_of_readiness_is_one_patch_and_then_nothing() {
        let mut snapshot = snapshot(service(""), vec![pod("10.244.0.1", true, "")]);
        let mut slice = created(&snapshot);
        slice.metadata.name = Some("web-abc".into());
        snapshot.slices = vec![Arc::new(slice)];
        assert!(plan(&snapshot).is_empty());
        snapshot.pods = vec![pod("10.244.0.1", false, "")];
        let change = plan(&snapshot);
        let [Action::Patch { patch, .. }] = &change.actions[..] else {
            panic!("{:?}", told(&change));
        };
        assert_eq!(patch["endpoints"][0]["conditions"]["ready"], false);
        snapshot.pods.clear();
        let change = plan(&snapshot);
        let [Action::Patch { patch, .. }] = &change.actions[..] else {
            panic!("another group of ports in the same slice: {:?}", told(&change));
        };
        assert_eq!((&patch["endpoints"], &patch["ports"]), (&json!([]), &json!([])));
    }

    #[test]
    fn pods_that_cannot_serve_are_left_out() {
        let mut done: Pod = (*pod("10.244.0.1", true, "")).clone();
        done.status.as_mut().expect("status").phase = Some("Succeeded".into());
        let mut waiting: Pod = (*pod("10.244.0.2", true, "")).clone();
        waiting.status.as_mut().expect("status").pod_ip = None;
        let mut lost: Pod = (*pod("10.244.0.3", true, "")).clone();
        lost.spec.as_mut().expect("spec").node_name = Some("gone".into());
        let pods = [done, waiting, lost].map(Arc::new).into();
        assert!(created(&snapshot(service(""), pods)).endpoints.expect("a list").is_empty());
    }

    #[test]
    fn endpoints_are_hinted_as_the_service_wishes() {
        let two = || vec![pod("10.244.0.1", true, ""), pod("10.244.0.2", false, "")];
        let near = created(&snapshot(service(", trafficDistribution: PreferSameNode"), two()));
        let endpoints = near.endpoints.expect("a list");
        let hints = endpoints[0].hints.as_ref().expect("hints");
        assert_eq!(hints.for_zones.as_ref().expect("zone")[0].name, "z1");
        assert_eq!(hints.for_nodes.as_ref().expect("node")[0].name, "n1");
        assert!(endpoints[1].hints.is_none(), "not ready");

        let mut asking: Service = (*service("")).clone();
        let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
        asking.metadata.annotations = Some([mode].into());
        let mut snapshot = snapshot(Arc::new(asking), two());
        snapshot.shares = Some(Err(Obstacle::Nodes));
        let told = plan(&snapshot).notes;
        assert_eq!(told[0].reason, "TopologyAwareHintsDisabled");
        snapshot.shares = Some(Ok([("z1".to_owned(), 1.0)].into()));
        let enabled = plan(&snapshot);
        assert_eq!(enabled.notes[0].reason, "TopologyAwareHintsEnabled");
        let [Action::Create { object, .. }] = &enabled.actions[..] else { panic!("one slice") };
        assert_eq!(object["endpoints"][0]["hints"]["forZones"][0]["name"], "z1");
    }

    #[test]
    fn each_family_has_its_slices() {
        let mut both: Service = (*service("")).clone();
        let spec = both.spec.as_mut().expect("spec");
        spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        let mut dual: Pod = (*pod("10.244.0.1", true, "")).clone();
        let status = dual.status.as_mut().expect("status");
        status.pod_ips.as_mut().expect("addresses").push(from_yaml("{ip: 'fd00::1'}"));
        let plan = plan(&snapshot(Arc::new(both), vec![Arc::new(dual)]));
        let of = |action: &Action| match action {
            Action::Create { object, .. } => format!(
                "{} {}",
                object["addressType"].as_str().expect("type"),
                object["endpoints"][0]["addresses"][0].as_str().expect("address")
            ),
            other => format!("{other:?}"),
        };
        let slices: Vec<String> = plan.actions.iter().map(of).collect();
        assert_eq!(slices, ["IPv4 10.244.0.1", "IPv6 fd00::1"]);
    }

    #[test]
    fn host_names_are_published_under_the_pods_subdomain() {
        let mut named: Pod = (*pod("10.244.0.1", true, "")).clone();
        let spec = named.spec.as_mut().expect("spec");
        (spec.hostname, spec.subdomain) = (Some("db-0".into()), Some("web".into()));
        let slice = created(&snapshot(service(""), vec![Arc::new(named)]));
        assert_eq!(slice.endpoints.expect("a list")[0].hostname.as_deref(), Some("db-0"));
    }
}
