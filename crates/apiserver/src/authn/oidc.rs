//! Tokens of other issuers (OpenID Connect): their keys are read from them, and read again when a token names one
//! that is not known.
//!
//! Refuses to know how claims are read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use pki::KeySet;
use registry::UserInfo;
use serde::Deserialize;
use serde_json::Value;

use super::{claims, config::Jwt};
use crate::hook::{Hook, HookError};

/// How long an issuer may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are not read more often than this, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(10);

/// An issuer.
pub(super) struct Issuer {
    config: Jwt,
    discovery: Hook,
    keys: ArcSwapOption<KeySet>,
    /// When keys were asked for last; held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    pub(super) fn new(config: Jwt) -> Result<Self, HookError> {
        let issuer = &config.issuer;
        let url = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
            other => other.to_owned(),
        };
        let discovery = Hook::at(&url, authority(&config), TIMEOUT)?;
        let (keys, asked) = (ArcSwapOption::empty(), tokio::sync::Mutex::new(None));
        Ok(Self { config, discovery, keys, asked })
    }

    /// Whether a token says that it is this issuer's.
    pub(super) fn issued(&self, token: &str) -> bool {
        let payload = token.split('.').nth(1).and_then(|part| {
            serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        });
        payload.is_some_and(|claims| claims["iss"] == self.config.issuer.url)
    }

    /// The user of a token.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn verify(&self, token: &str) -> Result<UserInfo, String> {
        let id = KeySet::id_of(token);
        let known = |keys: &KeySet| id.as_deref().is_none_or(|id| keys.holds(id));
        let keys = match self.keys.load_full().filter(|keys| known(keys)) {
            Some(keys) => keys,
            None => self.fetch().await?,
        };
        let claims = keys.verify(token).map_err(|error| format!("oidc: {error}"))?;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.config.issuer.url) {
            return Err("oidc: the token is another issuer's".into());
        }
        claims::user(&self.config, &claims)
    }

    async fn fetch(&self) -> Result<Arc<KeySet>, String> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return self
                .keys
                .load_full()
                .ok_or_else(|| "oidc: the issuer's keys are not known".into());
        }
        let url = &self.config.issuer.url;
        let read = self.read().await.map_err(|why| format!("oidc: keys of {url}: {why}"));
        // Counted from the answer: those who waited for it do not wait for another each.
        *asked = Some(Instant::now());
        let keys = Arc::new(read.inspect_err(|error| tracing::warn!(error, "no keys"))?);
        self.keys.store(Some(keys.clone()));
        Ok(keys)
    }

    async fn read(&self) -> Result<KeySet, String> {
        let document = self.discovery.get().await.map_err(|error| error.to_string())?;
        let document: Discovery =
            serde_json::from_slice(&document).map_err(|error| error.to_string())?;
        if document.issuer != self.config.issuer.url {
            return Err(format!("the issuer calls itself {:?}", document.issuer));
        }
        let keys = Hook::at(&document.jwks_uri, authority(&self.config), TIMEOUT);
        let keys = keys.map_err(|error| error.to_string())?.get().await;
        KeySet::parse(&keys.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    }
}

fn authority(config: &Jwt) -> Option<&str> {
    Some(config.issuer.certificate_authority.as_str()).filter(|pem| !pem.is_empty())
}
