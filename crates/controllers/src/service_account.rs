//! The `default` ServiceAccount of every namespace.

use std::sync::Arc;

use client::{Cache, Caches, ObjectKey, Select};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::ObjectMeta;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use tokio_util::sync::CancellationToken;

use crate::{namespace::is_active, objects::name};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "serviceaccount-controller";

/// Name of the account that pods use unless they name another.
const DEFAULT: &str = "default";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let namespaces = caches.cache::<Namespace>();
    let select = Select::all().fields(format!("metadata.name={DEFAULT}"));
    let accounts = caches.selected::<ServiceAccount>(select);
    Runtime::new(NAME, deps)
        .watch(&namespaces, itself)
        .watch(&accounts, |change| vec![ObjectKey::cluster(change.key.namespace())])
        .run(Accounts { namespaces, accounts }, shutdown)
        .await;
}

struct Accounts {
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

impl Controller for Accounts {
    type Snapshot = (Arc<Namespace>, bool);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        let namespace = self.namespaces.get_key(key)?;
        Some((namespace, self.accounts.get(Some(&key.name), DEFAULT).is_some()))
    }

    fn plan(&self, (namespace, exists): &Self::Snapshot, _: &Context) -> Plan {
        plan(namespace, *exists)
    }
}

fn plan(namespace: &Namespace, exists: bool) -> Plan {
    let mut plan = Plan::nothing();
    if !exists && is_active(namespace) {
        plan.act(Action::create(&ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                namespace: Some(name(&namespace.metadata).to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    #[test]
    fn an_active_namespace_gets_an_account() {
        let active = from_yaml("{metadata: {name: a}, status: {phase: Active}}");
        assert_eq!(told(&plan(&active, false)), ["create ServiceAccount default"]);
        assert!(plan(&active, true).is_empty());
        let going = from_yaml(
            "{metadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}, status: {phase: Terminating}}",
        );
        assert!(plan(&going, false).is_empty());
    }
}
