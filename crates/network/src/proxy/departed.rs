//! Endpoints that are in no slice any more, until it is known whether their pods have exited.
//!
//! A pod that merely left a Service keeps its connections; one that is gone cannot. Each is asked
//! for by name, less and less often: no node has to follow all pods for it. Pure but for `ask`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use client::{ErrorExt, ObjectKey};
use futures::{StreamExt, stream};
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::Api;
use tokio::time::Instant;

/// When a pod that still runs is asked for again, first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pods asked for at once, and how long each may take.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod's uid and address.
type Identity = (String, IpAddr);

/// An endpoint that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departed {
    pub(crate) pod: ObjectKey,
    pub(crate) address: IpAddr,
    pub(crate) ports: BTreeSet<u16>,
}

/// What was found under the names of pods; those that could not be asked for are missing.
pub(crate) type Found = HashMap<ObjectKey, Option<Pod>>;

/// One that left, and when its pod is asked for.
#[derive(Debug)]
struct Waiting {
    departed: Departed,
    at: Instant,
    pause: Duration,
}

/// Endpoints that left slices.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    gone: BTreeMap<Identity, Waiting>,
}

/// Asks for pods.
pub(crate) async fn ask(client: kube::Client, pods: BTreeSet<ObjectKey>) -> Found {
    let one = |key: ObjectKey| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), key.namespace());
        async move {
            match tokio::time::timeout(PATIENCE, pods.get(&key.name)).await {
                Ok(Ok(pod)) => Some((key, Some(pod))),
                Ok(Err(error)) if error.is_not_found() => Some((key, None)),
                Ok(Err(_)) | Err(_) => None,
            }
        }
    };
    stream::iter(pods)
        .map(one)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
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
    pub(crate) fn slice(
        &mut self,
        before: Option<&EndpointSlice>,
        after: Option<&EndpointSlice>,
        now: Instant,
    ) {
        let (before, after) =
            (before.map(pods).unwrap_or_default(), after.map(pods).unwrap_or_default());
        self.gone.retain(|identity, _| !after.contains_key(identity));
        let left = before.into_iter().filter(|(identity, _)| !after.contains_key(identity));
        self.gone.extend(
            left.map(|(identity, departed)| {
                (identity, Waiting { departed, at: now, pause: AGAIN.0 })
            }),
        );
    }

    /// When the next pod is to be asked for.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.gone.values().map(|one| one.at).min()
    }

    /// The pods to ask for now; each comes again later.
    pub(crate) fn due(&mut self, now: Instant) -> BTreeSet<ObjectKey> {
        let due = self.gone.values_mut().filter(|one| one.at <= now);
        due.map(|one| {
            one.at = now + one.pause;
            one.pause = (one.pause * 2).min(AGAIN.1);
            one.departed.pod.clone()
        })
        .collect()
    }

    /// Those whose pods have exited, by what was found.
    pub(crate) fn take(&mut self, found: &Found) -> Vec<Departed> {
        let exited = |(uid, _): &Identity, one: &mut Waiting| match found.get(&one.departed.pod) {
            None => false,
            Some(Some(pod)) if pod.metadata.uid.as_ref() == Some(uid) => {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                matches!(phase, Some("Succeeded" | "Failed"))
            }
            Some(_) => true,
        };
        self.gone.extract_if(.., exited).map(|(_, one)| one.departed).collect()
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

    /// What is found where pod `a` was.
    fn found(uid: &str, phase: &str) -> Found {
        let pod = json!({"metadata": {"uid": uid}, "status": {"phase": phase}});
        let pod = serde_json::from_value(pod).expect("pod");
        [(ObjectKey::namespaced("shop", "a"), Some(pod))].into()
    }

    #[test]
    fn only_pods_that_have_exited_are_departed() {
        let now = Instant::now();
        let mut departures = Departures::default();
        let (both, one) =
            (slice(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]), slice(&[("b", "10.0.0.2")]));
        departures.slice(None, Some(&both), now);
        assert_eq!(departures.next(), None);
        departures.slice(Some(&both), Some(&one), now);
        assert!(departures.take(&found("a", "Running")).is_empty(), "it runs on");
        assert!(departures.take(&Found::default()).is_empty(), "nobody knows");
        assert_eq!(departures.next(), Some(now));
        let gone = departures.take(&found("a", "Succeeded"));
        assert_eq!(gone[0].address.to_string(), "10.0.0.1");
        assert_eq!(gone[0].ports, [8080].into());
        assert_eq!(departures.next(), None);

        departures.slice(Some(&both), Some(&one), now);
        assert_eq!(departures.take(&found("another", "Running")).len(), 1, "another has its name");
        departures.slice(Some(&both), Some(&one), now);
        let gone: Found = [(ObjectKey::namespaced("shop", "a"), None)].into();
        assert_eq!(departures.take(&gone).len(), 1);
        departures.slice(Some(&one), None, now);
        departures.slice(None, Some(&one), now);
        assert_eq!(departures.next(), None, "it came back");
    }

    #[test]
    fn a_pod_that_runs_on_is_asked_for_less_and_less() {
        let mut now = Instant::now();
        let begin = now;
        let mut departures = Departures::default();
        departures.slice(Some(&slice(&[("a", "10.0.0.1")])), None, now);
        let mut asked = Vec::new();
        for _ in 0..9 {
            assert_eq!(departures.due(now).len(), 1);
            assert!(departures.due(now).is_empty(), "once");
            asked.push((now - begin).as_secs());
            now = departures.next().expect("it waits");
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    }
}
