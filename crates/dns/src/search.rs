//! Search paths: the names for which a pod's resolver would ask next, so that one answer saves it
//! the round trips.
//!
//! Pure; knows how kubelets write search paths and nothing of what exists.

use std::{collections::HashMap, net::IpAddr};

use client::Change;
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Pod;

/// The node's pods whose search path is the usual one: their addresses, and in which namespace.
#[derive(Debug, Default)]
pub(crate) struct Searchers {
    namespaces: HashMap<IpAddr, String>,
}

impl Searchers {
    /// The namespace of the pod at an address.
    pub(crate) fn namespace(&self, address: IpAddr) -> Option<&str> {
        self.namespaces.get(&address).map(String::as_str)
    }

    /// Takes in a change of a pod.
    pub(crate) fn take(&mut self, change: &Change<Pod>) {
        for address in change.before.as_deref().into_iter().flat_map(addresses) {
            if self.namespace(address) == change.key.namespace.as_deref() {
                self.namespaces.remove(&address);
            }
        }
        for pod in change.after.as_deref().into_iter().filter(|pod| has_usual_path(pod)) {
            for address in addresses(pod) {
                self.namespaces.insert(address, change.key.namespace().to_owned());
            }
        }
    }
}

fn has_usual_path(pod: &Pod) -> bool {
    let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(spec) = &pod.spec else { return false };
    spec.host_network != Some(true)
        && spec.dns_policy.as_deref().unwrap_or("ClusterFirst") == "ClusterFirst"
        && spec.dns_config.is_none()
        && !matches!(ended, Some("Succeeded" | "Failed"))
}

fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    all.iter().filter_map(|one| one.ip.parse().ok())
}

/// What comes after `asked` on the search path of a pod of `namespace`: `svc.<domain>`, `<domain>`, what the node's
/// own resolver searches, and the bare name. Nothing if `asked` is not the path's first name.
pub(crate) fn next_names(
    asked: &Name,
    namespace: &str,
    domain: &Name,
    outside: &[Name],
) -> Vec<Name> {
    let below = |labels: &[&str]| {
        labels.iter().rev().try_fold(domain.clone(), |name, label| name.prepend_label(*label).ok())
    };
    let (Some(first), Some(second)) = (below(&[namespace, "svc"]), below(&["svc"])) else {
        return Vec::new();
    };
    let own = usize::from(asked.num_labels()).saturating_sub(first.num_labels().into());
    if own == 0 || !first.zone_of(asked) {
        return Vec::new();
    }
    let bare = Name::from_labels(asked.iter().take(own));
    let Ok(bare) = bare else { return Vec::new() };
    let suffixes = [&second, domain].into_iter().chain(outside);
    let mut names: Vec<Name> =
        suffixes.filter_map(|suffix| bare.clone().append_domain(suffix).ok()).collect();
    names.extend(bare.append_domain(&Name::root()).ok());
    names
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::ObjectKey;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("name")
    }

    fn next(asked: &str) -> Vec<String> {
        let outside = [name("corp.example.")];
        let names = next_names(&name(asked), "shop", &name("cluster.local."), &outside);
        names.iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn the_path_goes_on_where_a_resolver_would() {
        assert_eq!(
            next("db.other.shop.svc.cluster.local."),
            [
                "db.other.svc.cluster.local.",
                "db.other.cluster.local.",
                "db.other.corp.example.",
                "db.other."
            ]
        );
        assert_eq!(
            next("Example.com.SHOP.svc.cluster.local.").last().expect("bare"),
            "Example.com."
        );
        assert!(next("shop.svc.cluster.local.").is_empty());
        assert!(next("web.other.svc.cluster.local.").is_empty());
        assert!(next("example.com.").is_empty());
    }

    #[test]
    fn only_pods_with_the_usual_path_count() {
        let mut searchers = Searchers::default();
        let pod = |spec: serde_json::Value| {
            let pod = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec,
                "status": {"podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]}});
            Some(Arc::new(serde_json::from_value::<Pod>(pod).expect("pod")))
        };
        let key = || ObjectKey::namespaced("shop", "p");
        let usual = pod(json!({"containers": []}));
        searchers.take(&Change { key: key(), before: None, after: usual.clone() });
        let at = |searchers: &Searchers, text: &str| {
            searchers.namespace(text.parse().expect("address")).map(str::to_owned)
        };
        assert_eq!(at(&searchers, "10.244.0.5").as_deref(), Some("shop"));
        assert_eq!(at(&searchers, "fd00::5").as_deref(), Some("shop"));
        let own = pod(json!({"containers": [], "dnsConfig": {"searches": ["x.y"]}}));
        searchers.take(&Change { key: key(), before: usual, after: own });
        assert_eq!(at(&searchers, "10.244.0.5"), None);
    }
}
