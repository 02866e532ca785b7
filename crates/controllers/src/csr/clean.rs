//! Removes requests that nobody needs any more, by upstream's ages.

use std::sync::Arc;

use client::{Cache, Caches, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use tokio_util::sync::CancellationToken;

use super::{APPROVED, DENIED, FAILED, condition, is_signed};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "certificatesigningrequest-cleaner-controller";

/// How long a request waits for a decision.
const PENDING: SignedDuration = SignedDuration::from_hours(24);
/// How long one that was decided stays.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let requests = caches.cache::<CertificateSigningRequest>();
    Runtime::new(NAME, deps).watch(&requests, itself).run(Cleaner { requests }, shutdown).await;
}

struct Cleaner {
    requests: Cache<CertificateSigningRequest>,
}

impl Controller for Cleaner {
    type Snapshot = Arc<CertificateSigningRequest>;

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        self.requests.get_key(key)
    }

    fn plan(&self, request: &Self::Snapshot, context: &Context) -> Plan {
        let mut plan = Plan::nothing();
        let Some(end) = end(request) else { return plan };
        if end <= context.now {
            plan.act(Action::delete(&**request));
        } else {
            plan.requeue(end);
        }
        plan
    }
}

/// When the request may go.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    let since = |kind: &str| {
        let condition = condition(request, kind)?;
        Some(condition.last_update_time.as_ref().map_or(created, |time| time.0))
    };
    let (approved, refused) = (since(APPROVED), since(DENIED).or_else(|| since(FAILED)));
    let (from, age) = match (refused, approved) {
        (Some(refused), _) => (refused, DECIDED),
        (None, Some(approved)) if is_signed(request) => (approved, DECIDED),
        _ => (created, PENDING),
    };
    from.checked_add(age).ok()
}

#[cfg(test)]
mod tests {
    use crate::testing::{from_yaml, time};

    #[test]
    fn each_state_has_its_age() {
        let end = |status: &str| {
            let text = format!(
                "{{metadata: {{name: a, creationTimestamp: '2026-01-01T00:00:00Z'}}, \
                 spec: {{request: '', signerName: x}}, status: {status}}}"
            );
            super::end(&from_yaml(&text))
        };
        let decided = |kind: &str, more: &str| {
            end(&format!(
                "{{conditions: [{{type: {kind}, status: 'True', lastUpdateTime: '2026-01-01T10:00:00Z'}}]{more}}}"
            ))
        };
        assert_eq!(end("{}"), Some(time("2026-01-02T00:00:00Z")));
        assert_eq!(decided("Denied", ""), Some(time("2026-01-01T11:00:00Z")));
        assert_eq!(decided("Failed", ""), Some(time("2026-01-01T11:00:00Z")));
        assert_eq!(
            decided("Approved", ", certificate: 'YQ=='"),
            Some(time("2026-01-01T11:00:00Z"))
        );
        assert_eq!(decided("Approved", ""), Some(time("2026-01-02T00:00:00Z")));
    }
}
