//! The `kube-root-ca.crt` ConfigMap of every namespace: the CA by which pods verify the API
//! server.

use std::{collections::BTreeMap, sync::Arc};

use client::{Cache, Caches, ObjectKey, Select};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::ObjectMeta;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{namespace::is_active, objects::name};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "root-ca-certificate-publisher-controller";

const CONFIG_MAP: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the \
    kube-apiserver when using internal endpoints such as the internal service IP or \
    kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
    clusters.";

/// Publishes `certificate` (PEM) until `shutdown`.
pub(crate) async fn run(
    caches: Caches,
    deps: Deps,
    certificate: String,
    shutdown: CancellationToken,
) {
    let namespaces = caches.cache::<Namespace>();
    let select = Select::all().fields(format!("metadata.name={CONFIG_MAP}"));
    let maps = caches.selected::<ConfigMap>(select);
    Runtime::new(NAME, deps)
        .watch(&namespaces, itself)
        .watch(&maps, |change| vec![ObjectKey::cluster(change.key.namespace())])
        .run(Publisher { namespaces, maps, certificate }, shutdown)
        .await;
}

struct Publisher {
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
    certificate: String,
}

impl Controller for Publisher {
    type Snapshot = (Arc<Namespace>, Option<Arc<ConfigMap>>);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        let namespace = self.namespaces.get_key(key)?;
        Some((namespace, self.maps.get(Some(&key.name), CONFIG_MAP)))
    }

    fn plan(&self, (namespace, map): &Self::Snapshot, _: &Context) -> Plan {
        plan(namespace, map.as_deref(), &self.certificate)
    }
}

fn plan(namespace: &Namespace, map: Option<&ConfigMap>, certificate: &str) -> Plan {
    let mut plan = Plan::nothing();
    if !is_active(namespace) {
        return plan;
    }
    let data = BTreeMap::from([(KEY.to_owned(), certificate.to_owned())]);
    match map {
        None => plan.act(Action::create(&ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIG_MAP.into()),
                namespace: Some(name(&namespace.metadata).to_owned()),
                annotations: Some([(DESCRIPTION.into(), DESCRIPTION_TEXT.into())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        })),
        Some(map) => {
            let current = map.data.clone().unwrap_or_default();
            if let Some(change) = reconcile::merge_diff(&json!(current), &json!(data)) {
                plan.act(Action::patch(map, json!({ "data": change })));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    #[test]
    fn the_map_is_made_and_kept() {
        let active = from_yaml("{metadata: {name: a}, status: {phase: Active}}");
        assert_eq!(told(&plan(&active, None, "CA")), ["create ConfigMap kube-root-ca.crt"]);
        let good = from_yaml("{metadata: {name: kube-root-ca.crt}, data: {ca.crt: CA}}");
        assert!(plan(&active, Some(&good), "CA").is_empty());
        let bad = from_yaml("{metadata: {name: kube-root-ca.crt}, data: {ca.crt: B, more: x}}");
        assert_eq!(
            told(&plan(&active, Some(&bad), "CA")),
            ["patch ConfigMap kube-root-ca.crt {\"data\":{\"ca.crt\":\"CA\",\"more\":null}}"]
        );
    }
}
