//! Who sent a request: a proxy's headers, a client certificate, a bearer token (fixed, service account, bootstrap,
//! another issuer's, a webhook's), or nobody.
//!
//! Refuses to know what a user may do. Requests from within the process never come here: they carry their
//! user as an extension.

mod bootstrap;
mod certificate;
mod claims;
mod config;
mod front;
mod oidc;
mod review;
pub mod service_account;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, header, request::Parts};
use meta::Status;
use parking_lot::Mutex;
use registry::UserInfo;
use serve::Peer;
use sha2::{Digest as _, Sha256};

pub use self::{
    config::{Anonymous, AuthenticationConfiguration, static_tokens},
    front::FrontProxy,
    review::TokenWebhook,
};
use self::{oidc::Issuer, service_account::ServiceAccounts};
use crate::{
    authz::node::Lookup,
    hook::HookError,
    identity,
    metrics::{Buckets, Tally, describe},
    remember::{Digest, Remember},
};

/// The WebSocket subprotocol by which browsers, which cannot set headers, pass a token.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// How long a judgement about another issuer's token is remembered (upstream's figure).
const REMEMBER: Duration = Duration::from_secs(10);
/// The most tokens remembered.
const MOST_REMEMBERED: usize = 4096;

/// A token that stands for a fixed user, such as the bootstrap administrator's.
#[derive(Clone)]
pub struct StaticToken {
    /// The secret itself.
    pub token: String,
    /// Whom it stands for.
    pub user: Arc<UserInfo>,
}

/// How users are known beside certificates and the cluster's own tokens.
#[derive(Clone, Default)]
pub struct AuthenticationOptions {
    /// Tokens that stand for fixed users.
    pub static_tokens: Vec<StaticToken>,
    /// Other issuers, and what anonymous requests may see; without a word, they may see everything.
    pub configuration: AuthenticationConfiguration,
    /// Who judges all other tokens.
    pub webhook: Option<TokenWebhook>,
    /// Proxies that speak for users.
    pub front: Option<FrontProxy>,
}

/// All ways to authenticate, in the order in which they are tried.
pub struct Authenticator {
    fixed: Vec<(Digest, Arc<UserInfo>)>,
    service_accounts: Arc<ServiceAccounts>,
    lookup: Arc<dyn Lookup>,
    anonymous: Anonymous,
    nobody: Arc<UserInfo>,
    issuers: ArcSwap<Issuers>,
    webhook: Option<TokenWebhook>,
    front: Option<FrontProxy>,
    attempts: Tally<3>,
    /// How long certificates still hold when they are shown.
    certificates: Mutex<Buckets<15>>,
}

/// Upper bounds of that in seconds: half an hour to a year.
const LEFT: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// Issuers in force, and what they and the webhook said.
struct Issuers {
    all: Vec<Issuer>,
    remembered: Remember<Option<Arc<Authenticated>>>,
}

impl Issuers {
    fn new(configuration: &AuthenticationConfiguration) -> Result<Arc<Self>, HookError> {
        let all = configuration.jwt.iter().cloned().map(Issuer::new).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { all, remembered: Remember::new(MOST_REMEMBERED) }))
    }
}

/// Names of what [`Authenticator::attempts`] counts.
const OUTCOMES: [&str; 3] = ["success", "failure", "error"];

impl Authenticator {
    /// Puts all ways together.
    ///
    /// # Errors
    /// When an issuer cannot be reached by its configuration.
    pub fn new(
        options: &AuthenticationOptions,
        service_accounts: Arc<ServiceAccounts>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, HookError> {
        let digest =
            |entry: &StaticToken| (Sha256::digest(&entry.token).into(), entry.user.clone());
        let configuration = &options.configuration;
        let anonymous = configuration.anonymous.clone();
        Ok(Self {
            fixed: options.static_tokens.iter().map(digest).collect(),
            service_accounts,
            lookup,
            anonymous: anonymous.unwrap_or_else(|| Anonymous::everywhere(true)),
            nobody: identity::anonymous(),
            issuers: ArcSwap::new(Issuers::new(configuration)?),
            webhook: options.webhook.clone(),
            front: options.front.clone(),
            attempts: Tally::default(),
            certificates: Mutex::default(),
        })
    }

    /// Trusts the issuers of another configuration from now on, and no others.
    ///
    /// # Errors
    /// When an issuer cannot be reached by its configuration.
    pub(crate) fn trust(
        &self,
        configuration: &AuthenticationConfiguration,
    ) -> Result<(), HookError> {
        self.issuers.store(Issuers::new(configuration)?);
        Ok(())
    }

    /// Finds the user of a request that came over a connection, and takes out of it what only the server should
    /// know.
    ///
    /// # Errors
    /// 401 when credentials were presented that are not accepted, or none and anonymous requests are off.
    pub async fn authenticate(
        &self,
        parts: &mut Parts,
        path: &str,
    ) -> Result<Arc<UserInfo>, Status> {
        let found = self.find(parts, path).await;
        if let Some(front) = &self.front {
            front.strip(&mut parts.headers);
        }
        self.attempts.count(usize::from(found.is_err()));
        found
    }

    async fn find(&self, parts: &Parts, path: &str) -> Result<Arc<UserInfo>, Status> {
        let peer = parts.extensions.get::<Arc<Peer>>();
        let fronted = self.front.as_ref().zip(peer);
        if let Some(user) = fronted.and_then(|(front, peer)| front.user(peer, &parts.headers)) {
            return Ok(user);
        }
        let shown = peer.map(|peer| peer.memo(certificate::judge));
        let refused = match shown.as_deref() {
            Some(certificate::Shown::User(user, expiry)) => {
                let left = *expiry - jiff::Timestamp::now().as_second();
                self.certificates.lock().observe(&LEFT, left as f64);
                if left >= 0 {
                    return Ok(user.clone());
                }
                true
            }
            Some(certificate::Shown::Refused) => true,
            Some(certificate::Shown::Nothing) | None => false,
        };
        match bearer(&parts.headers) {
            Some(token) => {
                self.token(&token, &[]).await.map(|found| found.user).ok_or_else(unauthorized)
            }
            None if refused || !self.anonymous.allows(path) => Err(unauthorized()),
            None => Ok(self.nobody.clone()),
        }
    }

    /// The user behind a token. An empty list of audiences means those of this API server.
    pub async fn token(&self, token: &str, audiences: &[&str]) -> Option<Authenticated> {
        let digest: Digest = Sha256::digest(token).into();
        // Tokens that name no audience are good for this server, and for no other.
        let own = self.service_accounts.audiences();
        let here = audiences.iter().filter(|asked| own.iter().any(|own| own == *asked));
        let here: Vec<String> = here.map(|&asked| asked.to_owned()).collect();
        let meant = audiences.is_empty() || !here.is_empty();
        let agnostic = |user: Arc<UserInfo>| Authenticated { user, audiences: here.clone() };
        if meant {
            let fixed = self.fixed.iter().find(|(known, _)| *known == digest);
            if let Some((_, user)) = fixed {
                return Some(agnostic(user.clone()));
            }
            if let Some(user) = bootstrap::verify(&*self.lookup, token) {
                return Some(agnostic(user));
            }
        }
        if let Some(found) = self.service_accounts.verify(token, digest, audiences) {
            return Some(found);
        }
        let issuers = self.issuers.load_full();
        if issuers.all.is_empty() && self.webhook.is_none() {
            return None;
        }
        // Boxed: it is rare, and would make every request larger.
        Box::pin(self.elsewhere(&issuers, token, audiences, meant.then_some(here))).await
    }

    /// The user behind a token that others must judge; `here` holds the audiences of this server among those asked
    /// for, if the token may be meant for it.
    async fn elsewhere(
        &self,
        issuers: &Issuers,
        token: &str,
        audiences: &[&str],
        here: Option<Vec<String>>,
    ) -> Option<Authenticated> {
        let mut question = Sha256::new();
        for part in std::iter::once(&token).chain(audiences) {
            question.update(part.as_bytes());
            question.update([0]);
        }
        let question: Digest = question.finalize().into();
        if let Some(known) = issuers.remembered.get(&question) {
            return known.as_deref().cloned();
        }
        let mut holds = REMEMBER;
        let mut found = None;
        let issuer = issuers.all.iter().find(|issuer| issuer.issued(token));
        if let Some((issuer, audiences)) = issuer.zip(here) {
            match issuer.verify(token).await {
                Ok(user) => found = Some(Authenticated { user: Arc::new(user), audiences }),
                Err(why) => tracing::info!(why, "bearer token refused"),
            }
        }
        if let Some(webhook) = self.webhook.as_ref().filter(|_| found.is_none()) {
            holds = webhook.remember;
            let own = self.service_accounts.audiences().iter().map(String::as_str);
            let asked: Vec<&str> =
                if audiences.is_empty() { own.collect() } else { audiences.to_vec() };
            match webhook.ask(token, &asked).await {
                Ok(judged) => found = judged,
                Err(error) => {
                    self.attempts.count(2);
                    tracing::error!(error, "the webhook of tokens gives no judgement");
                    return None;
                }
            }
        }
        issuers.remembered.put(question, holds, found.clone().map(Arc::new));
        found
    }

    /// Writes metrics.
    pub(crate) fn write(&self, out: &mut String) {
        let name = "authentication_attempts";
        describe(out, name, "counter", "Requests by whether a user was found.");
        for (outcome, count) in OUTCOMES.iter().zip(self.attempts.counts()) {
            let _ = writeln!(out, "{name}{{result=\"{outcome}\"}} {count}");
        }
        let name = "apiserver_client_certificate_expiration_seconds";
        describe(out, name, "histogram", "How long certificates still hold when they are shown.");
        self.certificates.lock().write(out, (name, ""), &LEFT);
    }
}

/// A user that presented a good token.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The user.
    pub user: Arc<UserInfo>,
    /// Those of the audiences asked for that the token is meant for; empty if it is bound to none.
    pub audiences: Vec<String>,
}

fn unauthorized() -> Status {
    Status::unauthorized("Unauthorized")
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        // A token that is no text is a wrong one, not none.
        let value = String::from_utf8_lossy(value.as_bytes());
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .then(|| token.to_owned());
    }
    let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let encoded =
        protocols.split(',').find_map(|entry| entry.trim().strip_prefix(TOKEN_PROTOCOL))?;
    let token = BASE64_URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty())
}

/// Removes the credentials from a request that is passed on to others.
pub fn strip_credentials(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    let Some(protocols) =
        headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let kept: Vec<&str> = protocols
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.starts_with(TOKEN_PROTOCOL))
        .collect();
    match header::HeaderValue::from_str(&kept.join(", ")) {
        Ok(value) if !kept.is_empty() => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        _ => {
            headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_by_header_or_subprotocol() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        let protocol =
            format!("v5.channel.k8s.io, {TOKEN_PROTOCOL}{}", BASE64_URL_SAFE_NO_PAD.encode("abc"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.parse().expect("header"));
        assert_eq!(bearer(&headers).as_deref(), Some("abc"));
        strip_credentials(&mut headers);
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        headers.insert(header::AUTHORIZATION, "bearer  xyz ".parse().expect("header"));
        assert_eq!(bearer(&headers).as_deref(), Some("xyz"));
        headers.insert(header::AUTHORIZATION, "Basic abc".parse().expect("header"));
        assert_eq!(bearer(&headers), None);
    }
}
