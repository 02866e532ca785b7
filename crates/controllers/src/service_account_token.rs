//! Secrets of type `kubernetes.io/service-account-token`: filled with a token that does not end, and removed with
//! their account.

use std::sync::Arc;

use client::{Cache, Caches, ObjectKey, Select};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use pki::TokenKeys;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::objects::{annotation, name, uid};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "serviceaccount-token-controller";

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const BY_ACCOUNT: &str = "account";
/// A new Secret may be seen before its account is.
const YOUNG: SignedDuration = SignedDuration::from_secs(10);

/// Runs the controller until `shutdown`. Tokens are signed with `keys`; `root_ca` (PEM) is put beside them.
pub(crate) async fn run(
    caches: Caches,
    deps: Deps,
    (keys, root_ca): (TokenKeys, Option<String>),
    shutdown: CancellationToken,
) {
    let accounts = caches.cache::<ServiceAccount>();
    let secrets = caches.selected::<Secret>(Select::all().fields(format!("type={TYPE}")));
    secrets.index(BY_ACCOUNT, |secret: &Secret| {
        let account = annotation(&secret.metadata, ACCOUNT).unwrap_or_default();
        vec![format!("{}/{account}", secret.metadata.namespace.as_deref().unwrap_or_default())]
    });
    let known = secrets.clone();
    Runtime::new(NAME, deps)
        .watch(&secrets, itself)
        .watch(&accounts, move |change| {
            let account = format!("{}/{}", change.key.namespace(), change.key.name);
            let named = known.indexed(BY_ACCOUNT, &account);
            named.iter().map(|secret| ObjectKey::of(&**secret)).collect()
        })
        .run(Tokens { secrets, accounts, keys, root_ca }, shutdown)
        .await;
}

struct Tokens {
    secrets: Cache<Secret>,
    accounts: Cache<ServiceAccount>,
    keys: TokenKeys,
    root_ca: Option<String>,
}

impl Controller for Tokens {
    type Snapshot = (Arc<Secret>, Option<Arc<ServiceAccount>>);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        let secret = self.secrets.get_key(key)?;
        let account = annotation(&secret.metadata, ACCOUNT)?;
        let account = self.accounts.get(secret.metadata.namespace.as_deref(), account);
        Some((secret, account))
    }

    fn plan(&self, (secret, account): &Self::Snapshot, context: &Context) -> Plan {
        let sign = |claims: &Value| self.keys.sign(claims).ok();
        plan(secret, account.as_deref(), self.root_ca.as_deref(), context.now, &sign)
    }
}

fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    root_ca: Option<&str>,
    now: Timestamp,
    sign: &dyn Fn(&Value) -> Option<String>,
) -> Plan {
    let mut plan = Plan::nothing();
    let meta = &secret.metadata;
    if meta.deletion_timestamp.is_some() {
        return plan;
    }
    let said = annotation(meta, ACCOUNT_UID).unwrap_or_default();
    let Some(account) = account.filter(|one| said.is_empty() || uid(&one.metadata) == said) else {
        let born = meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        match born.checked_add(YOUNG) {
            Ok(grown) if grown > now => plan.requeue(grown),
            _ => plan.act(Action::delete(secret)),
        }
        return plan;
    };
    let held = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let mut data = Map::new();
    let mut put = |key: &str, value: &str| {
        data.insert(key.to_owned(), json!(ByteString(value.as_bytes().to_vec())));
    };
    if let Some(root) =
        root_ca.filter(|root| held("ca.crt").is_none_or(|now| now.0 != root.as_bytes()))
    {
        put("ca.crt", root);
    }
    let empty = |key: &str| held(key).is_none_or(|value| value.0.is_empty());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if empty("namespace") {
        put("namespace", namespace);
    }
    if empty("token")
        && let Some(token) = sign(&claims(namespace, name(meta), account))
    {
        put("token", &token);
    }
    if data.is_empty() && !said.is_empty() {
        return plan;
    }
    let annotations = json!({ACCOUNT_UID: uid(&account.metadata)});
    plan.act(Action::patch_exact(
        secret,
        json!({"metadata": {"annotations": annotations}, "data": data}),
    ));
    plan
}

/// What such a token says; it has no end and no audience.
fn claims(namespace: &str, secret: &str, account: &ServiceAccount) -> Value {
    let (account, uid) = (name(&account.metadata), uid(&account.metadata));
    json!({
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": account,
        "kubernetes.io/serviceaccount/service-account.uid": uid,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time, told};

    fn check(more: &str, account: Option<&str>, expected: &[&str]) -> Option<Timestamp> {
        let secret: Secret = from_yaml(&format!(
            "{{metadata: {{namespace: n, name: s, creationTimestamp: '2026-01-01T00:00:00Z', \
             annotations: {{{ACCOUNT}: a{}}}}}, type: {TYPE}{more}}}",
            if more.contains("data") { format!(", {ACCOUNT_UID}: u") } else { String::new() }
        ));
        let account = account
            .map(|uid| from_yaml(&format!("{{metadata: {{namespace: n, name: a, uid: {uid}}}}}")));
        let sign = |claims: &Value| Some(claims["sub"].as_str().unwrap_or_default().to_owned());
        let now = time("2026-01-01T00:00:05Z");
        let plan = plan(&secret, account.as_ref(), Some("CA"), now, &sign);
        assert_eq!(told(&plan), expected);
        plan.requeue_at
    }

    #[test]
    fn a_secret_is_filled_once() {
        // CA; n; system:serviceaccount:n:a
        let filled = "\"ca.crt\":\"Q0E=\",\"namespace\":\"bg==\",\"token\":\"c3lzdGVtOnNlcnZpY2VhY2NvdW50Om46YQ==\"";
        let uid = format!("\"metadata\":{{\"annotations\":{{\"{ACCOUNT_UID}\":\"u\"}}}}");
        check("", Some("u"), &[&format!("patch Secret s {{\"data\":{{{filled}}},{uid}}}")]);
        let data = |ca: &str| format!(", data: {{ca.crt: {ca}, namespace: bg==, token: eA==}}");
        check(&data("Q0E="), Some("u"), &[]);
        let renewed = format!("patch Secret s {{\"data\":{{\"ca.crt\":\"Q0E=\"}},{uid}}}");
        check(&data("WA=="), Some("u"), &[&renewed]);
    }

    #[test]
    fn a_secret_goes_with_its_account() {
        let wait = check(", data: {token: eA==}", None, &[]);
        assert_eq!(wait, Some(time("2026-01-01T00:00:10Z")));
        let old = from_yaml(&format!("{{metadata: {{name: s, annotations: {{{ACCOUNT}: a}}}}}}"));
        let now = time("2026-01-01T00:01:00Z");
        let nobody = plan(&old, None, None, now, &|_| None);
        assert_eq!(told(&nobody), ["delete Secret s"]);
        // Another account of the same name.
        assert!(check(", data: {token: eA==}", Some("v"), &[]).is_some());
    }
}
