//! Signs `kube-public/cluster-info` with every bootstrap token that may sign, so that who holds a
//! token can tell that the authority in it is the cluster's (KEP-130).

use std::{collections::BTreeMap, sync::Arc};

use client::{Cache, Caches, ObjectKey, Select};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{NAMESPACE, TYPE, Token};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "bootstrap-signer-controller";

const PUBLIC: &str = "kube-public";
const MAP: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
/// What the keys of signatures begin with; the token's id follows.
const SIGNATURE: &str = "jws-kubeconfig-";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let select = Select::all().namespace(NAMESPACE).fields(format!("type={TYPE}"));
    let secrets = caches.selected::<Secret>(select);
    let select = Select::all().namespace(PUBLIC).fields(format!("metadata.name={MAP}"));
    let maps = caches.selected::<ConfigMap>(select);
    Runtime::new(NAME, deps)
        .watch(&maps, itself)
        .watch(&secrets, |_| vec![ObjectKey::namespaced(PUBLIC, MAP)])
        .run(Publisher { secrets, maps }, shutdown)
        .await;
}

struct Publisher {
    secrets: Cache<Secret>,
    maps: Cache<ConfigMap>,
}

impl Controller for Publisher {
    type Snapshot = (Arc<ConfigMap>, Vec<Arc<Secret>>);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        Some((self.maps.get_key(key)?, self.secrets.list()))
    }

    fn plan(&self, (map, secrets): &Self::Snapshot, context: &Context) -> Plan {
        plan(map, secrets, context.now)
    }
}

fn plan(map: &ConfigMap, secrets: &[Arc<Secret>], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let data = map.data.clone().unwrap_or_default();
    let Some(content) = data.get(KUBECONFIG) else { return plan };
    let tokens = secrets.iter().filter_map(|secret| Token::of(secret));
    let wanted: BTreeMap<String, String> = tokens
        .filter(|token| token.signs && !token.has_expired(now))
        .map(|token| {
            let signature = pki::sign_for_token(content, &token.id, &token.secret);
            (format!("{SIGNATURE}{}", token.id), signature)
        })
        .collect();
    let mut change = Map::new();
    for key in data.keys().filter(|key| key.starts_with(SIGNATURE) && !wanted.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    for (key, value) in wanted {
        if data.get(&key) != Some(&value) {
            change.insert(key, value.into());
        }
    }
    if !change.is_empty() {
        plan.act(Action::patch(map, json!({"data": change})));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    #[test]
    fn every_token_that_signs_has_its_signature() {
        let map = "{metadata: {name: cluster-info}, data: {kubeconfig: K, jws-kubeconfig-gone: x, own: y}}";
        let signs = "metadata: {name: bootstrap-token-abcdef}, type: bootstrap.kubernetes.io/token, data: \
             {token-id: YWJjZGVm, token-secret: MDEyMzQ1Njc4OWFiY2RlZg==, usage-bootstrap-signing: dHJ1ZQ==}";
        let secret: Arc<Secret> = Arc::new(from_yaml(&format!("{{{signs}}}")));
        let now = time("2026-01-01T00:00:00Z");
        let done = told(&plan(&from_yaml(map), std::slice::from_ref(&secret), now)).join("");
        assert!(
            done.contains("\"jws-kubeconfig-abcdef\":\"ey")
                && done.contains("\"jws-kubeconfig-gone\":null"),
            "{done}"
        );
        assert!(!done.contains("own"), "{done}");
        let signature = pki::sign_for_token("K", "abcdef", "0123456789abcdef");
        let good = format!(
            "{{metadata: {{name: cluster-info}}, data: {{kubeconfig: K, jws-kubeconfig-abcdef: {signature}}}}}"
        );
        assert!(plan(&from_yaml(&good), &[secret], now).is_empty());
    }
}
