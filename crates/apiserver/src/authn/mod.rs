//! Who sent a request: client certificate, bearer token (fixed, bootstrap, service account), or nobody.
//!
//! Refuses to know what a user may do. Requests from within the process never come here: they carry their
//! user as an extension.

mod bootstrap;
mod certificate;
pub mod service_account;

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, header, request::Parts};
use meta::Status;
use registry::UserInfo;
use serve::Peer;
use sha2::{Digest, Sha256};

use self::service_account::ServiceAccounts;
use crate::{authz::node::Lookup, identity};

/// The WebSocket subprotocol by which browsers, which cannot set headers, pass a token.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// A token that stands for a fixed user, such as the bootstrap administrator's.
#[derive(Clone)]
pub struct StaticToken {
    /// The secret itself.
    pub token: String,
    /// Whom it stands for.
    pub user: Arc<UserInfo>,
}

/// All ways to authenticate, in the order in which they are tried.
pub struct Authenticator {
    fixed: Vec<([u8; 32], Arc<UserInfo>)>,
    service_accounts: Arc<ServiceAccounts>,
    lookup: Arc<dyn Lookup>,
    anonymous: Option<Arc<UserInfo>>,
}

impl Authenticator {
    /// `anonymous` says whether requests without credentials go on as `system:anonymous`.
    pub fn new(
        fixed: &[StaticToken],
        service_accounts: Arc<ServiceAccounts>,
        lookup: Arc<dyn Lookup>,
        anonymous: bool,
    ) -> Self {
        let digest =
            |entry: &StaticToken| (Sha256::digest(&entry.token).into(), entry.user.clone());
        Self {
            fixed: fixed.iter().map(digest).collect(),
            service_accounts,
            lookup,
            anonymous: anonymous.then(identity::anonymous),
        }
    }

    /// Finds the user of a request that came over a connection.
    ///
    /// # Errors
    /// 401 when credentials were presented that are not accepted, or none and anonymous requests are off.
    pub fn authenticate(&self, parts: &Parts) -> Result<Arc<UserInfo>, Status> {
        let certificate =
            parts.extensions.get::<Arc<Peer>>().map_or(certificate::Shown::Nothing, |peer| {
                certificate::Shown::clone(&peer.memo(certificate::judge))
            });
        let refused = match certificate {
            certificate::Shown::User(user) => return Ok(user),
            certificate::Shown::Refused => true,
            certificate::Shown::Nothing => false,
        };
        match bearer(&parts.headers) {
            Some(token) => self.token(&token, &[]).map(|found| found.user).ok_or_else(unauthorized),
            None if refused => Err(unauthorized()),
            None => self.anonymous.clone().ok_or_else(unauthorized),
        }
    }

    /// The user behind a token. An empty list of audiences means those of this API server.
    pub fn token(&self, token: &str, audiences: &[&str]) -> Option<Authenticated> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some((_, user)) = self.fixed.iter().find(|(known, _)| *known == digest) {
            return Some(Authenticated { user: user.clone(), audiences: Vec::new() });
        }
        if audiences.is_empty()
            && let Some(found) = bootstrap::verify(&*self.lookup, token)
        {
            return Some(found);
        }
        self.service_accounts.verify(token, digest, audiences)
    }
}

/// A user that presented a good token.
#[derive(Debug)]
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
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
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
