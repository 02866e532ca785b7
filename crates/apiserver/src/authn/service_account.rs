//! Bound service-account tokens: signing them, and checking that what they are bound to still lives.
//!
//! Claims have the shape of KEP-1205. Refuses to know how keys are kept.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use meta::Status;
use pki::TokenKeys;
use registry::UserInfo;
use serde::{Deserialize, Serialize};

use super::Authenticated;
use crate::{
    authz::node::Lookup,
    identity::{
        self, EXTRA_CREDENTIAL_ID, EXTRA_NODE_NAME, EXTRA_NODE_UID, EXTRA_POD_NAME, EXTRA_POD_UID,
    },
    remember::Remember,
};

/// How long a signature that was found good is not computed again. What a token is bound to is looked up on
/// every use.
const REMEMBER: Duration = Duration::from_secs(10);
/// The most signatures remembered.
const MOST_REMEMBERED: usize = 2048;

/// Who made the tokens in Secrets.
const LEGACY: &str = "kubernetes/serviceaccount";
/// The label of Secrets whose tokens are not accepted any more.
const INVALID: &str = "kubernetes.io/legacy-token-invalid-since";

/// What a token in a Secret says. It ends with the Secret.
#[derive(Deserialize)]
struct Legacy {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

impl Legacy {
    /// The same as claims of a token for these audiences that does not end.
    fn claims(self, audiences: &[String]) -> Claims {
        Claims {
            aud: Audience::Many(audiences.to_vec()),
            exp: i64::MAX,
            iat: 0,
            iss: LEGACY.to_owned(),
            jti: String::new(),
            kubernetes: Bound {
                namespace: self.namespace,
                secret: Some(Reference { name: self.secret, uid: String::new() }),
                serviceaccount: Reference { name: self.account, uid: self.uid },
                ..Bound::default()
            },
            nbf: 0,
            sub: self.sub,
        }
    }
}

/// The claims of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Who may accept the token.
    #[serde(default)]
    pub aud: Audience,
    /// When it ends, seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its id.
    #[serde(default)]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    /// When it begins.
    pub nbf: i64,
    /// `system:serviceaccount:namespace:name`.
    pub sub: String,
}

/// One audience or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A bare string.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    fn holds(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// The objects a token lives and dies with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace of all of them.
    pub namespace: String,
    /// The node of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod, if bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret, if bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The service account.
    pub serviceaccount: Reference,
    /// When use of the token should be warned of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Signs and verifies tokens of service accounts.
pub struct ServiceAccounts {
    keys: TokenKeys,
    issuer: String,
    audiences: Vec<String>,
    lookup: Arc<dyn Lookup>,
    /// Tokens whose signature was good.
    verified: Remember<Arc<Claims>>,
}

impl ServiceAccounts {
    /// `issuer` is written into tokens and demanded of them; `audiences` are those of this API server.
    pub fn new(
        keys: TokenKeys,
        issuer: String,
        audiences: Vec<String>,
        lookup: Arc<dyn Lookup>,
    ) -> Self {
        Self { keys, issuer, audiences, lookup, verified: Remember::new(MOST_REMEMBERED) }
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audiences a token gets that asks for none.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The public keys, as a JSON Web Key Set.
    pub fn key_set(&self) -> serde_json::Value {
        self.keys.key_set()
    }

    /// The algorithms of the keys.
    pub fn algorithms(&self) -> Vec<String> {
        self.keys.algorithms()
    }

    /// Signs claims.
    ///
    /// # Errors
    /// 500 when the key cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, Status> {
        self.keys
            .sign(claims)
            .map_err(|error| Status::internal(format!("failed to generate token: {error}")))
    }

    /// The user of a token that this cluster signed and whose objects live.
    pub(super) fn verify(
        &self,
        token: &str,
        digest: [u8; 32],
        audiences: &[&str],
    ) -> Option<Authenticated> {
        let own: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        let wanted = if audiences.is_empty() { own.as_slice() } else { audiences };
        let claims = self.signed(token, digest, wanted)?;
        let audiences: Vec<String> = wanted
            .iter()
            .filter(|audience| claims.aud.holds(audience))
            .map(|&one| one.to_owned())
            .collect();
        let now = jiff::Timestamp::now().as_second();
        if audiences.is_empty() || claims.exp < now || !self.alive(token, &claims) {
            return None;
        }
        Some(Authenticated { user: Arc::new(user(&claims)), audiences })
    }

    fn signed(&self, token: &str, digest: [u8; 32], audiences: &[&str]) -> Option<Arc<Claims>> {
        if let Some(claims) = self.verified.get(&digest) {
            return Some(claims);
        }
        let legacy = |_| {
            let legacy = self.keys.verify_endless::<Legacy>(token, LEGACY);
            legacy.map(|legacy| legacy.claims(&self.audiences))
        };
        let bound = self.keys.verify::<Claims>(token, &self.issuer, audiences);
        let claims = match bound.or_else(legacy) {
            Ok(claims) => Arc::new(claims),
            Err(error) => {
                tracing::debug!(%error, "bearer token refused");
                return None;
            }
        };
        self.verified.put(digest, REMEMBER, claims.clone());
        Some(claims)
    }

    /// Whether subject and bound objects exist with the uids in the token, or the Secret with the token in it.
    fn alive(&self, token: &str, claims: &Claims) -> bool {
        let bound = &claims.kubernetes;
        let lives = |resource, namespace: &str, reference: &Option<Reference>| match reference {
            None => true,
            Some(object) => self.lookup.lives("", resource, namespace, &object.name, &object.uid),
        };
        let account = &bound.serviceaccount;
        identity::split_service_account(&claims.sub) == Some((&bound.namespace, &account.name))
            && self.lookup.lives("", "serviceaccounts", &bound.namespace, &account.name, &account.uid)
            && lives("pods", &bound.namespace, &bound.pod)
            && match &bound.secret {
                Some(secret) if claims.iss == LEGACY => {
                    self.holds(&bound.namespace, &secret.name, token)
                }
                secret => lives("secrets", &bound.namespace, secret),
            }
            // The node of a pod may be gone while the pod is being cleaned up; a token bound to the node
            // alone ends with it.
            && (bound.pod.is_some() || lives("nodes", "", &bound.node))
    }
}

impl ServiceAccounts {
    /// Whether a Secret holds the token.
    fn holds(&self, namespace: &str, name: &str, token: &str) -> bool {
        let Some(secret) = self.lookup.object("", "secrets", namespace, name) else { return false };
        let metadata = &secret["metadata"];
        let stands = metadata["deletionTimestamp"].is_null()
            && metadata["labels"][INVALID].as_str().unwrap_or_default().is_empty();
        let held = secret["data"]["token"].as_str().unwrap_or_default();
        stands && BASE64_STANDARD.decode(held).is_ok_and(|held| held == token.as_bytes())
    }
}

fn user(claims: &Claims) -> UserInfo {
    let bound = &claims.kubernetes;
    let account = &bound.serviceaccount;
    let mut user = identity::service_account(&bound.namespace, &account.name, &account.uid);
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        extra(EXTRA_CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &bound.pod {
        extra(EXTRA_POD_NAME, &pod.name);
        extra(EXTRA_POD_UID, &pod.uid);
    }
    if let Some(node) = &bound.node {
        extra(EXTRA_NODE_NAME, &node.name);
        extra(EXTRA_NODE_UID, &node.uid);
    }
    user
}
