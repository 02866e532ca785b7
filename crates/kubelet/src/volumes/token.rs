//! Service-account tokens of pods: requested for the pod, kept until most of their life is over, requested anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1 as api,
};
use kube::{Api, api::PostParams};
use parking_lot::Mutex;

use crate::spec::PodId;

/// Life of a token unless the volume says otherwise, seconds.
const LIFE: i64 = 3600;
/// A token this old is replaced even if it lives longer (upstream's).
const OLDEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    uid: String,
    audience: String,
    life: i64,
}

struct Held {
    token: String,
    renew_at: Timestamp,
}

/// The tokens of the pods on this node.
#[derive(Clone)]
pub(crate) struct Tokens {
    client: kube::Client,
    held: Arc<Mutex<HashMap<Wanted, Held>>>,
}

impl Tokens {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, held: Arc::default() }
    }

    /// The token for a projection, fresh enough.
    pub(crate) async fn get(
        &self,
        pod: &api::Pod,
        wanted: &api::ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let id = PodId::of(pod);
        let audience = wanted.audience.clone().unwrap_or_default();
        let life = wanted.expiration_seconds.unwrap_or(LIFE);
        let key = Wanted { uid: id.uid.clone(), audience: audience.clone(), life };
        let now = Timestamp::now();
        if let Some(held) = self.held.lock().get(&key).filter(|held| now < held.renew_at) {
            return Ok(held.token.clone());
        }
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience]),
                expiration_seconds: Some(life),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(id.name),
                    uid: Some(id.uid),
                }),
            }),
            ..Default::default()
        };
        let accounts: Api<api::ServiceAccount> =
            Api::namespaced(self.client.clone(), &id.namespace);
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("failed to fetch token: the answer has none".to_owned());
        };
        let held = Held { token: token.clone(), renew_at: renew_at(now, expires.0) };
        self.held.lock().insert(key, held);
        Ok(token)
    }

    /// When the first of a pod's tokens is due.
    pub(crate) fn next_renewal(&self, uid: &str) -> Option<Timestamp> {
        self.held
            .lock()
            .iter()
            .filter(|(key, _)| key.uid == uid)
            .map(|(_, held)| held.renew_at)
            .min()
    }

    /// Forgets the tokens of a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.held.lock().retain(|key, _| key.uid != uid);
    }
}

/// 80 % of the token's life, at most a day.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    now.checked_add((life * 4 / 5).min(OLDEST)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_at_four_fifths_of_its_life_or_daily() {
        let now = Timestamp::from_second(0).unwrap();
        let at = |seconds| renew_at(now, Timestamp::from_second(seconds).unwrap()).as_second();
        assert_eq!(at(3600), 2880);
        assert_eq!(at(30 * 24 * 3600), 24 * 3600);
        assert_eq!(at(-5), 0);
    }
}
