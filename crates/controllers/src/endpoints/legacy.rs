//! `Endpoints` (core/v1) of Services with selectors, for clients older than EndpointSlices.
//!
//! Owns the Endpoints named like such a Service.

use std::{collections::BTreeMap, sync::Arc};

use client::{Cache, Caches, ObjectKey};
use k8s_openapi::{
    api::core::v1::{
        EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
        ServiceSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    HEADLESS, Port, TRIGGER_TIME, addresses, hostname, is_headless, may_serve, ports,
    selected_pods, selecting, services_of, trigger_time,
};
use crate::objects::is_ready;

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "endpoints-controller";

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses of an Endpoints object.
const CAPACITY: usize = 1000;

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let services = caches.cache::<Service>();
    let pods = caches.cache::<Pod>();
    let endpoints = caches.cache::<Endpoints>();
    let by_pod = services.clone();
    Runtime::new(NAME, deps)
        .watch(&services, itself)
        .watch(&pods, move |change| services_of(&by_pod, change))
        .watch(&endpoints, itself)
        .run(Legacy { services, pods, endpoints }, shutdown)
        .await;
}

struct Legacy {
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
}

/// A Service, its Endpoints and the pods it selects.
pub(crate) struct Snapshot {
    service: Option<Arc<Service>>,
    endpoints: Option<Arc<Endpoints>>,
    pods: Vec<Arc<Pod>>,
}

impl Controller for Legacy {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let service = self.services.get_key(key);
        let endpoints = self.endpoints.get_key(key);
        let pods = match service.as_deref().map(selecting) {
            None => Vec::new(),
            Some(selecting) => selected_pods(&self.pods, key.namespace(), selecting?.1),
        };
        Some(Snapshot { service, endpoints, pods })
    }

    fn plan(&self, snapshot: &Snapshot, _: &Context) -> Plan {
        plan(snapshot)
    }
}

/// Creates, changes or deletes the Endpoints.
pub(crate) fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::nothing();
    let existing = snapshot.endpoints.as_deref();
    let Some(service) = snapshot.service.as_deref() else {
        // Endpoints without a Service are somebody's own unless we made them.
        if let Some(endpoints) = existing.filter(|endpoints| is_ours(endpoints)) {
            plan.act(Action::delete(endpoints));
        }
        return plan;
    };
    let Some(spec) = &service.spec else { return plan };
    let (subsets, truncated) = subsets(service, spec, &snapshot.pods);
    let labels = labels(service, spec);
    let trigger = trigger_time(service, &snapshot.pods);
    let Some(existing) = existing else {
        let mut annotations = BTreeMap::new();
        if let Some(time) = trigger {
            annotations.insert(TRIGGER_TIME.to_owned(), time);
        }
        if truncated {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        }
        plan.act(Action::create(&Endpoints {
            metadata: ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            },
            subsets: (!subsets.is_empty()).then_some(subsets),
        }));
        return plan;
    };
    let mut patch = json!({});
    if existing.subsets.as_deref().unwrap_or_default() != subsets {
        patch["subsets"] = json!(subsets);
        patch["metadata"]["annotations"][TRIGGER_TIME] = json!(trigger);
        patch["metadata"]["annotations"][OVER_CAPACITY] =
            if truncated { json!("truncated") } else { json!(null) };
    }
    let current = existing.metadata.labels.clone().unwrap_or_default();
    if let Some(change) = reconcile::merge_diff(&json!(current), &json!(labels)) {
        patch["metadata"]["labels"] = change;
    }
    if patch != json!({}) {
        plan.act(Action::patch_exact(existing, patch));
    }
    plan
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(spec) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

/// The addresses grouped by the ports they offer, and whether some had to be left out.
fn subsets(
    service: &Service,
    spec: &ServiceSpec,
    pods: &[Arc<Pod>],
) -> (Vec<EndpointSubset>, bool) {
    let publish = spec.publish_not_ready_addresses == Some(true);
    let ipv6 = spec.ip_families.iter().flatten().next().is_some_and(|family| family == "IPv6");
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    let mut count = 0;
    let serving = pods
        .iter()
        .filter(|pod| may_serve(pod) && (publish || pod.metadata.deletion_timestamp.is_none()));
    let mut serving: Vec<_> = serving.collect();
    // When there are too many, those that are ready stay.
    serving.sort_by_key(|pod| !is_ready(pod));
    for pod in serving {
        let Some(ip) = addresses(pod, ipv6).into_iter().next() else { continue };
        let ports = ports(spec, pod);
        if ports.is_empty() && !is_headless(spec) {
            continue;
        }
        count += 1;
        if count > CAPACITY {
            continue;
        }
        let group = groups.entry(ports).or_default();
        let list = if publish || is_ready(pod) { &mut group.0 } else { &mut group.1 };
        list.push(address(service, pod, ip));
    }
    let subsets = groups.into_iter().map(|(ports, (mut ready, mut not_ready))| {
        ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        EndpointSubset {
            addresses: (!ready.is_empty()).then_some(ready),
            not_ready_addresses: (!not_ready.is_empty()).then_some(not_ready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
        }
    });
    (subsets.collect(), count > CAPACITY)
}

fn address(service: &Service, pod: &Pod, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    fn snapshot(pods: &[(&str, bool)]) -> Snapshot {
        let service = from_yaml(
            "{metadata: {name: web, namespace: default}, spec: {selector: {app: web},
              clusterIP: None, ports: [{port: 80, targetPort: 8080}]}}",
        );
        let pods = pods.iter().map(|(ip, ready)| {
            Arc::new(from_yaml(&format!(
                "{{metadata: {{name: p, namespace: default, uid: u}}, spec: {{nodeName: n, containers: []}},
                  status: {{phase: Running, podIP: {ip}, conditions: [{{type: Ready, status: '{}'}}]}}}}",
                if *ready { "True" } else { "False" }
            )))
        });
        Snapshot { service: Some(Arc::new(service)), endpoints: None, pods: pods.collect() }
    }

    #[test]
    fn ready_and_other_addresses_share_a_subset() {
        let mut snapshot = snapshot(&[("10.0.0.2", true), ("10.0.0.1", false), ("10.0.0.0", true)]);
        let plan_ = plan(&snapshot);
        let [Action::Create { object, .. }] = &plan_.actions[..] else { panic!("{plan_:?}") };
        let endpoints: Endpoints = serde_json::from_value(object.clone()).expect("valid");
        let labels = endpoints.metadata.labels.as_ref().expect("labels");
        assert_eq!(labels[HEADLESS], "");
        let [subset] = endpoints.subsets.as_deref().expect("one") else { panic!() };
        let ready: Vec<_> =
            subset.addresses.iter().flatten().map(|address| address.ip.as_str()).collect();
        assert_eq!(ready, ["10.0.0.0", "10.0.0.2"]);
        assert_eq!(subset.not_ready_addresses.as_ref().expect("one").len(), 1);
        snapshot.endpoints = Some(Arc::new(endpoints));
        assert!(plan(&snapshot).is_empty());
        snapshot.pods.clear();
        assert_eq!(told(&plan(&snapshot)).len(), 1);
        snapshot.service = None;
        assert_eq!(told(&plan(&snapshot)), ["delete Endpoints web"]);
    }
}
