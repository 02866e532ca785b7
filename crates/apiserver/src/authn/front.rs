//! Users that a proxy in front has authenticated, and names in headers. The proxy proves itself by a certificate of
//! an authority of its own.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName};
use pki::Subject;
use registry::UserInfo;
use serve::Peer;

use crate::{identity::Identity, request::query::percent_decode};

/// Which proxies may, and how they say it (`--requestheader-…`).
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// The authority of proxies as PEM, published in `kube-system`.
    pub client_ca: String,
    /// Common names of proxies; none is any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts.
    pub username_headers: Vec<HeaderName>,
    /// Headers with its groups.
    pub group_headers: Vec<HeaderName>,
    /// Headers with its uid.
    pub uid_headers: Vec<HeaderName>,
    /// What headers with extras begin with, in lower case.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// The user a proxy names. None if the peer is no proxy, or names nobody.
    pub(super) fn user(&self, peer: &Peer, headers: &HeaderMap) -> Option<Arc<UserInfo>> {
        let leaf = peer.front.as_ref()?;
        let subject = Subject::parse(leaf)?;
        let now = jiff::Timestamp::now().as_second();
        if Subject::expiry(leaf).is_none_or(|end| end < now) {
            return None;
        }
        let allowed = &self.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&subject.common_name) {
            tracing::info!(
                name = subject.common_name,
                "a proxy is not among those that may speak for users"
            );
            return None;
        }
        self.read(headers).map(Arc::new)
    }

    fn read(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let text = |value: &http::HeaderValue| {
            std::str::from_utf8(value.as_bytes())
                .ok()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let first =
            |names: &[HeaderName]| names.iter().find_map(|name| headers.get(name).and_then(text));
        let name = first(&self.username_headers)?;
        let groups =
            self.group_headers.iter().flat_map(|name| headers.get_all(name)).filter_map(text);
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key =
                self.extra_prefixes.iter().find_map(|prefix| header.as_str().strip_prefix(prefix));
            if let (Some(key), Some(value)) = (key, text(value)) {
                extra.entry(percent_decode(key, false)).or_default().push(value);
            }
        }
        let uid = first(&self.uid_headers).unwrap_or_default();
        let mut user = UserInfo { name, uid, groups: groups.collect(), extra };
        user.add_authenticated();
        Some(user)
    }

    /// Takes the headers out of a request that goes on.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let named = [&self.username_headers, &self.group_headers, &self.uid_headers];
        for name in named.into_iter().flatten() {
            headers.remove(name);
        }
        let prefixed =
            |name: &&HeaderName| self.extra_prefixes.iter().any(|p| name.as_str().starts_with(p));
        let extras: Vec<HeaderName> = headers.keys().filter(prefixed).cloned().collect();
        extras.iter().for_each(|name| drop(headers.remove(name)));
    }

    /// What the ConfigMap `extension-apiserver-authentication` says about proxies.
    pub(crate) fn published(&self) -> Vec<(&'static str, String)> {
        let list = |names: &mut dyn Iterator<Item = &str>| {
            serde_json::Value::from(names.collect::<Vec<_>>()).to_string()
        };
        let headers = |names: &[HeaderName]| list(&mut names.iter().map(HeaderName::as_str));
        vec![
            ("requestheader-client-ca-file", self.client_ca.clone()),
            (
                "requestheader-allowed-names",
                list(&mut self.allowed_names.iter().map(String::as_str)),
            ),
            ("requestheader-username-headers", headers(&self.username_headers)),
            ("requestheader-group-headers", headers(&self.group_headers)),
            ("requestheader-uid-headers", headers(&self.uid_headers)),
            (
                "requestheader-extra-headers-prefix",
                list(&mut self.extra_prefixes.iter().map(String::as_str)),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_a_user_and_do_not_go_on() {
        let front = FrontProxy {
            client_ca: String::new(),
            allowed_names: Vec::new(),
            username_headers: vec![HeaderName::from_static("x-remote-user")],
            group_headers: vec![HeaderName::from_static("x-remote-group")],
            uid_headers: Vec::new(),
            extra_prefixes: vec!["x-remote-extra-".into()],
        };
        let mut headers = HeaderMap::new();
        assert!(front.read(&headers).is_none());
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fscope", "read"),
            ("x-other", "kept"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().expect("value"));
        }
        let user = front.read(&headers).expect("jane");
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["example.com/scope"], ["read"]);
        front.strip(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
