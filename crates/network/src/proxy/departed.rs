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
