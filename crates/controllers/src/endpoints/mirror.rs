//! EndpointSlices that mirror the `Endpoints` of Services without a selector, which users or
//! programs older than EndpointSlices make.
//!
//! Owns the slices whose `managed-by` label names it, and no others.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use client::{Cache, Caches, EventKind, ObjectKey};
use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Port, TRIGGER_TIME, owner_of,
    pack::pack,
    protocol,
    slices::{MANAGED_BY, SERVICE, endpoint_ports, slice_ports},
};
use crate::objects::{annotation, controller_reference, name};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "endpointslice-mirroring-controller";

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// On Endpoints that only served to elect a leader.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most addresses of a subset that are mirrored.
const SUBSET_CAPACITY: usize = 1000;
const BY_ENDPOINTS: &str = "mirrored-endpoints";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let services = caches.cache::<Service>();
    let endpoints = caches.cache::<Endpoints>();
    let slices = caches.cache::<EndpointSlice>();
    slices.index(BY_ENDPOINTS, |slice| {
        owner_of(slice, MANAGER).map(|key| key.to_string()).into_iter().collect()
    });
    Runtime::new(NAME, deps)
        .watch(&services, itself)
        .watch(&endpoints, itself)
        .watch(&slices, |change| {
            change.object().and_then(|slice| owner_of(slice, MANAGER)).into_iter().collect()
        })
        .run(Mirror { services, endpoints, slices }, shutdown)
        .await;
}

struct Mirror {
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    slices: Cache<EndpointSlice>,
}

/// Endpoints to mirror, if they are, and the slices there are.
pub(crate) struct Snapshot {
    endpoints: Option<Arc<Endpoints>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Controller for Mirror {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let service = self.services.get_key(key);
        let wanted = service.is_some_and(|service| {
            service.spec.as_ref().is_some_and(|spec| spec.selector.is_none())
        });
        let endpoints =
            self.endpoints.get_key(key).filter(|endpoints| wanted && is_mirrored(endpoints));
        let slices = self.slices.indexed(BY_ENDPOINTS, &key.to_string());
        Some(Snapshot { endpoints, slices })
    }

    fn plan(&self, snapshot: &Snapshot, _: &Context) -> Plan {
        plan(snapshot)
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let skipped = labels.and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true");
    !skipped && annotation(&endpoints.metadata, LEADER).is_none()
}

/// What slices are told apart by: family and ports.
type Group = (&'static str, Vec<Port>);

/// Creates, changes and deletes the slices.
pub(crate) fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::nothing();
    let Some(endpoints) = snapshot.endpoints.as_deref() else {
        plan.actions.extend(snapshot.slices.iter().map(|slice| Action::delete(&**slice)));
        return plan;
    };
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let mut left_out = 0;
    for subset in endpoints.subsets.iter().flatten() {
        left_out += mirror(subset, &mut groups);
    }
    let (mut spare, mut new): (Vec<&EndpointSlice>, Vec<EndpointSlice>) = Default::default();
    let group_of = |slice: &EndpointSlice| {
        let family = match slice.address_type.as_str() {
            "IPv6" => "IPv6",
            _ => "IPv4",
        };
        (family, slice_ports(slice))
    };
    let ours = || snapshot.slices.iter().map(|slice| &**slice);
    spare.extend(ours().filter(|slice| !groups.contains_key(&group_of(slice))));
    for (group, desired) in groups {
        let known: Vec<&EndpointSlice> = ours().filter(|slice| group_of(slice) == group).collect();
        let contents: Vec<&[Endpoint]> =
            known.iter().map(|slice| slice.endpoints.as_deref().unwrap_or_default()).collect();
        let packed = pack(&contents, desired);
        for (slice, contents) in known.into_iter().zip(packed.existing) {
            match contents.is_empty() {
                true => spare.push(slice),
                false => plan.actions.extend(change(slice, &make(endpoints, &group, contents))),
            }
        }
        new.extend(packed.new.into_iter().map(|contents| make(endpoints, &group, contents)));
    }
    // What is no longer needed is used again, so that there is no moment without.
    for slice in new {
        match spare.iter().position(|spare| spare.address_type == slice.address_type) {
            Some(at) => plan.actions.extend(change(spare.swap_remove(at), &slice)),
            None => plan.act(Action::create(&slice)),
        }
    }
    plan.actions.extend(spare.into_iter().map(Action::delete));
    if left_out > 0 && !plan.actions.is_empty() {
        plan.note(
            endpoints,
            EventKind::Warning,
            "InvalidAddresses",
            format!(
                "Skipped {left_out} invalid or surplus addresses when mirroring to EndpointSlices"
            ),
        );
    }
    plan
}

/// Adds a subset's addresses to their groups; returns how many could not be.
fn mirror(subset: &EndpointSubset, groups: &mut BTreeMap<Group, Vec<Endpoint>>) -> usize {
    let mut ports: Vec<Port> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: port.port,
            protocol: protocol(port.protocol.as_ref()).to_owned(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let (mut seen, mut left_out) = (HashSet::new(), 0);
    for (address, ready) in ready.chain(not_ready) {
        let family = match address.ip.parse() {
            Ok(IpAddr::V4(_)) => "IPv4",
            Ok(IpAddr::V6(_)) => "IPv6",
            Err(_) => {
                left_out += 1;
                continue;
            }
        };
        if !seen.insert(&address.ip) {
            continue;
        }
        if seen.len() > SUBSET_CAPACITY {
            left_out += 1;
            continue;
        }
        groups.entry((family, ports.clone())).or_default().push(endpoint(address, ready));
    }
    left_out
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn make(endpoints: &Endpoints, (family, ports): &Group, contents: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.remove(ENDPOINTS_MANAGED_BY);
    labels.insert(SERVICE.into(), name(&endpoints.metadata).to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    annotations.remove(TRIGGER_TIME);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&endpoints.metadata))),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: (*family).to_owned(),
        endpoints: Some(contents),
        ports: Some(endpoint_ports(ports)),
    }
}

/// The write that makes an existing slice what is wanted, if it differs.
fn change(slice: &EndpointSlice, wanted: &EndpointSlice) -> Option<Action> {
    let mut patch = json!({});
    if slice.endpoints != wanted.endpoints {
        patch["endpoints"] = json!(wanted.endpoints);
    }
    if slice_ports(slice) != slice_ports(wanted) {
        patch["ports"] = json!(wanted.ports);
    }
    let both = |map: &Option<BTreeMap<String, String>>| json!(map.clone().unwrap_or_default());
    let (before, after) = (&slice.metadata, &wanted.metadata);
    if let Some(change) = reconcile::merge_diff(&both(&before.labels), &both(&after.labels)) {
        patch["metadata"]["labels"] = change;
    }
    let annotations = [&before.annotations, &after.annotations].map(both);
    if let Some(change) = reconcile::merge_diff(&annotations[0], &annotations[1]) {
        patch["metadata"]["annotations"] = change;
    }
    (patch != json!({})).then(|| Action::patch_exact(slice, patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    fn endpoints(subsets: &str) -> Option<Arc<Endpoints>> {
        Some(Arc::new(from_yaml(&format!(
            "{{metadata: {{name: db, namespace: default, uid: e, labels: {{team: a}}}}, subsets: {subsets}}}"
        ))))
    }

    fn slices(plan: &Plan) -> Vec<EndpointSlice> {
        let created = plan.actions.iter().filter_map(|action| match action {
            Action::Create { object, .. } => Some(object.clone()),
            _ => None,
        });
        created.map(|object| serde_json::from_value(object).expect("a slice")).collect()
    }

    #[test]
    fn subsets_become_slices_by_family_and_ports() {
        let subsets = "[{addresses: [{ip: 192.0.2.1, nodeName: n}, {ip: '2001:db8::1'}],
            notReadyAddresses: [{ip: 192.0.2.2}, {ip: nonsense}], ports: [{name: pg, port: 5432}]}]";
        let mut snapshot = Snapshot { endpoints: endpoints(subsets), slices: Vec::new() };
        let first = plan(&snapshot);
        assert_eq!(first.notes[0].reason, "InvalidAddresses");
        let made = slices(&first);
        let families: Vec<&str> = made.iter().map(|slice| slice.address_type.as_str()).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        let labels = made[0].metadata.labels.as_ref().expect("labels");
        assert_eq!((labels[SERVICE].as_str(), labels[MANAGED_BY].as_str()), ("db", MANAGER));
        assert_eq!(labels["team"], "a");
        assert_eq!(made[0].metadata.owner_references.as_ref().expect("owner")[0].kind, "Endpoints");
        let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|all| all.ready);
        let all = made[0].endpoints.as_ref().expect("endpoints");
        assert_eq!(all.iter().map(ready).collect::<Vec<_>>(), [Some(true), Some(false)]);
        assert_eq!(made[0].ports.as_ref().expect("ports")[0].port, Some(5432));

        let named = made.into_iter().enumerate().map(|(n, mut slice)| {
            slice.metadata.name = Some(format!("db-{n}"));
            Arc::new(slice)
        });
        snapshot.slices = named.collect();
        assert!(plan(&snapshot).actions.is_empty(), "{:?}", told(&plan(&snapshot)));
        snapshot.endpoints =
            endpoints("[{addresses: [{ip: 192.0.2.9}], ports: [{name: pg, port: 5432}]}]");
        assert_eq!(told(&plan(&snapshot)).len(), 2, "one changes, one goes");
        snapshot.endpoints = None;
        assert_eq!(
            told(&plan(&snapshot)),
            ["delete EndpointSlice db-0", "delete EndpointSlice db-1"]
        );
    }

    #[test]
    fn some_endpoints_are_not_mirrored() {
        let skipped: Endpoints = from_yaml(
            "{metadata: {name: a, labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}}}",
        );
        let leader: Endpoints = from_yaml(
            "{metadata: {name: a, annotations: {control-plane.alpha.kubernetes.io/leader: x}}}",
        );
        assert!(!is_mirrored(&skipped) && !is_mirrored(&leader));
        assert!(is_mirrored(&from_yaml("{metadata: {name: a}}")));
    }
}
