//! Who is asking: the authenticated user, and the names Kubernetes reserves for groups and service accounts.
//!
//! Refuses to know how a user was authenticated or what it may do.

use std::{collections::BTreeMap, sync::Arc};

use registry::UserInfo;

/// The group whose members may do everything, before any authorizer is asked.
pub const MASTERS: &str = "system:masters";
/// The group of every authenticated user.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of requests that carry no credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of requests that carry no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of every kubelet.
pub const NODES: &str = "system:nodes";
/// What a kubelet's user name starts with; the node's name follows.
pub const NODE_PREFIX: &str = "system:node:";
/// The group of what carries the pods' traffic on every node: pod network, service proxy, policy, DNS.
pub const NETWORK: &str = "skiff:network";
/// What the user name of a node's network starts with; the node's name follows.
pub const NETWORK_PREFIX: &str = "skiff:network:";
/// The group of every service account.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// What a service account's user name starts with; `namespace:name` follows.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// The extra key with the id of the credential a user presented.
pub const EXTRA_CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// The extra key with the name of the pod a token is bound to.
pub const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// The extra key with the uid of the pod a token is bound to.
pub const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// The extra key with the name of the node a token is bound to.
pub const EXTRA_NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The extra key with the uid of the node a token is bound to.
pub const EXTRA_NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// A user with these groups who has authenticated: `system:authenticated` is added.
pub fn authenticated<I, S>(name: impl Into<String>, groups: I) -> Arc<UserInfo>
where
    I: IntoIterator<Item = S>,
    S: Into<String>,
{
    let groups = groups.into_iter().map(Into::into).collect();
    let mut user = UserInfo { name: name.into(), groups, ..UserInfo::default() };
    user.add_authenticated();
    Arc::new(user)
}

/// The user of a request without credentials.
pub fn anonymous() -> Arc<UserInfo> {
    Arc::new(UserInfo {
        name: ANONYMOUS.into(),
        groups: vec![UNAUTHENTICATED.into()],
        ..UserInfo::default()
    })
}

/// The user behind a service account, as tokens and impersonation name it.
pub fn service_account(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
        uid: uid.into(),
        groups: vec![
            SERVICE_ACCOUNTS.into(),
            format!("{SERVICE_ACCOUNTS}:{namespace}"),
            AUTHENTICATED.into(),
        ],
        extra: BTreeMap::new(),
    }
}

/// What the names and groups of a user say about it.
pub trait Identity {
    /// Adds `system:authenticated` unless the user is marked as anonymous or already carries it.
    fn add_authenticated(&mut self);
    /// Whether the user belongs to `group`.
    fn in_group(&self, group: &str) -> bool;
    /// Whether nothing may be refused to this user.
    fn is_master(&self) -> bool;
    /// The node a kubelet speaks for, if the user is a kubelet.
    fn node(&self) -> Option<&str>;
    /// The node whose network the user is, if it is one.
    fn network_node(&self) -> Option<&str>;
    /// Namespace and name, if the user is a service account.
    fn as_service_account(&self) -> Option<(&str, &str)>;
    /// The first value of an extra key.
    fn first_extra(&self, key: &str) -> Option<&str>;
}

impl Identity for UserInfo {
    fn add_authenticated(&mut self) {
        if !self.in_group(AUTHENTICATED) && !self.in_group(UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
    }

    fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    fn is_master(&self) -> bool {
        self.in_group(MASTERS)
    }

    fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_PREFIX)?;
        self.in_group(NODES).then_some(name)
    }

    fn network_node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NETWORK_PREFIX).filter(|name| !name.is_empty())?;
        self.in_group(NETWORK).then_some(name)
    }

    fn as_service_account(&self) -> Option<(&str, &str)> {
        split_service_account(&self.name)
    }

    fn first_extra(&self, key: &str) -> Option<&str> {
        self.extra.get(key)?.first().map(String::as_str)
    }
}

/// Splits `system:serviceaccount:namespace:name`.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    valid.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_needs_both_the_name_and_the_group() {
        let node = authenticated("system:node:a", [NODES]);
        assert_eq!(node.node(), Some("a"));
        assert_eq!(authenticated("system:node:a", ["x"]).node(), None);
        assert_eq!(authenticated("a", [NODES]).node(), None);
    }

    #[test]
    fn service_account_names_split_only_when_complete() {
        assert_eq!(split_service_account("system:serviceaccount:a:b"), Some(("a", "b")));
        assert_eq!(split_service_account("system:serviceaccount:a:"), None);
        assert_eq!(split_service_account("system:serviceaccount:a:b:c"), None);
        assert_eq!(split_service_account("a"), None);
    }
}
