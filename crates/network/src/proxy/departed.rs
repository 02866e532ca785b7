//! Endpoints that are in no slice any more, until it is known whether their pods have exited.
//!
//! A pod that merely left a Service keeps its connections; one that is gone cannot. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use client::ObjectKey;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};

/// A pod's uid and address.
type Identity = (String, IpAddr);

/// An endpoint that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departed {
    pub(crate) pod: ObjectKey,
    pub(crate) address: IpAddr,
    pub(crate) ports: BTreeSet<u16>,
}

/// Endpoints that left slices.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    gone: BTreeMap<Identity, Departed>,
}

/// The endpoints of a slice that are pods.
fn pods(slice: &EndpointSlice) -> BTreeMap<Identity, Departed> {
    let ports: BTreeSet<u16> =
        slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
    let endpoints = slice.endpoints.iter().flatten();
    endpoints
        .filter_map(|endpoint| {
            let target = endpoint.target_ref.as_ref()?;
            if target.kind.as_deref() != Some("Pod") {
                return None;
            }
            let address = endpoint.addresses.first()?.parse().ok()?;
            let pod = ObjectKey::new(target.namespace.as_deref(), target.name.clone()?);
            let departed = Departed { pod, address, ports: ports.clone() };
            Some(((target.uid.clone()?, address), departed))
        })
        .collect()
}

impl Departures {
    /// Takes in a slice's change.
    pub(crate) fn slice(&mut self, before: Option<&EndpointSlice>, after: Option<&EndpointSlice>) {
        let (before, after) =
            (before.map(pods).unwrap_or_default(), after.map(pods).unwrap_or_default());
        self.gone.retain(|identity, _| !after.contains_key(identity));
        let left = before.into_iter().filter(|(identity, _)| !after.contains_key(identity));
        self.gone.extend(left);
    }

    /// Whether anything waits for its pod to exit.
    pub(crate) fn waits(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Those whose pods have exited, by what `pod` finds under a name.
    pub(crate) fn take(&mut self, pod: impl Fn(&ObjectKey) -> Option<Arc<Pod>>) -> Vec<Departed> {
        let exited = |(uid, _): &Identity, one: &mut Departed| match pod(&one.pod) {
            Some(pod) if pod.metadata.uid.as_ref() == Some(uid) => {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                matches!(phase, Some("Succeeded" | "Failed"))
            }
            _ => true,
        };
        self.gone.extract_if(.., exited).map(|(_, one)| one).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(pods: &[(&str, &str)]) -> EndpointSlice {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|(name, address)| {
                json!({"addresses": [address], "targetRef": {
                    "kind": "Pod", "namespace": "shop", "name": name, "uid": name,
                }})
            })
            .collect();
        let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"port": 8080}]});
        serde_json::from_value(slice).expect("slice")
    }

    fn pod(uid: &str, phase: &str) -> Option<Arc<Pod>> {
        let pod = json!({"metadata": {"uid": uid}, "status": {"phase": phase}});
        Some(Arc::new(serde_json::from_value(pod).expect("pod")))
    }

    #[test]
    fn only_pods_that_have_exited_are_departed() {
        let mut departures = Departures::default();
        let (both, one) =
            (slice(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]), slice(&[("b", "10.0.0.2")]));
        departures.slice(None, Some(&both));
        assert!(!departures.waits());
        departures.slice(Some(&both), Some(&one));
        assert!(departures.take(|_| pod("a", "Running")).is_empty(), "it runs on");
        assert!(departures.waits());
        let gone = departures.take(|_| pod("a", "Succeeded"));
        assert_eq!(gone[0].address.to_string(), "10.0.0.1");
        assert_eq!(gone[0].ports, [8080].into());
        assert!(!departures.waits());

        departures.slice(Some(&one), None);
        assert_eq!(
            departures.take(|_| pod("another", "Running")).len(),
            1,
            "its name is another's"
        );
        departures.slice(Some(&one), None);
        departures.slice(None, Some(&one));
        assert!(!departures.waits(), "it came back");
    }
}
