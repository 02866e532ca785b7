//! Deletes bootstrap tokens that have expired.

use std::sync::Arc;

use client::{Cache, Caches, ObjectKey, Select};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use tokio_util::sync::CancellationToken;

use super::{NAMESPACE, TYPE, Token};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "token-cleaner-controller";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let select = Select::all().namespace(NAMESPACE).fields(format!("type={TYPE}"));
    let secrets = caches.selected::<Secret>(select);
    Runtime::new(NAME, deps).watch(&secrets, itself).run(Cleaner { secrets }, shutdown).await;
}

struct Cleaner {
    secrets: Cache<Secret>,
}

impl Controller for Cleaner {
    type Snapshot = Arc<Secret>;

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        self.secrets.get_key(key)
    }

    fn plan(&self, secret: &Self::Snapshot, context: &Context) -> Plan {
        plan(secret, context.now)
    }
}

fn plan(secret: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(token) = Token::of(secret) else { return plan };
    if token.has_expired(now) {
        plan.act(Action::delete(secret));
    } else if let Some(Ok(end)) = token.expiration {
        plan.requeue(end);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    #[test]
    fn a_token_goes_when_its_time_is_over() {
        // abcdef; 0123456789abcdef; 2026-01-01T00:00:00Z
        let secret: Secret = from_yaml(
            "{metadata: {name: bootstrap-token-abcdef}, type: bootstrap.kubernetes.io/token, data: \
             {token-id: YWJjZGVm, token-secret: MDEyMzQ1Njc4OWFiY2RlZg==, \
             expiration: MjAyNi0wMS0wMVQwMDowMDowMFo=}}",
        );
        let before = plan(&secret, time("2025-12-31T23:59:59Z"));
        assert_eq!(
            (told(&before).len(), before.requeue_at),
            (0, Some(time("2026-01-01T00:00:00Z")))
        );
        let after = plan(&secret, time("2026-01-01T00:00:00Z"));
        assert_eq!(told(&after), ["delete Secret bootstrap-token-abcdef"]);
    }
}
